//! What is counted about webhooks.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Handles to the metrics; clones count together.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    /// Deliveries that were answered with a 2xx.
    pub(super) delivered: Counter,
    /// Attempts that failed.
    pub(super) failed: Counter,
    /// Deliveries whose last attempt failed.
    pub(super) given_up: Counter,
    /// Deliveries that there was no room for.
    pub(super) dropped: Counter,
    /// Deliveries to endpoints that are disabled or no longer configured.
    pub(super) void: Counter,
    /// Deliveries that wait for their next attempt.
    pub(super) waiting: Gauge,
    /// Endpoints that answered 410.
    pub(super) disabled: Gauge,
}

impl WebhookMetrics {
    /// New metrics, shown by `registry`.
    pub fn new(registry: &mut Registry) -> WebhookMetrics {
        let deliveries = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register("webhook_deliveries", "What became of deliveries to webhooks", deliveries.clone());
        let [delivered, failed, given_up, dropped, void] = ["delivered", "failed", "given_up", "dropped", "void"]
            .map(|result| deliveries.get_or_create_owned(&[("result", result)]));
        let (waiting, disabled) = (Gauge::default(), Gauge::default());
        registry.register("webhook_deliveries_waiting", "Deliveries that wait for their next attempt", waiting.clone());
        let help = "Webhooks that answered 410 and are not called any more";
        registry.register("webhook_endpoints_disabled", help, disabled.clone());
        WebhookMetrics { delivered, failed, given_up, dropped, void, waiting, disabled }
    }
}
