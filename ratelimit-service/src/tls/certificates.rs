//! What one listener serves, and its renewal.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::signal::unix::Signal;

use super::files::{Files, Identity};
use super::metrics::OfListener;
use super::{POLL_INTERVAL, Protocol, TlsError, TlsSettings};
use crate::clock;
use crate::watch::{Found, Watch};

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

/// The files of [`Certificates`], which others renew.
pub struct Renewal {
    certificates: Certificates,
    /// What was read of them.
    files: Files,
}

impl Certificates {
    /// Reads the files, which `key` of the configuration names. The second is for [`Renewal::run`].
    ///
    /// # Errors
    /// When they can't be served; the error names the key.
    pub fn open(
        key: &'static str,
        settings: TlsSettings,
        protocol: Protocol,
        metrics: OfListener,
    ) -> anyhow::Result<(Certificates, Renewal)> {
        let refuse = |error: TlsError| anyhow::anyhow!("{key}.{error}");
        let files = Files::read(&settings).map_err(refuse)?;
        let identity = files.identity(protocol).map_err(refuse)?;
        let served = Arc::new(ArcSwap::new(identity.config.clone()));
        let certificates = Certificates { key, settings, protocol, metrics, served };
        certificates.tell(&identity);
        let renewal = Renewal { certificates: certificates.clone(), files };
        Ok((certificates, renewal))
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

    fn take_over(&self, contents: &Contents) {
        let Certificates { key, protocol, metrics, served, .. } = self;
        let identity = contents.as_ref().map_err(Clone::clone).and_then(|files| files.identity(*protocol));
        match identity {
            Ok(identity) => {
                served.store(identity.config.clone());
                self.tell(&identity);
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
    }
}

impl Renewal {
    /// Takes over what the files say, until it is dropped. `hangups` are the signals that ask for it at once.
    pub async fn run(self, hangups: Signal) {
        let Renewal { certificates, files } = self;
        let settings = certificates.settings.clone();
        let tell = |found: Found<'_, Contents>| {
            if let Found::New(contents) = found {
                certificates.take_over(contents);
            }
        };
        Watch::new(Ok(files)).run(POLL_INTERVAL, hangups, move || Files::read(&settings), tell).await;
    }
}
