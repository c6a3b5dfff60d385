//! The configuration: what a file may say, and what the service runs on.
//!
//! Every field has a default. An unknown key, or a value of the wrong kind, is refused with the place in the file and the
//! path of the field.

mod counters;
mod raw;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::{MessageFormatter, UserMessageFormatter};
use tracing_subscriber::filter::Targets;

use crate::limiter::Policy;

pub use counters::{Engine, FailurePolicy, RedisConfig};

/// The largest configuration file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration that holds together.
#[derive(Debug)]
pub struct Config {
    /// Where the rate limit service and the collector listen.
    pub grpc_listen: SocketAddr,
    /// Where REST and metrics are served.
    pub rest_listen: SocketAddr,
    /// The RLS domain that is ours.
    pub domain: String,
    /// What tenants are held to.
    pub policy: Policy,
    /// Where what they spend is counted.
    pub counters: Engine,
    /// The ledger's database file.
    pub sqlite: PathBuf,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: Targets,
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

impl Config {
    /// Reads `file`, or takes the defaults when there is none.
    ///
    /// # Errors
    /// When the file cannot be read, is longer than [`MAX_FILE_BYTES`], or [`Config::parse`] refuses it.
    pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
        let Some(file) = file else { return Config::parse("", "defaults") };
        let name = file.display().to_string();
        let refuse = |what: String| ConfigError(format!("{name}: {what}"));
        let bytes = std::fs::metadata(file).map_err(|error| refuse(format!("cannot be read: {error}")))?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(refuse(format!("is {bytes} bytes long, and {MAX_FILE_BYTES} are the most that is read")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        Config::parse(&text, &name)
    }

    /// Reads the YAML `text`; `name` is what errors call it.
    ///
    /// # Errors
    /// When it is no YAML, has an unknown key or a value of the wrong kind, or contradicts itself.
    pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
        let mut path = String::new();
        let raw: Result<raw::Config, _> = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        });
        raw.map_err(|error| refused(name, &path, &error))?.validated(name)
    }
}

fn refused(name: &str, path: &str, error: &serde_saphyr::Error) -> ConfigError {
    let place = match error.location() {
        Some(at) => format!("{name}:{}:{}", at.line(), at.column()),
        None => name.to_owned(),
    };
    let what = UserMessageFormatter.format_message(error.without_snippet());
    // A path ends so where there is no name: for the whole file, or on a line that cannot be read.
    match path.trim_end_matches(['.', '?']) {
        "" => ConfigError(format!("{place}: {what}")),
        path => ConfigError(format!("{place}: {path}: {what}")),
    }
}
