//! Where counters are kept, as it is written.

use std::fs;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::counters::{ClientCertificate, RedisSettings, Target, Tls};

/// The longest that a decision may wait for Redis, in milliseconds.
const MAX_TIMEOUT_MS: u64 = 60_000;

/// The most connections to Redis.
const MAX_CONNECTIONS: u64 = 256;

/// Where counters are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Counters")]
pub enum Engine {
    /// In this process's memory: for one replica.
    #[default]
    Memory,
    /// In Redis: for several.
    Redis(Box<RedisConfig>),
}

/// How Redis is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where it is, and how it is called.
    pub settings: RedisSettings,
    /// What is decided while it does not answer.
    pub on_failure: FailurePolicy,
    /// How many replicas there are, at least 1: of every limit, each decides about so much of it by itself.
    pub replicas: u64,
}

/// What is decided while Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// Calls are admitted.
    #[default]
    Allow,
    /// Calls are denied.
    Deny,
    /// Each replica keeps to its share of every limit.
    Local,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Memory,
    Redis,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Counters {
    engine: Kind,
    redis: Option<Redis>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Redis {
    url: Option<Url>,
    url_file: Option<UrlFile>,
    ca_file: Option<Bytes>,
    cert_file: Option<Bytes>,
    key_file: Option<Bytes>,
    timeout_ms: AtMost<MAX_TIMEOUT_MS>,
    connections: AtMost<MAX_CONNECTIONS>,
    on_failure: FailurePolicy,
    replicas: NonZeroU64,
    key_prefix: KeyPrefix,
}

impl Default for Redis {
    fn default() -> Redis {
        Redis {
            url: None,
            url_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            timeout_ms: AtMost(50),
            connections: AtMost(4),
            on_failure: FailurePolicy::default(),
            replicas: NonZeroU64::MIN,
            key_prefix: KeyPrefix("tollgate".to_owned()),
        }
    }
}

const UNUSED: &str =
    "redis: would not be used, and each replica would count alone: set engine to redis, or leave this out";

impl TryFrom<Counters> for Engine {
    type Error = String;

    fn try_from(Counters { engine, redis }: Counters) -> Result<Engine, String> {
        let redis = match (engine, redis) {
            (Kind::Memory, None) => return Ok(Engine::Memory),
            (Kind::Memory, Some(_)) => return Err(UNUSED.to_owned()),
            (Kind::Redis, redis) => redis.unwrap_or_default(),
        };
        let url = match (redis.url, redis.url_file) {
            (Some(Url(url)), None) | (None, Some(UrlFile(Url(url)))) => url,
            (None, None) => return Err("redis.url: is missing; give it, or redis.url_file".to_owned()),
            (Some(_), Some(_)) => return Err("redis.url: leave out either this or redis.url_file".to_owned()),
        };
        let client = match (redis.cert_file, redis.key_file) {
            (None, None) => None,
            (Some(Bytes(certificate)), Some(Bytes(key))) => Some(ClientCertificate { certificate, key }),
            (Some(_), None) => return Err("redis.key_file: is missing; a certificate needs its key".to_owned()),
            (None, Some(_)) => return Err("redis.cert_file: is missing; a key needs its certificate".to_owned()),
        };
        let mut tls = Tls { ca: redis.ca_file.map(|Bytes(pem)| pem), client: None };
        let mut target = Target::new(&url, &tls).map_err(|error| format!("redis.ca_file: {error}"))?;
        if client.is_some() {
            tls.client = client;
            target = Target::new(&url, &tls).map_err(|error| format!("redis.cert_file, redis.key_file: {error}"))?;
        }
        let settings = RedisSettings {
            target,
            timeout: Duration::from_millis(redis.timeout_ms.0),
            connections: usize::try_from(redis.connections.0).unwrap_or(1),
            key_prefix: redis.key_prefix.0,
        };
        let (on_failure, replicas) = (redis.on_failure, redis.replicas.get());
        Ok(Engine::Redis(Box::new(RedisConfig { settings, on_failure, replicas })))
    }
}

/// May hold a password: shows nothing.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Url(String);

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(url: String) -> Result<Url, String> {
        Target::new(&url, &Tls::default()).map_err(|error| error.to_string())?;
        Ok(Url(url))
    }
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Url")
    }
}

/// The first line of a file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "PathBuf")]
struct UrlFile(Url);

impl TryFrom<PathBuf> for UrlFile {
    type Error = String;

    fn try_from(file: PathBuf) -> Result<UrlFile, String> {
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        let url = text.lines().next().unwrap_or_default().trim().to_owned();
        Url::try_from(url).map(UrlFile).map_err(|error| format!("what {} holds {error}", file.display()))
    }
}

/// What a file holds. May be a key: shows nothing.
#[derive(Deserialize)]
#[serde(try_from = "PathBuf")]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bytes")
    }
}

impl TryFrom<PathBuf> for Bytes {
    type Error = String;

    fn try_from(file: PathBuf) -> Result<Bytes, String> {
        fs::read(&file).map(Bytes).map_err(|error| unreadable(&file, &error))
    }
}

pub(super) fn unreadable(file: &std::path::Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", file.display())
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "u64")]
struct AtMost<const MAX: u64>(u64);

impl<const MAX: u64> TryFrom<u64> for AtMost<MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<AtMost<MAX>, String> {
        (1..=MAX).contains(&number).then_some(AtMost(number)).ok_or_else(|| format!("is not from 1 to {MAX}"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct KeyPrefix(String);

impl TryFrom<String> for KeyPrefix {
    type Error = String;

    fn try_from(prefix: String) -> Result<KeyPrefix, String> {
        match prefix.contains(['{', '}']) {
            true => Err("braces have a meaning to Redis; leave them out".to_owned()),
            false => Ok(KeyPrefix(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Engine, FailurePolicy};

    fn parse(counters: &str) -> Result<Engine, String> {
        let text = format!("counters: {counters}");
        Config::parse(&text, "t.yaml").map(|config| config.counters).map_err(|error| error.to_string())
    }

    #[test]
    fn redis_is_as_configured_and_shows_no_password() {
        assert_eq!(parse("{}"), Ok(Engine::Memory));
        let Ok(Engine::Redis(redis)) =
            parse("{ engine: redis, redis: { url: 'redis://:s3cret@a:1', on_failure: local } }")
        else {
            panic!("it is Redis")
        };
        assert_eq!(
            (redis.on_failure, redis.replicas, redis.settings.timeout.as_millis()),
            (FailurePolicy::Local, 1, 50)
        );
        assert!(!format!("{redis:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_without_the_password() {
        for (counters, expected) in [
            ("{ engine: redis }", "counters: redis.url: is missing; give it, or redis.url_file"),
            ("{ redis: { url: 's3cret' } }", "t.yaml:1:27: counters.redis.url: is no URL of Redis"),
            ("{ redis: { timeout_ms: 0 } }", "counters.redis.timeout_ms: is not from 1 to 60000"),
            ("{ redis: { key_prefix: 'a{b}' } }", "counters.redis.key_prefix: braces have a meaning to Redis"),
            ("{ redis: { url_file: /none } }", "counters.redis.url_file: /none cannot be read"),
            ("{ redis: { replicas: 0 } }", "counters.redis.replicas: "),
            ("{ redis: { url: 'redis://a' } }", "counters: redis: would not be used"),
            (
                "{ engine: redis, redis: { url: 'rediss://a', cert_file: /dev/null } }",
                "counters: redis.key_file: is missing",
            ),
            (
                "{ engine: redis, redis: { url: 'rediss://a', key_file: /dev/null } }",
                "counters: redis.cert_file: is missing",
            ),
            (
                "{ engine: redis, redis: { url: 'redis://a', cert_file: /dev/null, key_file: /dev/null } }",
                "counters: redis.cert_file, redis.key_file: certificates are of use with rediss:// only",
            ),
            (
                "{ engine: redis, redis: { url: 'redis://a', ca_file: /dev/null } }",
                "counters: redis.ca_file: certificates are of use with rediss:// only",
            ),
            (
                "{ engine: redis, redis: { url: 'rediss://a', ca_file: /dev/null } }",
                "counters: redis.ca_file: holds no certificate, as PEM",
            ),
            (
                "{ engine: redis, redis: { url: 'rediss://a', cert_file: /dev/null, key_file: /dev/null } }",
                "counters: redis.cert_file, redis.key_file: the first holds no certificate, as PEM",
            ),
        ] {
            let error = parse(counters).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
    }
}
