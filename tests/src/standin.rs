//! An LLM provider's stand-in.
//!
//! It speaks OpenAI's `POST /v1/chat/completions` (JSON and server-sent events) and `GET /v1/models`. What it answers
//! follows from the request alone ([`completion`]); how it answers is told by the request's `x-standin-*` headers
//! ([`script`]): recorded bodies, odd cuts, delays, gates, failures.
//!
//! Invariants: each piece of a body leaves in a write of its own, as a model's tokens do. Nothing is sent that the
//! request did not ask for. What is kept for a test is bounded: [`MAX_RECENT_CALLS`].

pub mod completion;
pub mod gates;
mod paced_body;
pub mod script;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use completion::{ChatRequest, Usage};
use gates::Gates;
use paced_body::{Broken, PacedBody};
use script::{Reset, Script};

/// The largest request body that is read.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;
/// How many calls [`Standin::recent_calls`] remembers; older ones are forgotten, though still counted.
pub const MAX_RECENT_CALLS: usize = 4096;
/// How long open answers may go on after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a [`Standin`] may do and keep.
#[derive(Debug, Default)]
pub struct Options {
    /// Where `x-standin-replay` finds its files; without it, such a request is answered 400.
    pub replay_dir: Option<PathBuf>,
    /// What is kept of each call.
    pub recording: Recording,
}

/// What is kept of each call.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// Nothing but their number.
    #[default]
    Off,
    /// The last [`MAX_RECENT_CALLS`] as [`Call`]s.
    RecentCalls,
}

/// One call, as the stand-in saw it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request's method.
    pub method: Method,
    /// The request's path, without its query.
    pub path: String,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's whole body, also where the script broke it off.
    pub body: Bytes,
    /// What the answer cost, whether the body says so or not; `None` for answers that are no completion, recorded ones among them.
    pub usage: Option<Usage>,
}

/// A running stand-in. It stops when it is dropped.
#[derive(Debug)]
pub struct Standin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    gates: Gates,
    call_count: AtomicU64,
    recent_calls: Mutex<VecDeque<Call>>,
}

impl Standin {
    /// Starts a stand-in on a free port of 127.0.0.1, in the current runtime.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(options: Options) -> anyhow::Result<Standin> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the stand-in")?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(options));
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(accept(listener, shared.clone(), async {
            let _ = stopped.await;
        }));
        Ok(Standin { addr, shared, _stop: stop })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The gates that its answers wait at.
    pub fn gates(&self) -> &Gates {
        &self.shared.gates
    }

    /// How many calls it has answered, or is answering; what is asked of a gate is no call.
    pub fn call_count(&self) -> u64 {
        self.shared.call_count.load(Ordering::Relaxed)
    }

    /// The last calls, oldest first, when [`Recording::RecentCalls`] is on. A call is listed before its answer leaves.
    pub fn recent_calls(&self) -> Vec<Call> {
        self.shared.recent_calls.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Answers `listener`'s connections until `stop`, then lets open answers end for a while.
pub async fn serve(listener: TcpListener, options: Options, stop: impl Future<Output = ()>) {
    accept(listener, Arc::new(Shared::new(options)), stop).await;
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let connections = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    // Answers are small: one copy costs less than a vectored write.
    http.writev(false);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end give some back.
                    eprintln!("llm-standin: cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // Without it the pieces of a stream wait for each other's acknowledgements.
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        let service = service_fn(move |request| {
            let shared = shared.clone();
            async move { answer(&shared, request).await }
        });
        tokio::spawn(connections.watch(http.serve_connection(TokioIo::new(stream), service)));
    }
    let _ = tokio::time::timeout(STOP_TIMEOUT, connections.shutdown()).await;
}

/// An answer before it is cut, delayed and broken off.
struct Answer {
    status: StatusCode,
    content_type: HeaderValue,
    /// The body, in the pieces in which it leaves if the script does not cut it otherwise.
    pieces: Vec<Bytes>,
    usage: Option<Usage>,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

impl Answer {
    fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
        Answer { status, content_type: JSON, pieces: vec![body.into()], usage: None }
    }

    fn error(status: StatusCode, message: &str) -> Answer {
        Answer::json(status, completion::error_body(status, message))
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<PacedBody>, Broken> {
    if let Some(gate) = request.uri().path().strip_prefix("/standin/gates/") {
        let answer = match shared.gates.confirm(gate) {
            Ok(()) => Answer::json(StatusCode::OK, "{}"),
            Err(problem) => Answer::error(StatusCode::NOT_FOUND, &problem),
        };
        return Ok(respond(answer, &Script::default(), None));
    }
    shared.call_count.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let (script, answer) = match Script::read(&head.headers) {
        Ok(script) => {
            let answer = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
                Ok(body) => shared.route(&head.method, head.uri.path(), &body.to_bytes(), &script),
                Err(error) => Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &format!("request body: {error}")),
            };
            (script, answer)
        }
        Err(problem) => (Script::default(), Answer::error(StatusCode::BAD_REQUEST, &problem)),
    };
    shared.record(&head, &answer);
    if script.reset == Some(Reset::BeforeHeaders) {
        return Err(Broken);
    }
    Ok(match script.gate.as_deref().map(|id| shared.gates.enter(id)).transpose() {
        Ok(gate) => respond(answer, &script, gate),
        Err(problem) => respond(Answer::error(StatusCode::CONFLICT, &problem), &Script::default(), None),
    })
}

fn respond(answer: Answer, script: &Script, gate: Option<gates::Passage>) -> Response<PacedBody> {
    // A stream's length is not known when it begins; that of a JSON body is.
    let sized = answer.content_type != EVENT_STREAM;
    let mut response = Response::new(PacedBody::new(answer.pieces, sized, script, gate));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, answer.content_type);
    response
}

impl Shared {
    fn new(options: Options) -> Shared {
        Shared { options, gates: Gates::default(), call_count: AtomicU64::new(0), recent_calls: Mutex::default() }
    }

    fn route(&self, method: &Method, path: &str, body: &[u8], script: &Script) -> Answer {
        if let Some(status) = script.status {
            return Answer::error(status, "the stand-in was told to fail");
        }
        if let Some(name) = &script.replay {
            return self.replay(name).unwrap_or_else(|error| {
                Answer::error(StatusCode::BAD_REQUEST, &format!("x-standin-replay: {error:#}"))
            });
        }
        match (method, path) {
            (&Method::POST, "/v1/chat/completions") => match serde_json::from_slice(body) {
                Ok(request) => chat(&request, script),
                Err(error) => Answer::error(StatusCode::BAD_REQUEST, &format!("request body: {error}")),
            },
            (&Method::GET, "/v1/models") => Answer::json(StatusCode::OK, completion::MODELS),
            _ => Answer::error(StatusCode::NOT_FOUND, &format!("no such endpoint: {method} {path}")),
        }
    }

    fn replay(&self, name: &str) -> anyhow::Result<Answer> {
        let dir = self.options.replay_dir.as_deref().context("the stand-in was started without a replay folder")?;
        let name = Path::new(name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("{} leaves the replay folder", name.display());
        }
        let content_type = match name.extension().and_then(|extension| extension.to_str()) {
            Some("sse") => EVENT_STREAM,
            Some("json" | "jsonarray") => JSON,
            Some("ndjson") => HeaderValue::from_static("application/x-ndjson"),
            Some("bin") => HeaderValue::from_static("application/vnd.amazon.eventstream"),
            _ => bail!("{}: its name must end in .sse, .json, .jsonarray, .ndjson or .bin", name.display()),
        };
        let path = dir.join(name);
        let body = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(Answer { status: StatusCode::OK, content_type, pieces: vec![body.into()], usage: None })
    }

    fn record(&self, head: &hyper::http::request::Parts, answer: &Answer) {
        if self.options.recording == Recording::Off {
            return;
        }
        let call = Call {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            headers: head.headers.clone(),
            status: answer.status,
            body: answer.pieces.concat().into(),
            usage: answer.usage,
        };
        let mut calls = self.recent_calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() == MAX_RECENT_CALLS {
            calls.pop_front();
        }
        calls.push_back(call);
    }
}

fn chat(request: &ChatRequest<'_>, script: &Script) -> Answer {
    let usage = completion::usage(request, script.chunks);
    let (content_type, pieces) = match request.stream {
        true => (EVENT_STREAM, completion::events(request, usage)),
        false => (JSON, vec![completion::body(request, usage)]),
    };
    Answer { status: StatusCode::OK, content_type, pieces, usage: Some(usage) }
}
