//! OTLP onward: entries as log records, to another collector.

use std::str::FromStr;
use std::time::Duration;

use prost::Message;
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use tollgate_wire::proto::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use tollgate_wire::proto::opentelemetry::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use tollgate_wire::proto::opentelemetry::proto::resource::v1::Resource;
use tollgate_wire::usage_event::attribute::{self, Attribute};
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::{Sink, SinkError, Taken};
use crate::entry::{Entry, TrackedEvent};
use crate::http::{self, MAX_RETRY_AFTER};
use crate::secret::Secret;

/// A request is not made longer than this before it is compressed, unless one entry is: servers take 4 MiB.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// The longest message of a receiver that is told.
const MAX_MESSAGE_CHARS: usize = 200;

/// A connection is given up when it is not there after so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A tracked event's `event_name`.
const TRACKED: &str = "tollgate.tracked";

/// Where the collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpSettings {
    /// Of its gRPC: `http://collector:4317`, or `https` for TLS.
    pub url: String,
    /// What goes along with each request: names and values.
    pub headers: Vec<(String, Secret)>,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What to trust, as PEM, instead of the system's authorities.
    pub ca: Option<Vec<u8>>,
}

impl OtlpSettings {
    /// The usual ones.
    pub fn new(url: impl Into<String>) -> OtlpSettings {
        OtlpSettings { url: url.into(), headers: Vec::new(), gzip: true, timeout: Duration::from_secs(30), ca: None }
    }

    /// Whether a sink can be made of them.
    ///
    /// # Errors
    /// What is wrong, beginning with the field.
    pub fn check(&self) -> Result<(), String> {
        self.endpoint()?;
        self.metadata().map(drop)
    }

    fn endpoint(&self) -> Result<Endpoint, String> {
        let is_tls = http::url(&self.url).map_err(|error| format!("url: {error}"))?.scheme() == "https";
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(|error| format!("url: {}", http::told(&error)))?
            .connect_timeout(CONNECT_TIMEOUT.min(self.timeout))
            .timeout(self.timeout);
        let tls = match (is_tls, &self.ca) {
            (false, None) => return Ok(endpoint),
            (false, Some(_)) => return Err("ca_file: certificates are of use with https:// only".to_owned()),
            (true, Some(pem)) => {
                http::check_certificates(pem).map_err(|error| format!("ca_file: {error}"))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            (true, None) => ClientTlsConfig::new().with_native_roots(),
        };
        endpoint.tls_config(tls).map_err(|error| format!("ca_file: {}", http::told(&error)))
    }

    fn metadata(&self) -> Result<MetadataMap, String> {
        let mut headers = MetadataMap::new();
        for (name, value) in &self.headers {
            let key = MetadataKey::from_str(name).map_err(|_| format!("headers: `{name}` is no header's name"))?;
            let value = MetadataValue::try_from(value.expose());
            let mut value = value.map_err(|_| format!("headers: the value of {name} has characters that none has"))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(headers)
    }
}

/// The sink.
pub struct Otlp {
    client: LogsServiceClient<Channel>,
    headers: MetadataMap,
    secrets: Vec<Secret>,
}

impl Otlp {
    /// A sink that connects once it has something to send. Needs a Tokio runtime.
    ///
    /// # Errors
    /// As [`OtlpSettings::check`].
    pub fn new(settings: OtlpSettings) -> Result<Otlp, String> {
        let (endpoint, headers) = (settings.endpoint()?, settings.metadata()?);
        let mut client = LogsServiceClient::new(endpoint.connect_lazy());
        if settings.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        Ok(Otlp { client, headers, secrets: settings.headers.into_iter().map(|(_, value)| value).collect() })
    }

    /// As it may be shown.
    fn shown(&self, message: &str) -> String {
        let short: String = message.chars().take(MAX_MESSAGE_CHARS).collect();
        self.secrets.iter().fold(short, |shown, secret| secret.hidden_in(&shown))
    }

    /// What a refusal means: only an argument that is invalid stays so. All else is the network's or the operator's to mend,
    /// and then the same entries pass.
    fn error(&self, status: &Status, entries: usize) -> SinkError {
        let why = format!("the collector answered {:?}: {}", status.code(), self.shown(status.message()));
        if status.code() == Code::InvalidArgument {
            return SinkError::Refused { entries, at: None, why };
        }
        let retry_info = status.get_details_retry_info().and_then(|info| info.retry_delay);
        SinkError::Retry { after: retry_info.map(|after| after.min(MAX_RETRY_AFTER)), why }
    }
}

impl Sink for Otlp {
    async fn send(&mut self, entries: &[&Entry]) -> Result<Taken, SinkError> {
        let records = records(entries);
        let entries = records.len();
        let mut request = Request::new(export(records));
        *request.metadata_mut() = self.headers.clone();
        let answer = self.client.export(request).await.map_err(|status| self.error(&status, entries))?.into_inner();
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = usize::try_from(partial.rejected_log_records).unwrap_or(0).min(entries);
        if rejected > 0 || !partial.error_message.is_empty() {
            tracing::warn!(
                rejected,
                message = self.shown(&partial.error_message),
                "the collector said something to an export"
            );
        }
        Ok(Taken { entries, rejected })
    }
}

/// As many of the first entries as one request takes, at least 1.
fn records(entries: &[&Entry]) -> Vec<LogRecord> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let record = match entry {
            Entry::Usage(event) => event.to_log_record(),
            Entry::Tracked(event) => tracked(event),
        };
        bytes += record.encoded_len();
        if bytes > MAX_REQUEST_BYTES && !records.is_empty() {
            break;
        }
        records.push(record);
    }
    records
}

fn export(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope { name: "tollgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let resource = Resource { attributes: vec![text(attribute::SERVICE_NAME, "tollgate")] };
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
    let resource_logs = ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }
}

fn tracked(event: &TrackedEvent) -> LogRecord {
    let quantity = i64::try_from(event.quantity_micros).unwrap_or(i64::MAX);
    let attributes = vec![
        text(attribute::EVENT_ID, &event.id),
        text(attribute::TENANT, &event.tenant),
        text(attribute::EVENT_TYPE, &event.event_type),
        pair(attribute::QUANTITY, any_value::Value::IntValue(quantity)),
        text(attribute::METADATA, &event.metadata),
    ];
    LogRecord {
        time_unix_nano: event.at_ms.saturating_mul(1_000_000),
        event_name: TRACKED.to_owned(),
        attributes,
        ..LogRecord::default()
    }
}

fn text(key: Attribute, value: &str) -> KeyValue {
    pair(key, any_value::Value::StringValue(value.to_owned()))
}

fn pair(key: Attribute, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.name.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
