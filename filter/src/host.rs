//! What Envoy lends to a worker: its clock, random numbers, metrics and gRPC upstreams.

use std::time::{Duration, UNIX_EPOCH};

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;
use tollgate_flow::{Counter, Gauge, Histogram, Recorder};
use uuid::Builder;

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let now = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
    now.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// A number that nobody can guess; zero where the host has none.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// A UUIDv7: ids sort by time, and 74 random bits keep them apart.
pub(crate) fn new_id(now_ms: u64) -> String {
    let mut bytes = [0; 10];
    if let Err(cause) = getrandom::fill(&mut bytes) {
        error!("no random numbers for ids: {cause}");
    }
    Builder::from_unix_timestamp_millis(now_ms, &bytes).into_uuid().to_string()
}

/// One call over gRPC, as Envoy takes it.
#[derive(Debug)]
pub(crate) struct Upstream {
    target: String,
    service: &'static str,
    method: &'static str,
    timeout: Duration,
}

impl Upstream {
    /// The method of `service` behind an Envoy cluster.
    pub(crate) fn new(cluster: &str, service: &'static str, method: &'static str, timeout_ms: u64) -> Upstream {
        let target = tollgate_wire::admission::encode_upstream(cluster);
        Upstream {
            // The configuration bounds the name, so that its encoding is text.
            target: String::from_utf8(target).unwrap_or_else(|_| cluster.to_owned()),
            service,
            method,
            timeout: Duration::from_millis(timeout_ms),
        }
    }

    /// Begins a call; the answer comes to the context that runs now. `Err` when Envoy takes none.
    pub(crate) fn call(&self, metadata: Vec<(&str, &[u8])>, message: &[u8]) -> Result<(), ()> {
        let Upstream { target, service, method, timeout } = self;
        hostcalls::dispatch_grpc_call(target, service, method, metadata, Some(message), *timeout)
            .map(|_| ())
            .map_err(|status| error!("{service}/{method}: Envoy begins no call: {status:?}"))
    }
}

/// The ids that Envoy gave to the metrics, in the order of their enums.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counters: Vec<Option<u32>>,
    gauges: Vec<Option<u32>>,
    histograms: Vec<Option<u32>>,
}

impl Metrics {
    /// Defines all metrics.
    pub(crate) fn define() -> Metrics {
        let define = |kind: MetricType, name: &str| {
            hostcalls::define_metric(kind, name)
                .map_err(|status| error!("the metric {name} can't be defined: {status:?}"))
                .ok()
        };
        Metrics {
            counters: Counter::ALL.iter().map(|metric| define(MetricType::Counter, metric.name())).collect(),
            gauges: Gauge::ALL.iter().map(|metric| define(MetricType::Gauge, metric.name())).collect(),
            histograms: Histogram::ALL.iter().map(|metric| define(MetricType::Histogram, metric.name())).collect(),
        }
    }
}

fn id(ids: &[Option<u32>], index: usize) -> Option<u32> {
    ids.get(index).copied().flatten()
}

/// A metric that can't be counted is no reason to fail a call: the errors are dropped.
impl Recorder for Metrics {
    fn add(&self, counter: Counter, amount: u64) {
        if amount > 0
            && let Some(id) = id(&self.counters, counter as usize)
        {
            let _ = hostcalls::increment_metric(id, i64::try_from(amount).unwrap_or(i64::MAX));
        }
    }

    fn observe(&self, histogram: Histogram, value: u64) {
        if let Some(id) = id(&self.histograms, histogram as usize) {
            let _ = hostcalls::record_metric(id, value);
        }
    }

    fn shift(&self, gauge: Gauge, by: i64) {
        if let Some(id) = id(&self.gauges, gauge as usize) {
            let _ = hostcalls::increment_metric(id, by);
        }
    }
}
