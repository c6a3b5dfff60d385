//! An answer before it is cut, delayed and broken off.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;

use super::encoding::Encoding;
use super::tokens::Usage;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const SERVER_SENT_EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const AMAZON_EVENTS: HeaderValue = HeaderValue::from_static("application/vnd.amazon.eventstream");

/// Whether a body's length is known when its headers leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Announced,
    Unknown,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, in the pieces in which it leaves if the script does not cut it otherwise.
    pub(super) pieces: Vec<Bytes>,
    pub(super) length: Length,
    /// What it cost, whether the body says so or not.
    pub(super) usage: Option<Usage>,
}

impl Answer {
    /// A body that is known as a whole.
    pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
        Answer::new(status, JSON, vec![body.into()], Length::Announced)
    }

    /// A completion in one body.
    pub(super) fn body(body: impl Into<Bytes>, usage: Usage) -> Answer {
        Answer { usage: Some(usage), ..Answer::json(StatusCode::OK, body) }
    }

    /// A completion that streams as JSON in pieces.
    pub(super) fn json_pieces(pieces: Vec<Bytes>, usage: Usage) -> Answer {
        Answer::stream(JSON, pieces, usage)
    }

    /// A completion that streams as server-sent events.
    pub(super) fn events(events: Vec<Bytes>, usage: Usage) -> Answer {
        Answer::stream(SERVER_SENT_EVENTS, events, usage)
    }

    /// A completion that streams as Amazon's binary events.
    pub(super) fn amazon_events(frames: Vec<Bytes>, usage: Usage) -> Answer {
        Answer::stream(AMAZON_EVENTS, frames, usage)
    }

    /// A completion that streams as lines of JSON.
    pub(super) fn lines(content_type: &'static str, lines: &[Value], usage: Usage) -> Answer {
        let lines = lines.iter().map(|line| format!("{line}\n").into()).collect();
        Answer::stream(HeaderValue::from_static(content_type), lines, usage)
    }

    /// A recorded body, its type by the name's extension; `None` for an extension that tells none.
    pub(super) fn recorded(body: Vec<u8>, extension: &str) -> Option<Answer> {
        let (content_type, length) = match extension {
            "sse" => (SERVER_SENT_EVENTS, Length::Unknown),
            "json" => (JSON, Length::Announced),
            "jsonarray" => (JSON, Length::Unknown),
            "ndjson" => (HeaderValue::from_static("application/x-ndjson"), Length::Unknown),
            "bin" => (AMAZON_EVENTS, Length::Unknown),
            _ => return None,
        };
        Some(Answer::new(StatusCode::OK, content_type, vec![body.into()], length))
    }

    fn stream(content_type: HeaderValue, pieces: Vec<Bytes>, usage: Usage) -> Answer {
        Answer { usage: Some(usage), ..Answer::new(StatusCode::OK, content_type, pieces, Length::Unknown) }
    }

    fn new(status: StatusCode, content_type: HeaderValue, pieces: Vec<Bytes>, length: Length) -> Answer {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, content_type);
        Answer { status, headers, pieces, length, usage: None }
    }

    /// The same with another header.
    pub(super) fn with_header(mut self, name: &'static str, value: HeaderValue) -> Answer {
        self.headers.insert(name, value);
        self
    }

    /// The same, compressed.
    pub(super) fn encoded(mut self, encoding: Encoding) -> Answer {
        self.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
        self.pieces = encoding.encode(&self.pieces);
        self
    }
}

/// A server-sent event, with its name where the API sends names.
pub(super) fn server_sent_event(name: Option<&str>, data: &Value) -> Bytes {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n").into(),
        None => format!("data: {data}\n\n").into(),
    }
}
