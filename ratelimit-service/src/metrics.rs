//! What the service counts, in Prometheus' words. No label names a tenant.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tollgate_domain::Settled;

use crate::collector::Class;

/// Handles to all metrics; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Calls that all limits admitted.
    pub calls_admitted: Counter,
    /// Calls that some limit denied.
    pub calls_denied: Counter,
    /// Calls whose prompt was too long for their plan.
    pub calls_too_long: Counter,
    /// Calls whose tier is not known, where such are denied.
    pub calls_of_unknown_tier: Counter,
    /// Calls of tenants that are suspended.
    pub calls_of_suspended: Counter,
    /// Calls that were not decided, because the counters did not answer.
    pub calls_undecided: Counter,
    /// RLS requests for a domain that is not ours.
    pub calls_of_unknown_domain: Counter,
    /// Calls and questions that named a tier which is not configured.
    pub unknown_tiers: Counter,
    /// Descriptors that limit nothing.
    pub descriptors_ignored: Counter,
    /// Calls under a limit of money for whose model there is no price.
    pub calls_without_price: Counter,
    /// Limits exceeded that only warn.
    pub limits_warned: Counter,
    /// Limits exceeded that only count.
    pub limits_shadowed: Counter,
    /// Settlements of open reservations.
    pub settled: Counter,
    /// Settlements of reservations that had run out.
    pub settled_late: Counter,
    /// Settlements of calls that no reservation was known of.
    pub settled_unreserved: Counter,
    /// Settlements of calls that were settled before.
    pub settled_again: Counter,
    /// Settlements that the counters did not answer to.
    pub settlements_failed: Counter,
    /// Reservations that ran out and were posted, each once.
    pub reservations_expired: Counter,
    /// Reservations that are remembered, settled ones too.
    pub reservations: Gauge,
    /// Calls that took their estimate for good, as there was no room for a reservation.
    pub reservations_refused: Counter,
    /// Calls that were lent to proxies' workers.
    pub calls_lent: Counter,
    /// Calls that workers gave back unused.
    pub calls_returned: Counter,
    /// Usage events that were stored.
    pub events_accepted: Counter,
    /// Usage events that were stored before.
    pub events_duplicate: Counter,
    /// Log records that were no valid usage event.
    pub events_rejected: Counter,
    /// The same, by [`Class`](crate::collector::Class).
    pub records_rejected: [Counter; Class::NAMES.len()],
    /// Rejected records that were written to the file of dead letters.
    pub dead_letters_written: Counter,
    /// Rejected records that were not, as too many waited or the file could not be written.
    pub dead_letters_dropped: Counter,
    /// Exports refused because too many were waiting.
    pub exports_busy: Counter,
    /// Exports that could not be written to the spool.
    pub exports_failed: Counter,
    /// Bytes of the spool's segments.
    pub spool_bytes: Gauge,
    /// What it takes to write what waits to the spool, and sync it.
    pub spool_sync_seconds: Histogram,
    /// Records of the spool that were being written when the service died.
    pub spool_torn: Counter,
    /// Records of the spool that could not be read.
    pub spool_corrupt: Counter,
    spool_pending: Family<[(&'static str, String); 1], Gauge>,
    spool_dropped: Family<[(&'static str, String); 1], Counter>,
    /// 1 while the ledger stores what it is given, 0 while it fails to.
    pub ledger_up: Gauge,
    /// What the ledger needs to store what waits.
    pub ledger_commit_seconds: Histogram,
    /// Inserts into ClickHouse of which it was not known whether they succeeded.
    pub ledger_inserts_in_doubt: Counter,
    /// Figures that were not the same in two places when the books were last compared.
    pub reconcile_differences: Gauge,
    /// Comparisons of the books.
    pub reconciled: Counter,
    /// Configurations that were taken over while the service ran.
    pub config_applied: Counter,
    /// Configurations that were refused.
    pub config_refused: Counter,
    /// Signals that found the configuration in force.
    pub config_unchanged: Counter,
    /// 1 while the file says what is in force, 0 while it is refused.
    pub config_valid: Gauge,
    /// Tenants whose counters are held.
    pub tenants: Gauge,
    /// Tenants forgotten to make room: nothing of theirs was spent.
    pub tenants_evicted: Counter,
    /// Decisions and settlements for tenants that there was no room for.
    pub tenants_untracked: Counter,
}

impl Metrics {
    /// New metrics, and the registry that shows them.
    pub fn new() -> (Metrics, Registry) {
        let mut registry = Registry::with_prefix("tollgate");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let build = Family::<_, Gauge>::default();
        build.get_or_create_owned(&version).set(1);
        registry.register("build_info", "Always 1, for the running version", build);
        let [
            calls_admitted,
            calls_denied,
            calls_too_long,
            calls_of_unknown_tier,
            calls_of_suspended,
            calls_undecided,
            calls_of_unknown_domain,
        ] = by_label(
            &mut registry,
            ("rls_decisions", "Answers of the rate limit service"),
            (
                "outcome",
                [
                    "admitted",
                    "denied",
                    "context_length_exceeded",
                    "unknown_tier",
                    "tenant_suspended",
                    "unavailable",
                    "unknown_domain",
                ],
            ),
        );
        let [limits_warned, limits_shadowed] = by_label(
            &mut registry,
            ("limiter_exceeded", "Limits that were exceeded and did not deny"),
            ("action", ["warn", "shadow"]),
        );
        let [settled, settled_late, settled_unreserved, settled_again, settlements_failed] = by_label(
            &mut registry,
            ("limiter_settlements", "Calls settled to what they used, by what was known of their reservation"),
            ("reservation", ["open", "expired", "unknown", "settled", "unavailable"]),
        );
        let [events_accepted, events_duplicate, events_rejected] = by_label(
            &mut registry,
            ("usage_events", "Usage events received"),
            ("result", ["accepted", "duplicate", "rejected"]),
        );
        let records_rejected = by_label(
            &mut registry,
            ("usage_records_rejected", "Log records that were no valid usage event, by what was wrong"),
            ("reason", Class::NAMES),
        );
        let [dead_letters_written, dead_letters_dropped] = by_label(
            &mut registry,
            ("dead_letters", "Rejected records, by whether the file of dead letters has them"),
            ("result", ["written", "dropped"]),
        );
        let [exports_busy, exports_failed] = by_label(
            &mut registry,
            ("exports_refused", "OTLP exports refused, to be sent again"),
            ("reason", ["full", "failed"]),
        );
        let [spool_torn, spool_corrupt] = by_label(
            &mut registry,
            ("spool_records_unread", "Records of the spool that were passed over"),
            ("reason", ["torn", "corrupt"]),
        );
        let spool_bytes = Gauge::default();
        registry.register("spool_bytes", "Bytes of the spool's segments", spool_bytes.clone());
        let (spool_pending, spool_dropped) = (Family::default(), Family::default());
        registry.register(
            "spool_pending_events",
            "Events that wait in the spool for a consumer",
            Family::clone(&spool_pending),
        );
        registry.register(
            "spool_dropped_events",
            "Events that a consumer did not get, as the spool was full",
            Family::clone(&spool_dropped),
        );
        let spool_sync_seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 14));
        registry.register(
            "spool_sync_seconds",
            "Time to write the waiting exports to the spool and sync it, in seconds",
            spool_sync_seconds.clone(),
        );
        let ledger_up = Gauge::default();
        ledger_up.set(1);
        registry.register("ledger_up", "Whether the ledger stores what it is given", ledger_up.clone());
        let ledger_commit_seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 14));
        registry.register(
            "ledger_commit_seconds",
            "Time to store waiting events, in seconds",
            ledger_commit_seconds.clone(),
        );
        let [config_applied, config_refused, config_unchanged] = by_label(
            &mut registry,
            ("config_reloads", "Configurations looked at while the service runs"),
            ("result", ["applied", "refused", "unchanged"]),
        );
        let reconcile_differences = Gauge::default();
        registry.register(
            "reconcile_differences",
            "Figures that were not the same in two places when the books were last compared",
            reconcile_differences.clone(),
        );
        let reconciled = counter(&mut registry, "reconcile_runs", "Comparisons of the books");
        let config_valid = Gauge::default();
        config_valid.set(1);
        registry.register("config_valid", "Whether the configuration file says what is in force", config_valid.clone());
        let tenants = Gauge::default();
        registry.register("limiter_tenants", "Tenants whose counters are held", tenants.clone());
        let reservations = Gauge::default();
        registry.register(
            "limiter_reservations",
            "Reservations that are remembered, settled ones for a minute",
            reservations.clone(),
        );
        let metrics = Metrics {
            calls_admitted,
            calls_denied,
            calls_too_long,
            calls_of_unknown_tier,
            calls_of_suspended,
            calls_undecided,
            limits_warned,
            limits_shadowed,
            settled,
            settled_late,
            settled_unreserved,
            settled_again,
            settlements_failed,
            descriptors_ignored: counter(
                &mut registry,
                "rls_descriptors_ignored",
                "Descriptors without a tenant, of an unknown unit or with negative hits, which limit nothing",
            ),
            calls_without_price: counter(
                &mut registry,
                "limiter_calls_without_price",
                "Calls under a limit of cost whose model has no price",
            ),
            reservations_expired: counter(
                &mut registry,
                "limiter_reservations_expired",
                "Reservations that no usage event settled in time",
            ),
            reservations,
            reservations_refused: counter(
                &mut registry,
                "limiter_reservations_refused",
                "Calls that took their estimate for good, as there was no room for a reservation",
            ),
            calls_lent: counter(
                &mut registry,
                "limiter_calls_lent",
                "Calls lent to proxies, to be admitted without asking",
            ),
            calls_returned: counter(
                &mut registry,
                "limiter_calls_returned",
                "Lent calls that proxies gave back unused",
            ),
            calls_of_unknown_domain,
            unknown_tiers: counter(&mut registry, "unknown_tiers", "Uses of a tier that is not configured"),
            events_accepted,
            events_duplicate,
            events_rejected,
            records_rejected,
            dead_letters_written,
            dead_letters_dropped,
            exports_busy,
            exports_failed,
            spool_bytes,
            spool_sync_seconds,
            spool_torn,
            spool_corrupt,
            spool_pending,
            spool_dropped,
            ledger_up,
            ledger_commit_seconds,
            ledger_inserts_in_doubt: counter(
                &mut registry,
                "ledger_inserts_in_doubt",
                "Inserts into ClickHouse whose outcome was not known; they are brought to their end",
            ),
            reconcile_differences,
            reconciled,
            config_applied,
            config_refused,
            config_unchanged,
            config_valid,
            tenants,
            tenants_evicted: counter(&mut registry, "limiter_tenants_evicted", "Idle tenants forgotten to make room"),
            tenants_untracked: counter(
                &mut registry,
                "limiter_tenants_untracked",
                "Decisions and settlements for tenants that there was no room for",
            ),
        };
        (metrics, registry)
    }

    /// Events that wait in the spool for a consumer.
    pub(crate) fn spool_pending(&self, consumer: &str) -> Gauge {
        self.spool_pending.get_or_create_owned(&[("consumer", consumer.to_owned())])
    }

    /// Events that a consumer did not get, as the spool was full.
    pub(crate) fn spool_dropped(&self, consumer: &str) -> Counter {
        self.spool_dropped.get_or_create_owned(&[("consumer", consumer.to_owned())])
    }

    /// Counts a settlement by what it met.
    pub(crate) fn count_settled(&self, settled: Settled) {
        match settled {
            Settled::Posted => &self.settled,
            Settled::Corrected => &self.settled_late,
            Settled::Unreserved => &self.settled_unreserved,
            Settled::Repeated => &self.settled_again,
            // It is settled once the ledger has said that it is new.
            Settled::Unknown => return,
        }
        .inc();
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// One counter for each value of a label, so that counting looks nothing up.
fn by_label<const N: usize>(
    registry: &mut Registry,
    (name, help): (&str, &str),
    (label, values): (&'static str, [&'static str; N]),
) -> [Counter; N] {
    let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
    registry.register(name, help, family.clone());
    values.map(|value| family.get_or_create_owned(&[(label, value)]))
}
