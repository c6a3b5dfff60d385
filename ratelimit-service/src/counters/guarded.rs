//! Redis's counters, and what happens while they do not answer.
//!
//! Invariants:
//! - Every decision has an answer within the engine's deadline: Redis's, or the policy's, and that is counted.
//! - What is held is given back: a settlement that Redis did not take waits, [`MAX_WAITING`] at most, and is sent until it is.
//!   So does the release of a call that was denied here, and that Redis may have admitted without our hearing of it.
//! - What this replica decided alone is settled in its memory and, as it was used, in Redis too.

mod local;
mod metrics;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tollgate_domain::{Ask, Expired, Extent, Hold, Outcome, Settled, Take, Used, Verdict};

use self::local::Local;
use super::redis::{Failure, RedisCounters, Settlement};
use super::{Counters, MemoryCounters, Unavailable};

pub use metrics::GuardMetrics;

/// The most settlements that wait for Redis; the oldest is dropped for a further one, and that is counted. What it held
/// runs out.
pub const MAX_WAITING: usize = 1 << 16;

/// Between attempts to settle what waits.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What is decided while Redis does not answer.
pub enum OnFailure {
    /// Calls are admitted, and not counted.
    Allow,
    /// Calls are denied.
    Deny,
    /// Each replica decides by its own memory, where every limit is so small that all replicas together keep to it.
    Local {
        /// Where it decides then.
        memory: Box<MemoryCounters>,
        /// How many replicas there are, at least 1.
        replicas: u64,
    },
}

/// The engine with its policy.
pub struct Guarded {
    shared: Arc<Shared>,
    settler: JoinHandle<()>,
}

struct Shared {
    redis: RedisCounters,
    policy: Policy,
    waiting: Mutex<VecDeque<Settlement>>,
    is_waiting: Notify,
    metrics: GuardMetrics,
}

enum Policy {
    Allow,
    Deny,
    Local(Box<Local>),
}

impl Guarded {
    /// Call it within a tokio runtime.
    pub fn new(redis: RedisCounters, on_failure: OnFailure, metrics: GuardMetrics) -> Guarded {
        let policy = match on_failure {
            OnFailure::Allow => Policy::Allow,
            OnFailure::Deny => Policy::Deny,
            OnFailure::Local { memory, replicas } => Policy::Local(Box::new(Local::new(*memory, replicas))),
        };
        let (waiting, is_waiting) = (Mutex::default(), Notify::new());
        let shared = Arc::new(Shared { redis, policy, waiting, is_waiting, metrics });
        Guarded { settler: tokio::spawn(settle_waiting(Arc::clone(&shared))), shared }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.settler.abort();
    }
}

impl Shared {
    /// What the policy says to a call that Redis said nothing to.
    async fn decide(
        &self,
        tenant: &str,
        asks: &[Ask<'_>],
        take: Take<'_>,
        failure: &Failure,
    ) -> Result<Verdict, Unavailable> {
        let now_ms = self.redis.now_ms();
        let (failures, verdict) = match &self.policy {
            Policy::Allow => (&self.metrics.allowed, unasked(Outcome::Admitted, now_ms)),
            Policy::Deny => (&self.metrics.denied, unasked(Outcome::Denied, now_ms)),
            Policy::Local(local) => (&self.metrics.decided_locally, local.admit(tenant, asks, take).await?),
        };
        failures.inc();
        tracing::debug!(%failure, outcome = ?verdict.outcome, "decided without Redis");
        if let (Take::Hold(hold), Outcome::Denied, Failure::InDoubt(_)) = (take, verdict.outcome, failure) {
            self.put(self.released(tenant, hold, now_ms));
        }
        Ok(verdict)
    }

    /// Gives back all that a reservation may hold.
    fn released(&self, tenant: &str, hold: &Hold, now_ms: u64) -> Settlement {
        let used = Used { asks: &[], extent: Extent::Nothing, started_at_ms: now_ms, ended_at_ms: now_ms };
        self.redis.settlement(tenant, &hold.id, &used)
    }

    /// Lets a settlement wait.
    fn put(&self, settlement: Settlement) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            waiting.pop_front();
            self.metrics.settlements_dropped.inc();
        }
        waiting.push_back(settlement);
        self.metrics.settlements_waiting.set(waiting.len() as i64);
        self.is_waiting.notify_one();
    }

    fn next(&self) -> Option<Settlement> {
        let mut waiting = self.waiting.lock();
        let next = waiting.pop_front();
        self.metrics.settlements_waiting.set(waiting.len() as i64);
        next
    }

    fn heard<T>(&self, since: Instant, answer: &Result<T, Failure>) {
        self.metrics.seconds.observe(since.elapsed().as_secs_f64());
        self.metrics.up.set(i64::from(answer.is_ok()));
    }
}

/// Sends what waits, one after the other, until it is taken.
async fn settle_waiting(shared: Arc<Shared>) {
    loop {
        let Some(settlement) = shared.next() else {
            shared.is_waiting.notified().await;
            continue;
        };
        let (began, answer) = (Instant::now(), shared.redis.deliver(&settlement).await);
        shared.heard(began, &answer);
        match answer {
            Ok(_) => drop(shared.metrics.settlements_retried.inc()),
            Err(_) => {
                shared.put(settlement);
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

fn unasked(outcome: Outcome, now_ms: u64) -> Verdict {
    Verdict { outcome, counters: Vec::new(), now_ms }
}

#[tonic::async_trait]
impl Counters for Guarded {
    fn now_ms(&self) -> u64 {
        self.shared.redis.now_ms()
    }

    async fn admit(&self, tenant: &str, asks: &[Ask<'_>], take: Take<'_>) -> Result<Verdict, Unavailable> {
        let (began, answer) = (Instant::now(), self.shared.redis.decide(tenant, asks, take).await);
        self.shared.heard(began, &answer);
        match answer {
            Ok(verdict) => Ok(verdict),
            Err(failure) => self.shared.decide(tenant, asks, take, &failure).await,
        }
    }

    async fn settle(&self, tenant: &str, id: &str, used: &Used<'_>) -> Result<Settled, Unavailable> {
        let shared = &self.shared;
        if let Policy::Local(local) = &shared.policy {
            local.settle(tenant, id, used).await?;
        }
        let settlement = shared.redis.settlement(tenant, id, used);
        let (began, answer) = (Instant::now(), shared.redis.deliver(&settlement).await);
        shared.heard(began, &answer);
        answer.map_err(|failure| {
            shared.put(settlement);
            Unavailable(format!("{failure}; the settlement waits, and is sent again"))
        })
    }

    async fn unposted(&self) -> Result<Vec<(String, Expired)>, Unavailable> {
        let mut unposted = match &self.shared.policy {
            Policy::Local(local) => local.unposted().await?,
            Policy::Allow | Policy::Deny => Vec::new(),
        };
        match self.shared.redis.unposted().await {
            Ok(others) => unposted.extend(others),
            Err(error) if unposted.is_empty() => return Err(error),
            Err(error) => tracing::debug!(%error, "what ran out is known of this replica's own calls only"),
        }
        Ok(unposted)
    }

    async fn posted(&self, tenant: &str, id: &str) -> Result<(), Unavailable> {
        if let Policy::Local(local) = &self.shared.policy {
            local.posted(tenant, id).await?;
        }
        self.shared.redis.posted(tenant, id).await
    }

    async fn restore(&self, tenant: &str, asks: &[Ask<'_>]) -> Result<(), Unavailable> {
        self.shared.redis.restore(tenant, asks).await
    }

    async fn restore_expired(&self, tenant: &str, expired: &Expired, asks: &[Ask<'_>]) -> Result<(), Unavailable> {
        self.shared.redis.restore_expired(tenant, expired, asks).await
    }

    async fn reset(&self, tenant: &str) -> Result<(), Unavailable> {
        if let Policy::Local(local) = &self.shared.policy {
            local.reset(tenant).await?;
        }
        self.shared.redis.reset(tenant).await
    }
}
