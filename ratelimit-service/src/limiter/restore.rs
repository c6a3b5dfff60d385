//! What the counters know after a restart, and should know at any time: the ledger's calls of the present days and months, and
//! those that expired lately.

use std::collections::{BTreeMap, HashMap};

use tollgate_domain::{
    Anchor, Ask, Call, Calls, EXPIRED_KEPT_MS, Expired, HeldCall, Limit, Overlap, Quantities, Tenants, Unit, Window,
};
use tollgate_wire::usage_event::TokenCounts;

use super::{Admission, Limiter, Policy, cost_nanousd, limited_quote, tokens, used, used_plan};
use crate::audit::Audit;
use crate::ledger::{Ledger, Spent, Usage};

/// The most expired reservations that are known again after a restart; of more, the latest.
pub const MAX_RESTORED: usize = 1 << 16;

/// The windows of which the ledger tells what was spent.
const CALENDAR: [Window; 2] = [Window::Day, Window::Month];

/// No day or month is longer.
const LONGEST_PERIOD_MS: u64 = 31 * 86_400_000;

impl Limiter {
    /// Brings tenants' counters of days and months to at least what `ledger` holds, of a tenant that was reset to what it holds
    /// since then: after a start, and when limits begin to count.
    ///
    /// Requests count there only when their usage event came; admissions whose calls were still going on are not known. Nor is
    /// what waits for the ledger. While this looks, nothing is posted here.
    ///
    /// # Errors
    /// When the ledger, the audit log or the counters cannot be read.
    pub async fn restore(
        &self,
        ledger: &dyn Ledger,
        audit: &dyn Audit,
        tenants: &Tenants,
        overlap: Overlap,
    ) -> anyhow::Result<()> {
        let policy = self.policy();
        let _all_posted_is_settled = self.posting.write().await;
        for (tenant, sums) in self.sums(&policy, ledger, audit, tenants).await? {
            let asks: Vec<_> = sums.into_iter().map(|sum| sum.ask).collect();
            self.counters.restore(&tenant, &asks, overlap).await?;
        }
        Ok(())
    }

    /// What calendar limits should have spent by `ledger`, and what they have, where these are not the same: of the present
    /// periods, and of each tenant's present plan. Requests are only told when fewer are spent, as those of calls that go on are
    /// spent too; and what is rounded for each call may be more by one for each.
    ///
    /// # Errors
    /// When the ledger, the audit log or the counters cannot be read.
    pub async fn differences(&self, ledger: &dyn Ledger, audit: &dyn Audit) -> anyhow::Result<Vec<LimitDifference>> {
        let policy = self.policy();
        let mut differences = Vec::new();
        for (tenant, sums) in self.sums(&policy, ledger, audit, &Tenants::All).await? {
            let tier = ledger.last_tier(&tenant).await?;
            let Some(plan) = used_plan(&policy, &tenant, &tier.unwrap_or_default()) else { continue };
            for standing in self.standings(&tenant, plan).await? {
                let (limit, spent) = (standing.limit, standing.used.saturating_sub(standing.held));
                let sum = sums.iter().find(|sum| sum.ask.limit.counter() == limit.counter());
                if let Some(sum) = sum.filter(|sum| !sum.is_met_by(limit, spent)) {
                    let (tenant, limit) = (tenant.clone(), limit.to_string());
                    differences.push(LimitDifference { tenant, limit, entries: sum.ask.amount, spent });
                }
            }
        }
        Ok(differences)
    }

    /// What each tenant has used of its limits in their present periods, by the ledger, in the tenants' order. Of one that another
    /// replica reset since it was reset here, that is not known here.
    async fn sums<'p>(
        &self,
        policy: &'p Policy,
        ledger: &dyn Ledger,
        audit: &dyn Audit,
        tenants: &Tenants,
    ) -> anyhow::Result<BTreeMap<String, Vec<Sum<'p>>>> {
        // One time for all: a period that ends meanwhile is over for the counters, and none's sum is another's.
        let now_ms = self.counters.now_ms();
        let resets = audit.last_resets(now_ms.saturating_sub(LONGEST_PERIOD_MS)).await?;
        let mut all: BTreeMap<String, Vec<Sum<'_>>> = BTreeMap::new();
        for window in CALENDAR {
            for spent in self.spent(policy, ledger, &resets, (window, now_ms), tenants).await? {
                let asks = calendar_asks(policy, &spent, (window, now_ms));
                add(all.entry(spent.tenant).or_default(), asks, spent.usage.requests);
            }
        }
        let mut known = BTreeMap::new();
        for (tenant, sums) in all {
            let here_ms = resets.get(&tenant).copied().unwrap_or(0);
            if self.counters.last_reset_ms(&tenant).await? <= here_ms {
                known.insert(tenant, sums);
            }
        }
        Ok(known)
    }

    /// What the periods of a window that are present at that time had spent, by what limits depend on.
    async fn spent(
        &self,
        policy: &Policy,
        ledger: &dyn Ledger,
        resets: &HashMap<String, u64>,
        (window, now_ms): (Window, u64),
        tenants: &Tenants,
    ) -> anyhow::Result<Vec<Spent>> {
        if !policy.plans.all().any(|plan| plan.has_calendar(window)) {
            return Ok(Vec::new());
        }
        // Tenants with beginnings of their own.
        let mut alone: HashMap<&str, (Anchor, u64)> =
            resets.iter().map(|(tenant, reset_at_ms)| (tenant.as_str(), (Anchor::UTC, *reset_at_ms))).collect();
        for (tenant, anchor) in policy.plans.anchored() {
            alone.entry(tenant).or_default().0 = anchor;
        }
        let begin_ms = |anchor: Anchor| match window {
            Window::Day => anchor.days(now_ms)[1],
            _ => anchor.months(now_ms)[1],
        };
        let mut all = match tenants {
            Tenants::All => ledger.spent_since(begin_ms(Anchor::UTC), None).await?,
            Tenants::These(tenants) => {
                alone.retain(|tenant, _| tenants.contains(*tenant));
                for tenant in tenants {
                    alone.entry(tenant).or_default();
                }
                Vec::new()
            }
        };
        all.retain(|spent| !alone.contains_key(spent.tenant.as_str()));
        for (tenant, (anchor, reset_at_ms)) in &alone {
            all.extend(ledger.spent_since(begin_ms(*anchor).max(*reset_at_ms), Some(tenant)).await?);
        }
        Ok(all)
    }

    /// Knows again of what ran out: a late event takes its estimate's place, as it does in the ledger. Call it once, before the
    /// first decision.
    ///
    /// # Errors
    /// When the ledger cannot be read, or the counters do not answer.
    pub async fn restore_expired(&self, ledger: &dyn Ledger) -> anyhow::Result<()> {
        let (policy, now_ms) = (self.policy(), self.counters.now_ms());
        let kept_ms = policy.reservation_timeout_ms.saturating_add(EXPIRED_KEPT_MS);
        let events = ledger.unsettled_since(now_ms.saturating_sub(kept_ms), MAX_RESTORED).await?;
        if events.len() == MAX_RESTORED {
            tracing::warn!(
                MAX_RESTORED,
                "events of calls that expired earlier than these will count beside their estimates"
            );
        }
        for event in &events {
            let Some(plan) = used_plan(&policy, &event.tenant, &event.tier) else { continue };
            let expired = Expired {
                // When that was is not kept.
                expired_at_ms: event.started_at_ms.saturating_add(policy.reservation_timeout_ms),
                started_at_ms: event.started_at_ms,
                id: event.event_id.clone(),
                call: HeldCall::default(),
            };
            let (call, quantities) = used(&policy, plan, event);
            self.counters.restore_expired(&event.tenant, &expired, &plan.asks(&call, &quantities, now_ms)).await?;
        }
        Ok(())
    }
}

/// A limit that has not spent what the ledger's entries come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitDifference {
    /// Whose.
    pub tenant: String,
    /// The limit's name.
    pub limit: String,
    /// What the entries come to, in the limit's unit; billionths of a US dollar of cost.
    pub entries: u64,
    /// What is spent.
    pub spent: u64,
}

/// What calls used of one limit.
struct Sum<'p> {
    ask: Ask<'p>,
    calls: u64,
}

impl Sum<'_> {
    fn is_met_by(&self, limit: &Limit, spent: u64) -> bool {
        let amount = self.ask.amount;
        match limit.unit {
            Unit::Requests => spent >= amount,
            _ if !limit.weights.is_plain() => spent.abs_diff(amount) <= self.calls,
            _ => spent == amount,
        }
    }
}

fn token_counts(usage: &Usage) -> TokenCounts {
    TokenCounts {
        input: usage.input_tokens,
        output: usage.output_tokens,
        cache_read: usage.cache_read_tokens,
        cache_creation: usage.cache_creation_tokens,
        cache_creation_1h: usage.cache_creation_1h_tokens,
        reasoning: usage.reasoning_tokens,
        audio_input: usage.audio_input_tokens,
        audio_output: usage.audio_output_tokens,
        extra_input: usage.extra_input_tokens,
        extra_output: usage.extra_output_tokens,
        ..TokenCounts::default()
    }
}

/// Adds what so many calls used.
fn add<'p>(sums: &mut Vec<Sum<'p>>, asks: Vec<Ask<'p>>, calls: u64) {
    for ask in asks {
        match sums.iter_mut().find(|sum| sum.ask.limit.counter() == ask.limit.counter()) {
            Some(sum) => {
                sum.ask.amount = sum.ask.amount.saturating_add(ask.amount);
                sum.calls += calls;
            }
            None => sums.push(Sum { ask, calls }),
        }
    }
}

/// What was spent of the limits of a window, at that time.
fn calendar_asks<'p>(policy: &'p Policy, spent: &Spent, (window, now_ms): (Window, u64)) -> Vec<Ask<'p>> {
    let Some(plan) = used_plan(policy, &spent.tenant, &spent.tier) else { return Vec::new() };
    let Spent { model, api, key, .. } = spent;
    let call = Call { model: model.as_deref(), api: api.as_deref(), key: key.as_deref() };
    let tokens = tokens(&token_counts(&spent.usage));
    // Calls that were rated when there was no price, or before costs were kept, are rated now: all of them
    // together, by the prices of today, and whoever answered them.
    let rate = || {
        let paid = spent.usage.requests.saturating_sub(spent.usage.requests_none);
        let asked = Admission { tenant: &spent.tenant, call, ..Admission::default() };
        let calls = Calls { requests: paid, images: spent.usage.images, tokens };
        cost_nanousd(limited_quote(policy, plan, &asked, now_ms), &calls)
    };
    let cost_nanousd = match spent.usage.requests_without_cost {
        0 => spent.usage.cost_nanousd,
        _ => spent.usage.cost_nanousd.max(rate()),
    };
    let requests = spent.usage.requests.saturating_sub(spent.usage.requests_refused);
    let quantities = Quantities { requests, slots: 0, tokens, cost_nanousd };
    let mut asks = plan.asks(&call, &quantities, now_ms);
    asks.retain(|ask| ask.limit.window == Some(window));
    asks
}
