//! What Envoy lends to a worker: its clock, random numbers, metrics and gRPC upstreams.

use std::cell::{Cell, RefCell};
use std::time::{Duration, UNIX_EPOCH};

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;
use tollgate_flow::{Counter, Gauge, Histogram, Recorder};
use uuid::Builder;

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let now = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
    // In 64 bits: `as_millis` multiplies and divides in 128.
    now.map_or(0, |elapsed| elapsed.as_secs().saturating_mul(1000).saturating_add(elapsed.subsec_millis().into()))
}

/// A number that nobody can guess; zero where the host has none.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// How many random bytes an id takes.
const ID_BYTES: usize = 10;
/// For how many ids the host is asked at once: a call into the host costs more than the bytes.
const IDS_AT_ONCE: usize = 64;

/// Ids of a worker's calls.
#[derive(Debug)]
pub(crate) struct Ids {
    random: RefCell<Random>,
}

#[derive(Debug)]
struct Random {
    chunks: [[u8; ID_BYTES]; IDS_AT_ONCE],
    used: usize,
}

impl Ids {
    pub(crate) fn new() -> Ids {
        Ids { random: RefCell::new(Random { chunks: [[0; ID_BYTES]; IDS_AT_ONCE], used: IDS_AT_ONCE }) }
    }

    /// A UUIDv7: ids sort by time, and 74 random bits keep them apart.
    pub(crate) fn next(&self, now_ms: u64) -> String {
        let mut random = self.random.borrow_mut();
        if random.used >= IDS_AT_ONCE {
            if let Err(cause) = getrandom::fill(random.chunks.as_flattened_mut()) {
                error!("no random numbers for ids: {cause}");
            }
            random.used = 0;
        }
        let bytes = random.chunks.get(random.used).copied().unwrap_or_default();
        random.used += 1;
        Builder::from_unix_timestamp_millis(now_ms, &bytes).into_uuid().to_string()
    }
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

    /// Begins a call; the answer comes to the context that runs now, with the token that this gives. `Err` when Envoy takes
    /// none.
    pub(crate) fn call(&self, metadata: Vec<(&str, &[u8])>, message: &[u8]) -> Result<u32, ()> {
        let Upstream { target, service, method, timeout } = self;
        hostcalls::dispatch_grpc_call(target, service, method, metadata, Some(message), *timeout)
            .map_err(|status| error!("{service}/{method}: Envoy begins no call: {status:?}"))
    }
}

/// How many values histograms get between two flushes, by each worker. More are a sample, of which quantiles tell the same.
const MAX_OBSERVED: u32 = 60;

/// What the filter counts, by the ids that Envoy gave.
///
/// Counters and gauges are collected here and handed over by [`Metrics::flush`]: a call into the host costs more than to
/// count. Histograms take each value by itself, and so they get [`MAX_OBSERVED`] of them between two flushes.
#[derive(Debug)]
pub(crate) struct Metrics {
    counters: Vec<Sum>,
    gauges: Vec<Sum>,
    histograms: Vec<Option<u32>>,
    /// How many values histograms still get before the next flush.
    observable: Cell<u32>,
    /// The memory that Envoy has been told of, in bytes.
    memory_bytes: Cell<i64>,
}

/// The linear memory of this VM, in bytes.
fn memory_bytes() -> i64 {
    #[cfg(target_arch = "wasm32")]
    {
        const PAGE_BYTES: usize = 64 * 1024;
        i64::try_from(core::arch::wasm32::memory_size(0).saturating_mul(PAGE_BYTES)).unwrap_or(i64::MAX)
    }
    #[cfg(not(target_arch = "wasm32"))]
    0
}

/// A counter or a gauge: Envoy's id, and what it has not been told yet.
#[derive(Debug)]
struct Sum {
    id: Option<u32>,
    pending: Cell<i64>,
}

impl Sum {
    fn define(kind: MetricType, name: &str) -> Sum {
        Sum { id: define(kind, name), pending: Cell::new(0) }
    }

    fn add(&self, amount: i64) {
        self.pending.set(self.pending.get().saturating_add(amount));
    }

    fn flush(&self) {
        let pending = self.pending.take();
        if let Some(id) = self.id.filter(|_| pending != 0) {
            // A metric that can't be counted is no reason to fail.
            let _ = hostcalls::increment_metric(id, pending);
        }
    }
}

fn define(kind: MetricType, name: &str) -> Option<u32> {
    hostcalls::define_metric(kind, name).map_err(|status| error!("the metric {name} can't be defined: {status:?}")).ok()
}

impl Metrics {
    /// Defines all metrics.
    pub(crate) fn define() -> Metrics {
        Metrics {
            counters: Counter::ALL.iter().map(|metric| Sum::define(MetricType::Counter, metric.name())).collect(),
            gauges: Gauge::ALL.iter().map(|metric| Sum::define(MetricType::Gauge, metric.name())).collect(),
            histograms: Histogram::ALL.iter().map(|metric| define(MetricType::Histogram, metric.name())).collect(),
            observable: Cell::new(MAX_OBSERVED),
            memory_bytes: Cell::new(0),
        }
    }

    /// Tells Envoy what was counted since the last time.
    pub(crate) fn flush(&self) {
        let now_bytes = memory_bytes();
        self.shift(Gauge::MemoryBytes, now_bytes.saturating_sub(self.memory_bytes.replace(now_bytes)));
        self.counters.iter().chain(&self.gauges).for_each(Sum::flush);
        self.observable.set(MAX_OBSERVED);
    }
}

impl Recorder for Metrics {
    fn add(&self, counter: Counter, amount: u64) {
        if let Some(sum) = self.counters.get(counter as usize) {
            sum.add(i64::try_from(amount).unwrap_or(i64::MAX));
        }
    }

    fn observe(&self, histogram: Histogram, value: u64) {
        let Some(left) = self.observable.get().checked_sub(1) else { return };
        self.observable.set(left);
        if let Some(id) = self.histograms.get(histogram as usize).copied().flatten() {
            let _ = hostcalls::record_metric(id, value);
        }
    }

    fn shift(&self, gauge: Gauge, by: i64) {
        if let Some(sum) = self.gauges.get(gauge as usize) {
            sum.add(by);
        }
    }
}
