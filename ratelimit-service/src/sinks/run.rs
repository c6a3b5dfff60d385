//! Takes entries from the spool to one sink.

use std::time::Instant;

use super::backoff::Backoff;
use super::{OneSink, Pace, Sink, SinkError, Taken};
use crate::chance;
use crate::entry::{Batch, Entry};
use crate::spool::Consumer;

/// The most entries that are taken from the spool at once.
pub const MAX_BATCH: usize = 4096;

/// Where entries come from, in order: the spool.
pub trait Source: Send {
    /// What follows what was committed, see [`Consumer::next`].
    fn next(&mut self, most: usize) -> impl Future<Output = Option<Batch>> + Send;

    /// What was given last is done with.
    fn commit(&mut self);
}

impl Source for Consumer {
    async fn next(&mut self, most: usize) -> Option<Batch> {
        Consumer::next(self, most).await
    }

    fn commit(&mut self) {
        Consumer::commit(self);
    }
}

/// Sends what comes from `source` until that is closed. Dropped before, it leaves what was not committed to the next run.
pub async fn run(mut source: impl Source, mut sink: impl Sink, pace: Pace, metrics: OneSink) {
    let mut backoff = Backoff::new(pace);
    while let Some(batch) = source.next(MAX_BATCH).await {
        let entries: Vec<&Entry> = batch.iter().collect();
        deliver(&mut sink, &entries, &mut backoff, &metrics).await;
        source.commit();
    }
}

/// Sends until the receiver has said its last word about each entry.
async fn deliver(sink: &mut impl Sink, entries: &[&Entry], backoff: &mut Backoff, metrics: &OneSink) {
    // The last one goes first. A part that was refused is halved, so that these are few.
    let mut waiting = vec![entries];
    while let Some(part) = waiting.pop() {
        if part.is_empty() {
            continue;
        }
        let begun = Instant::now();
        let sent = sink.send(part).await;
        metrics.seconds.observe(begun.elapsed().as_secs_f64());
        match sent {
            Ok(Taken { entries, rejected }) => {
                let entries = entries.min(part.len());
                let rejected = rejected.min(entries);
                metrics.sent.inc_by((entries - rejected) as u64);
                metrics.refused.inc_by(rejected as u64);
                if rejected > 0 {
                    tracing::warn!(
                        sink = metrics.name,
                        rejected,
                        of = entries,
                        "the sink's receiver threw entries away"
                    );
                }
                answered(backoff, metrics);
                waiting.push(&part[entries..]);
            }
            Err(SinkError::Refused { entries, at, why }) => {
                answered(backoff, metrics);
                let (refused, later) = part.split_at(entries.clamp(1, part.len()));
                waiting.push(later);
                match refused {
                    [entry] => refuse(entry, &why, metrics),
                    _ => waiting.extend(parts(refused, at)),
                }
            }
            Err(SinkError::Retry { after, why }) => {
                let wait = backoff.failed(after, chance::number());
                metrics.failures.inc();
                metrics.up.set(0);
                let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    sink = metrics.name,
                    error = why,
                    retry_in_ms,
                    "the sink did not take entries; they wait"
                );
                waiting.push(part);
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Smaller parts of what was refused as a whole, the last one first. One that is said to be at fault is sent alone, for it
/// is no more refused by somebody's word than any other.
fn parts<'p, 'e>(refused: &'p [&'e Entry], at: Option<usize>) -> Vec<&'p [&'e Entry]> {
    match at.filter(|at| *at < refused.len()) {
        Some(at) => vec![&refused[at + 1..], &refused[at..=at], &refused[..at]],
        None => {
            let (first, second) = refused.split_at(refused.len() / 2);
            vec![second, first]
        }
    }
}

fn refuse(entry: &Entry, why: &str, metrics: &OneSink) {
    metrics.refused.inc();
    tracing::error!(
        sink = metrics.name,
        id = entry.id(),
        error = why,
        "the sink refused an entry for good; it goes on without"
    );
}

fn answered(backoff: &mut Backoff, metrics: &OneSink) {
    metrics.up.set(1);
    if backoff.succeeded() {
        tracing::info!(sink = metrics.name, "the sink takes entries again");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::entry::TrackedEvent;
    use crate::sinks::SinkMetrics;

    fn entries(ids: &[&str]) -> Vec<Entry> {
        let entry = |id: &&str| Entry::Tracked(TrackedEvent { id: (*id).to_owned(), ..TrackedEvent::default() });
        ids.iter().map(entry).collect()
    }

    /// Takes three at most, and answers as the ids say.
    #[derive(Default)]
    struct Picky {
        got: Vec<String>,
        sendings: usize,
        tells_which: bool,
        failing: VecDeque<SinkError>,
    }

    impl Sink for Picky {
        async fn send(&mut self, entries: &[&Entry]) -> Result<Taken, SinkError> {
            self.sendings += 1;
            if let Some(error) = self.failing.pop_front() {
                return Err(error);
            }
            let first = &entries[..entries.len().min(3)];
            if let Some(at) = first.iter().position(|entry| entry.id().starts_with("bad")) {
                let at = self.tells_which.then_some(at);
                return Err(SinkError::Refused { entries: first.len(), at, why: "bad".into() });
            }
            self.got.extend(first.iter().map(|entry| entry.id().to_owned()));
            Ok(Taken { entries: first.len(), rejected: 0 })
        }
    }

    async fn delivered(mut sink: Picky, ids: &[&str]) -> (Picky, OneSink) {
        let all = entries(ids);
        let metrics = SinkMetrics::new(&mut Registry::default()).of("s");
        let pace = Pace { first: Duration::from_millis(1), most: Duration::from_millis(2) };
        deliver(&mut sink, &all.iter().collect::<Vec<_>>(), &mut Backoff::new(pace), &metrics).await;
        (sink, metrics)
    }

    #[tokio::test]
    async fn what_is_refused_is_found_and_the_rest_arrives_in_order() {
        let ids = ["1", "2", "bad3", "4", "5", "6", "bad7", "bad8", "9", "10"];
        for tells_which in [false, true] {
            let (sink, metrics) = delivered(Picky { tells_which, ..Picky::default() }, &ids).await;
            assert_eq!(sink.got, ["1", "2", "4", "5", "6", "9", "10"]);
            assert_eq!((metrics.sent.get(), metrics.refused.get(), metrics.up.get()), (7, 3, 1));
        }
    }

    #[tokio::test]
    async fn what_failed_is_sent_again_until_it_is_taken() {
        let failing = (0..5).map(|_| SinkError::retry("down")).collect();
        let (sink, metrics) = delivered(Picky { failing, ..Picky::default() }, &["1", "2", "3", "4"]).await;
        assert_eq!((sink.got, sink.sendings), (["1", "2", "3", "4"].map(str::to_owned).to_vec(), 7));
        assert_eq!((metrics.sent.get(), metrics.failures.get(), metrics.up.get()), (4, 5, 1));
    }

    #[tokio::test]
    async fn a_wrong_word_about_which_is_at_fault_loses_nothing() {
        let failing = [SinkError::Refused { entries: 3, at: Some(7), why: String::new() }].into();
        let (sink, metrics) = delivered(Picky { failing, ..Picky::default() }, &["1", "2", "3"]).await;
        assert_eq!((sink.got.len(), metrics.refused.get()), (3, 0));
        let failing = [SinkError::Refused { entries: 3, at: Some(1), why: String::new() }].into();
        let (sink, metrics) = delivered(Picky { failing, ..Picky::default() }, &["1", "2", "3"]).await;
        assert_eq!((sink.got.len(), metrics.refused.get()), (3, 0));
    }
}
