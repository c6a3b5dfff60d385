//! What is counted about sinks. Their names are the configuration's, and few.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// From a millisecond to four minutes: a sending may wait for an acknowledgement.
const SECONDS: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 18));

/// The metrics of all sinks; clones count together.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    events: Family<[(&'static str, String); 2], Counter>,
    failures: Family<[(&'static str, String); 1], Counter>,
    up: Family<[(&'static str, String); 1], Gauge>,
    seconds: Family<[(&'static str, String); 1], Histogram, fn() -> Histogram>,
}

/// Those of one sink.
#[derive(Clone, Debug)]
pub struct OneSink {
    pub(super) name: String,
    pub(super) sent: Counter,
    pub(super) refused: Counter,
    pub(super) failures: Counter,
    pub(super) up: Gauge,
    pub(super) seconds: Histogram,
}

impl SinkMetrics {
    /// New metrics, shown by `registry`.
    pub fn new(registry: &mut Registry) -> SinkMetrics {
        let metrics = SinkMetrics {
            events: Family::default(),
            failures: Family::default(),
            up: Family::default(),
            seconds: Family::new_with_constructor(SECONDS),
        };
        registry.register("sink_events", "Entries that a sink is done with", metrics.events.clone());
        registry.register("sink_failures", "Sendings that failed and are repeated", metrics.failures.clone());
        registry.register("sink_up", "Whether the last sending did not fail: 1 or 0", metrics.up.clone());
        let help = "Time of a sending, up to its acknowledgement, in seconds";
        registry.register("sink_send_seconds", help, metrics.seconds.clone());
        metrics
    }

    /// Those of the sink `name`.
    pub fn of(&self, name: &str) -> OneSink {
        let events =
            |result: &str| self.events.get_or_create_owned(&[("sink", name.to_owned()), ("result", result.to_owned())]);
        let sink = [("sink", name.to_owned())];
        let one = OneSink {
            name: name.to_owned(),
            sent: events("sent"),
            refused: events("refused"),
            failures: self.failures.get_or_create_owned(&sink),
            up: self.up.get_or_create_owned(&sink),
            seconds: self.seconds.get_or_create_owned(&sink),
        };
        one.up.set(1);
        one
    }
}
