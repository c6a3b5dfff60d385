//! What one listener serves, and its renewal.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;

use super::files::{Files, Identity};
use super::metrics::OfListener;
use super::{POLL_INTERVAL, Protocol, TlsError, TlsSettings};
use crate::clock;

type Contents = Result<Files, TlsError>;

/// What is served now; clones are the same.
#[derive(Clone)]
pub struct Certificates {
    /// The configuration's key for it, such as `grpc.tls`.
    key: &'static str,
    settings: TlsSettings,
    protocol: Protocol,
    metrics: OfListener,
    served: Arc<ArcSwap<ServerConfig>>,
}

/// What was read of the files.
pub struct Watch {
    certificates: Certificates,
    /// What was taken over or refused last.
    settled: Contents,
    /// What was read last, when that is something else.
    unsettled: Option<Contents>,
}

/// Why the files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Poll,
    Signal,
}

impl Certificates {
    /// Reads the files, which `key` of the configuration names. The second is for [`Watch::run`].
    ///
    /// # Errors
    /// When they can't be served; the error names the key.
    pub fn open(
        key: &'static str,
        settings: TlsSettings,
        protocol: Protocol,
        metrics: OfListener,
    ) -> anyhow::Result<(Certificates, Watch)> {
        let refuse = |error: TlsError| anyhow::anyhow!("{key}.{error}");
        let files = Files::read(&settings).map_err(refuse)?;
        let identity = files.identity(protocol).map_err(refuse)?;
        let served = Arc::new(ArcSwap::new(identity.config.clone()));
        let certificates = Certificates { key, settings, protocol, metrics, served };
        certificates.tell(&identity);
        let watch = Watch { certificates: certificates.clone(), settled: Ok(files), unsettled: None };
        Ok((certificates, watch))
    }

    /// What a connection that begins now is served.
    pub(super) fn now(&self) -> Arc<ServerConfig> {
        self.served.load_full()
    }

    /// Where this listener's handshakes are counted.
    pub(super) fn metrics(&self) -> &OfListener {
        &self.metrics
    }

    fn tell(&self, identity: &Identity) {
        self.metrics.not_after_s.set(identity.not_after_s);
        if u64::try_from(identity.not_after_s).unwrap_or(0) < clock::now_ms() / 1000 {
            tracing::warn!(file = %self.settings.certificate.display(), "{}.certificate has expired", self.key);
        }
    }
}

impl Watch {
    /// Takes over what the files say, until it is dropped. `hangups` are the signals that ask for it at once.
    pub async fn run(mut self, mut hangups: Signal) {
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let cause = tokio::select! {
                _ = poll.tick() => Cause::Poll,
                _ = hangups.recv() => Cause::Signal,
            };
            let settings = self.certificates.settings.clone();
            let Ok(contents) = tokio::task::spawn_blocking(move || Files::read(&settings)).await else { return };
            self.look(cause, contents);
        }
    }

    /// A poll has to find the same twice: what is being written is no certificate yet.
    fn look(&mut self, cause: Cause, contents: Contents) {
        let before = self.unsettled.take();
        if contents == self.settled {
            return;
        }
        match cause {
            Cause::Poll if before.as_ref() != Some(&contents) => self.unsettled = Some(contents),
            Cause::Poll | Cause::Signal => self.take_over(contents),
        }
    }

    fn take_over(&mut self, contents: Contents) {
        let Certificates { key, protocol, metrics, served, .. } = &self.certificates;
        let identity = contents.as_ref().map_err(Clone::clone).and_then(|files| files.identity(*protocol));
        match identity {
            Ok(identity) => {
                served.store(identity.config.clone());
                self.certificates.tell(&identity);
                tracing::info!(not_after_s = identity.not_after_s, "{key}: new certificates are served");
                metrics.valid.set(1);
                metrics.renewed.inc();
            }
            Err(error) => {
                tracing::error!("{key}.{error}; what was served before still is");
                metrics.valid.set(0);
                metrics.refused.inc();
            }
        }
        self.settled = contents;
    }
}
