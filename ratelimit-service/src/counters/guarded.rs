//! Redis's counters, and what happens while they do not answer.
//!
//! Invariants:
//! - Every decision has an answer within the engine's deadline: Redis's, or the policy's, and that is counted.
//! - What is held is given back: a settlement that Redis did not take waits, [`MAX_WAITING`] at most, and is sent until it is.
//!   So does the release of a call that was denied here, and that Redis may have admitted without our hearing of it.
//! - Nothing is counted twice: one that may have been taken is sent again only while Redis would know that.
//! - A question that takes nothing gets no answer from a policy that knows none.
//! - What this replica decided alone is settled in its memory and, as it was used, in Redis too.

mod local;
mod metrics;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tollgate_domain::{Ask, Expired, Extent, Hold, Outcome, Overlap, Settled, Settles, Take, Unused, Used, Verdict};

use self::local::Local;
use self::waiting::{Item, Waiting};
use super::redis::{Failure, RedisCounters, Settlement};
use super::{Counters, MemoryCounters, Unavailable};

pub use metrics::GuardMetrics;
pub use waiting::MAX_WAITING;
pub(crate) use waiting::REMEMBERED;

/// Between attempts to settle what Redis did not take.
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
    waiting: Mutex<Waiting<Settlement>>,
    is_waiting: Notify,
    /// One that waited may be on its way.
    is_sending: AtomicBool,
    metrics: GuardMetrics,
}

/// What becomes of a settlement that Redis did not take.
enum Unsettled {
    Waits(Failure),
    GivenUp(Failure),
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
        let shared = Arc::new(Shared {
            redis,
            policy,
            waiting: Mutex::new(Waiting::new()),
            is_waiting: Notify::new(),
            is_sending: AtomicBool::new(false),
            metrics,
        });
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
        let may_be_held = matches!(failure, Failure::InDoubt(_) | Failure::Refused(_));
        if let Take::Lend(lend) = take {
            // Calls are decided one by one meanwhile.
            if may_be_held {
                let unused = Unused { ids: &lend.ids, lent: lend.ids.len() as u64, asks };
                self.put(Item { what: self.redis.giving_back(tenant, &unused), in_doubt_since: None });
            }
            return Err(failure.clone().into());
        }
        let is_question = matches!(take, Take::Nothing);
        if is_question && !matches!(self.policy, Policy::Local(_)) {
            return Err(failure.clone().into());
        }
        let now_ms = self.redis.now_ms();
        let (failures, verdict) = match &self.policy {
            Policy::Allow => (&self.metrics.allowed, unasked(Outcome::Admitted, now_ms)),
            Policy::Deny => (&self.metrics.denied, unasked(Outcome::Denied, now_ms)),
            Policy::Local(local) => (&self.metrics.decided_locally, local.admit(tenant, asks, take).await?),
        };
        if !is_question {
            failures.inc();
        }
        tracing::debug!(%failure, outcome = ?verdict.outcome, "decided without Redis");
        if let (Take::Hold(hold), Outcome::Denied, true) = (take, verdict.outcome, may_be_held) {
            self.put(Item { what: self.released(tenant, hold, now_ms), in_doubt_since: None });
        }
        Ok(verdict)
    }

    /// Gives back all that a reservation may hold.
    fn released(&self, tenant: &str, hold: &Hold, now_ms: u64) -> Settlement {
        let used = Used {
            asks: &[],
            extent: Extent::Nothing,
            started_at_ms: now_ms,
            ended_at_ms: now_ms,
            settles: Settles::All,
        };
        self.redis.settlement(tenant, &hold.id, &used)
    }

    /// Sends a settlement. One that was not taken waits, where that helps.
    async fn send(&self, Item { what, in_doubt_since }: Item<Settlement>) -> Result<Settled, Unsettled> {
        let (began, answer) = (Instant::now(), self.redis.deliver(&what).await);
        self.heard(began, &answer);
        let in_doubt_since = match &answer {
            Ok(settled) => return Ok(*settled),
            Err(Failure::NotAsked(_)) => in_doubt_since,
            Err(Failure::InDoubt(_)) => Some(in_doubt_since.unwrap_or(began)),
            Err(failure @ Failure::Refused(_)) => {
                tracing::warn!(%failure, "a settlement is given up");
                self.metrics.settlements_dropped.inc();
                return Err(Unsettled::GivenUp(failure.clone()));
            }
        };
        self.put(Item { what, in_doubt_since });
        answer.map_err(Unsettled::Waits)
    }

    /// Lets a settlement wait.
    fn put(&self, item: Item<Settlement>) {
        let mut waiting = self.waiting.lock();
        if waiting.put(item) {
            self.metrics.settlements_dropped.inc();
        }
        self.metrics.settlements_waiting.set(waiting.len() as i64);
        self.is_waiting.notify_one();
    }

    fn next(&self) -> Option<Item<Settlement>> {
        let mut waiting = self.waiting.lock();
        let next = waiting.next();
        self.metrics.settlements_waiting.set(waiting.len() as i64);
        next
    }

    fn heard<T>(&self, since: Instant, answer: &Result<T, Failure>) {
        self.metrics.seconds.observe(since.elapsed().as_secs_f64());
        self.metrics.up.set(i64::from(answer.is_ok()));
    }
}

/// Sends what waits, all in turn, so that a part of Redis which does not answer holds up no other.
async fn settle_waiting(shared: Arc<Shared>) {
    loop {
        let most = shared.waiting.lock().len();
        if most == 0 {
            shared.is_waiting.notified().await;
            continue;
        }
        let mut is_any_left = false;
        shared.is_sending.store(true, Ordering::Relaxed);
        for _ in 0..most {
            let Some(item) = shared.next() else { break };
            if !item.may_be_sent(Instant::now()) {
                shared.metrics.settlements_dropped.inc();
                continue;
            }
            match shared.send(item).await {
                Ok(_) => drop(shared.metrics.settlements_retried.inc()),
                Err(Unsettled::Waits(_)) => is_any_left = true,
                Err(Unsettled::GivenUp(_)) => {}
            }
        }
        shared.is_sending.store(false, Ordering::Relaxed);
        if is_any_left {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

fn unasked(outcome: Outcome, now_ms: u64) -> Verdict {
    Verdict { outcome, counters: Vec::new(), reserved: 0, now_ms }
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
        let what = shared.redis.settlement(tenant, id, used);
        shared.send(Item { what, in_doubt_since: None }).await.map_err(|unsettled| {
            Unavailable(match unsettled {
                Unsettled::Waits(failure) => format!("{failure}; the settlement waits, and is sent again"),
                Unsettled::GivenUp(failure) => format!("{failure}; the settlement is given up"),
            })
        })
    }

    async fn give_back(&self, tenant: &str, unused: &Unused<'_>) -> Result<(), Unavailable> {
        let what = self.shared.redis.giving_back(tenant, unused);
        match self.shared.send(Item { what, in_doubt_since: None }).await {
            Ok(_) | Err(Unsettled::Waits(_)) => Ok(()),
            Err(Unsettled::GivenUp(failure)) => Err(failure.into()),
        }
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

    fn outlives(&self) -> bool {
        self.shared.redis.outlives()
    }

    async fn restore(&self, tenant: &str, asks: &[Ask<'_>], overlap: Overlap) -> Result<(), Unavailable> {
        // They may be in the ledger, and would be taken beside what that says.
        if self.shared.waiting.lock().len() > 0 || self.shared.is_sending.load(Ordering::Relaxed) {
            return Err(Unavailable("settlements wait for Redis, and go first".to_owned()));
        }
        self.shared.redis.restore(tenant, asks, overlap).await
    }

    async fn restore_expired(&self, tenant: &str, expired: &Expired, asks: &[Ask<'_>]) -> Result<(), Unavailable> {
        self.shared.redis.restore_expired(tenant, expired, asks).await
    }

    async fn reset(&self, tenant: &str, at_ms: u64) -> Result<(), Unavailable> {
        if let Policy::Local(local) = &self.shared.policy {
            local.reset(tenant, at_ms).await?;
        }
        self.shared.redis.reset(tenant, at_ms).await
    }

    async fn last_reset_ms(&self, tenant: &str) -> Result<u64, Unavailable> {
        self.shared.redis.last_reset_ms(tenant).await
    }
}
