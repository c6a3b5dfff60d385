//! A running service's REST, as the command line asks it.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::http::{self, ClientCertificate, Reach};
use crate::secret::Secret;

/// How long an answer may take: to compare the books of a month, or erase years of a tenant, takes its time.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Asks a running service. Nothing is asked twice.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    authorization: Option<HeaderValue>,
}

/// Whom a client trusts, and what it shows that asks it: PEM files' contents.
#[derive(Default)]
pub struct Trust {
    /// The authorities that are trusted; `None`: the system's.
    pub ca: Option<Vec<u8>>,
    /// Its own certificate and key.
    pub own: Option<(Vec<u8>, Vec<u8>)>,
}

/// The service does not do what it is asked.
#[derive(Debug, thiserror::Error)]
#[error("the service refused: {status}{}{detail}", if detail.is_empty() { "" } else { ": " })]
pub struct Refused {
    /// The answer's status.
    pub status: StatusCode,
    /// Why, in the service's words; empty where it has none.
    pub detail: String,
}

impl Client {
    /// Of the service whose REST is at `url`, which is shown `key` where there is one.
    ///
    /// # Errors
    /// When `trust` has something else than certificates and their key, or the key has characters that no key has.
    pub fn new(url: Url, key: Option<&Secret>, trust: &Trust) -> anyhow::Result<Client> {
        let own = trust.own.as_ref().map(|(certificate, key)| ClientCertificate { certificate, key });
        let http = http::client_with(Reach::Any, TIMEOUT, trust.ca.as_deref(), own).map_err(anyhow::Error::msg)?;
        let bearer = |key: &Secret| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).context("the key is none")?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        Ok(Client { http, url, authorization: key.map(bearer).transpose()? })
    }

    /// An address of the service's: each part of the path is escaped as it needs.
    ///
    /// # Errors
    /// When the service's own has no path.
    pub fn at(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.url.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => drop(segments.pop_if_empty().extend(path)),
            Err(()) => bail!("{} is no address of a service", self.url),
        }
        Ok(url)
    }

    /// A request that shows the key.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    /// Its answer, if it does what it is asked.
    ///
    /// # Errors
    /// When it does not answer, or with [`Refused`].
    pub async fn asked(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await.with_context(|| format!("the service at {} does not answer", self.url))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.unwrap_or_default();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
        Err(Refused { status, detail }.into())
    }

    /// The JSON at an address.
    ///
    /// # Errors
    /// As [`Client::asked`], and when it is something else than a `T`.
    pub async fn get<T: DeserializeOwned>(&self, url: Url) -> anyhow::Result<T> {
        self.json(self.request(Method::GET, url)).await
    }

    /// The same, and `None` where nothing is there.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn find<T: DeserializeOwned>(&self, url: Url) -> anyhow::Result<Option<T>> {
        match self.get(url).await {
            Ok(found) => Ok(Some(found)),
            Err(error) => match error.downcast_ref() {
                Some(Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// What comes of sending JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, url: Url, body: String) -> anyhow::Result<T> {
        self.json(self.request(Method::POST, url).header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// What a request is answered.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let answer = self.asked(request).await?.bytes().await.context("the answer was cut off")?;
        serde_json::from_slice(&answer).context("the service answers something else than this program knows")
    }
}
