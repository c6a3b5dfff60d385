//! Where messages go, and one attempt to tell one.

use std::fmt;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};

use super::message::hash;
use super::outbox::Delivery;
use super::recipient::Recipient;
use super::signature::SigningKey;
use crate::http::{self, Reach};
use crate::secret::Secret;

/// How long an answer may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// Where messages go. Its path may be a secret, and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    url: Url,
    key: SigningKey,
    reach: Reach,
}

impl EndpointSettings {
    /// Of a URL of HTTP and a secret of Standard Webhooks.
    ///
    /// # Errors
    /// What is wrong, beginning with the field.
    pub fn new(url: &str, secret: Secret, reach: Reach) -> Result<EndpointSettings, String> {
        let url = http::url(url).map_err(|error| format!("url: {error}"))?;
        http::check_reach(reach, &url)
            .map_err(|error| format!("url: {error}; one of the operator's may, with allow_private_addresses"))?;
        let key = SigningKey::new(secret).map_err(|error| format!("secret: {error}"))?;
        Ok(EndpointSettings { url, key, reach })
    }

    /// Where it is, as it may be shown.
    pub fn origin(&self) -> String {
        http::origin(&self.url)
    }

    /// What it is known by, also after a restart: a hash of its URL.
    pub fn id(&self) -> String {
        hash(self.url.as_str())
    }
}

impl fmt::Debug for EndpointSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSettings").field("origin", &self.origin()).field("reach", &self.reach).finish()
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// A 2xx.
    Delivered,
    /// A 410: nothing more is wanted here.
    Gone,
    /// Anything else.
    Failed {
        /// The receiver wants to be left alone so long.
        asked_ms: Option<u64>,
        /// For the log.
        why: String,
    },
}

/// What messages are sent by: one for each reach, whatever the number of endpoints.
pub(super) struct Clients {
    any: Client,
    public: Client,
}

impl Clients {
    pub(super) fn new() -> Result<Clients, String> {
        let client = |reach| http::client(reach, TIMEOUT, None);
        Ok(Clients { any: client(Reach::Any)?, public: client(Reach::Public)? })
    }
}

/// Who is told, and by what.
pub(super) struct Endpoint {
    pub(super) recipient: Recipient,
    /// As it is shown.
    pub(super) origin: String,
    client: Client,
}

impl Endpoint {
    pub(super) fn new(recipient: Recipient, clients: &Clients) -> Endpoint {
        let client = match recipient.settings.reach {
            Reach::Any => &clients.any,
            Reach::Public => &clients.public,
        };
        Endpoint { origin: recipient.settings.origin(), client: client.clone(), recipient }
    }

    /// What its deliveries are kept by.
    pub(super) fn id(&self) -> &str {
        &self.recipient.id
    }

    /// Tells once. Of the answer, only the status is read.
    pub(super) async fn attempt(&self, delivery: &Delivery, now_ms: u64) -> Attempt {
        let EndpointSettings { url, key, .. } = &self.recipient.settings;
        let timestamp_s = now_ms / 1000;
        let request = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &delivery.message_id)
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", key.sign(&delivery.message_id, timestamp_s, &delivery.body))
            .body(delivery.body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Attempt::Delivered,
            Ok(answer) if answer.status() == StatusCode::GONE => Attempt::Gone,
            Ok(answer) => {
                let asked = http::retry_after(answer.headers()).map(|after| after.as_millis());
                let asked_ms = asked.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
                Attempt::Failed { asked_ms, why: format!("it answered {}", answer.status().as_u16()) }
            }
            Err(error) => Attempt::Failed { asked_ms: None, why: http::failure(error) },
        }
    }
}
