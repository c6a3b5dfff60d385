//! What waits to be sent to Redis again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tollgate_domain::SETTLED_KEPT_MS;

/// The most settlements that wait for Redis; the oldest is dropped for a further one, and that is counted. What it held
/// runs out.
pub const MAX_WAITING: usize = 1 << 16;

/// For so long Redis is sure to remember a settlement. What may have been taken longer ago is not sent again: it would be taken
/// twice. Not to count a call is the smaller error: what it held runs out, and is spent as it was estimated.
pub(crate) const REMEMBERED: Duration = Duration::from_millis(SETTLED_KEPT_MS - 10_000);

/// A queue of [`MAX_WAITING`].
#[derive(Debug)]
pub(super) struct Waiting<T>(VecDeque<Item<T>>);

/// What waits, and since when it may have been taken already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item<T> {
    pub(super) what: T,
    pub(super) in_doubt_since: Option<Instant>,
}

impl<T> Item<T> {
    /// Whether a second taking would be noticed.
    pub(super) fn may_be_sent(&self, now: Instant) -> bool {
        self.in_doubt_since.is_none_or(|since| now.saturating_duration_since(since) < REMEMBERED)
    }
}

impl<T> Waiting<T> {
    pub(super) fn new() -> Waiting<T> {
        Waiting(VecDeque::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the oldest had to make room.
    pub(super) fn put(&mut self, item: Item<T>) -> bool {
        let is_full = self.0.len() >= MAX_WAITING;
        if is_full {
            self.0.pop_front();
        }
        self.0.push_back(item);
        is_full
    }

    pub(super) fn next(&mut self) -> Option<Item<T>> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_taken_is_sent_again_only_while_redis_would_know() {
        let since = Instant::now();
        let [doubtful, never_asked] = [Some(since), None].map(|in_doubt_since| Item { what: (), in_doubt_since });
        let after = |ms| since + Duration::from_millis(ms);
        assert!(doubtful.may_be_sent(since) && doubtful.may_be_sent(after(SETTLED_KEPT_MS / 2)));
        assert!(!doubtful.may_be_sent(after(SETTLED_KEPT_MS)));
        assert!(never_asked.may_be_sent(after(100 * SETTLED_KEPT_MS)));
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut waiting = Waiting::new();
        let item = |what| Item { what, in_doubt_since: None };
        assert!((0..MAX_WAITING).all(|number| !waiting.put(item(number))));
        assert!(waiting.put(item(MAX_WAITING)));
        assert_eq!((waiting.len(), waiting.next()), (MAX_WAITING, Some(item(1))));
    }
}
