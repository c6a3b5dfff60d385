//! Exports over HTTP and gRPC, against a collector that really listens, with a real spool.

use std::io::Write;
use std::sync::Arc;

use axum::Router;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_wire::usage_event::{TokenCounts, UsageEvent, UsageSource, encode_export};
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic_types::StatusExt;

use super::*;
use crate::collector::{DeadLetterSettings, Intake, IntakeSettings};
use crate::config::Config;
use crate::counters::MemoryCounters;
use crate::entry::Entry;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::spool::{Consumer, Lag, Spool, SpoolSettings};

const NOW_MS: u64 = 1_774_008_000_000;
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A collector that listens. Nobody takes from its spool but the test.
struct World {
    url: String,
    grpc: Channel,
    spool: Arc<Spool>,
    consumer: Consumer,
    metrics: Metrics,
    folder: TempDir,
}

impl World {
    async fn new(spool_bytes: u64) -> World {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().0;
        let counters = MemoryCounters::new(1000, Arc::new(|| NOW_MS), metrics.clone());
        let policy = Config::parse("", "test").unwrap().policy;
        let limiter = Arc::new(Limiter::new(policy, Arc::new(counters), metrics.clone()));
        let settings = SpoolSettings { folder: folder.path().join("spool"), max_bytes: spool_bytes };
        let (spool, mut consumers) = Spool::open(&settings, &[("ledger".to_owned(), Lag::Wait)], &metrics).unwrap();
        let spool = Arc::new(spool);
        let settings = IntakeSettings {
            tenant_attributes: vec!["tenant.id".to_owned()],
            dead_letters: DeadLetterSettings { file: folder.path().join("rejected.jsonl"), max_bytes: 1 << 20 },
        };
        let intake = Intake::open(settings, &metrics).unwrap();
        let collector = Collector::new(Arc::clone(&spool), limiter, metrics.clone()).with_intake(intake);

        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/logs", http.local_addr().unwrap());
        let routes: Router = routes().with_state(collector.clone()).into();
        let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(http, routes).await });
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc_url = format!("http://{}", grpc.local_addr().unwrap());
        let server = Server::builder().add_service(collector.service());
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(grpc)));
        let grpc = Channel::from_shared(grpc_url).unwrap().connect().await.unwrap();
        World { url, grpc, spool, consumer: consumers.remove(0), metrics, folder }
    }

    async fn post(&self, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        // Whichever test comes first says who does cryptography, of which there is none here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let request = reqwest::Client::new().post(&self.url).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.unwrap();
        let header = |name: &str| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
        let (content_type, retry_after) = (header("content-type"), header("retry-after"));
        let status = response.status().as_u16();
        Answer { status, content_type, retry_after, body: response.bytes().await.unwrap().to_vec() }
    }

    /// The ids that the spool has got since the last time.
    async fn kept(&mut self) -> Vec<String> {
        let batch = self.consumer.ready(1000).await.unwrap_or_default();
        self.consumer.commit();
        batch.iter().map(|entry| entry.id().to_owned()).collect()
    }

    /// Once there are so many.
    async fn dead_letters(&self, count: u64) -> Vec<Value> {
        let are_written = async || {
            let written = self.metrics.dead_letters_written.get();
            anyhow::ensure!(written >= count, "{written} of {count}");
            Ok(())
        };
        eventually("dead letters are written", PATIENCE, are_written).await.unwrap();
        let text = std::fs::read_to_string(self.folder.path().join("rejected.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Answer {
    status: u16,
    content_type: Option<String>,
    retry_after: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.content_type.as_deref(), Some(JSON));
        serde_json::from_slice(&self.body).unwrap()
    }

    fn protobuf<T: Message + Default>(&self) -> T {
        assert_eq!(self.content_type.as_deref(), Some(PROTOBUF));
        T::decode(self.body.as_slice()).unwrap()
    }
}

fn event(id: &str) -> UsageEvent {
    UsageEvent {
        event_id: id.to_owned(),
        tenant: "acme".to_owned(),
        started_at_ms: NOW_MS,
        tokens: TokenCounts { input: 3, output: 2, ..TokenCounts::default() },
        usage_source: UsageSource::Reported,
        ..UsageEvent::default()
    }
}

fn protobuf(events: &[UsageEvent]) -> Vec<u8> {
    encode_export("test", &events.iter().map(UsageEvent::encode).collect::<Vec<_>>())
}

fn request(events: &[UsageEvent]) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest::decode(protobuf(events).as_slice()).unwrap()
}

/// A record of the GenAI conventions, of the tenant that its resource names.
fn json_export(span_ids: &[&str]) -> Vec<u8> {
    let record = |span_id: &&str| {
        json!({
            "timeUnixNano": (NOW_MS * 1_000_000).to_string(),
            "eventName": "gen_ai.client.inference.operation.details",
            "traceId": "5b8efff798038103d269b633813fc60c",
            "spanId": span_id,
            "attributes": [
                {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "7"}},
                {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o"}},
                {"key": "gen_ai.input.messages", "value": {"stringValue": "a secret"}},
            ],
        })
    };
    let records: Vec<_> = span_ids.iter().map(record).collect();
    let resource = json!({"attributes": [{"key": "tenant.id", "value": {"stringValue": "acme"}}]});
    json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}).to_string().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn both_encodings_are_taken_packed_or_not_and_answered_alike() {
    let mut world = World::new(1 << 26).await;
    let plain = world.post(&[("content-type", PROTOBUF)], protobuf(&[event("a")])).await;
    assert_eq!((plain.status, plain.protobuf::<ExportLogsServiceResponse>().partial_success), (200, None));
    let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    assert_eq!(world.post(&headers, gzip(&protobuf(&[event("b")]))).await.status, 200);
    let json =
        world.post(&[("content-type", "application/json; charset=utf-8")], json_export(&["eee19b7ec3c1b174"])).await;
    assert_eq!((json.status, json.json()), (200, json!({})));
    let headers = [("content-type", JSON), ("content-encoding", "gzip")];
    assert_eq!(world.post(&headers, gzip(&json_export(&["eee19b7ec3c1b175"]))).await.status, 200);
    let empty = world.post(&[("content-type", PROTOBUF)], Vec::new()).await;
    assert_eq!(empty.status, 200);

    let batch = world.consumer.ready(1000).await.unwrap();
    let kept: Vec<_> = batch.iter().collect();
    let [_, _, Entry::Usage(third), Entry::Usage(fourth)] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!((kept[0].id(), kept[1].id()), ("a", "b"));
    assert_eq!(third.event_id, "otel:5b8efff798038103d269b633813fc60c:eee19b7ec3c1b174");
    assert_eq!((third.tenant.as_str(), third.tokens.input, third.usage_source), ("acme", 7, UsageSource::Reported));
    assert_eq!(fourth.request_model.as_deref(), Some("gpt-4o"));
}

#[tokio::test]
async fn grpc_is_taken_and_answered_packed_or_not() {
    let mut world = World::new(1 << 26).await;
    let mut plain = LogsServiceClient::new(world.grpc.clone());
    plain.export(request(&[event("a")])).await.unwrap();
    let packed = LogsServiceClient::new(world.grpc.clone()).send_compressed(CompressionEncoding::Gzip);
    let mut packed = packed.accept_compressed(CompressionEncoding::Gzip).max_encoding_message_size(usize::MAX);
    let answer = packed.export(request(&[event("b")])).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(world.kept().await, ["a", "b"]);

    let huge = UsageEvent { request_id: Some("x".repeat(MAX_EXPORT_BYTES)), ..event("c") };
    let refused = packed.export(request(&[huge])).await.unwrap_err();
    assert!(refused.message().contains("size limit"), "{refused}");
    assert!(refused.get_details_retry_info().is_none(), "it would be too large again");
}

#[tokio::test]
async fn what_is_invalid_is_rejected_alone_and_kept_as_a_dead_letter() {
    let mut world = World::new(1 << 26).await;
    let future = UsageEvent { started_at_ms: u64::MAX / 1_000_000, ..event("b") };
    let unsettled = UsageEvent { usage_source: UsageSource::Unsettled, ..event("c") };
    let huge = UsageEvent { tokens: TokenCounts { input: 1 << 60, ..TokenCounts::default() }, ..event("d") };
    let nobody = UsageEvent { tenant: String::new(), ..event("e") };
    let long = UsageEvent { tenant: "x".repeat(257), ..event("f") };
    let events = [event("a"), future, unsettled, huge, nobody, long, event("g")];
    let answer = world.post(&[("content-type", PROTOBUF)], protobuf(&events)).await;
    let partial = answer.protobuf::<ExportLogsServiceResponse>().partial_success.unwrap();
    assert_eq!((answer.status, partial.rejected_log_records), (200, 5));
    assert!(partial.error_message.starts_with("record 1: time_unix_nano is more than a day ahead"), "{partial:?}");
    assert!(partial.error_message.ends_with("record 5: tollgate.tenant is longer than 256 bytes"), "{partial:?}");
    assert_eq!(world.kept().await, ["a", "g"]);

    let many = vec![UsageEvent { tenant: String::new(), ..event("h") }; 30];
    let partial = LogsServiceClient::new(world.grpc.clone()).export(request(&many)).await.unwrap().into_inner();
    let partial = partial.partial_success.unwrap();
    assert_eq!((partial.rejected_log_records, partial.error_message.matches("record").count()), (30, 10));

    let none = json_export(&["0000000000000000"]);
    let answer = world.post(&[("content-type", JSON)], none).await;
    let reason = "record 0: tollgate.event_id is missing or empty";
    let expected = json!({"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": reason}});
    assert_eq!((answer.status, answer.json()), (200, expected));

    let rejected = world.metrics.records_rejected.clone().map(|counter| counter.get());
    assert_eq!((rejected, world.metrics.events_rejected.get()), ([0, 32, 1, 0, 1, 1, 1], 36));
    let letters = world.dead_letters(36).await;
    assert_eq!((letters.len(), &letters[0]["class"], &letters[35]["class"]), (36, &json!("future"), &json!("missing")));
    assert!(letters.iter().all(|letter| letter["peer"].as_str().unwrap().starts_with("127.0.0.1:")));
    let attributes = json!({"gen_ai.usage.input_tokens": 7, "gen_ai.request.model": "gpt-4o"});
    assert_eq!(letters[35]["attributes"], attributes, "no content");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_in_its_encoding() {
    let mut world = World::new(1 << 26).await;
    let bomb = gzip(&vec![b' '; MAX_EXPORT_BYTES + 1]);
    let cases: [(&str, &str, Vec<u8>, u16, &str); 9] = [
        ("text/plain", "", b"{}".to_vec(), 415, "content-type"),
        (JSON, "br", b"{}".to_vec(), 415, "content-encoding: gzip is understood"),
        (JSON, "", b"{".to_vec(), 400, "the body is no ExportLogsServiceRequest: EOF"),
        (JSON, "", b"{\"resourceLogs\":[{\"scopeLogs\":5}]}".to_vec(), 400, "resourceLogs[0].scopeLogs"),
        (JSON, "gzip", b"{}".to_vec(), 400, "the body is no gzip"),
        (JSON, "gzip", bomb.clone(), 413, "more than 16777216 bytes once it is unpacked"),
        (JSON, "", vec![b' '; MAX_BODY_BYTES + 1], 413, "length limit exceeded"),
        (PROTOBUF, "", b"{}".to_vec(), 400, "the body is no ExportLogsServiceRequest"),
        (PROTOBUF, "gzip", bomb, 413, "once it is unpacked"),
    ];
    for (content_type, encoding, body, status, message) in cases {
        let answer = world.post(&[("content-type", content_type), ("content-encoding", encoding)], body).await;
        let (code, told) = match content_type {
            PROTOBUF => {
                let status: tonic_types::Status = answer.protobuf();
                (status.code, status.message)
            }
            _ => {
                let status = answer.json();
                (status["code"].as_i64().unwrap() as i32, status["message"].as_str().unwrap().to_owned())
            }
        };
        assert_eq!((answer.status, code, answer.retry_after), (status, 3, None), "{told}");
        assert!(told.contains(message), "{told}");
    }
    assert_eq!(world.kept().await, [""; 0]);
}

#[tokio::test]
async fn a_full_spool_asks_to_wait_and_takes_again_once_there_is_room() {
    let mut world = World::new(1 << 18).await;
    let mut client = LogsServiceClient::new(world.grpc.clone());
    let mut taken = Vec::new();
    let full = loop {
        let events: Vec<_> = (0..50).map(|at| event(&format!("{}-{at}", taken.len()))).collect();
        match client.export(request(&events)).await {
            Ok(_) => taken.extend(events.into_iter().map(|event| event.event_id)),
            Err(status) => break status,
        }
        assert!(taken.len() < 100_000, "it never fills");
    };
    assert_eq!(full.code(), Code::ResourceExhausted);
    let delay = full.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(delay.as_secs(), RETRY_AFTER_S);

    let answer = world.post(&[("content-type", JSON)], json_export(&["eee19b7ec3c1b174"; 50])).await;
    assert_eq!((answer.status, answer.retry_after.as_deref()), (429, Some("5")));
    let status = answer.json();
    let info = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "5s"}]);
    assert_eq!((&status["code"], &status["details"]), (&json!(8), &info));
    let answer = world.post(&[("content-type", PROTOBUF)], protobuf(&vec![event("x"); 50])).await;
    let status: tonic_types::Status = answer.protobuf();
    assert_eq!((answer.status, status.code, status.details.len()), (429, 8, 1));
    assert_eq!(world.metrics.exports_busy.get(), 3);

    let mut kept = Vec::new();
    while kept.len() < taken.len() {
        kept.extend(world.kept().await);
    }
    assert_eq!(kept, taken, "nothing that was refused, and all that was not");
    let is_taken = async || {
        let status = world.post(&[("content-type", PROTOBUF)], protobuf(&[event("y")])).await.status;
        anyhow::ensure!(status == 200, "{status}");
        Ok(())
    };
    eventually("it is taken", PATIENCE, is_taken).await.unwrap();
    assert_eq!(world.kept().await, ["y"]);
}

#[tokio::test]
async fn a_closed_spool_is_unavailable() {
    let world = World::new(1 << 26).await;
    world.spool.close().await;
    let answer = world.post(&[("content-type", JSON)], json_export(&["eee19b7ec3c1b174"])).await;
    assert_eq!((answer.status, answer.retry_after.as_deref(), &answer.json()["code"]), (503, Some("5"), &json!(14)));
    let status = LogsServiceClient::new(world.grpc.clone()).export(request(&[event("a")])).await.unwrap_err();
    assert_eq!((status.code(), status.get_details_retry_info().is_some()), (Code::Unavailable, true));
    assert_eq!(world.metrics.exports_failed.get(), 2);
}
