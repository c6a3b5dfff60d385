//! A plain HTTP/1.1 client: one connection for each request, bodies as they come.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::wait::patiently;

/// A request to be sent.
#[derive(Debug, Clone)]
#[must_use]
pub struct Request {
    addr: SocketAddr,
    inner: hyper::Request<Full<Bytes>>,
}

/// An answer whose body may still be coming.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
}

/// An answer that is complete.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Request {
    /// A request without a body.
    ///
    /// # Panics
    /// When `path` is none.
    pub fn new(method: Method, addr: SocketAddr, path: &str) -> Request {
        let mut inner = hyper::Request::new(Full::default());
        *inner.method_mut() = method;
        *inner.uri_mut() = path.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        Request { addr, inner }.header(HOST.as_str(), &addr.to_string())
    }

    /// `GET path`.
    pub fn get(addr: SocketAddr, path: &str) -> Request {
        Request::new(Method::GET, addr, path)
    }

    /// `POST path` with a JSON body.
    pub fn post(addr: SocketAddr, path: &str, body: &Value) -> Request {
        Request::new(Method::POST, addr, path).json(body)
    }

    /// Sets a header.
    ///
    /// # Panics
    /// When `name` or `value` may not stand in a header.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        let (name, value) = field(name, value);
        self.inner.headers_mut().insert(name, value);
        self
    }

    /// Adds a header to those that have the same name.
    ///
    /// # Panics
    /// When `name` or `value` may not stand in a header.
    pub fn header_again(mut self, name: &str, value: &str) -> Request {
        let (name, value) = field(name, value);
        self.inner.headers_mut().append(name, value);
        self
    }

    /// Removes a header.
    pub fn without_header(mut self, name: &str) -> Request {
        self.inner.headers_mut().remove(name);
        self
    }

    /// Replaces the body.
    pub fn json(self, body: &Value) -> Request {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Replaces the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Request {
        *self.inner.body_mut() = Full::new(body.into());
        self
    }

    /// Sends it and waits for the answer's headers.
    ///
    /// # Errors
    /// When there is no connection, or no answer in time.
    pub async fn start(self) -> anyhow::Result<Answer> {
        let what = format!("{} http://{}{}", self.inner.method(), self.addr, self.inner.uri());
        patiently(&what, async {
            let stream = TcpStream::connect(self.addr).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // It ends with the answer's body. Its errors reach that body too.
            tokio::spawn(connection);
            let (head, body) = sender.send_request(self.inner).await?.into_parts();
            anyhow::Ok(Answer { status: head.status, headers: head.headers, body })
        })
        .await?
        .context(what)
    }

    /// Sends it and waits for the whole answer.
    ///
    /// # Errors
    /// When there is no connection, no answer in time, or it breaks off.
    pub async fn send(self) -> anyhow::Result<Reply> {
        self.start().await?.finish().await
    }
}

fn field(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let value = value.parse().unwrap_or_else(|error| panic!("{name}: {value}: {error}"));
    (name.parse().unwrap_or_else(|error| panic!("{name}: {error}")), value)
}

impl Answer {
    /// The next bytes of the body, as they came; `None` at its end.
    ///
    /// # Errors
    /// When the body breaks off, or nothing comes in time.
    pub async fn next_bytes(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let Some(frame) = patiently("the next bytes of the answer", self.body.frame()).await? else {
                return Ok(None);
            };
            if let Ok(bytes) = frame.context("the answer broke off")?.into_data() {
                return Ok(Some(bytes));
            }
        }
    }

    /// Waits for the rest of the body.
    ///
    /// # Errors
    /// When it breaks off, or does not come in time.
    pub async fn finish(self) -> anyhow::Result<Reply> {
        let body = patiently("the rest of the answer", self.body.collect()).await?.context("the answer broke off")?;
        Ok(Reply { status: self.status, headers: self.headers, body: body.to_bytes() })
    }
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none; the error has the body.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{} with no JSON: {}", self.status, self.text()))
    }

    /// The header's value, where it has one of text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
