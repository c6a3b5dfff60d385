//! Engines to be tested, on a clock that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tollgate::clock::{self, Clock};
use tollgate::counters::{MAX_TENANTS, MemoryCounters, RedisCounters, RedisSettings, Target, Time, Tls};
use tollgate::metrics::Metrics;

/// 2026-11-23T00:00:00Z
pub(crate) const NOW_MS: u64 = 1_795_392_000_000;

/// Longer than anything takes that does not fail.
const PATIENT: Duration = Duration::from_secs(20);

/// A clock that stands still until it is set.
#[derive(Debug, Clone)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Hand {
    pub(crate) fn new() -> Hand {
        Hand(Arc::new(AtomicU64::new(NOW_MS)))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Not back beyond a year before the start.
    pub(crate) fn step(&self, ms: i64) {
        let now_ms = self.now_ms().saturating_add_signed(ms).max(NOW_MS - 365 * 86_400_000);
        self.0.store(now_ms, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let hand = self.clone();
        Arc::new(move || hand.now_ms())
    }
}

pub(crate) fn memory(hand: &Hand) -> MemoryCounters {
    MemoryCounters::new(MAX_TENANTS, hand.clock(), Metrics::new().0)
}

pub(crate) fn settings(url: &str, tls: &Tls) -> RedisSettings {
    let target = Target::new(url, tls).unwrap();
    RedisSettings { target, timeout: PATIENT, connections: 2, key_prefix: "tollgate".to_owned() }
}

/// On keys of its own.
pub(crate) fn redis(url: &str, key_prefix: &str, hand: &Hand) -> RedisCounters {
    let settings = RedisSettings { key_prefix: key_prefix.to_owned(), ..settings(url, &Tls::default()) };
    RedisCounters::new(&settings, Time::Given(hand.clock()))
}

/// On Redis's own clock. `timeout_ms` is the deadline of each call.
pub(crate) fn replica(url: &str, tls: &Tls, timeout_ms: u64) -> RedisCounters {
    let timeout = Duration::from_millis(timeout_ms);
    RedisCounters::new(&RedisSettings { timeout, ..settings(url, tls) }, Time::Redis(clock::system()))
}
