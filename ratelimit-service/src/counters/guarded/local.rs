//! One replica's share of every limit, decided by its own memory.

use quick_cache::sync::Cache;
use tollgate_domain::{Ask, Expired, Outcome, Rule, Settled, Take, Used, Verdict};

use crate::counters::{Counters, MemoryCounters, Unavailable};

/// How many reservations are known to be settled here; what is held by further ones runs out.
const MAX_RESERVED: usize = 1 << 17;

/// Decides when nobody else does.
pub(super) struct Local {
    memory: MemoryCounters,
    replicas: u64,
    /// The reservations made here: tenant and id.
    reserved: Cache<(String, String), ()>,
}

impl Local {
    pub(super) fn new(memory: MemoryCounters, replicas: u64) -> Local {
        Local { memory, replicas: replicas.max(1), reserved: Cache::new(MAX_RESERVED) }
    }

    /// The verdict's counters are told against the whole limits: the other replicas' shares count as held.
    pub(super) async fn admit(&self, tenant: &str, asks: &[Ask<'_>], take: Take<'_>) -> Result<Verdict, Unavailable> {
        let shares = self.shares(asks);
        let mut verdict = self.memory.admit(tenant, &shares, take).await?;
        if let (Take::Hold(hold), Outcome::Admitted) = (take, verdict.outcome) {
            self.reserved.insert((tenant.to_owned(), hold.id.clone()), ());
        }
        for ((ask, share), counter) in asks.iter().zip(&shares).zip(&mut verdict.counters) {
            counter.hold(ask.rule.depth().saturating_sub(share.rule.depth()));
        }
        Ok(verdict)
    }

    /// Settles what was reserved here; what is settled without that counts in Redis alone.
    pub(super) async fn settle(&self, tenant: &str, id: &str, used: &Used<'_>) -> Result<Option<Settled>, Unavailable> {
        if self.reserved.is_empty() || self.reserved.remove(&(tenant.to_owned(), id.to_owned())).is_none() {
            return Ok(None);
        }
        let used = Used { asks: &self.shares(used.asks), ..*used };
        self.memory.settle(tenant, id, &used).await.map(Some)
    }

    pub(super) async fn unposted(&self) -> Result<Vec<(String, Expired)>, Unavailable> {
        self.memory.unposted().await
    }

    pub(super) async fn posted(&self, tenant: &str, id: &str) -> Result<(), Unavailable> {
        self.memory.posted(tenant, id).await
    }

    pub(super) async fn reset(&self, tenant: &str, at_ms: u64) -> Result<(), Unavailable> {
        self.memory.reset(tenant, at_ms).await
    }

    fn shares<'p>(&self, asks: &[Ask<'p>]) -> Vec<Ask<'p>> {
        asks.iter().map(|ask| Ask { rule: share(ask.rule, self.replicas), ..*ask }).collect()
    }
}

/// Rounded down, so that all shares together are no more than the limit; where it is smaller than the replicas are many,
/// each still has one.
fn share(rule: Rule, replicas: u64) -> Rule {
    let of = |whole: u64| (whole / replicas).max(1);
    match rule {
        Rule::Refilled { capacity, burst, window_ms } => {
            Rule::Refilled { capacity: of(capacity), burst: of(burst), window_ms }
        }
        Rule::Calendar { capacity, edges } => Rule::Calendar { capacity: of(capacity), edges },
        Rule::Slots { capacity } => Rule::Slots { capacity: of(capacity) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_up_to_no_more_than_the_limit_and_are_never_nothing() {
        for (whole, replicas, expected) in
            [(10, 3, 3), (10, 1, 10), (2, 3, 1), (9_007_199_254_740_991, 2, 4_503_599_627_370_495)]
        {
            let rule = Rule::Refilled { capacity: whole, burst: whole, window_ms: 60_000 };
            let expected = Rule::Refilled { capacity: expected, burst: expected, window_ms: 60_000 };
            assert_eq!(share(rule, replicas), expected);
        }
    }
}
