//! An LLM provider's stand-in.
//!
//! It speaks, each in one body and as a stream: OpenAI's chat completions, completions, embeddings, images and Responses,
//! Anthropic's Messages, Gemini's `generateContent`, Cohere's chat (v1 and v2), Ollama's chat and generate, Bedrock's
//! `Converse` and `InvokeModel`. What it answers follows from the request alone ([`tokens`]); how it answers is told by
//! the request's `x-standin-*` headers ([`script`]): recorded bodies, odd cuts, codings, delays, gates, failures.
//!
//! Invariants: each piece of a body leaves in a write of its own, as a model's tokens do. Nothing is sent that the
//! request did not ask for. What is kept for a test is bounded: [`MAX_RECENT_CALLS`], [`MAX_RECORDED_BYTES`].

mod answer;
mod anthropic;
mod api;
mod bedrock;
mod cohere;
mod completion;
pub mod encoding;
pub mod gates;
mod gemini;
mod ollama;
mod openai;
mod paced_body;
pub mod script;
pub mod tokens;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use answer::{Answer, Length};
use api::Api;
use gates::Gates;
use paced_body::{Broken, PacedBody};
use script::{Break, Failure, Place, Script};
use tokens::Usage;

/// The largest request body that is read.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;
/// How many calls [`Standin::recent_calls`] remembers; older ones are forgotten, though still counted.
pub const MAX_RECENT_CALLS: usize = 4096;
/// How much it remembers of a request's body.
pub const MAX_RECORDED_BYTES: usize = 1 << 20;
/// Requests whose attempts are counted at a time; one more is answered 400.
pub const MAX_FAILING_REQUESTS: usize = 4096;
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
    /// The request's query.
    pub query: Option<String>,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The request's body, the first [`MAX_RECORDED_BYTES`] of it.
    pub request_body: Bytes,
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's whole body as it is sent, also where the script broke it off.
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
    /// How often each request was tried that its script lets fail, by its `x-request-id`.
    attempts: Mutex<HashMap<String, u32>>,
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

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<PacedBody>, Broken> {
    if let Some(gate) = request.uri().path().strip_prefix("/standin/gates/") {
        let answer = match shared.gates.confirm(gate) {
            Ok(()) => Answer::json(StatusCode::OK, "{}"),
            Err(problem) => Api::OpenAi.error(StatusCode::NOT_FOUND, &problem),
        };
        return Ok(respond(answer, &Script::default(), None));
    }
    shared.call_count.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let api = Api::of(head.uri.path());
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await.map(|body| body.to_bytes());
    let (script, answer) = match (shared.script(&head.headers), &body) {
        (Ok(script), Ok(body)) => {
            let answer = shared.answer(&head, body, &script);
            (script, answer)
        }
        (Ok(script), Err(error)) => {
            (script, api.error(StatusCode::PAYLOAD_TOO_LARGE, &format!("request body: {error}")))
        }
        (Err(problem), _) => (Script::default(), api.error(StatusCode::BAD_REQUEST, &problem)),
    };
    shared.record(&head, body.unwrap_or_default(), &answer);
    match script.failure.breaks {
        Some((Break::Reset, Place::BeforeHeaders)) => return Err(Broken),
        Some((Break::Hang, Place::BeforeHeaders)) => std::future::pending::<()>().await,
        Some((_, Place::AfterBytes(_))) | None => {}
    }
    Ok(match script.gate.as_deref().map(|id| shared.gates.enter(id)).transpose() {
        Ok(gate) => respond(answer, &script, gate),
        Err(problem) => respond(api.error(StatusCode::CONFLICT, &problem), &Script::default(), None),
    })
}

fn respond(answer: Answer, script: &Script, gate: Option<gates::Passage>) -> Response<PacedBody> {
    let mut response = Response::new(PacedBody::new(answer.pieces, answer.length == Length::Announced, script, gate));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

impl Shared {
    fn new(options: Options) -> Shared {
        Shared {
            options,
            gates: Gates::default(),
            call_count: AtomicU64::new(0),
            recent_calls: Mutex::default(),
            attempts: Mutex::default(),
        }
    }

    /// What this attempt at a request is to do.
    fn script(&self, headers: &HeaderMap) -> Result<Script, String> {
        let mut script = Script::read(headers)?;
        if let Some(failing) = script.fail_attempts {
            let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
            let id = id.ok_or("x-standin-fail-attempts: the request has no x-request-id")?;
            let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            if attempts.len() >= MAX_FAILING_REQUESTS && !attempts.contains_key(id) {
                return Err("x-standin-fail-attempts: too many other requests are failing".to_owned());
            }
            let failed = attempts.entry(id.to_owned()).or_default();
            if *failed < failing {
                *failed += 1;
            } else {
                attempts.remove(id);
                script.failure = Failure::default();
            }
        }
        Ok(script)
    }

    fn answer(&self, head: &hyper::http::request::Parts, body: &[u8], script: &Script) -> Answer {
        let (path, api) = (head.uri.path(), Api::of(head.uri.path()));
        let mut answer = match (script.failure.status, &script.replay) {
            (Some(status), _) => api.error(status, "the stand-in was told to fail"),
            (None, Some(name)) => self
                .replay(name)
                .unwrap_or_else(|error| api.error(StatusCode::BAD_REQUEST, &format!("x-standin-replay: {error:#}"))),
            (None, None) => api::answer(&head.method, path, head.uri.query(), body, script),
        };
        answer.headers.extend(script.headers.iter().cloned());
        match script.encoding {
            Some(encoding) => answer.encoded(encoding),
            None => answer,
        }
    }

    fn replay(&self, name: &str) -> anyhow::Result<Answer> {
        let dir = self.options.replay_dir.as_deref().context("the stand-in was started without a replay folder")?;
        let name = Path::new(name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("{} leaves the replay folder", name.display());
        }
        let path = dir.join(name);
        let body = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let extension = name.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        Answer::recorded(body, extension).with_context(|| {
            format!("{}: its name must end in .sse, .json, .jsonarray, .ndjson or .bin", name.display())
        })
    }

    fn record(&self, head: &hyper::http::request::Parts, request_body: Bytes, answer: &Answer) {
        if self.options.recording == Recording::Off {
            return;
        }
        // A copy, for a slice would keep the whole body alive.
        let request_body = match request_body.get(..MAX_RECORDED_BYTES) {
            Some(beginning) => Bytes::copy_from_slice(beginning),
            None => request_body,
        };
        let call = Call {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers.clone(),
            request_body,
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
