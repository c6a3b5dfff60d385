//! How long to wait after failures.

use std::time::Duration;

use crate::chance::less_by_chance;

/// How much of a wait is left to chance, in percent.
const JITTER_PERCENT: u64 = 50;

/// How long to wait after the first failure in a row, and at most; between them it doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After the first.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { first: Duration::from_millis(500), most: Duration::from_secs(60) }
    }
}

/// Failures in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    pace: Pace,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(pace: Pace) -> Backoff {
        Backoff { pace, failures: 0 }
    }

    /// It failed: how long to wait, and at least `least`.
    pub(super) fn failed(&mut self, least: Option<Duration>, chance: u64) -> Duration {
        let doubled = self.pace.first.saturating_mul(1 << self.failures.min(30)).min(self.pace.most);
        self.failures = self.failures.saturating_add(1);
        let most_ms = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(less_by_chance(most_ms, JITTER_PERCENT, chance)).max(least.unwrap_or_default())
    }

    /// It did not fail. Whether it had before.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Pace { first: Duration::from_millis(100), most: Duration::from_millis(500) });
        let mut waits = |chance| [(); 4].map(|()| backoff.failed(None, chance).as_millis());
        assert_eq!(waits(0), [100, 200, 400, 500]);
        assert_eq!(waits(u64::MAX), [250, 250, 250, 250]);
        assert!(backoff.succeeded() && !backoff.succeeded());
        assert_eq!(backoff.failed(None, u64::MAX).as_millis(), 50);
        assert_eq!(backoff.failed(Some(Duration::from_secs(7)), 0).as_secs(), 7);
        let mut long = Backoff::new(Pace::default());
        assert!((0..100).all(|_| long.failed(None, 0) <= Duration::from_secs(60)));
    }
}
