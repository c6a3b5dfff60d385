//! The configuration: what a file may say, and what the service runs on.
//!
//! Every field has a default. An unknown key, or a value of the wrong kind, is refused with the place in the file and the
//! path of the field.

mod accounts;
mod alerts;
mod billing;
mod by_class;
mod clickhouse;
mod collector;
mod counters;
pub(crate) mod documents;
mod limits;
mod prices;
mod raw;
mod scalar;
mod secrets;
mod sinks;
mod tls;
mod warnings;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::{Location, MessageFormatter, UserMessageFormatter};
use tollgate_domain::Limit;
use tracing_subscriber::filter::Targets;

use crate::accounts::AccountsSettings;
use crate::billing::BillingSettings;
use crate::collector::IntakeSettings;
use crate::ledger::ClickHouseSettings;
use crate::limiter::Policy;
use crate::rest::OpenTo;
use crate::rest::Rate;
use crate::sinks::SinkSettings;
use crate::spool::SpoolSettings;
use crate::tls::TlsSettings;
use crate::usage_metrics::LabelCaps;
use crate::webhooks::EndpointSettings;

pub use alerts::{MAX_ENDPOINTS, MAX_THRESHOLDS};
pub use billing::{MAX_LINE_BYTES, MAX_NOTE_BYTES, MAX_SELLER_LINES};
pub use counters::{Engine, FailurePolicy, RedisConfig};
use limits::Limits;
pub use prices::{MAX_LONG_CONTEXT_TOKENS, MAX_PRICES, MAX_SOURCE_BYTES, price_from_json};
pub use scalar::{MAX_PATTERN_BYTES, MAX_PRICE_USD};
pub use sinks::MAX_SINKS;

/// The largest configuration file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration that holds together.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the rate limit service and the collector listen.
    pub grpc_listen: SocketAddr,
    /// What is served there over TLS; `None`: whoever connects speaks in the clear.
    pub grpc_tls: Option<TlsSettings>,
    /// Where REST and metrics are served.
    pub rest_listen: SocketAddr,
    /// What is served there over TLS, likewise.
    pub rest_tls: Option<TlsSettings>,
    /// Who needs no key there.
    pub rest_open_to: OpenTo,
    /// How often one client may ask the REST API.
    pub rest_rate: Rate,
    /// The RLS domain that is ours.
    pub domain: String,
    /// What tenants are held to.
    pub policy: Policy,
    /// Where what they spend is counted.
    pub counters: Engine,
    /// The ledger's database file.
    pub sqlite: PathBuf,
    /// Where entries are kept instead of that file, which then has audit log and alerts alone.
    pub clickhouse: Option<ClickHouseSettings>,
    /// Where tenants, plans, keys and invoices are.
    pub accounts: AccountsSettings,
    /// How invoices are made.
    pub billing: BillingSettings,
    /// Where entries go beside the ledger, by name.
    pub sinks: BTreeMap<String, SinkSettings>,
    /// Who is told of what happens.
    pub webhooks: Vec<EndpointSettings>,
    /// At which shares of a monthly limit an alert is given: percent, rising, each once.
    pub alert_thresholds: Vec<u16>,
    /// Where what was acknowledged waits for the ledger.
    pub spool: SpoolSettings,
    /// How what comes in is read.
    pub intake: IntakeSettings,
    /// The most labels of metrics.
    pub label_caps: LabelCaps,
    /// How often the books are compared.
    pub reconcile_every: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: Targets,
    /// What is allowed and hardly meant, each `path: what`.
    pub warnings: Vec<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is wrong with a configuration, in one line: `file:line:column: path: what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Of a whole file.
    pub(crate) fn new(file: &Path, what: &str) -> ConfigError {
        ConfigError::at(&file.display().to_string(), Location::UNKNOWN, "", what)
    }

    fn at(file: &str, at: Location, path: &str, what: &str) -> ConfigError {
        let place = match at {
            Location::UNKNOWN => file.to_owned(),
            at => format!("{file}:{}:{}", at.line(), at.column()),
        };
        // A path ends so where there is no name: for the whole file, or on a line that cannot be read.
        match path.trim_end_matches(['.', '?']) {
            "" => ConfigError(format!("{place}: {what}")),
            path => ConfigError(format!("{place}: {path}: {what}")),
        }
    }
}

/// The text of `file`.
///
/// # Errors
/// When it cannot be read, is no UTF-8, or is longer than [`MAX_FILE_BYTES`].
pub fn read(file: &Path) -> Result<String, ConfigError> {
    let refuse = |what: String| ConfigError::new(file, &what);
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| refuse(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(refuse(format!("is longer than {MAX_FILE_BYTES} bytes, the most that is read")));
    }
    String::from_utf8(bytes).map_err(|error| refuse(format!("is no UTF-8 text: {error}")))
}

impl Config {
    /// Reads the YAML `text`; `name` is what errors call it.
    ///
    /// # Errors
    /// When it is no YAML, has an unknown key or a value of the wrong kind, or contradicts itself.
    pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
        let raw: raw::Config = from_yaml(text).map_err(|(path, error)| refused(name, &path, &error))?;
        raw.validated(name)
    }

    /// The keys by which `next` differs, and that hold from the start of the service to its end.
    pub fn restart_needed(&self, next: &Config) -> Vec<&'static str> {
        let fixed = [
            ("grpc.listen", self.grpc_listen == next.grpc_listen),
            ("grpc.tls", self.grpc_tls == next.grpc_tls),
            ("rest.listen", self.rest_listen == next.rest_listen),
            ("rest.tls", self.rest_tls == next.rest_tls),
            ("rest.open_to", self.rest_open_to == next.rest_open_to),
            ("rest.requests_per_second", self.rest_rate.per_second == next.rest_rate.per_second),
            ("rest.burst", self.rest_rate.burst == next.rest_rate.burst),
            ("limiter.domain", self.domain == next.domain),
            ("counters", self.counters == next.counters),
            ("ledger.sqlite", self.sqlite == next.sqlite),
            ("ledger.clickhouse", self.clickhouse == next.clickhouse),
            ("accounts", self.accounts == next.accounts),
            ("billing", self.billing == next.billing),
            ("sinks", self.sinks == next.sinks),
            ("webhooks", self.webhooks == next.webhooks),
            ("alerts", self.alert_thresholds == next.alert_thresholds),
            ("spool", self.spool == next.spool),
            ("collector", self.intake == next.intake),
            ("metrics", self.label_caps == next.label_caps),
            ("reconcile", self.reconcile_every == next.reconcile_every),
            ("log.format", self.log_format == next.log_format),
            ("log.filter", self.log_filter == next.log_filter),
        ];
        fixed.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect()
    }
}

/// Limits that are written as a JSON document, as a configuration has them under `limits`.
///
/// # Errors
/// What is wrong, after the path of the field: `[1].window: …`.
pub fn limits(json: &str) -> Result<Vec<Limit>, String> {
    let limits = from_yaml(json).map_err(|(path, error)| match told(&path, &error) {
        (path, what) if path.is_empty() => what,
        (path, what) => format!("{path}: {what}"),
    });
    limits.map(|Limits(limits)| limits)
}

/// An error with the path of its field.
fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, (String, Box<serde_saphyr::Error>)> {
    let mut path = String::new();
    let read = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    });
    read.map_err(|error| (path, Box::new(error)))
}

/// What the message of an error begins with that names a field of the value: `.field: what`.
const FIELD: char = '.';

fn refused(file: &str, path: &str, error: &serde_saphyr::Error) -> ConfigError {
    let at = error.location().unwrap_or(Location::UNKNOWN);
    let (path, what) = told(path, error);
    ConfigError::at(file, at, &path, &what)
}

/// The path of the field that an error is about, and what is wrong with it.
fn told(path: &str, error: &serde_saphyr::Error) -> (String, String) {
    let what = UserMessageFormatter.format_message(error.without_snippet());
    // `Spanned` puts its own field into the path, and is used for tiers' names alone.
    let path = if path.ends_with("tier.value") { path.trim_end_matches(".value") } else { path };
    // What only fails together with others names its own field.
    match what.strip_prefix(FIELD).and_then(|what| what.split_once(": ")) {
        Some((field, what)) => (format!("{path}.{field}"), what.to_owned()),
        None => (path.to_owned(), what.into_owned()),
    }
}
