//! What all tenants have spent of their limits.

mod memory;

use tollgate_domain::{Amounts, Decision, Plan, Settlement, Span, Standing};

pub use memory::{MAX_TENANTS, MemoryCounters};

/// An engine that keeps one [`tollgate_domain::TenantCounters`] for each tenant, or acts as if it did.
pub trait Counters: Send + Sync {
    /// Decides about a call of `tenant` and takes its requests when all limits agree.
    fn take(&self, tenant: &str, plan: &Plan, amounts: Amounts, now_ms: u64) -> Decision;

    /// Decides likewise, and takes nothing.
    fn check(&self, tenant: &str, plan: &Plan, amounts: Amounts, now_ms: u64) -> Decision;

    /// Takes the tokens of a finished call from what its plan counts and all other limits of the tenant that count them.
    fn settle(&self, tenant: &str, plan: &Plan, used: Settlement, now_ms: u64);

    /// Takes what the ledger says was used in the present period of the length `span`, after a restart.
    fn restore(&self, tenant: &str, plan: &Plan, span: Span, used: Amounts, now_ms: u64);

    /// Where each limit of the plan stands for `tenant`.
    fn standings(&self, tenant: &str, plan: &Plan, now_ms: u64) -> Vec<Standing>;
}
