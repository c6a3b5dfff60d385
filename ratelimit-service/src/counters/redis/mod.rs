//! Counters in Redis, for several replicas: one script decides in one round trip, by Redis's own clock.
//!
//! Invariants:
//! - All of a tenant's keys lie in one hash slot. Each has a time to live, and never a shorter one than what is owed.
//! - A decision that is made again, as its connection was lost, takes once: reservations and settlements have ids. One
//!   without a reservation is not made again.
//! - Tenants whose reservations may run out are in an index, which any replica looks through for all.

mod breaker;
mod cluster;
mod keys;
mod link;
mod script;
mod target;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tollgate_domain::{Ask, Expired, Hold, Lend, Overlap, Settled, Take, Unused, Used, Verdict};

use self::cluster::Cluster;
use self::keys::{INDEX_SHARDS, index_shard};
use self::link::{Attempt, Link, Refusal, Repeat};
use self::script::{Due, Invocation, Made, Scripts};
use self::target::Kind;
use super::{Counters, MAX_UNPOSTED, Unavailable};
use crate::clock::Clock;

pub use target::{ClientCertificate, Target, TargetError, Tls};

/// How many tenants are remembered as being in the index; others are put there again.
const MAX_INDEXED: usize = 1 << 16;

/// The most tenants that could not be put into the index, and that is tried for again; further ones are left to their next
/// reservations.
const MAX_UNINDEXED: usize = 1 << 16;

/// A tenant is put into the index again after so long, should it have been lost there.
const INDEX_AGAIN_MS: u64 = 30_000;

/// The most tenants that are looked at in a shard of the index at once, and again as many that had nothing.
const MAX_DUE_TENANTS: usize = 100;

/// How Redis is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where it is.
    pub target: Target,
    /// A call takes no longer.
    pub timeout: Duration,
    /// How many connections there are; calls share them.
    pub connections: usize,
    /// Begins all keys; without braces.
    pub key_prefix: String,
}

/// Why Redis gave no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// It was not asked: nothing was done.
    #[error("{0}")]
    NotAsked(String),
    /// What was asked may have been done.
    #[error("{0}")]
    InDoubt(String),
    /// It refused, or failed half-way, and would again.
    #[error("{0}")]
    Refused(String),
}

impl From<Failure> for Unavailable {
    fn from(failure: Failure) -> Unavailable {
        Unavailable(failure.to_string())
    }
}

/// A settlement that can be sent more than once.
pub(super) struct Settlement {
    call: Invocation,
    slot: usize,
}

/// Whose time decides.
pub enum Time {
    /// Redis's. The clock is this machine's, for an estimate between calls.
    Redis(Clock),
    /// This clock's, in tests.
    Given(Clock),
}

enum Servers {
    One(Link),
    Cluster(Cluster),
}

/// The engine for several replicas.
pub struct RedisCounters {
    servers: Servers,
    timeout: Duration,
    scripts: Scripts,
    time: Time,
    /// How far Redis's clock is ahead.
    ahead_ms: AtomicI64,
    /// Until when a tenant is in the index, and since when that is known. Where another replica looked at the tenant since,
    /// it is looked at again within a minute, as long as settled reservations are remembered.
    indexed: Cache<String, (u64, u64)>,
    /// Which are not in the index though they should be, and when they are due.
    unindexed: Mutex<HashMap<String, u64>>,
    first_shard: AtomicUsize,
}

impl RedisCounters {
    /// Connects in the background; until then calls fail. Call it within a tokio runtime.
    pub fn new(settings: &RedisSettings, time: Time) -> RedisCounters {
        let connections = settings.connections.max(1);
        let servers = match settings.target.kind.clone() {
            Kind::One(server) => Servers::One(Link::new(server, connections)),
            Kind::Cluster(seeds) => Servers::Cluster(Cluster::new(seeds, connections)),
        };
        RedisCounters {
            servers,
            timeout: settings.timeout,
            scripts: Scripts::new(&settings.key_prefix),
            time,
            ahead_ms: AtomicI64::new(0),
            indexed: Cache::new(MAX_INDEXED),
            unindexed: Mutex::default(),
            first_shard: AtomicUsize::new(0),
        }
    }

    fn given_ms(&self) -> Option<u64> {
        match &self.time {
            Time::Redis(_) => None,
            Time::Given(clock) => Some(clock()),
        }
    }

    /// Learns Redis's time.
    fn learn(&self, now_ms: u64) {
        if let Time::Redis(clock) = &self.time {
            self.ahead_ms.store(now_ms.wrapping_sub(clock()).cast_signed(), Ordering::Relaxed);
        }
    }

    /// Decides about a call; see [`Counters::admit`].
    pub(super) async fn decide(&self, tenant: &str, asks: &[Ask<'_>], take: Take<'_>) -> Result<Verdict, Failure> {
        let call = self.scripts.admit(tenant, asks, take, self.given_ms());
        let repeat = match take {
            Take::Nothing | Take::Hold(_) | Take::Lend(_) => Repeat::Harmless,
            Take::ForGood | Take::Used => Repeat::Never,
        };
        let decision = self.on_tenant(tenant, &call, repeat);
        let answer = match take {
            // At once: the index costs no time where it answers, and where it does not, no more than the decision may take.
            Take::Hold(Hold { timeout_ms, .. }) | Take::Lend(Lend { timeout_ms, .. }) => {
                let due_ms = self.now_ms().saturating_add(*timeout_ms);
                tokio::join!(decision, self.index(tenant, due_ms)).0?
            }
            Take::Nothing | Take::ForGood | Take::Used => decision.await?,
        };
        let (verdict, made) = script::verdict(answer, asks.len(), take)?;
        if matches!(take, Take::Hold(_) | Take::Lend(_)) && made == Made::No {
            // The index may have been told of what is not there.
            self.indexed.remove(tenant);
        }
        self.learn(verdict.now_ms);
        Ok(verdict)
    }

    /// What [`RedisCounters::deliver`] settles.
    pub(super) fn settlement(&self, tenant: &str, id: &str, used: &Used<'_>) -> Settlement {
        Settlement { call: self.scripts.settle(tenant, id, used, self.given_ms()), slot: keys::slot(tenant) }
    }

    /// What [`RedisCounters::deliver`] gives back.
    pub(super) fn giving_back(&self, tenant: &str, unused: &Unused<'_>) -> Settlement {
        Settlement { call: self.scripts.give_back(tenant, unused, self.given_ms()), slot: keys::slot(tenant) }
    }

    /// Settles a call, or gives back what was lent; see [`Counters::settle`]. Once is enough, and more do nothing.
    pub(super) async fn deliver(&self, settlement: &Settlement) -> Result<Settled, Failure> {
        let answer = self.call(&settlement.call, settlement.slot, Repeat::Harmless).await?;
        let (settled, now_ms) = script::settled(answer)?;
        self.learn(now_ms);
        Ok(settled)
    }

    async fn call(&self, call: &Invocation, slot: usize, repeat: Repeat) -> Result<redis::Value, Failure> {
        let mut attempt = Attempt::new(call, repeat, self.timeout);
        let link = match &self.servers {
            Servers::Cluster(cluster) => return cluster.call(attempt, slot).await,
            Servers::One(link) => link,
        };
        link.call(&mut attempt, false).await.map_err(|refusal| match refusal {
            Refusal::Failed(failure) => failure,
            Refusal::Moved(_) | Refusal::Ask(_) | Refusal::Moving => {
                attempt.not_asked("Redis is a cluster: give its URL as redis+cluster://")
            }
        })
    }

    async fn on_tenant(&self, tenant: &str, call: &Invocation, repeat: Repeat) -> Result<redis::Value, Failure> {
        self.call(call, keys::slot(tenant), repeat).await
    }

    async fn on_shard(&self, shard: usize, call: &Invocation) -> Result<redis::Value, Failure> {
        self.call(call, keys::index_slot(shard), Repeat::Harmless).await
    }

    /// Puts a tenant into the index where it is not known to be there.
    async fn index(&self, tenant: &str, due_ms: u64) {
        let now_ms = self.now_ms();
        let is_indexed = |(until_ms, since_ms): (u64, u64)| {
            now_ms < until_ms && until_ms <= due_ms && now_ms.abs_diff(since_ms) < INDEX_AGAIN_MS
        };
        if self.indexed.get(tenant).is_some_and(is_indexed) {
            return;
        }
        self.indexed.insert(tenant.to_owned(), (due_ms, now_ms));
        let shard = index_shard(tenant);
        if let Err(error) = self.on_shard(shard, &self.scripts.lower(shard, tenant, due_ms, now_ms)).await {
            self.indexed.remove(tenant);
            tracing::debug!(%error, "a tenant is not in the index of due ones yet");
            let mut unindexed = self.unindexed.lock();
            if let Some(known_ms) = unindexed.get_mut(tenant) {
                *known_ms = due_ms.min(*known_ms);
            } else if unindexed.len() < MAX_UNINDEXED {
                unindexed.insert(tenant.to_owned(), due_ms);
            }
        }
    }

    /// Puts those into the index that could not be put there: it may be for their last reservations.
    async fn index_again(&self) {
        let unindexed = std::mem::take(&mut *self.unindexed.lock());
        for (tenant, due_ms) in unindexed {
            self.index(&tenant, due_ms).await;
        }
    }

    /// Looks at the due tenants of a shard. One that fails hinders no other; the last failure is told.
    async fn look_through(&self, shard: usize, unposted: &mut Vec<(String, Expired)>) -> Result<(), Failure> {
        let due = self.on_shard(shard, &self.scripts.due(shard, MAX_DUE_TENANTS, self.now_ms())).await?;
        let mut looked = Ok(());
        for due in script::due(due)? {
            let room = MAX_UNPOSTED.saturating_sub(unposted.len());
            if room == 0 {
                break;
            }
            match self.look(shard, &due, room).await {
                Ok(expired) => unposted.extend(expired.into_iter().map(|expired| (due.tenant.clone(), expired))),
                Err(failure) => looked = Err(failure),
            }
        }
        looked
    }

    /// Looks at one tenant of the index, if no other replica does.
    async fn look(&self, shard: usize, due: &Due, most: usize) -> Result<Vec<Expired>, Failure> {
        let now_ms = self.now_ms();
        let parked = self.on_shard(shard, &self.scripts.park(shard, due, now_ms)).await?;
        if !matches!(parked, redis::Value::Int(1)) {
            return Ok(Vec::new());
        }
        let call = self.scripts.unposted(&due.tenant, most, self.given_ms());
        let offered = script::offered(self.on_tenant(&due.tenant, &call, Repeat::Harmless).await?)?;
        self.learn(offered.now_ms);
        self.indexed.remove(&due.tenant);
        let next = match offered.next_ms {
            Some(next_ms) => Some(self.scripts.lower(shard, &due.tenant, next_ms, now_ms)),
            None if due.is_parked => Some(self.scripts.drop(shard, &due.tenant, now_ms)),
            None => None,
        };
        if let Some(next) = next
            && let Err(error) = self.on_shard(shard, &next).await
        {
            // It is parked, and looked at again.
            tracing::debug!(%error, "a tenant's place in the index of due ones is not known");
        }
        Ok(offered.expired)
    }
}

/// What a benchmark sends in place of this engine: the script's text, to be loaded, and the arguments of a command that
/// makes this decision, `EVALSHA` first.
#[doc(hidden)]
pub fn benchmark_command(key_prefix: &str, tenant: &str, asks: &[Ask<'_>], take: Take<'_>) -> (String, Vec<String>) {
    let scripts = Scripts::new(key_prefix);
    let args = scripts.admit(tenant, asks, take, None).args();
    (scripts.text().to_owned(), args)
}

#[tonic::async_trait]
impl Counters for RedisCounters {
    fn now_ms(&self) -> u64 {
        match &self.time {
            Time::Given(clock) => clock(),
            Time::Redis(clock) => clock().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)),
        }
    }

    async fn admit(&self, tenant: &str, asks: &[Ask<'_>], take: Take<'_>) -> Result<Verdict, Unavailable> {
        Ok(self.decide(tenant, asks, take).await?)
    }

    async fn settle(&self, tenant: &str, id: &str, used: &Used<'_>) -> Result<Settled, Unavailable> {
        Ok(self.deliver(&self.settlement(tenant, id, used)).await?)
    }

    async fn give_back(&self, tenant: &str, unused: &Unused<'_>) -> Result<(), Unavailable> {
        Ok(self.deliver(&self.giving_back(tenant, unused)).await.map(drop)?)
    }

    async fn unposted(&self) -> Result<Vec<(String, Expired)>, Unavailable> {
        self.index_again().await;
        let (mut unposted, mut failure) = (Vec::new(), None);
        // Each time from another one on, so that none is always the last.
        let first = self.first_shard.fetch_add(1, Ordering::Relaxed);
        for shard in (0..INDEX_SHARDS).map(|shard| (first + shard) % INDEX_SHARDS) {
            if unposted.len() >= MAX_UNPOSTED {
                break;
            }
            failure = self.look_through(shard, &mut unposted).await.err().or(failure);
        }
        match failure {
            Some(failure) if unposted.is_empty() => Err(failure.into()),
            _ => Ok(unposted),
        }
    }

    async fn posted(&self, tenant: &str, id: &str) -> Result<(), Unavailable> {
        let call = self.scripts.posted(tenant, id, self.given_ms());
        Ok(self.on_tenant(tenant, &call, Repeat::Harmless).await.map(drop)?)
    }

    fn outlives(&self) -> bool {
        true
    }

    async fn restore(&self, tenant: &str, asks: &[Ask<'_>], overlap: Overlap) -> Result<(), Unavailable> {
        let call = self.scripts.restore(tenant, asks, overlap, self.given_ms());
        Ok(self.on_tenant(tenant, &call, Repeat::Harmless).await.map(drop)?)
    }

    async fn restore_expired(&self, _tenant: &str, _expired: &Expired, _asks: &[Ask<'_>]) -> Result<(), Unavailable> {
        // Redis has not forgotten it.
        Ok(())
    }

    async fn reset(&self, tenant: &str, at_ms: u64) -> Result<(), Unavailable> {
        // First: who brings the counters up to a ledger in between does not undo it.
        self.on_tenant(tenant, &self.scripts.note_reset(tenant, at_ms), Repeat::Harmless).await?;
        let call = self.scripts.reset(tenant, self.given_ms());
        Ok(self.on_tenant(tenant, &call, Repeat::Harmless).await.map(drop)?)
    }

    async fn last_reset_ms(&self, tenant: &str) -> Result<u64, Unavailable> {
        let answer = self.on_tenant(tenant, &self.scripts.last_reset(tenant), Repeat::Harmless).await?;
        Ok(script::last_reset(answer)?)
    }
}
