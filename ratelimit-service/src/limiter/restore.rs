//! What the counters know after a restart: the ledger's calls of the present days and months, and those that expired lately.

use std::collections::HashMap;

use tollgate_domain::{Anchor, Call, EXPIRED_KEPT_MS, Expired, HeldCall, Quantities, Window};
use tollgate_wire::usage_event::TokenCounts;

use super::{Limiter, Policy, cost_nanousd, tokens, used, used_plan};
use crate::audit::Audit;
use crate::counters::Unavailable;
use crate::ledger::{Ledger, Spent, Usage};

/// The most expired reservations that are known again after a restart; of more, the latest.
pub const MAX_RESTORED: usize = 1 << 16;

/// No day or month is longer.
const LONGEST_PERIOD_MS: u64 = 31 * 86_400_000;

impl Limiter {
    /// Brings the counters of days and months to what `ledger` holds, of a tenant that was reset to what it holds since then.
    /// Call it once, before the first decision.
    ///
    /// Requests count there only when their usage event came; admissions whose calls were still going on are not known.
    ///
    /// # Errors
    /// When the ledger or the audit log cannot be read.
    pub async fn restore(&self, ledger: &dyn Ledger, audit: &dyn Audit) -> anyhow::Result<()> {
        let policy = self.policy();
        let now_ms = self.counters.now_ms();
        let resets = audit.last_resets(now_ms.saturating_sub(LONGEST_PERIOD_MS)).await?;
        // Tenants with beginnings of their own.
        let mut alone: HashMap<&str, (Anchor, u64)> =
            resets.iter().map(|(tenant, reset_at_ms)| (tenant.as_str(), (Anchor::UTC, *reset_at_ms))).collect();
        for (tenant, anchor) in policy.plans.anchored() {
            alone.entry(tenant).or_default().0 = anchor;
        }
        for window in [Window::Day, Window::Month] {
            if !policy.plans.all().any(|plan| plan.has_calendar(window)) {
                continue;
            }
            let begin_ms = |anchor: Anchor| match window {
                Window::Day => anchor.days(now_ms)[1],
                _ => anchor.months(now_ms)[1],
            };
            let in_utc = ledger.spent_since(begin_ms(Anchor::UTC), None).await?;
            for spent in in_utc.iter().filter(|spent| !alone.contains_key(spent.tenant.as_str())) {
                self.restore_spent(&policy, spent, window).await?;
            }
            for (tenant, (anchor, reset_at_ms)) in &alone {
                for spent in &ledger.spent_since(begin_ms(*anchor).max(*reset_at_ms), Some(tenant)).await? {
                    self.restore_spent(&policy, spent, window).await?;
                }
            }
        }
        self.restore_expired(&policy, ledger, now_ms).await
    }

    /// Knows again of what ran out: a late event takes its estimate's place, as it does in the ledger.
    async fn restore_expired(&self, policy: &Policy, ledger: &dyn Ledger, now_ms: u64) -> anyhow::Result<()> {
        let kept_ms = policy.reservation_timeout_ms.saturating_add(EXPIRED_KEPT_MS);
        let events = ledger.unsettled_since(now_ms.saturating_sub(kept_ms), MAX_RESTORED).await?;
        if events.len() == MAX_RESTORED {
            tracing::warn!(
                MAX_RESTORED,
                "events of calls that expired earlier than these will count beside their estimates"
            );
        }
        for event in &events {
            let Some(plan) = used_plan(policy, &event.tenant, &event.tier) else { continue };
            let expired = Expired {
                // When that was is not kept.
                expired_at_ms: event.started_at_ms.saturating_add(policy.reservation_timeout_ms),
                started_at_ms: event.started_at_ms,
                id: event.event_id.clone(),
                call: HeldCall::default(),
            };
            let (call, quantities) = used(policy, plan, event);
            self.counters.restore_expired(&event.tenant, &expired, &plan.asks(&call, &quantities, now_ms)).await?;
        }
        Ok(())
    }

    async fn restore_spent(&self, policy: &Policy, spent: &Spent, window: Window) -> Result<(), Unavailable> {
        let Some(plan) = used_plan(policy, &spent.tenant, &spent.tier) else { return Ok(()) };
        let call = Call { model: spent.model.as_deref(), api: spent.api.as_deref() };
        let tokens = tokens(&token_counts(&spent.usage));
        // As `settle` does: what used nothing is not paid for.
        let paid = spent.usage.requests.saturating_sub(spent.usage.requests_none);
        let cost_nanousd = cost_nanousd(policy, plan, &call, paid, &tokens);
        let requests = spent.usage.requests.saturating_sub(spent.usage.requests_refused);
        let quantities = Quantities { requests, slots: 0, tokens, cost_nanousd };
        let mut asks = plan.asks(&call, &quantities, self.counters.now_ms());
        asks.retain(|ask| ask.limit.window == Some(window));
        if asks.is_empty() {
            return Ok(());
        }
        self.counters.restore(&spent.tenant, &asks).await
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
