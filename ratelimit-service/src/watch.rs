//! Files that are read again while the service runs.
//!
//! - What they hold is looked at, not their times: a rename, an edit in place and a swapped symbolic link look the same.
//! - A poll has to find the same twice: what is being written is nothing yet.
//! - A signal takes what is there at once.

use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;

/// What was read of files; an error is something that was read, too.
#[derive(Debug)]
pub(crate) struct Watch<C> {
    /// What was found last.
    settled: C,
    /// What was read last, when that is something else.
    unsettled: Option<C>,
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'c, C> {
    /// Something else than before.
    New(&'c C),
    /// What was there before, when a signal asked.
    Same(&'c C),
}

/// Why files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Poll,
    Signal,
}

impl<C: PartialEq + Send + 'static> Watch<C> {
    /// From what was read at the start on.
    pub(crate) fn new(settled: C) -> Watch<C> {
        Watch { settled, unsettled: None }
    }

    /// Tells what is `read`, `every` so often and when `hangups` ask, until it is dropped. Reading may wait for a disk.
    pub(crate) async fn run(
        mut self,
        every: Duration,
        mut hangups: Signal,
        read: impl Fn() -> C + Clone + Send + 'static,
        mut tell: impl FnMut(Found<'_, C>),
    ) {
        let mut poll = tokio::time::interval(every);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let cause = tokio::select! {
                _ = poll.tick() => Cause::Poll,
                _ = hangups.recv() => Cause::Signal,
            };
            let Ok(contents) = tokio::task::spawn_blocking(read.clone()).await else { return };
            if let Some(found) = self.look(cause, contents) {
                tell(found);
            }
        }
    }

    fn look(&mut self, cause: Cause, contents: C) -> Option<Found<'_, C>> {
        let before = self.unsettled.take();
        let is_settled = contents == self.settled;
        match cause {
            Cause::Poll if is_settled => None,
            Cause::Signal if is_settled => Some(Found::Same(&self.settled)),
            Cause::Poll if before.as_ref() != Some(&contents) => {
                self.unsettled = Some(contents);
                None
            }
            Cause::Poll | Cause::Signal => {
                self.settled = contents;
                Some(Found::New(&self.settled))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_takes_what_it_reads_twice_and_a_signal_what_is_there() {
        let mut watch = Watch::new("a");
        let looks = [
            (Cause::Poll, "a", None),
            (Cause::Signal, "a", Some(Found::Same(&"a"))),
            (Cause::Poll, "b", None),
            (Cause::Poll, "c", None),
            (Cause::Poll, "c", Some(Found::New(&"c"))),
            (Cause::Poll, "c", None),
            (Cause::Poll, "d", None),
            (Cause::Poll, "c", None),
            (Cause::Poll, "d", None),
            (Cause::Signal, "e", Some(Found::New(&"e"))),
            (Cause::Poll, "d", None),
        ];
        for (at, (cause, contents, found)) in looks.into_iter().enumerate() {
            assert_eq!(watch.look(cause, contents), found, "look {at}");
        }
    }
}
