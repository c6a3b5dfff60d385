//! Usage events as OTLP logs, over gRPC; [`super::http`] has the same over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_wire::proto::opentelemetry::proto::logs::v1::LogRecord;
use tollgate_wire::usage_event::{Around, LeaseReturned, UsageEvent};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::Collector;
use super::dead_letters::Letter;
use super::rejected::{Rejection, check};
use crate::clock;
use crate::entry::Entry;
use crate::spool::SpoolError;

/// The largest export that is read, in bytes once it is unpacked.
pub const MAX_EXPORT_BYTES: usize = 16 << 20;

/// The most reasons that an answer lists for its rejected records.
const MAX_REASONS: usize = 10;

/// When to send again what was not taken, in seconds: the spool needs a moment to empty, and a disk to recover.
pub(crate) const RETRY_AFTER_S: u64 = 5;

impl Collector {
    /// The gRPC service, which takes and gives gzip.
    pub fn service(&self) -> LogsServiceServer<Collector> {
        LogsServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_EXPORT_BYTES)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
    }

    /// Takes an export: its valid records, once they are durable.
    ///
    /// # Errors
    /// When nothing was stored: the code, and the delay that it carries, ask the sender to send it all again.
    pub(super) async fn take(
        &self,
        request: &ExportLogsServiceRequest,
        peer: Option<SocketAddr>,
    ) -> Result<ExportLogsServiceResponse, Status> {
        let now_ms = clock::now_ms();
        let Taken { entries, returned, rejected } = read(request, &self.intake.tenant_attributes, now_ms);
        if !entries.is_empty() {
            self.store(entries).await.map_err(|error| self.refuse(&error))?;
        }
        for returned in &returned {
            // Once more does no harm, and what is not given back would be billed as though it had been used.
            self.limiter.take_back(returned).await.map_err(|error| Status::unavailable(error.to_string()))?;
        }
        // Only now: what is refused comes again, and its invalid records with it.
        for Rejected { record, rejection, .. } in &rejected {
            self.metrics.events_rejected.inc();
            self.metrics.records_rejected[rejection.class as usize].inc();
            self.intake.dead_letters.keep(|| Letter::new(record, rejection, peer, now_ms));
        }
        Ok(ExportLogsServiceResponse { partial_success: partial_success(&rejected) })
    }

    /// Nothing was stored: both codes ask the sender to send it again, later.
    fn refuse(&self, error: &SpoolError) -> Status {
        self.count_refused(error);
        let code = match error {
            SpoolError::Full => Code::ResourceExhausted,
            SpoolError::Closed | SpoolError::Failed(_) => Code::Unavailable,
        };
        // Without a delay, `RESOURCE_EXHAUSTED` would mean that it is lost
        // (https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-throttling).
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(RETRY_AFTER_S)));
        Status::with_error_details(code, error.to_string(), details)
    }
}

impl Collector {
    /// Counts what was not kept.
    pub(crate) fn count_refused(&self, error: &SpoolError) {
        match error {
            SpoolError::Full => &self.metrics.exports_busy,
            SpoolError::Closed | SpoolError::Failed(_) => &self.metrics.exports_failed,
        }
        .inc();
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let peer = request.remote_addr();
        self.take(request.get_ref(), peer).await.map(Response::new)
    }
}

/// A record that is not taken.
struct Rejected<'a> {
    /// Its place in the export.
    at: usize,
    record: &'a LogRecord,
    rejection: Rejection,
}

/// What an export has.
#[derive(Default)]
struct Taken<'a> {
    /// The events.
    entries: Vec<Entry>,
    /// Leases that workers are done with.
    returned: Vec<LeaseReturned>,
    /// Why each of the other records is none of these.
    rejected: Vec<Rejected<'a>>,
}

fn read<'a>(request: &'a ExportLogsServiceRequest, tenant_attributes: &[String], now_ms: u64) -> Taken<'a> {
    let (mut taken, mut at) = (Taken::default(), 0);
    for resource_logs in &request.resource_logs {
        let resource = resource_logs.resource.as_ref().map_or([].as_slice(), |resource| &resource.attributes);
        let around = Around::new(resource, tenant_attributes);
        for record in resource_logs.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            let is_taken = match LeaseReturned::read(record) {
                Some(returned) => returned.map(|returned| taken.returned.push(returned)).map_err(Rejection::from),
                None => event(record, &around, now_ms).map(|event| taken.entries.push(Entry::Usage(event))),
            };
            if let Err(rejection) = is_taken {
                taken.rejected.push(Rejected { at, record, rejection });
            }
            at += 1;
        }
    }
    taken
}

fn event(record: &LogRecord, around: &Around<'_>, now_ms: u64) -> Result<UsageEvent, Rejection> {
    let event = UsageEvent::read(record, around)?;
    check(&event, now_ms)?;
    // What it costs is worked out here.
    Ok(UsageEvent { cost_nanousd: None, ..event })
}

fn partial_success(rejected: &[Rejected<'_>]) -> Option<ExportLogsPartialSuccess> {
    let reasons = rejected.iter().take(MAX_REASONS);
    let reasons: Vec<_> =
        reasons.map(|rejected| format!("record {}: {}", rejected.at, rejected.rejection.reason)).collect();
    (!rejected.is_empty()).then(|| ExportLogsPartialSuccess {
        rejected_log_records: i64::try_from(rejected.len()).unwrap_or(i64::MAX),
        error_message: reasons.join("; "),
    })
}
