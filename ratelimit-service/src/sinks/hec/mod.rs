//! Splunk's HTTP Event Collector.
//!
//! A token with acknowledgements says so by its answers: then entries are done with once they are acknowledged, up to
//! [`MAX_UNACKNOWLEDGED`] requests together; else with the 200, which comes before Splunk has indexed them.

mod event;
mod reply;

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Url};
use serde_json::json;

use super::{Sink, SinkError, Taken};
use crate::chance;
use crate::entry::Entry;
use crate::http::{self, Reach};
use crate::secret::Secret;

/// A request's body is not made longer than this before it is compressed, unless one entry is: Splunk Cloud takes a million
/// bytes.
const MAX_REQUEST_BYTES: usize = 512 * 1024;

/// The most requests that wait for their acknowledgement.
pub const MAX_UNACKNOWLEDGED: usize = 16;

/// How often acknowledgements are asked for, at first and at most.
const POLL_FIRST: Duration = Duration::from_millis(100);
const POLL_MOST: Duration = Duration::from_secs(5);

/// Names the channel that acknowledgements are counted in.
const CHANNEL: &str = "x-splunk-request-channel";

/// Where HEC is, and what events say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HecSettings {
    /// Of the server, without a path: `https://splunk.example:8088`.
    pub url: String,
    /// Who we are there.
    pub token: Secret,
    /// The index; `None` for the token's own.
    pub index: Option<String>,
    /// Where events come from,
    pub host: String,
    /// and from what.
    pub source: String,
    /// What calls are.
    pub sourcetype: String,
    /// What tracked events are.
    pub tracked_sourcetype: String,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long an acknowledgement may take before entries are sent again.
    pub ack_timeout: Duration,
    /// What to trust, as PEM, instead of the system's authorities.
    pub ca: Option<Vec<u8>>,
}

impl HecSettings {
    /// The usual ones.
    pub fn new(url: impl Into<String>, token: Secret) -> HecSettings {
        HecSettings {
            url: url.into(),
            token,
            index: None,
            host: this_host(),
            source: "tollgate".to_owned(),
            sourcetype: "llm:usage".to_owned(),
            tracked_sourcetype: "llm:tracked".to_owned(),
            gzip: true,
            timeout: Duration::from_secs(30),
            ack_timeout: Duration::from_secs(120),
            ca: None,
        }
    }
}

/// This machine's name, as Linux tells it.
fn this_host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(name.trim()).filter(|name| !name.is_empty()).unwrap_or("tollgate").to_owned()
}

/// The sink.
pub struct Hec {
    settings: HecSettings,
    client: Client,
    events: Url,
    acks: Url,
    authorization: HeaderValue,
    channel: String,
}

/// A request that was answered well.
struct Posted {
    entries: usize,
    /// The number of the acknowledgement that is waited for.
    ack: Option<u64>,
}

impl Hec {
    /// A sink that has sent nothing yet.
    ///
    /// # Errors
    /// What is wrong with the settings, beginning with the field.
    pub fn new(settings: HecSettings) -> Result<Hec, String> {
        let base = http::url(&settings.url).map_err(|error| format!("url: {error}"))?;
        let path = |path: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}/services/collector/{path}", base.path().trim_end_matches('/')));
            url
        };
        let authorization = HeaderValue::from_str(&format!("Splunk {}", settings.token.expose()));
        let mut authorization = authorization.map_err(|_| "token: has characters that no token has".to_owned())?;
        authorization.set_sensitive(true);
        let client = http::client(Reach::Any, settings.timeout, settings.ca.as_deref());
        let client = client.map_err(|error| format!("ca_file: {error}"))?;
        let (events, acks) = (path("event"), path("ack"));
        Ok(Hec { client, events, acks, authorization, channel: chance::id(), settings })
    }

    /// As many of the first entries as one request takes, and their number, at least 1.
    fn body(&self, entries: &[&Entry]) -> (Vec<u8>, usize) {
        let (mut body, mut count) = (Vec::new(), 0);
        for entry in entries {
            let before = body.len();
            event::append(&self.settings, entry, &mut body);
            if body.len() > MAX_REQUEST_BYTES && count > 0 {
                body.truncate(before);
                break;
            }
            count += 1;
        }
        (body, count)
    }

    async fn post(&self, body: Vec<u8>, entries: usize) -> Result<Posted, SinkError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = if self.settings.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            compressed(&body).map_err(|error| SinkError::retry(error.to_string()))?
        } else {
            body
        };
        let (status, after, answer) = self.ask(self.events.clone(), headers, body).await?;
        let ack = reply::read(status, after, &answer, entries).map_err(|error| self.hidden(error))?;
        Ok(Posted { entries, ack })
    }

    async fn ask(
        &self,
        url: Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<(u16, Option<Duration>, Vec<u8>), SinkError> {
        let failed = |error| SinkError::retry(http::failure(error));
        let request = self.client.post(url).headers(headers).header(CHANNEL, &self.channel);
        let response =
            request.header(AUTHORIZATION, self.authorization.clone()).body(body).send().await.map_err(failed)?;
        let (status, after) = (response.status().as_u16(), http::retry_after(response.headers()));
        Ok((status, after, http::body(response).await.map_err(failed)?))
    }

    /// A receiver's words may quote what it was sent.
    fn hidden(&self, error: SinkError) -> SinkError {
        match error {
            SinkError::Retry { after, why } => SinkError::Retry { after, why: self.settings.token.hidden_in(&why) },
            SinkError::Refused { entries, at, why } => {
                SinkError::Refused { entries, at, why: self.settings.token.hidden_in(&why) }
            }
        }
    }

    /// Waits until all requests are acknowledged, and tells how many entries are, from the first on.
    async fn acknowledged(&mut self, mut posted: Vec<Posted>) -> Result<Taken, SinkError> {
        let (begun, mut pause) = (Instant::now(), POLL_FIRST);
        let mut problem = None;
        while posted.iter().any(|request| request.ack.is_some()) {
            if begun.elapsed() + pause > self.settings.ack_timeout {
                // Late answers to what was sent there are not to be taken for answers to what is sent again.
                self.channel = chance::id();
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MOST);
            match self.poll(&posted).await {
                Ok(acknowledged) => {
                    for request in &mut posted {
                        request.ack = request.ack.filter(|ack| !acknowledged.contains(ack));
                    }
                }
                Err(error) => problem = Some(error),
            }
        }
        let entries = posted.iter().take_while(|request| request.ack.is_none()).map(|request| request.entries).sum();
        if entries > 0 {
            return Ok(Taken { entries, rejected: 0 });
        }
        let timeout = self.settings.ack_timeout;
        let problem = problem.map_or(String::new(), |problem| format!(", and asking for it failed: {problem}"));
        Err(SinkError::retry(format!("HEC acknowledged nothing within {timeout:?}{problem}")))
    }

    async fn poll(&self, posted: &[Posted]) -> Result<Vec<u64>, SinkError> {
        let ids: Vec<u64> = posted.iter().filter_map(|request| request.ack).collect();
        let mut url = self.acks.clone();
        url.query_pairs_mut().append_pair("channel", &self.channel);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let body = json!({ "acks": ids }).to_string().into_bytes();
        let (status, after, answer) = self.ask(url, headers, body).await?;
        match (status, reply::acknowledged(&answer)) {
            (200, Some(acknowledged)) => Ok(acknowledged),
            _ => Err(match reply::read(status, after, &answer, 0) {
                Err(error) => self.hidden(error),
                Ok(_) => SinkError::retry("HEC told nothing of acknowledgements"),
            }),
        }
    }
}

impl Sink for Hec {
    async fn send(&mut self, entries: &[&Entry]) -> Result<Taken, SinkError> {
        let (mut posted, mut rest) = (Vec::<Posted>::new(), entries);
        while !rest.is_empty() && posted.len() < MAX_UNACKNOWLEDGED {
            let (body, count) = self.body(rest);
            match self.post(body, count).await {
                Ok(request) => posted.push(request),
                Err(error) if posted.is_empty() => return Err(error),
                // It is met again by the next sending, once what went before is known to be done with.
                Err(_) => break,
            }
            rest = &rest[count..];
        }
        self.acknowledged(posted).await
    }
}

fn compressed(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}
