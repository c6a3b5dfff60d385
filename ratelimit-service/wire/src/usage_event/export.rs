//! Events on their way: the export that carries them, and its answer.

use prost::Message;

use super::attribute;
use super::attributes::Attributes;
use crate::field;
use crate::proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceResponse;
use crate::proto::opentelemetry::proto::common::v1::InstrumentationScope;
use crate::proto::opentelemetry::proto::logs::v1::{ResourceLogs, ScopeLogs};
use crate::proto::opentelemetry::proto::resource::v1::Resource;

/// The encoded `ExportLogsServiceRequest` that sends `events`, each from [`super::UsageEvent::encode`], as the service
/// `service_name` saw them.
///
/// An encoded message is the concatenation of its fields, so events that are encoded already are only copied, and once.
pub fn encode_export<'a, E>(service_name: &str, events: E) -> Vec<u8>
where
    E: IntoIterator<Item = &'a Vec<u8>, IntoIter: Clone>,
{
    const RESOURCE_LOGS: u32 = 1; // of ExportLogsServiceRequest
    const SCOPE_LOGS: u32 = 2; // of ResourceLogs
    const LOG_RECORDS: u32 = 2; // of ScopeLogs
    let scope = InstrumentationScope { name: "tollgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let scope = ScopeLogs { scope: Some(scope), ..ScopeLogs::default() }.encode_to_vec();
    let mut attributes = Attributes::new();
    attributes.text(attribute::SERVICE_NAME, Some(service_name));
    let resource = Resource { attributes: attributes.into_pairs() };
    let resource = ResourceLogs { resource: Some(resource), ..ResourceLogs::default() }.encode_to_vec();
    let events = events.into_iter();
    let records: usize = events.clone().map(|event| field::length(LOG_RECORDS, event.len())).sum();
    let scope_logs = scope.len() + records;
    let resource_logs = resource.len() + field::length(SCOPE_LOGS, scope_logs);
    let mut request = Vec::with_capacity(field::length(RESOURCE_LOGS, resource_logs));
    field::begin(RESOURCE_LOGS, resource_logs, &mut request);
    request.extend_from_slice(&resource);
    field::begin(SCOPE_LOGS, scope_logs, &mut request);
    request.extend_from_slice(&scope);
    for event in events {
        field::append(LOG_RECORDS, event, &mut request);
    }
    request
}

/// How many events the collector refused, by its encoded `ExportLogsServiceResponse`. One that can't be read, or has none,
/// refused none.
pub fn decode_rejected(response: &[u8]) -> u64 {
    let response = ExportLogsServiceResponse::decode(response).unwrap_or_default();
    response.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_log_records).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::opentelemetry::proto::collector::logs::v1::ExportLogsPartialSuccess;

    #[test]
    fn refusals_are_counted() {
        let partial_success = ExportLogsPartialSuccess { rejected_log_records: 3, error_message: String::new() };
        let response = ExportLogsServiceResponse { partial_success: Some(partial_success) };
        assert_eq!(decode_rejected(&response.encode_to_vec()), 3);
        assert_eq!(decode_rejected(&[]), 0);
        assert_eq!(decode_rejected(b"?"), 0);
    }
}
