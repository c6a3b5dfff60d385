//! Usage events as OTLP logs.

use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::logs_service_server::LogsService;
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_wire::usage_event::{UsageEvent, UsageSource};
use tonic::{Request, Response, Status};

use super::Collector;
use crate::entry::Entry;
use crate::ledger::MAX_COUNT;
use crate::spool::SpoolError;

/// The most reasons that an answer lists for its rejected records.
const MAX_REASONS: usize = 10;

impl Collector {
    /// Nothing was stored: both codes ask the client to send the export again, later.
    fn refuse(&self, error: &SpoolError) -> Status {
        match error {
            SpoolError::Full => {
                self.metrics.exports_busy.inc();
                Status::resource_exhausted(error.to_string())
            }
            SpoolError::Closed | SpoolError::Failed(_) => {
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
            let entries = events.into_iter().map(Entry::Usage).collect();
            self.store(entries).await.map_err(|error| self.refuse(&error))?;
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
