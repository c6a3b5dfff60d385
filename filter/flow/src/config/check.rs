//! What no type says: ranges, names, and keys that belong together.

use std::fmt;

use tollgate_wire::usage_event::MAX_NAME_BYTES;

use super::{Config, ConfigError, Identity};
use crate::identity::Origin;
use crate::outbox::MAX_BATCH_EVENTS;

/// The longest cluster name: it has to fit a one-byte length on the wire.
const MAX_CLUSTER_BYTES: usize = 100;
/// The longest time for any one thing, an hour.
const MAX_MS: u64 = 3_600_000;
/// The most events that may be configured to wait in one worker: about 10 KiB each at the worst.
const MAX_QUEUED_EVENTS: usize = 100_000;
/// The most of a request's body that may be configured to be held: each call under way may hold as much.
const MAX_BODY_BYTES: usize = 64 << 20;

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (index, prefix) in self.metered_paths.iter().enumerate() {
            if !prefix.starts_with('/') {
                return Err(refuse(&format!("metered_paths[{index}]"), "a path prefix begins with `/`"));
            }
        }
        self.identity.check()?;
        self.provider.as_ref().map_or(Ok(()), |provider| name("provider", provider))?;
        within("request_body.max_bytes", self.request_body.max_bytes, 0, MAX_BODY_BYTES)?;
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
}

impl Identity {
    fn check(&self) -> Result<(), ConfigError> {
        let sources = [("tenant", &self.tenant), ("tier", &self.tier), ("key", &self.key)];
        for (key, sources) in sources {
            for (index, source) in sources.iter().enumerate() {
                if let Origin::Header(header) = &source.origin {
                    header_name(&format!("identity.{key}[{index}].header"), header)?;
                }
            }
        }
        for (index, header) in self.remove_headers.iter().enumerate() {
            header_name(&format!("identity.remove_headers[{index}]"), header)?;
        }
        let defaults =
            [("identity.default_tenant", &self.default_tenant), ("identity.default_tier", &self.default_tier)];
        defaults.into_iter().try_for_each(|(path, value)| value.as_ref().map_or(Ok(()), |value| name(path, value)))
    }
}

pub(super) fn refuse(path: &str, problem: impl fmt::Display) -> ConfigError {
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
            (r#"{"admission":{"timeout":5}}"#, "admission.timeout: unknown field `timeout`"),
            (r#"{"metered":[]}"#, "metered: unknown field `metered`"),
            (r#"{"admission":{"on_failure":"open"}}"#, "admission.on_failure: unknown variant `open`"),
            (r#"{"admission":{"timeout_ms":"5"}}"#, "admission.timeout_ms: invalid type: string"),
            (r#"{"admission":{"timeout_ms":0}}"#, "admission.timeout_ms: 0 is not from 1 to 3600000"),
            (r#"{"metered_paths":["/v1/","v2"]}"#, "metered_paths[1]: a path prefix begins with `/`"),
            (r#"{"unclaimed_endpoints":"ignore"}"#, "unclaimed_endpoints: unknown variant `ignore`"),
            (
                r#"{"identity":{"tenant":[{"header":"X-Tenant"}]}}"#,
                "identity.tenant[0].header: `X-Tenant` is no header name in lower case",
            ),
            (
                r#"{"identity":{"key":[{"header":"X-Key"}]}}"#,
                "identity.key[0].header: `X-Key` is no header name in lower case",
            ),
            (
                r#"{"identity":{"tier":[{"header":"a"},{}]}}"#,
                "identity.tier[1]: exactly one of `header`, `jwt_claim`, `peer_certificate`",
            ),
            (
                r#"{"identity":{"tier":[{"header":"a","jwt_claim":["b"]}]}}"#,
                "identity.tier[0]: exactly one of `header`, `jwt_claim`, `peer_certificate`",
            ),
            (
                r#"{"identity":{"tenant":[{"header":"a","match":"(x"}]}}"#,
                "identity.tenant[0].match: `(x` is no regular expression: ",
            ),
            (r#"{"identity":{"tenant":[{"jwt_claim":[]}]}}"#, "identity.tenant[0]: `jwt_claim` names no claim"),
            (r#"{"identity":{"remove_headers":[""]}}"#, "identity.remove_headers[0]: `` is no header name"),
            (r#"{"identity":{"default_tenant":""}}"#, "identity.default_tenant: a name of 1 to 256"),
            (r#"{"provider":""}"#, "provider: a name of 1 to 256"),
            (r#"{"request_body":{"read":"yes"}}"#, "request_body.read: unknown variant `yes`"),
            (r#"{"request_body":{"max_bytes":67108865}}"#, "request_body.max_bytes: 67108865 is not from 0"),
            (r#"{"usage":{"batch_events":9,"max_queued_events":8}}"#, "usage.batch_events: 9 is not from"),
            (r#"{"usage":{"retry_max_ms":1}}"#, "usage.retry_max_ms: 1 is not from 500"),
            ("{} {}", "trailing characters"),
        ];
        for (json, message) in cases {
            assert!(error(json).starts_with(&format!("plugin config: {message}")), "{json}: {}", error(json));
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
