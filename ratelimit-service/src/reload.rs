//! The configuration while the service runs: what its file says is taken over as a whole, or not at all.
//!
//! - A change is taken over when it was read twice alike, and at SIGHUP at once: see [`Watch`].
//! - What is refused changes nothing, and is told by the log, by metrics and under `/health` until the file is right again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::de::IgnoredAny;
use tokio::signal::unix::Signal;

use crate::clock;
use crate::config::{self, Config, ConfigError};
use crate::metrics::Metrics;
use crate::policies::Policies;
use crate::watch::{Found, Watch};

/// How often the file is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What is known of the configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// When it was taken over, in milliseconds since the Unix epoch.
    pub loaded_at_ms: u64,
    /// Why the file as it is now was not; `None` when it was.
    pub error: Option<String>,
    /// Keys that the file gives other values than the service runs with: they need a restart.
    pub restart_needed: Vec<&'static str>,
}

/// The [`State`], for those who tell it.
#[derive(Debug)]
pub struct Status(ArcSwap<State>);

impl Status {
    /// Of a configuration that was just loaded.
    pub fn new() -> Status {
        let state = State { loaded_at_ms: clock::now_ms(), error: None, restart_needed: Vec::new() };
        Status(ArcSwap::from_pointee(state))
    }

    /// As it is now.
    pub fn get(&self) -> Arc<State> {
        self.0.load_full()
    }
}

impl Default for Status {
    fn default() -> Status {
        Status::new()
    }
}

type Contents = Result<String, ConfigError>;

/// Brings what changes in the file to the limiter.
pub struct Reloader {
    file: PathBuf,
    /// What the service was started with.
    started_with: Config,
    policies: Arc<Policies>,
    metrics: Metrics,
    status: Arc<Status>,
}

impl Reloader {
    /// For `file`, from which the service was `started_with`.
    pub fn new(
        file: PathBuf,
        started_with: Config,
        policies: Arc<Policies>,
        metrics: Metrics,
        status: Arc<Status>,
    ) -> Reloader {
        Reloader { file, started_with, policies, metrics, status }
    }

    /// Watches the file, which had this `text`, until it is dropped. `hangups` are the signals that ask for its contents at once.
    pub async fn run(self, text: String, hangups: Signal) {
        let file = self.file.clone();
        Watch::new(Ok(text)).run(POLL_INTERVAL, hangups, move || read(&file), |found| self.hear(found)).await;
    }

    fn hear(&self, found: Found<'_, Contents>) {
        match found {
            Found::Same(_) if self.status.get().error.is_none() => {
                self.metrics.config_unchanged.inc();
                tracing::info!(file = %self.file.display(), "the configuration is unchanged");
            }
            Found::New(contents) | Found::Same(contents) => self.take_over(contents),
        }
    }

    /// An empty file would be all defaults. It is rather one whose writer failed, and plans would be lost by it.
    fn parse(&self, text: &str, name: &str) -> Result<Config, ConfigError> {
        if let Ok(None) = serde_saphyr::from_str::<Option<IgnoredAny>>(text) {
            return Err(ConfigError::new(&self.file, "is empty; write {} where every field is to have its default"));
        }
        Config::parse(text, name)
    }

    fn take_over(&self, contents: &Contents) {
        let name = self.file.display().to_string();
        let config = contents.as_ref().map_err(Clone::clone).and_then(|text| self.parse(text, &name));
        let before = self.status.get();
        let (state, result) = match config {
            Ok(config) => {
                let restart_needed = self.started_with.restart_needed(&config);
                for warning in &config.warnings {
                    tracing::warn!("{warning}");
                }
                if !restart_needed.is_empty() {
                    tracing::warn!(keys = restart_needed.join(", "), "these keys hold from the next start on");
                }
                self.policies.configure(config.policy);
                tracing::info!(file = %name, "the configuration was taken over");
                let state = State { loaded_at_ms: clock::now_ms(), error: None, restart_needed };
                (state, &self.metrics.config_applied)
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was refused; the one before stays in force");
                (State { error: Some(error.to_string()), ..State::clone(&before) }, &self.metrics.config_refused)
            }
        };
        self.metrics.config_valid.set(i64::from(state.error.is_none()));
        self.status.0.store(Arc::new(state));
        // Last: whoever sees it counted finds all else as it is now.
        result.inc();
    }
}

/// Answers the signals of an operator whose service has no file to be read again, until it is dropped.
pub async fn run_without_file(mut hangups: Signal, metrics: Metrics) {
    while hangups.recv().await.is_some() {
        tracing::warn!("SIGHUP changes nothing: the configuration came from no file that can be read again");
        metrics.config_unchanged.inc();
    }
}

/// Whether a file can be watched: a pipe gives its contents once.
pub fn is_watchable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn read(file: &Path) -> Contents {
    // What is missing is told by reading it.
    if file.exists() && !is_watchable(file) {
        return Err(ConfigError::new(file, "is no regular file any more"));
    }
    config::read(file)
}
