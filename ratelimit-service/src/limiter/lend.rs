//! Lending calls to proxies' workers, and taking back what they do not use.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tollgate_domain::{Beyond, Call, LeaseTerms, Lend, Quantities, Take, Unused};
use tollgate_wire::admission::{Lease, LeaseRequest, MAX_LEASED_CALLS};
use tollgate_wire::usage_event::LeaseReturned;

use super::{Admission, Limiter, Policy, held_call, limited_quote, may_call, quantities, used_plan};
use crate::chance;
use crate::counters::Unavailable;

/// The most tenants whose calls are lent at once; further ones' calls are asked about one by one.
pub const MAX_LENDING: usize = 1 << 16;

/// Calls that are lent to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lent {
    /// The calls.
    pub lease: Lease,
    /// What there was for further ones.
    pub beyond: Beyond,
}

/// What lies with workers now, by this replica's loans alone.
#[derive(Debug, Default)]
pub(super) struct Loans(Mutex<HashMap<String, VecDeque<Out>>>);

/// A loan that has not expired.
#[derive(Debug, Clone, Copy)]
struct Out {
    until_ms: u64,
    share_ppm: u64,
}

impl Loans {
    /// The shares of limits that lie with workers; `None` when there is no room for a further tenant.
    fn share_ppm(&self, tenant: &str, now_ms: u64) -> Option<u64> {
        let mut tenants = self.0.lock();
        if let Some(out) = tenants.get_mut(tenant) {
            out.retain(|out| now_ms < out.until_ms);
            return Some(out.iter().map(|out| out.share_ppm).sum());
        }
        if tenants.len() >= MAX_LENDING {
            tenants.retain(|_, out| out.back().is_some_and(|out| now_ms < out.until_ms));
        }
        (tenants.len() < MAX_LENDING).then_some(0)
    }

    fn add(&self, tenant: &str, out: Out) {
        let mut tenants = self.0.lock();
        match tenants.get_mut(tenant) {
            Some(known) => known.push_back(out),
            None => drop(tenants.insert(tenant.to_owned(), VecDeque::from([out]))),
        }
    }
}

impl Limiter {
    /// Lends calls like the asked one to a worker that wants them; `None` where they are better asked about one by one.
    pub async fn lend(&self, policy: &Policy, asked: &Admission<'_>, wanted: &LeaseRequest) -> Option<Lent> {
        let terms = policy.leases?;
        may_call(policy, asked.tenant).ok()?;
        let plan = self.plan(policy, asked.tenant, asked.tier).ok()?;
        plan.check_context(wanted.input_tokens).ok()?;
        let now_ms = self.counters.now_ms();
        let quote = limited_quote(policy, plan, asked, now_ms);
        if plan.limits_cost() && quote.is_none() {
            return None;
        }
        let asked = Admission { requests: 1, input_tokens: wanted.input_tokens, ..*asked };
        let output_tokens = match asked.output_tokens {
            None => 0,
            Some(_) if wanted.has_uncapped => wanted.output_tokens.max(self.answer_tokens(policy, plan, &asked, quote)),
            Some(_) => wanted.output_tokens,
        };
        let asks = plan.asks(&asked.call, &quantities(quote, &asked, output_tokens), now_ms);
        let standing = self.counters.admit(asked.tenant, &asks, Take::Nothing).await.ok()?;
        let lent_ppm = self.loans.share_ppm(asked.tenant, now_ms)?;
        let loan = terms.loan(wanted.calls_per_s, &asks, &standing.counters, lent_ppm)?;
        let id = Lease::id_of(&chance::id())?;
        let calls = u32::try_from(loan.calls).unwrap_or(MAX_LEASED_CALLS).min(MAX_LEASED_CALLS);
        let lend = Lend {
            ids: (0..calls).map(|index| Lease::call_id(&id, index)).collect(),
            timeout_ms: policy.reservation_timeout_ms,
            call: held_call(plan, &asked, output_tokens),
        };
        let lent = self.counters.admit(asked.tenant, &asks, Take::Lend(&lend)).await.ok()?;
        let calls = u32::try_from(lent.reserved).ok().filter(|calls| *calls > 0)?;
        self.loans.add(asked.tenant, Out { until_ms: now_ms + loan.lifetime_ms, share_ppm: loan.share_ppm });
        self.metrics.calls_lent.inc_by(calls.into());
        let expires_at_ms = wanted.now_ms.saturating_add(loan.lifetime_ms);
        let lease = Lease { id, calls, input_tokens: asked.input_tokens, output_tokens, expires_at_ms };
        Some(Lent { lease, beyond: loan.beyond })
    }

    /// How long a worker that wants a lease may deny calls like a denied one by itself, milliseconds.
    pub fn denied_ms(&self, policy: &Policy, wanted: &LeaseRequest, reset_ms: Option<u64>) -> Option<u64> {
        policy.leases.map(|terms: LeaseTerms| terms.denied_ms(wanted.calls_per_s, reset_ms))
    }

    /// Takes back what was lent to calls that are not to come.
    ///
    /// # Errors
    /// When the counters do not answer.
    pub async fn take_back(&self, returned: &LeaseReturned) -> Result<(), Unavailable> {
        let policy = self.policy();
        let Some(plan) = used_plan(&policy, &returned.tenant, &returned.tier) else { return Ok(()) };
        let LeaseReturned { model, api, key, .. } = returned;
        let call = Call { model: model.as_deref(), api: api.as_deref(), key: key.as_deref() };
        let one = Quantities { requests: 1, ..Quantities::default() };
        let asks = plan.asks(&call, &one, self.counters.now_ms());
        let ids = returned.unused_ids();
        self.counters
            .give_back(&returned.tenant, &Unused { ids: &ids, lent: returned.calls.into(), asks: &asks })
            .await?;
        self.metrics.calls_returned.inc_by(ids.len() as u64);
        Ok(())
    }
}
