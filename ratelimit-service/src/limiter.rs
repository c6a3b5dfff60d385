//! The limiter: plans, and the counters that hold tenants to them.

use tollgate_domain::{Amounts, ContextExceeded, Decision, Period, Plan, Plans, Settlement, Span, Standing};
use tollgate_wire::usage_event::UsageEvent;

use crate::counters::Counters;
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::Metrics;

/// Decides about calls and settles them.
pub struct Limiter {
    plans: Plans,
    counters: Box<dyn Counters>,
    metrics: Metrics,
}

impl Limiter {
    /// A limiter that holds tenants to `plans`.
    pub fn new(plans: Plans, counters: Box<dyn Counters>, metrics: Metrics) -> Limiter {
        Limiter { plans, counters, metrics }
    }

    /// Brings the counters of days and months to what `ledger` holds. Call it once, before the first decision.
    ///
    /// Requests count there only when their usage event came; admissions whose calls were still going on are not known.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn restore(&self, ledger: &dyn Ledger, now_ms: u64) -> Result<(), LedgerError> {
        for span in [Span::Day, Span::Month] {
            let plan = self.plans.default_plan();
            if !plan.counted().any(|limit| limit.window.calendar() == Some(span)) {
                continue;
            }
            for (tenant, used) in ledger.by_tenant(Period::around(span, now_ms)).await? {
                let used = Amounts {
                    requests: used.requests,
                    input_tokens: used.input_tokens,
                    output_tokens: used.output_tokens,
                };
                self.counters.restore(&tenant, plan, span, used, now_ms);
            }
        }
        Ok(())
    }

    /// The plan of a tier; the default one when the tier is missing or unknown, and an unknown one is counted.
    pub fn plan(&self, tier: Option<&str>) -> &Plan {
        let Some(tier) = tier.filter(|tier| !tier.is_empty()) else { return self.plans.default_plan() };
        self.plans.get(tier).unwrap_or_else(|| {
            self.metrics.unknown_tiers.inc();
            self.plans.default_plan()
        })
    }

    /// Decides about a call and takes its requests when all limits agree.
    ///
    /// # Errors
    /// When the prompt is too long for the plan: nothing is taken, and no limit was asked.
    pub fn take(&self, tenant: &str, plan: &Plan, amounts: Amounts, now_ms: u64) -> Result<Decision, ContextExceeded> {
        plan.check_context(amounts.input_tokens)?;
        Ok(self.counters.take(tenant, plan, amounts, now_ms))
    }

    /// Decides about a call, and takes nothing.
    ///
    /// # Errors
    /// When the prompt is too long for the plan.
    pub fn check(&self, tenant: &str, plan: &Plan, amounts: Amounts, now_ms: u64) -> Result<Decision, ContextExceeded> {
        plan.check_context(amounts.input_tokens)?;
        Ok(self.counters.check(tenant, plan, amounts, now_ms))
    }

    /// Takes the tokens that a call has used.
    pub fn settle(&self, event: &UsageEvent, now_ms: u64) {
        let used = Settlement {
            input_tokens: event.tokens.input,
            output_tokens: event.tokens.output,
            started_at_ms: event.started_at_ms,
            ended_at_ms: event.started_at_ms.saturating_add(event.duration_ms),
        };
        self.counters.settle(&event.tenant, self.plan(Some(&event.tier)), used, now_ms);
    }

    /// Where each limit of the plan stands for `tenant`.
    pub fn standings(&self, tenant: &str, plan: &Plan, now_ms: u64) -> Vec<Standing> {
        self.counters.standings(tenant, plan, now_ms)
    }
}
