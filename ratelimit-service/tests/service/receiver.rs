//! Takes webhooks' messages, as their receivers do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::Value;
use tollgate_e2e::harness::wait::eventually;

/// A message that was on its way when its service was killed is tried again a minute later.
const WAIT: Duration = Duration::from_secs(120);

/// A message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) id: String,
    timestamp: String,
    signature: String,
    text: String,
    pub(crate) body: Value,
    /// Whether it was answered with a 2xx.
    pub(crate) is_taken: bool,
}

impl Got {
    /// Its type.
    pub(crate) fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }

    /// Whether it is signed with this secret.
    pub(crate) fn is_signed(&self, secret: &str) -> bool {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let tag = BASE64_STANDARD.decode(self.signature.strip_prefix("v1,").unwrap()).unwrap();
        let signed = format!("{}.{}.{}", self.id, self.timestamp, self.text);
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes(), &tag).is_ok()
    }
}

/// Answers 204 to all that comes, until it is told to answer otherwise.
pub(crate) struct Receiver {
    pub(crate) url: String,
    status: Arc<Mutex<StatusCode>>,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Receiver {
        let (status, got) = (Arc::new(Mutex::new(StatusCode::NO_CONTENT)), Arc::<Mutex<Vec<Got>>>::default());
        let (answer, kept) = (status.clone(), got.clone());
        let take = move |headers: HeaderMap, text: String| async move {
            let header = |name: &str| headers[name].to_str().unwrap().to_owned();
            let [id, timestamp, signature] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(header);
            let body = serde_json::from_str(&text).unwrap();
            let status = *answer.lock().unwrap();
            kept.lock().unwrap().push(Got { id, timestamp, signature, text, body, is_taken: status.is_success() });
            status
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/s3cret", listener.local_addr().unwrap());
        let routes = Router::new().route("/s3cret", post(take));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Receiver { url, status, got }
    }

    pub(crate) fn answer(&self, status: u16) {
        *self.status.lock().unwrap() = StatusCode::from_u16(status).unwrap();
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until so many came, each another one.
    pub(crate) async fn wait_for(&self, number: usize) -> Vec<Got> {
        self.wait(number, |_| true).await
    }

    /// Likewise, until they were taken, and gives those alone.
    pub(crate) async fn wait_for_taken(&self, number: usize) -> Vec<Got> {
        self.wait(number, |one| one.is_taken).await
    }

    async fn wait(&self, number: usize, counts: fn(&Got) -> bool) -> Vec<Got> {
        eventually("messages come", WAIT, async || {
            let got: Vec<_> = self.got().into_iter().filter(counts).collect();
            let ids: BTreeSet<_> = got.iter().map(|one| &one.id).collect();
            ensure!(ids.len() >= number, "{} of {number} came: {got:?}", ids.len());
            Ok(got)
        })
        .await
        .unwrap()
    }
}
