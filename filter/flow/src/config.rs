//! The plugin's configuration: JSON, every key optional, unknown keys refused.

use std::fmt;

use serde::Deserialize;

use crate::identity::Source;

mod check;

/// What the filter does, as its operator wants it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path prefixes: a `POST` to a path that begins with one of them is metered. `/`, the default, meters all.
    pub metered_paths: Vec<String>,
    /// What becomes of a metered request whose endpoint no format claims.
    pub unclaimed_endpoints: UnclaimedEndpoints,
    /// Who pays.
    pub identity: Identity,
    /// Reading the request's body.
    pub request_body: RequestBody,
    /// Who answers, as OpenTelemetry's `gen_ai.provider.name`; `null` takes the request's path and authority for it.
    pub provider: Option<String>,
    /// Streams of formats that report usage only when the request asks for it.
    pub stream_usage: StreamUsage,
    /// The `accept-encoding` that the upstream sees.
    pub accept_encoding: AcceptEncoding,
    /// Asking the limiter.
    pub admission: Admission,
    /// Telling the collector.
    pub usage: Usage,
}

/// What becomes of a metered request whose endpoint no format claims. All are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnclaimedEndpoints {
    /// It is admitted and recorded as others; without usage in the answer it counts no tokens.
    Pass,
    /// It is answered with 403.
    Deny,
    /// As `pass`, but without usage in the answer the tokens are estimated.
    Estimate,
}

/// Where a call's tenant, tier and key stand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Where the tenant may stand: the first source that exists wins.
    pub tenant: Vec<Source>,
    /// Where the tier may stand: the first source that exists wins.
    pub tier: Vec<Source>,
    /// Where the name of the key, application or user that calls may stand: the first source that exists wins. Events carry it,
    /// so it must be a name and never the key itself.
    pub key: Vec<Source>,
    /// The tenant of calls without one; `null` answers them with 401.
    pub default_tenant: Option<String>,
    /// The tier of calls without one; `null` leaves it to the limiter's default.
    pub default_tier: Option<String>,
    /// Request headers that never reach the upstream, read by the sources before they are taken off.
    pub remove_headers: Vec<String>,
}

/// How a request's body is read before the call is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestBody {
    /// Whether calls wait for their body.
    pub read: ReadBody,
    /// The most bytes of a body that are held; a longer one is decided on by what is known. The route's
    /// `request_body_buffer_limit` has to be greater by one read of a socket, Envoy's `per_connection_buffer_limit_bytes`.
    pub max_bytes: usize,
}

/// Whether calls wait for their body before they are decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadBody {
    /// Once a body has come while its headers were held: proof that Envoy is configured so. Only if its length is
    /// announced, for nothing proves that Envoy's buffer has room for one that is not.
    Auto,
    /// Always. Needs `allow_on_headers_stop_iteration: true` in the plugin's Envoy config: without it calls never go on.
    Always,
    /// Never: calls are decided on by their headers alone.
    Never,
}

/// What is done about streams that would not report usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamUsage {
    /// `stream_options.include_usage` is added, and what that adds to the answer is taken out again.
    Ask,
    /// Requests stay as they are; what is not reported is estimated.
    Leave,
}

/// What becomes of the request's `accept-encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceptEncoding {
    /// Only what can be read is left.
    Narrow,
    /// It is taken off.
    Remove,
    /// It stays.
    Leave,
}

/// How the limiter is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// Whether it is asked at all; without, calls are only metered.
    pub enabled: bool,
    /// The Envoy cluster of the rate limit service.
    pub cluster: String,
    /// The domain that is asked about.
    pub domain: String,
    /// How long a call waits for the answer.
    pub timeout_ms: u64,
    /// What happens to a call when there is no answer in time, or an error.
    pub on_failure: FailurePolicy,
    /// Whether calls may go on by leases, without asking.
    pub leases: LeaseMode,
    /// How the rate limit service learns what calls used.
    pub settle: Settle,
    /// How clients are told where their limits stand: in all these dialects at once.
    pub limit_headers: Vec<LimitHeaders>,
}

impl Admission {
    /// How long the answer to a question for a lease may take. No call waits for it, and what was lent in an answer that nobody
    /// heard is billed when it runs out: so it has a second at least.
    pub fn lease_timeout_ms(&self) -> u64 {
        self.timeout_ms.max(1000)
    }
}

/// A dialect of headers that tell where limits stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitHeaders {
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset` (Unix seconds) for the limit nearest to its end.
    XRatelimit,
    /// OpenAI's `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, resets as durations.
    Openai,
    /// The IETF's `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
    Ietf,
}

/// How the rate limit service learns what calls used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Settle {
    /// It reads their usage events, as ours does.
    Events,
    /// By a second question for each kind of calls, which takes their tokens: for other servers. The first one then asks only
    /// whether there are any left.
    Rls,
}

/// When leases are asked for. A server that knows none gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseMode {
    /// Never: the limiter is asked about each call.
    Off,
    /// For all that is called.
    On,
    /// For what is called ten times in a second, or more often.
    Auto,
}

/// What becomes of a call that nobody could decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailurePolicy {
    /// It goes on, unlimited but metered.
    Allow,
    /// It is answered with 503.
    Deny,
}

/// How usage events are sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// The Envoy cluster of the collector.
    pub cluster: String,
    /// How long one batch may take.
    pub timeout_ms: u64,
    /// A batch is sent once it holds so many events …
    pub batch_events: usize,
    /// … or its first event has waited so long.
    pub flush_interval_ms: u64,
    /// The most events that wait in one worker; what comes then is dropped and counted.
    pub max_queued_events: usize,
    /// The pause after a first failed try; it doubles with each further one …
    pub retry_initial_ms: u64,
    /// … up to this.
    pub retry_max_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            metered_paths: vec!["/".to_owned()],
            unclaimed_endpoints: UnclaimedEndpoints::Pass,
            identity: Identity::default(),
            request_body: RequestBody::default(),
            provider: None,
            stream_usage: StreamUsage::Ask,
            accept_encoding: AcceptEncoding::Narrow,
            admission: Admission::default(),
            usage: Usage::default(),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            tenant: vec![Source::of_header("x-tenant-id")],
            tier: vec![Source::of_header("x-plan-tier")],
            key: Vec::new(),
            default_tenant: None,
            default_tier: None,
            remove_headers: Vec::new(),
        }
    }
}

impl Default for RequestBody {
    fn default() -> Self {
        RequestBody { read: ReadBody::Auto, max_bytes: 512 * 1024 }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Admission {
            enabled: true,
            cluster: "tollgate".to_owned(),
            domain: "tollgate".to_owned(),
            timeout_ms: 100,
            on_failure: FailurePolicy::Allow,
            leases: LeaseMode::Auto,
            settle: Settle::Events,
            limit_headers: vec![LimitHeaders::XRatelimit, LimitHeaders::Openai, LimitHeaders::Ietf],
        }
    }
}

impl Default for Usage {
    fn default() -> Self {
        Usage {
            cluster: "tollgate".to_owned(),
            timeout_ms: 5000,
            batch_events: 500,
            flush_interval_ms: 1000,
            max_queued_events: 10_000,
            retry_initial_ms: 500,
            retry_max_ms: 30_000,
        }
    }
}

/// A configuration that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: `admission.timeout_ms`. Empty for the document as a whole.
    pub path: String,
    /// What is wrong there, and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" | "." => write!(f, "plugin config: {}", self.problem),
            path => write!(f, "plugin config: {path}: {}", self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a configuration. No bytes at all are the defaults.
    ///
    /// # Errors
    /// For what is no JSON, an unknown key, a wrong type or a value out of its range, with its path.
    pub fn parse(json: &[u8]) -> Result<Config, ConfigError> {
        if json.is_empty() {
            return Ok(Config::default());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let config: Config = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| check::refuse(&error.path().to_string(), error.inner()))?;
        deserializer.end().map_err(|error| check::refuse("", error))?;
        config.check()?;
        Ok(config)
    }

    /// Whether a request is one that costs something.
    pub(crate) fn meters(&self, method: &[u8], path: &[u8]) -> bool {
        method == b"POST" && self.metered_paths.iter().any(|prefix| path.starts_with(prefix.as_bytes()))
    }
}
