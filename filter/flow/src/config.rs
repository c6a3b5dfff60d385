//! The plugin's configuration: JSON, every key optional, unknown keys refused.

use std::fmt;

use serde::Deserialize;
use tollgate_wire::usage_event::MAX_NAME_BYTES;

use crate::outbox::MAX_BATCH_EVENTS;

/// The longest cluster name: it has to fit a one-byte length on the wire.
const MAX_CLUSTER_BYTES: usize = 100;
/// The longest time for any one thing, an hour.
const MAX_MS: u64 = 3_600_000;
/// The most events that may be configured to wait in one worker: about 10 KiB each at the worst.
const MAX_QUEUED_EVENTS: usize = 100_000;

/// What the filter does, as its operator wants it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path prefixes: a `POST` to a path that begins with one of them is metered. `/`, the default, meters all.
    pub metered_paths: Vec<String>,
    /// Who pays.
    pub identity: Identity,
    /// Asking the limiter.
    pub admission: Admission,
    /// Telling the collector.
    pub usage: Usage,
}

/// Where a call's tenant and tier stand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// The request header with the tenant.
    pub tenant_header: String,
    /// The request header with the tier.
    pub tier_header: String,
    /// The tenant of calls without one; `null` answers them with 401.
    pub default_tenant: Option<String>,
    /// The tier of calls without one.
    pub default_tier: String,
}

/// How the limiter is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// The Envoy cluster of the rate limit service.
    pub cluster: String,
    /// The domain that is asked about.
    pub domain: String,
    /// How long a call waits for the answer.
    pub timeout_ms: u64,
    /// What happens to a call when there is no answer in time, or an error.
    pub on_failure: FailurePolicy,
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
            identity: Identity::default(),
            admission: Admission::default(),
            usage: Usage::default(),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            tenant_header: "x-tenant-id".to_owned(),
            tier_header: "x-plan-tier".to_owned(),
            default_tenant: None,
            default_tier: "starter".to_owned(),
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Admission {
            cluster: "tollgate".to_owned(),
            domain: "tollgate".to_owned(),
            timeout_ms: 100,
            on_failure: FailurePolicy::Allow,
        }
    }
}

impl Default for Usage {
    fn default() -> Self {
        Usage {
            cluster: "tollgate".to_owned(),
            timeout_ms: 5000,
            batch_events: 100,
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
            .map_err(|error| refuse(&error.path().to_string(), error.inner()))?;
        deserializer.end().map_err(|error| refuse("", error))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (index, prefix) in self.metered_paths.iter().enumerate() {
            if !prefix.starts_with('/') {
                return Err(refuse(&format!("metered_paths[{index}]"), "a path prefix begins with `/`"));
            }
        }
        header_name("identity.tenant_header", &self.identity.tenant_header)?;
        header_name("identity.tier_header", &self.identity.tier_header)?;
        name("identity.default_tier", &self.identity.default_tier)?;
        if let Some(tenant) = &self.identity.default_tenant {
            name("identity.default_tenant", tenant)?;
        }
        cluster("admission.cluster", &self.admission.cluster)?;
        cluster("usage.cluster", &self.usage.cluster)?;
        name("admission.domain", &self.admission.domain)?;
        within("admission.timeout_ms", self.admission.timeout_ms, 1, MAX_MS)?;
        let usage = &self.usage;
        within("usage.timeout_ms", usage.timeout_ms, 1, MAX_MS)?;
        within("usage.flush_interval_ms", usage.flush_interval_ms, 1, MAX_MS)?;
        within("usage.retry_initial_ms", usage.retry_initial_ms, 1, MAX_MS)?;
        within("usage.retry_max_ms", usage.retry_max_ms, usage.retry_initial_ms, MAX_MS)?;
        within("usage.max_queued_events", usage.max_queued_events, 1, MAX_QUEUED_EVENTS)?;
        within("usage.batch_events", usage.batch_events, 1, usage.max_queued_events.min(MAX_BATCH_EVENTS))
    }

    /// Whether a request is one that costs something.
    pub(crate) fn meters(&self, method: &[u8], path: &[u8]) -> bool {
        method == b"POST" && self.metered_paths.iter().any(|prefix| path.starts_with(prefix.as_bytes()))
    }
}

fn refuse(path: &str, problem: impl fmt::Display) -> ConfigError {
    ConfigError { path: path.to_owned(), problem: problem.to_string() }
}

fn within<T: PartialOrd + fmt::Display>(path: &str, value: T, least: T, most: T) -> Result<(), ConfigError> {
    if value < least || value > most {
        return Err(refuse(path, format!("{value} is not from {least} to {most}")));
    }
    Ok(())
}

fn name(path: &str, value: &str) -> Result<(), ConfigError> {
    within_bytes(path, value, MAX_NAME_BYTES)
}

fn cluster(path: &str, value: &str) -> Result<(), ConfigError> {
    within_bytes(path, value, MAX_CLUSTER_BYTES)
}

fn within_bytes(path: &str, value: &str, most: usize) -> Result<(), ConfigError> {
    if value.is_empty() || value.len() > most {
        return Err(refuse(path, format!("a name of 1 to {most} bytes is needed, this has {}", value.len())));
    }
    Ok(())
}

/// A field name of HTTP (RFC 9110, section 5.6.2), in lower case as Envoy holds it.
fn header_name(path: &str, value: &str) -> Result<(), ConfigError> {
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if value.is_empty() || !value.bytes().all(token) {
        return Err(refuse(path, format!("`{value}` is no header name in lower case")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        Config::parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn nothing_and_an_empty_object_are_the_defaults() {
        assert_eq!(Config::parse(b"").unwrap(), Config::default());
        assert_eq!(Config::parse(b"{}").unwrap(), Config::default());
    }

    #[test]
    fn a_refusal_names_the_path() {
        let cases = [
            (r#"{"admission":{"timeout":5}}"#, "plugin config: admission.timeout: unknown field `timeout`"),
            (r#"{"metered":[]}"#, "plugin config: metered: unknown field `metered`"),
            (r#"{"admission":{"on_failure":"open"}}"#, "plugin config: admission.on_failure: unknown variant `open`"),
            (r#"{"admission":{"timeout_ms":"5"}}"#, "plugin config: admission.timeout_ms: invalid type: string"),
            (r#"{"admission":{"timeout_ms":0}}"#, "plugin config: admission.timeout_ms: 0 is not from 1 to 3600000"),
            (r#"{"metered_paths":["/v1/","v2"]}"#, "plugin config: metered_paths[1]: a path prefix begins with `/`"),
            (r#"{"identity":{"tenant_header":"X-Tenant"}}"#, "plugin config: identity.tenant_header: `X-Tenant` is no"),
            (r#"{"identity":{"default_tenant":""}}"#, "plugin config: identity.default_tenant: a name of 1 to 256"),
            (
                r#"{"usage":{"batch_events":9,"max_queued_events":8}}"#,
                "plugin config: usage.batch_events: 9 is not from",
            ),
            (r#"{"usage":{"retry_max_ms":1}}"#, "plugin config: usage.retry_max_ms: 1 is not from 500"),
            ("{} {}", "plugin config: trailing characters"),
        ];
        for (json, message) in cases {
            assert!(error(json).starts_with(message), "{json}: {}", error(json));
        }
    }

    #[test]
    fn only_posts_under_a_metered_path_cost() {
        let config = Config::parse(br#"{"metered_paths":["/v1/","/openai/"]}"#).unwrap();
        assert!(config.meters(b"POST", b"/v1/chat/completions"));
        assert!(config.meters(b"POST", b"/openai/x?y"));
        assert!(!config.meters(b"GET", b"/v1/models"));
        assert!(!config.meters(b"POST", b"/v2/"));
        assert!(Config::default().meters(b"POST", b"/anything"));
    }
}
