//! Redis's counters with a policy, as a service has them.

use anyhow::ensure;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tollgate::clock;
use tollgate::counters::{GuardMetrics, Guarded, MAX_TENANTS, MemoryCounters, OnFailure, Tls};
use tollgate::metrics::Metrics;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

use crate::calls::Caller;
use crate::engines::replica;

/// The deadline: long enough for Redis on a busy machine.
const TIMEOUT_MS: u64 = 500;

pub(crate) struct Replica {
    pub(crate) counters: Guarded,
    registry: Registry,
}

impl Replica {
    pub(crate) fn new(url: &str, on_failure: OnFailure) -> Replica {
        Replica::over_tls(url, &Tls::default(), on_failure)
    }

    pub(crate) fn over_tls(url: &str, tls: &Tls, on_failure: OnFailure) -> Replica {
        let mut registry = Registry::with_prefix("tollgate");
        let metrics = GuardMetrics::new(&mut registry);
        Replica { counters: Guarded::new(replica(url, tls, TIMEOUT_MS), on_failure, metrics), registry }
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// How many decisions the policy made.
    pub(crate) fn failures(&self, policy: &str) -> u64 {
        self.metric(&format!("tollgate_counters_failures_total{{policy=\"{policy}\"}}"))
    }

    /// Waits until Redis decides.
    pub(crate) async fn connected(&self, caller: &Caller) {
        eventually("Redis's word", PATIENCE, async || {
            caller.standing(&self.counters).await?;
            ensure!(self.metric("tollgate_counters_up") == 1, "the policy decides");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Waits until the tenant stands so, in Redis.
    pub(crate) async fn stands(&self, caller: &Caller, expected: &[(u64, u64)]) {
        eventually("the tenant's standing", PATIENCE, async || {
            let standing = caller.standing(&self.counters).await?;
            ensure!(self.metric("tollgate_counters_up") == 1, "the policy decides");
            ensure!(standing == expected, "{standing:?} instead of {expected:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

pub(crate) fn local(replicas: u64) -> OnFailure {
    let memory = MemoryCounters::new(MAX_TENANTS, clock::system(), Metrics::new().0);
    OnFailure::Local { memory: Box::new(memory), replicas }
}
