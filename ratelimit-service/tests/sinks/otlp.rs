//! OTLP onward.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tollgate::entry::Entry;
use tollgate::secret::Secret;
use tollgate::sinks::{Otlp, OtlpSettings};
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_wire::proto::opentelemetry::proto::common::v1::any_value::Value;
use tollgate_wire::proto::opentelemetry::proto::logs::v1::LogRecord;
use tollgate_wire::usage_event::UsageEvent;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::source::{Running, entries, first_of_each, ids};

#[derive(Debug, Clone)]
enum Act {
    Fail(Code),
    TakeAndFail,
    Busy,
    Reject(i64),
}

#[derive(Default)]
struct Told {
    acts: VecDeque<Act>,
    records: Vec<LogRecord>,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Told>>);

fn text(record: &LogRecord, key: &str) -> Option<String> {
    let value = record.attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value?;
    if let Value::StringValue(text) = value { Some(text) } else { None }
}

fn id(record: &LogRecord) -> String {
    text(record, "tollgate.event_id").unwrap()
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let header = |name: &str| request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
        if header("authorization").as_deref() != Some("Bearer s3cret") {
            return Err(Status::unauthenticated("who is there?"));
        }
        let mut told = self.0.lock().unwrap();
        let act = told.acts.pop_front();
        match act {
            Some(Act::Fail(code)) => return Err(Status::new(code, "not now")),
            Some(Act::Busy) => {
                let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(20)));
                return Err(Status::with_error_details(Code::ResourceExhausted, "busy", details));
            }
            _ => {}
        }
        let [logs] = &request.get_ref().resource_logs[..] else { panic!("one resource") };
        let records = &logs.scope_logs[0].log_records;
        if records.iter().any(|record| id(record).starts_with("bad")) {
            return Err(Status::invalid_argument("there is a bad one"));
        }
        told.records.extend(records.iter().cloned());
        let partial_success = match act {
            Some(Act::TakeAndFail) => return Err(Status::deadline_exceeded("too late")),
            Some(Act::Reject(rejected_log_records)) => {
                Some(ExportLogsPartialSuccess { rejected_log_records, error_message: "some were odd".into() })
            }
            _ => None,
        };
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

impl Collector {
    async fn start(acts: &[Act], tls: Option<ServerTlsConfig>) -> (Collector, u16) {
        let collector = Collector::default();
        collector.0.lock().unwrap().acts = acts.iter().cloned().collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = LogsServiceServer::new(collector.clone()).accept_compressed(CompressionEncoding::Gzip);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        tokio::spawn(server.add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        (collector, port)
    }

    fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap().records.iter().map(id).collect()
    }
}

fn settings(url: String) -> OtlpSettings {
    let headers = vec![("authorization".to_owned(), Secret::new("Bearer s3cret"))];
    OtlpSettings { headers, timeout: Duration::from_secs(10), ..OtlpSettings::new(url) }
}

fn plain(port: u16) -> Otlp {
    Otlp::new(settings(format!("http://127.0.0.1:{port}"))).unwrap()
}

#[tokio::test]
async fn a_collector_that_fails_gets_every_entry_in_order() {
    use Code::{Aborted, Internal, PermissionDenied, ResourceExhausted, Unavailable, Unimplemented};
    let failing = [Unavailable, Aborted, Internal, PermissionDenied, ResourceExhausted, Unimplemented].map(Act::Fail);
    let acts = [&failing[..], &[Act::TakeAndFail, Act::Busy]].concat();
    let all = entries(500);
    let (collector, port) = Collector::start(&acts, None).await;
    let mut onward = Running::start(&all, 60, plain(port));
    onward.finished().await;
    assert_eq!(first_of_each(&collector.ids()), ids(&all));
    assert_eq!(collector.ids().len(), 560, "those that were taken and failed came twice");
    assert_eq!(onward.metric(r#"tollgate_sink_failures_total{sink="tested"}"#), acts.len() as f64);
    assert_eq!(onward.metric(r#"tollgate_sink_events_total{sink="tested",result="sent"}"#), 500.0);
}

#[tokio::test]
async fn entries_arrive_as_they_were() {
    let all = entries(10);
    let (collector, port) = Collector::start(&[], None).await;
    Running::start(&all, 10, plain(port)).finished().await;
    let records = collector.0.lock().unwrap().records.clone();
    for (record, entry) in records.iter().zip(all.iter()) {
        match entry {
            Entry::Usage(event) => assert_eq!(&UsageEvent::from_log_record(record).unwrap(), event),
            Entry::Tracked(event) => {
                assert_eq!(
                    (record.event_name.as_str(), record.time_unix_nano),
                    ("tollgate.tracked", event.at_ms * 1_000_000)
                );
                assert_eq!(text(record, "tollgate.event_type").as_ref(), Some(&event.event_type));
                assert_eq!(text(record, "tollgate.metadata").as_ref(), Some(&event.metadata));
                assert_eq!(text(record, "tollgate.tenant").as_ref(), Some(&event.tenant));
            }
        }
    }
    assert_eq!(records.len(), 10);
}

#[tokio::test]
async fn what_is_refused_for_good_is_left_out_and_counted() {
    let all: Arc<[Entry]> = entries(50)
        .iter()
        .cloned()
        .map(|entry| match entry {
            Entry::Usage(mut event) if event.event_id == "e31" => {
                event.event_id = "bad".into();
                Entry::Usage(event)
            }
            entry => entry,
        })
        .collect();
    let (collector, port) = Collector::start(&[Act::Reject(2)], None).await;
    let mut onward = Running::start(&all, 25, plain(port));
    onward.finished().await;
    let good: Vec<_> = ids(&all).into_iter().filter(|id| id != "bad").collect();
    assert_eq!(collector.ids(), good);
    assert_eq!(onward.metric(r#"tollgate_sink_events_total{sink="tested",result="refused"}"#), 3.0);
    assert_eq!(onward.metric(r#"tollgate_sink_events_total{sink="tested",result="sent"}"#), 47.0);
}

#[tokio::test]
async fn over_tls_the_given_authority_is_trusted_and_no_other() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, key));
    let (collector, port) = Collector::start(&[], Some(tls)).await;
    let all = entries(5);
    let url = format!("https://localhost:{port}");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let untrusting = OtlpSettings { ca: Some(other.into_bytes()), ..settings(url.clone()) };
    let onward = Running::start(&all, 5, Otlp::new(untrusting).unwrap());
    crate::source::eventually("it fails", || onward.metric(r#"tollgate_sink_failures_total{sink="tested"}"#) > 1.0)
        .await;
    let cursor = onward.kill().await;
    assert_eq!(collector.ids().len(), 0);
    let trusting = OtlpSettings { ca: Some(certificate.into_bytes()), ..settings(url) };
    Running::resume(&all, &cursor, 5, Otlp::new(trusting).unwrap()).finished().await;
    assert_eq!(collector.ids(), ids(&all));
}
