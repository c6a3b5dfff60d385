//! What is counted about alerts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Handles to the metrics; clones count together.
#[derive(Clone, Debug)]
pub struct AlertMetrics {
    given: Family<[(&'static str, String); 1], Counter>,
    /// Tenants that were not looked at, for want of room.
    pub(super) passed_over: Counter,
}

impl AlertMetrics {
    /// New metrics, shown by `registry`.
    pub fn new(registry: &mut Registry) -> AlertMetrics {
        let metrics = AlertMetrics { given: Family::default(), passed_over: Counter::default() };
        registry.register(
            "alerts",
            "Alerts given, by threshold in percent of a monthly limit or budget",
            metrics.given.clone(),
        );
        let help = "Times that a tenant's limits were not looked at, as too many were waiting";
        registry.register("alerts_passed_over", help, metrics.passed_over.clone());
        metrics
    }

    /// Of this threshold. There are as many as are configured and budgets have: a thousand at most.
    pub(super) fn given(&self, threshold: u16) -> Counter {
        self.given.get_or_create_owned(&[("threshold", threshold.to_string())])
    }
}
