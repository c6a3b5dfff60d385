//! Calls of one tenant, as engines see them.

use std::num::NonZeroU64;

use tollgate::counters::{Counters, Unavailable};
use tollgate_domain::{
    Call, Extent, Hold, Limit, Overlap, Plan, Quantities, Settled, Settles, Take, Tokens, Unit, Used, Verdict, Window,
};

/// A limit of tokens by the month, and one of calls at once.
pub(crate) struct Caller {
    pub(crate) tenant: String,
    plan: Plan,
}

impl Caller {
    pub(crate) fn new(tenant: &str, tokens: u64, slots: u64) -> Caller {
        let limit = |unit, window, capacity| Limit::new(unit, window, NonZeroU64::new(capacity).unwrap()).unwrap();
        let tokens = limit(Unit::Tokens, Some(Window::Month), tokens);
        Caller::with(tenant, vec![tokens, limit(Unit::Concurrency, None, slots)])
    }

    pub(crate) fn with(tenant: &str, limits: Vec<Limit>) -> Caller {
        Caller { tenant: tenant.to_owned(), plan: Plan::new("test".into(), 1, limits) }
    }

    /// Reserves ten tokens and a slot.
    pub(crate) async fn hold(&self, counters: &dyn Counters, id: &str) -> Result<Verdict, Unavailable> {
        let hold = Hold { id: id.to_owned(), timeout_ms: 600_000, call: Default::default() };
        self.take(counters, 10, Take::Hold(&hold)).await
    }

    pub(crate) async fn take(
        &self,
        counters: &dyn Counters,
        tokens: u64,
        take: Take<'_>,
    ) -> Result<Verdict, Unavailable> {
        let quantities = Quantities { requests: 1, slots: 1, tokens: Tokens::plain(tokens, 0), cost_nanousd: 0 };
        let asks = self.plan.asks(&Call::default(), &quantities, counters.now_ms());
        counters.admit(&self.tenant, &asks, take).await
    }

    /// Ten tokens were used.
    pub(crate) async fn settle(&self, counters: &dyn Counters, id: &str) -> Result<Settled, Unavailable> {
        let quantities = Quantities { requests: 1, slots: 0, tokens: Tokens::plain(10, 0), cost_nanousd: 0 };
        let now_ms = counters.now_ms();
        let asks = self.plan.asks(&Call::default(), &quantities, now_ms);
        let (extent, settles) = (Extent::Something, Settles::All);
        let used = Used { asks: &asks, extent, started_at_ms: now_ms, ended_at_ms: now_ms, settles };
        counters.settle(&self.tenant, id, &used).await
    }

    /// A ledger has calls of so many tokens.
    pub(crate) async fn restore(&self, counters: &dyn Counters, tokens: u64) -> Result<(), Unavailable> {
        let quantities = Quantities { tokens: Tokens::plain(tokens, 0), ..Quantities::default() };
        let asks = self.plan.asks(&Call::default(), &quantities, counters.now_ms());
        counters.restore(&self.tenant, &asks, Overlap::Nothing).await
    }

    /// What is spent and held of each limit; nothing where the counters were not asked.
    pub(crate) async fn standing(&self, counters: &dyn Counters) -> anyhow::Result<Vec<(u64, u64)>> {
        let verdict = self.take(counters, 0, Take::Nothing).await?;
        Ok(verdict.counters.iter().map(|counter| (counter.spent, counter.held)).collect())
    }
}
