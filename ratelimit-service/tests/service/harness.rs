//! Starts the real service on free ports, with its ledger in a temporary folder, and talks to it.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use tollgate_wire::proto::opentelemetry::proto::logs::v1::LogRecord;
use tollgate_wire::usage_event::{TokenCounts, UsageEvent, encode_export};
use tonic::transport::Channel;

/// What the tests' tenants have bought: limits that do not come back while a test runs.
const CONFIG: &str = "
grpc: { listen: 127.0.0.1:0 }
rest: { listen: 127.0.0.1:0 }
log: { format: json, filter: info }
ledger: { sqlite: LEDGER }
limiter: { default_tier: small }
tiers:
  small:
    context_tokens: 100
    limits:
      - { unit: requests, capacity: 3, window: hour }
      - { unit: tokens, capacity: 1000, window: hour }
      - { unit: tokens, capacity: 5000, window: month }
  large:
    context_tokens: 8192
    limits:
      - { unit: requests, capacity: 10000, window: hour }
      - { unit: tokens, capacity: 20000, window: month }
";

/// Where the tests' services keep their ledgers.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// In a folder of its own, which the service has to create.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.path("data").join("ledger.db")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path(name);
        std::fs::write(&file, text).unwrap();
        file
    }
}

pub(crate) fn tollgate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(args);
    command
}

/// A running `tollgate serve`, killed when dropped.
pub(crate) struct Service {
    child: Child,
    grpc: SocketAddr,
    rest: SocketAddr,
}

impl Service {
    pub(crate) fn start(folder: &Folder) -> Service {
        Service::start_with_config(folder, "")
    }

    /// With `more` keys beside the usual ones.
    pub(crate) fn start_with_config(folder: &Folder, more: &str) -> Service {
        let ledger = folder.ledger().display().to_string();
        let config = folder.write("config.yaml", &(CONFIG.replace("LEDGER", &ledger) + more));
        Service::start_with(&config)
    }

    /// One that answers nobody without a key.
    pub(crate) fn start_closed(folder: &Folder) -> Service {
        let ledger = folder.ledger().display().to_string();
        let config = CONFIG.replace("LEDGER", &ledger);
        let config = config.replace("rest: { listen: 127.0.0.1:0 }", "rest: { listen: 127.0.0.1:0, open_to: nobody }");
        Service::start_with(&folder.write("config.yaml", &config))
    }

    /// One whose listeners have these `tls`, in YAML.
    pub(crate) fn start_over_tls(folder: &Folder, grpc: Option<&str>, rest: Option<&str>) -> Service {
        let mut config = CONFIG.replace("LEDGER", &folder.ledger().display().to_string());
        for (listener, tls) in [("grpc", grpc), ("rest", rest)] {
            let plain = format!("{listener}: {{ listen: 127.0.0.1:0");
            config = config.replace(&plain, &format!("{plain}, tls: {}", tls.unwrap_or("null")));
        }
        Service::start_with(&folder.write("config.yaml", &config))
    }

    pub(crate) fn start_with(config: &Path) -> Service {
        Service::serving(tollgate(&["serve", "--config"]).arg(config).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// On a disk where no file becomes longer than so many KiB.
    pub(crate) fn start_on_full_disk(folder: &Folder, kib: u32) -> Service {
        let ledger = folder.ledger().display().to_string();
        let config = folder.write("config.yaml", &CONFIG.replace("LEDGER", &ledger));
        // Without the trap a write past the limit ends the process.
        let limited = "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"";
        let mut command = Command::new("bash");
        command.args(["-c", limited, &kib.to_string(), env!("CARGO_BIN_EXE_tollgate"), "serve", "--config"]);
        Service::serving(command.arg(config).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// With a configuration that can be read once.
    pub(crate) fn start_piped(config: &str) -> Service {
        let mut command = tollgate(&["serve", "--config", "/dev/stdin"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        Service::serving(child)
    }

    /// Once it is.
    fn serving(mut child: Child) -> Service {
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut begun) = (String::new(), String::new());
        let serving = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the service ended:\n{begun}");
            begun.push_str(&line);
            let fields: Value = serde_json::from_str(&line).unwrap();
            if fields["message"] == "serving" {
                break fields;
            }
        };
        // What it writes later goes to the test's own output.
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        let address = |key: &str| serving[key].as_str().unwrap().parse().unwrap();
        Service { child, grpc: address("grpc"), rest: address("rest") }
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    pub(crate) fn rest(&self) -> SocketAddr {
        self.rest
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn limiter(&self) -> RateLimitServiceClient<Channel> {
        RateLimitServiceClient::new(self.channel().await)
    }

    pub(crate) async fn collector(&self) -> LogsServiceClient<Channel> {
        LogsServiceClient::new(self.channel().await)
    }

    /// Sends usage events and waits until the ledger has them.
    pub(crate) async fn export(&self, events: &[UsageEvent]) {
        let request = export_request(events.iter().map(UsageEvent::to_log_record).collect());
        let answer = self.collector().await.export(request).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
        self.drained().await;
    }

    /// Waits until the ledger has all that was acknowledged.
    pub(crate) async fn drained(&self) {
        let is_drained = async || {
            let waiting = self.waiting().await;
            anyhow::ensure!(waiting == 0, "{waiting} events wait");
            Ok(())
        };
        eventually("the ledger has all events", PATIENCE, is_drained).await.unwrap();
    }

    /// How many events wait for the ledger.
    pub(crate) async fn waiting(&self) -> u64 {
        const PENDING: &str = "tollgate_spool_pending_events{consumer=\"ledger\"} ";
        let metrics = self.metrics().await;
        metrics.lines().find_map(|line| line.strip_prefix(PENDING)).unwrap().parse().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let answer = self.http(Request::get(path).body(String::new()).unwrap()).await;
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    pub(crate) async fn metrics(&self) -> String {
        self.http(Request::get("/metrics").body(String::new()).unwrap()).await.body
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.http(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn http(&self, request: Request<String>) -> Answer {
        let stream = tokio::net::TcpStream::connect(self.rest).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (mut parts, body) = request.into_parts();
        parts.headers.insert("host", self.rest.to_string().parse().unwrap());
        let request = Request::from_parts(parts, Full::new(Bytes::from(body)));
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let [content_type, retry_after, etag, replayed] =
            ["content-type", "retry-after", "etag", "idempotent-replayed"].map(header);
        let body = body.collect().await.unwrap().to_bytes();
        // Not all of a PDF is text.
        let body = String::from_utf8_lossy(&body).into_owned();
        Answer { status: parts.status, content_type, retry_after, etag, replayed, body }
    }

    /// Sends it a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it as an operator does. The clients in this test go on meanwhile.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<String>,
    pub(crate) retry_after: Option<String>,
    pub(crate) etag: Option<String>,
    pub(crate) replayed: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A call that ended just now.
pub(crate) fn event(id: &str, tenant: &str, input: u64, output: u64) -> UsageEvent {
    UsageEvent {
        event_id: id.to_owned(),
        tenant: tenant.to_owned(),
        tier: "small".to_owned(),
        started_at_ms: now_ms(),
        duration_ms: 40,
        status: 200,
        tokens: TokenCounts { input, output, ..TokenCounts::default() },
        ..UsageEvent::default()
    }
}

/// The export of these records, as the filter's bytes say it.
pub(crate) fn export_request(records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let records: Vec<_> = records.iter().map(Message::encode_to_vec).collect();
    ExportLogsServiceRequest::decode(encode_export("test", &records).as_slice()).unwrap()
}
