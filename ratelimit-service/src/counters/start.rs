//! The engine that is configured.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::{Counters, GuardMetrics, Guarded, MAX_TENANTS, MemoryCounters, OnFailure, RedisCounters, Time};
use crate::clock;
use crate::config::{Engine, FailurePolicy};
use crate::metrics::Metrics;

/// Starts it; Redis need not be there yet. Call it within a tokio runtime.
pub(crate) fn start(engine: &Engine, metrics: &Metrics, registry: &mut Registry) -> Arc<dyn Counters> {
    let memory = || MemoryCounters::new(MAX_TENANTS, clock::system(), metrics.clone());
    match engine {
        Engine::Memory => Arc::new(memory()),
        Engine::Redis(config) => {
            let on_failure = match config.on_failure {
                FailurePolicy::Allow => OnFailure::Allow,
                FailurePolicy::Deny => OnFailure::Deny,
                FailurePolicy::Local => OnFailure::Local { memory: Box::new(memory()), replicas: config.replicas },
            };
            let redis = RedisCounters::new(&config.settings, Time::Redis(clock::system()));
            Arc::new(Guarded::new(redis, on_failure, GuardMetrics::new(registry)))
        }
    }
}
