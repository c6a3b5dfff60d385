//! The collector: usage events as OTLP logs into the ledger, and from there into the limiter.
//!
//! Invariants:
//! - An export is answered once its events are durable, never before.
//! - Each event that was new is settled once, also when the client has gone away meanwhile; a duplicate is not.
//! - A record that is no valid usage event is rejected by itself, with a reason; the others are taken.

use std::sync::Arc;

use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::logs_service_server::LogsService;
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_wire::usage_event::{UsageEvent, UsageSource};
use tonic::{Request, Response, Status};

use crate::ledger::{Ledger, LedgerError, MAX_COUNT};
use crate::limiter::Limiter;
use crate::metrics::Metrics;

/// The most reasons that an answer lists for its rejected records.
const MAX_REASONS: usize = 10;

/// The gRPC service.
#[derive(Clone)]
pub struct Collector {
    ledger: Arc<dyn Ledger>,
    limiter: Arc<Limiter>,
    metrics: Metrics,
}

impl Collector {
    /// Stores in `ledger` and settles in `limiter`.
    pub fn new(ledger: Arc<dyn Ledger>, limiter: Arc<Limiter>, metrics: Metrics) -> Collector {
        Collector { ledger, limiter, metrics }
    }

    async fn store(&self, mut events: Vec<UsageEvent>) -> Result<(), LedgerError> {
        let policy = self.limiter.policy();
        for event in events.iter_mut().filter(|event| event.tier.is_empty()) {
            // The default may change: the ledger has the plan that holds now.
            if let Ok(found) = policy.plans.plan(&event.tenant, None) {
                event.tier.clone_from(&found.plan.tier);
            }
        }
        let received = events.len();
        let new = self.ledger.append(events).await?;
        for event in &new {
            if let Err(error) = self.limiter.settle(event).await {
                // It waits, or its reservation runs out; the ledger has the event. An outage is logged once, not here.
                self.metrics.settlements_failed.inc();
                tracing::debug!(%error, "a call is not settled yet");
            }
        }
        self.metrics.events_accepted.inc_by(new.len() as u64);
        self.metrics.events_duplicate.inc_by((received - new.len()) as u64);
        Ok(())
    }

    /// Nothing was stored: both codes ask the client to send the export again, later.
    fn refuse(&self, error: &LedgerError) -> Status {
        match error {
            LedgerError::Busy => {
                self.metrics.exports_busy.inc();
                Status::resource_exhausted(error.to_string())
            }
            LedgerError::Closed | LedgerError::Database(_) => {
                self.metrics.exports_failed.inc();
                Status::unavailable(error.to_string())
            }
        }
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let (events, rejected) = read(&request.into_inner());
        self.metrics.events_rejected.inc_by(rejected.len() as u64);
        if !events.is_empty() {
            // A task of its own, so that a client's going away cannot part storing from settling.
            let collector = self.clone();
            let stored = tokio::spawn(async move { collector.store(events).await });
            let stored = stored.await.map_err(|error| Status::internal(error.to_string()))?;
            stored.map_err(|error| self.refuse(&error))?;
        }
        Ok(Response::new(ExportLogsServiceResponse { partial_success: partial_success(&rejected) }))
    }
}

/// The events, and why each of the other records is none.
fn read(request: &ExportLogsServiceRequest) -> (Vec<UsageEvent>, Vec<String>) {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    let (mut events, mut rejected) = (Vec::new(), Vec::new());
    for (at, record) in scopes.flat_map(|scope| &scope.log_records).enumerate() {
        match UsageEvent::from_log_record(record) {
            Ok(event) if largest_count(&event) > MAX_COUNT => {
                rejected.push(format!("record {at}: a count is larger than {MAX_COUNT}"));
            }
            Ok(event) if event.usage_source == UsageSource::Unsettled => {
                rejected.push(format!("record {at}: tollgate.usage_source: only the limiter tells what is unsettled"));
            }
            Ok(event) => events.push(event),
            Err(error) => rejected.push(format!("record {at}: {error}")),
        }
    }
    (events, rejected)
}

/// Of the counts that are summed.
fn largest_count(event: &UsageEvent) -> u64 {
    event.tokens.largest().max(event.duration_ms)
}

fn partial_success(rejected: &[String]) -> Option<ExportLogsPartialSuccess> {
    (!rejected.is_empty()).then(|| ExportLogsPartialSuccess {
        rejected_log_records: rejected.len() as i64,
        error_message: rejected[..rejected.len().min(MAX_REASONS)].join("; "),
    })
}
