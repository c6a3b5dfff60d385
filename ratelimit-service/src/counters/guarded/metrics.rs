//! What is counted about Redis.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Handles to the metrics; clones count together.
#[derive(Clone, Debug)]
pub struct GuardMetrics {
    pub(super) allowed: Counter,
    pub(super) denied: Counter,
    pub(super) decided_locally: Counter,
    pub(super) up: Gauge,
    pub(super) seconds: Histogram,
    pub(super) settlements_waiting: Gauge,
    pub(super) settlements_retried: Counter,
    pub(super) settlements_dropped: Counter,
}

impl GuardMetrics {
    /// New metrics, shown by `registry`.
    pub fn new(registry: &mut Registry) -> GuardMetrics {
        let failures = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let help = "Decisions that Redis did not make in time, by what was done instead";
        registry.register("counters_failures", help, failures.clone());
        let [allowed, denied, decided_locally] =
            ["allow", "deny", "local"].map(|policy| failures.get_or_create_owned(&[("policy", policy)]));
        let metrics = GuardMetrics {
            allowed,
            denied,
            decided_locally,
            up: Gauge::default(),
            // From 50 microseconds to 1.6 seconds.
            seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            settlements_waiting: Gauge::default(),
            settlements_retried: Counter::default(),
            settlements_dropped: Counter::default(),
        };
        registry.register("counters_up", "Whether Redis answered the last call: 1 or 0", metrics.up.clone());
        registry.register("counters_seconds", "Time of a call of Redis, in seconds", metrics.seconds.clone());
        let help = "Settlements that wait for Redis";
        registry.register("counters_settlements_waiting", help, metrics.settlements_waiting.clone());
        let help = "Settlements that Redis took after they had waited";
        registry.register("counters_settlements_retried", help, metrics.settlements_retried.clone());
        let help = "Settlements given up, for want of room, in doubt for too long or refused: what they held runs out";
        registry.register("counters_settlements_dropped", help, metrics.settlements_dropped.clone());
        metrics
    }
}
