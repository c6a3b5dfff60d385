//! Keeps calls from waiting for one who does not answer.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// After so many timeouts in a row, calls are refused,
const TIMEOUTS_TO_OPEN: u32 = 3;

/// but for one in so many milliseconds, which finds out whether that is over.
const PROBE_INTERVAL_MS: u64 = 100;

/// How long there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Too short to refuse calls.
    Short,
    /// They are refused from now on,
    Begun,
    /// or for so many milliseconds.
    Since(u64),
}

/// Of one server.
#[derive(Debug)]
pub(super) struct Breaker {
    timeouts: AtomicU32,
    opened_at_ms: AtomicU64,
    probe_at_ms: AtomicU64,
    epoch: Instant,
}

impl Breaker {
    pub(super) fn new() -> Breaker {
        let (opened_at_ms, probe_at_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        Breaker { timeouts: AtomicU32::new(0), opened_at_ms, probe_at_ms, epoch: Instant::now() }
    }

    /// Whether a call may be made now. Where not many in a row timed out, or it is the one that finds out.
    pub(super) fn lets_pass(&self) -> bool {
        if self.timeouts.load(Ordering::Relaxed) < TIMEOUTS_TO_OPEN {
            return true;
        }
        let (now_ms, probe_at_ms) = (self.now_ms(), self.probe_at_ms.load(Ordering::Relaxed));
        let next_ms = now_ms + PROBE_INTERVAL_MS;
        now_ms >= probe_at_ms
            && self.probe_at_ms.compare_exchange(probe_at_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// There was an answer. Whether calls were refused until now.
    pub(super) fn answered(&self) -> bool {
        self.timeouts.load(Ordering::Relaxed) > 0 && self.timeouts.swap(0, Ordering::Relaxed) >= TIMEOUTS_TO_OPEN
    }

    /// There was none in time.
    pub(super) fn timed_out(&self) -> Silence {
        let now_ms = self.now_ms();
        let timeouts = self.timeouts.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if timeouts < TIMEOUTS_TO_OPEN {
            return Silence::Short;
        }
        if timeouts == TIMEOUTS_TO_OPEN {
            self.opened_at_ms.store(now_ms, Ordering::Relaxed);
            self.probe_at_ms.store(now_ms + PROBE_INTERVAL_MS, Ordering::Relaxed);
            return Silence::Begun;
        }
        Silence::Since(now_ms.saturating_sub(self.opened_at_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
