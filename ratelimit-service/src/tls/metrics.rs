//! What is counted about TLS.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type OneLabel = [(&'static str, &'static str); 1];
type TwoLabels = [(&'static str, &'static str); 2];

/// Handles to the metrics of all listeners; clones count together.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    not_after_s: Family<OneLabel, Gauge>,
    valid: Family<OneLabel, Gauge>,
    renewals: Family<TwoLabels, Counter>,
    handshakes_failed: Family<TwoLabels, Counter>,
    handshakes_full: Family<OneLabel, Counter>,
}

/// One listener's.
#[derive(Clone, Debug)]
pub struct OfListener {
    /// When the certificate that is served ends, in seconds since the Unix epoch.
    pub(super) not_after_s: Gauge,
    /// 1 while the files are what is served, 0 while they are refused.
    pub(super) valid: Gauge,
    /// Renewals that were taken over.
    pub(super) renewed: Counter,
    /// Renewals that were refused.
    pub(super) refused: Counter,
    /// Handshakes that one side broke off.
    pub(super) failed: Counter,
    /// Handshakes that took too long.
    pub(super) timed_out: Counter,
    /// Times that there was no room for another handshake, and whoever came then had to wait.
    pub(super) full: Counter,
}

impl TlsMetrics {
    /// New metrics, shown by `registry`.
    pub fn new(registry: &mut Registry) -> TlsMetrics {
        let metrics = TlsMetrics {
            not_after_s: Family::default(),
            valid: Family::default(),
            renewals: Family::default(),
            handshakes_failed: Family::default(),
            handshakes_full: Family::default(),
        };
        let help = "When the certificate that a listener serves ends, in seconds since the Unix epoch";
        registry.register("tls_not_after_timestamp_seconds", help, metrics.not_after_s.clone());
        let help = "Whether a listener serves what its files hold";
        registry.register("tls_valid", help, metrics.valid.clone());
        registry.register(
            "tls_renewals",
            "Changes of a listener's files, by what came of them",
            metrics.renewals.clone(),
        );
        registry.register(
            "tls_handshakes_failed",
            "Handshakes that did not succeed",
            metrics.handshakes_failed.clone(),
        );
        let help = "Times that so many handshakes were under way that whoever came next had to wait";
        registry.register("tls_handshakes_full", help, metrics.handshakes_full.clone());
        metrics
    }

    /// Those of the listener of this name.
    pub fn of(&self, listener: &'static str) -> OfListener {
        let renewals = |result| self.renewals.get_or_create_owned(&[("listener", listener), ("result", result)]);
        let failed = |reason| self.handshakes_failed.get_or_create_owned(&[("listener", listener), ("reason", reason)]);
        let gauge = |family: &Family<OneLabel, Gauge>| family.get_or_create_owned(&[("listener", listener)]);
        let of_listener = OfListener {
            not_after_s: gauge(&self.not_after_s),
            valid: gauge(&self.valid),
            renewed: renewals("applied"),
            refused: renewals("refused"),
            failed: failed("refused"),
            timed_out: failed("timeout"),
            full: self.handshakes_full.get_or_create_owned(&[("listener", listener)]),
        };
        of_listener.valid.set(1);
        of_listener
    }
}
