//! What is counted about billing.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Handles to the metrics; clones count together.
#[derive(Clone, Debug, Default)]
pub struct BillingMetrics {
    /// Times that the scheduler went through all tenants.
    pub(super) runs: Counter,
    /// Tenants' months that could not be brought up to date.
    pub(super) failures: Counter,
    /// Drafts that were made or changed.
    pub(super) drafted: Counter,
    /// Invoices that became final.
    pub(super) finalised: Counter,
    /// Of the amounts of usage of running months, that part rests on estimates.
    pub(super) estimated_share: Gauge<f64, AtomicU64>,
    /// Calls of running months for which no price is known.
    pub(super) calls_without_price: Gauge,
}

impl BillingMetrics {
    /// New metrics, shown by `registry`.
    pub fn new(registry: &mut Registry) -> BillingMetrics {
        let metrics = BillingMetrics::default();
        let BillingMetrics { runs, failures, drafted, finalised, estimated_share, calls_without_price } =
            metrics.clone();
        registry.register("billing_runs", "Times that all tenants' running months were billed", runs);
        registry.register(
            "billing_failures",
            "Months of tenants that could not be billed; they are tried again",
            failures,
        );
        registry.register("billing_invoices_drafted", "Drafts of invoices that were made or changed", drafted);
        registry.register("billing_invoices_finalised", "Invoices that became final", finalised);
        let help = "Which part of the amounts of running months rests on estimates, when they were billed last";
        registry.register("billing_estimated_share", help, estimated_share);
        let help = "Calls of running months without a known price, when they were billed last";
        registry.register("billing_calls_without_price", help, calls_without_price);
        metrics
    }
}
