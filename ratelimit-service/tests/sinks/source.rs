//! Entries to be sent, kept in memory as the spool keeps them on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tollgate::entry::{Batch, Entry, TrackedEvent};
use tollgate::sinks::{Pace, Sink, SinkMetrics, Source, run};
use tollgate_wire::usage_event::{TokenCounts, UsageEvent};

/// Short waits, so that many failures pass soon.
pub(crate) const PACE: Pace = Pace { first: Duration::from_millis(1), most: Duration::from_millis(50) };

/// So many entries, calls and now and then a tracked event.
pub(crate) fn entries(number: usize) -> Arc<[Entry]> {
    let tokens = TokenCounts { input: 100, output: 50, ..TokenCounts::default() };
    let call = |id: String| UsageEvent {
        event_id: id,
        tenant: "acme".to_owned(),
        tier: "pro".to_owned(),
        started_at_ms: 1_732_550_400_123,
        request_model: Some("gpt-4o".to_owned()),
        upstream_limits: vec!["x-ratelimit-remaining-requests: 950".to_owned()],
        status: 200,
        tokens,
        cost_nanousd: Some(45_000),
        ..UsageEvent::default()
    };
    let tracked = |id: String| TrackedEvent {
        id,
        tenant: "acme".to_owned(),
        event_type: "image".to_owned(),
        at_ms: 1_732_550_400_123,
        quantity_micros: 2_500_000,
        metadata: r#"{"size":"large"}"#.to_owned(),
    };
    let entry = |number: usize| match number % 10 {
        7 => Entry::Tracked(tracked(format!("e{number}"))),
        _ => Entry::Usage(call(format!("e{number}"))),
    };
    (0..number).map(entry).collect()
}

pub(crate) fn ids(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.id().to_owned()).collect()
}

/// What arrived, each where it came first.
pub(crate) fn first_of_each(ids: &[String]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    ids.iter().filter(|id| seen.insert(id.as_str())).cloned().collect()
}

/// Gives entries in batches from where its cursor stands, and closes after the last.
pub(crate) struct Memory {
    entries: Arc<[Entry]>,
    cursor: Arc<AtomicUsize>,
    given: usize,
    together: usize,
}

impl Memory {
    pub(crate) fn new(entries: &Arc<[Entry]>, cursor: &Arc<AtomicUsize>, together: usize) -> Memory {
        Memory { entries: entries.clone(), cursor: cursor.clone(), given: 0, together }
    }
}

impl Source for Memory {
    async fn next(&mut self, most: usize) -> Option<Batch> {
        let from = self.cursor.load(Ordering::SeqCst);
        self.given = (from + self.together.min(most)).min(self.entries.len());
        let batch = self.entries[from..self.given].to_vec();
        (!batch.is_empty()).then(|| Batch::from(batch))
    }

    fn commit(&mut self) {
        self.cursor.store(self.given, Ordering::SeqCst);
    }
}

/// A sink at work on entries, from where its cursor stands.
pub(crate) struct Running {
    pub(crate) cursor: Arc<AtomicUsize>,
    registry: Registry,
    task: tokio::task::JoinHandle<()>,
    /// Of its own, so that a crash ends what it has begun to write, too.
    runtime: Option<Runtime>,
}

impl Running {
    pub(crate) fn start(entries: &Arc<[Entry]>, together: usize, sink: impl Sink + 'static) -> Running {
        Running::resume(entries, &Arc::default(), together, sink)
    }

    pub(crate) fn resume(
        entries: &Arc<[Entry]>,
        cursor: &Arc<AtomicUsize>,
        together: usize,
        sink: impl Sink + 'static,
    ) -> Running {
        let mut registry = Registry::with_prefix("tollgate");
        let metrics = SinkMetrics::new(&mut registry).of("tested");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let task = runtime.spawn(run(Memory::new(entries, cursor, together), sink, PACE, metrics));
        Running { cursor: cursor.clone(), registry, task, runtime: Some(runtime) }
    }

    pub(crate) fn metric(&self, line: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
    }

    pub(crate) fn committed(&self) -> usize {
        self.cursor.load(Ordering::SeqCst)
    }

    /// Ends it as a crash does: what was not committed comes again.
    pub(crate) async fn kill(mut self) -> Arc<AtomicUsize> {
        self.task.abort();
        assert!((&mut self.task).await.is_err_and(|error| error.is_cancelled()), "it was at work");
        let runtime = self.runtime.take();
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
        self.cursor.clone()
    }

    /// Waits until all is taken.
    pub(crate) async fn finished(&mut self) {
        tokio::time::timeout(Duration::from_secs(60), &mut self.task).await.expect("it takes all").unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}
