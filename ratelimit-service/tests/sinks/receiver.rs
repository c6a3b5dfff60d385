//! A receiver of HEC, as Splunk answers and as it had better not.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const TOKEN: &str = "s3cret-token";

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Nothing is taken.
    Fail(u16, &'static str),
    /// All is taken, and told otherwise.
    TakeAndFail,
    /// All is taken, and the answer breaks off.
    TakeAndCut,
    /// Nothing is taken, and nothing answered.
    Hang,
    /// All is taken and answered, and never acknowledged.
    Forget,
}

#[derive(Debug, Default)]
struct Told {
    acts: VecDeque<Act>,
    events: Vec<Value>,
    /// For each channel, the requests that were answered with a number, and whether that is acknowledged.
    channels: HashMap<String, Vec<bool>>,
}

#[derive(Default)]
pub(crate) struct Receiver {
    told: Mutex<Told>,
    /// While set, all requests are answered with 503.
    pub(crate) is_down: AtomicBool,
    /// Whether the token has acknowledgements.
    pub(crate) has_acks: AtomicBool,
    /// Whether a refusal tells which event is at fault.
    pub(crate) tells_which: AtomicBool,
    /// So many connections are cut as soon as they are there.
    pub(crate) cuts: AtomicUsize,
    pub(crate) requests: AtomicUsize,
}

impl Receiver {
    /// Listens on a free port, and does these things first.
    pub(crate) async fn start(acts: &[Act]) -> (Arc<Receiver>, String) {
        let receiver = Arc::new(Receiver::default());
        receiver.told.lock().unwrap().acts = acts.iter().cloned().collect();
        let router = Router::new()
            .route("/services/collector/event", post(event))
            .route("/services/collector/ack", post(ack))
            .with_state(receiver.clone());
        let listener =
            Cutting { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), receiver: receiver.clone() };
        let url = format!("http://{}", listener.listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    /// The events that arrived, copies too.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.told.lock().unwrap().events.clone()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.events().iter().map(|event| event["event"]["event_id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn channels(&self) -> usize {
        self.told.lock().unwrap().channels.len()
    }
}

/// Cuts connections.
struct Cutting {
    listener: TcpListener,
    receiver: Arc<Receiver>,
}

impl axum::serve::Listener for Cutting {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = self.listener.accept().await.unwrap();
            let cut = |cuts: usize| cuts.checked_sub(1);
            if self.receiver.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_err() {
                return accepted;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn refusal(headers: &HeaderMap, receiver: &Receiver) -> Option<Response> {
    let answer = |status: StatusCode, body: Value| Some((status, Json(body)).into_response());
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("authorization") != Some(&format!("Splunk {TOKEN}")) {
        return answer(StatusCode::FORBIDDEN, json!({ "text": "Invalid token", "code": 4 }));
    }
    if receiver.is_down.load(Ordering::SeqCst) {
        return answer(StatusCode::SERVICE_UNAVAILABLE, json!({ "text": "Server is busy", "code": 9 }));
    }
    if header("x-splunk-request-channel").is_none() {
        return answer(StatusCode::BAD_REQUEST, json!({ "text": "Data channel is missing", "code": 10 }));
    }
    None
}

async fn event(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Response {
    receiver.requests.fetch_add(1, Ordering::SeqCst);
    if let Some(refusal) = refusal(&headers, &receiver) {
        return refusal;
    }
    let act = receiver.told.lock().unwrap().acts.pop_front();
    match act {
        Some(Act::Fail(status, body)) => return (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Some(Act::Hang) => return std::future::pending().await,
        _ => {}
    }
    let text = match headers.get("content-encoding") {
        Some(_) => {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
            text
        }
        None => body.to_vec(),
    };
    let events: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(&text).into_iter().collect();
    let events = events.unwrap();
    let is_bad = |event: &Value| event["event"]["event_id"].as_str().unwrap().starts_with("bad");
    if let Some(at) = events.iter().position(is_bad) {
        let mut answer = json!({ "text": "Invalid data format", "code": 6 });
        if receiver.tells_which.load(Ordering::SeqCst) {
            answer["invalid-event-number"] = at.into();
        }
        return (StatusCode::BAD_REQUEST, Json(answer)).into_response();
    }
    let channel = headers["x-splunk-request-channel"].to_str().unwrap();
    let mut told = receiver.told.lock().unwrap();
    told.events.extend(events);
    match act {
        Some(Act::TakeAndFail) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Act::TakeAndCut) => {
            let broken = tokio_stream::iter([Ok(Bytes::from("{\"te")), Err(io::Error::other("cut"))]);
            return Response::new(Body::from_stream(broken));
        }
        _ => {}
    }
    let mut answer = json!({ "text": "Success", "code": 0 });
    if receiver.has_acks.load(Ordering::SeqCst) {
        let numbers = told.channels.entry(channel.to_owned()).or_default();
        answer["ackId"] = numbers.len().into();
        numbers.push(!matches!(act, Some(Act::Forget)));
    }
    Json(answer).into_response()
}

/// Each number is told of once.
async fn ack(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
    Json(asked): Json<HashMap<String, HashSet<usize>>>,
) -> Response {
    if let Some(refusal) = refusal(&headers, &receiver) {
        return refusal;
    }
    let mut told = receiver.told.lock().unwrap();
    let numbers = told.channels.entry(query["channel"].clone()).or_default();
    let acks = asked["acks"].iter().map(|number| {
        let is_acknowledged = numbers.get_mut(*number).is_some_and(std::mem::take);
        (number.to_string(), Value::from(is_acknowledged))
    });
    Json(json!({ "acks": acks.collect::<serde_json::Map<_, _>>() })).into_response()
}
