//! Alerts: a tenant nears a monthly limit, or has passed it.
//!
//! Invariants:
//! - An alert is given once for each tenant, limit, threshold and period, also over restarts and by several processes on one
//!   database: it is given by whoever notes it there, in one transaction with the messages that tell of it.
//! - What is looked at is what is spent, as the limiter counts it; what open calls hold is none of it.
//! - Who was touched is looked at within about [`INTERVAL`], however often that was; who could not be looked at, again.

mod metrics;
mod rules;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use tollgate_domain::{Plan, Unit};

use crate::clock::{Clock, rfc3339};
use crate::counters::Unavailable;
use crate::database::{Database, DatabaseError};
use crate::ledger::{Ledger, LedgerError};
use crate::limiter::{Limiter, Policy};
use crate::webhooks::{Message, Webhooks};

pub use metrics::AlertMetrics;
use rules::Spending;

/// The most tenants that wait to be looked at.
pub const MAX_TOUCHED: usize = 65_536;

/// How often those are looked at that were touched.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The most alerts that are noted in one transaction.
const MAX_TOGETHER: usize = 256;

/// Of so many limits it is remembered which alerts were given; of others the database tells.
const REMEMBERED: usize = 65_536;

/// How far back tenants are known of at the start: a month, and a day for those whose months begin elsewhere.
const KNOWN_MS: u64 = 32 * 86_400_000;

/// A threshold that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crossing {
    tenant: String,
    tier: String,
    limit: String,
    unit: Unit,
    threshold: u16,
    spending: Spending,
}

/// A limit of a tenant in a period: tenant, limit's name, beginning.
type Counted = (String, String, u64);

/// Looks at tenants' monthly limits.
pub struct Alerts {
    /// Percent, rising.
    thresholds: Vec<u16>,
    limiter: Arc<Limiter>,
    database: Arc<Database>,
    webhooks: Arc<Webhooks>,
    clock: Clock,
    metrics: AlertMetrics,
    /// Tenants, each with the tier of its latest call.
    touched: Mutex<HashMap<String, String>>,
    /// Thresholds that are known to be noted.
    given: Cache<Counted, Vec<u16>>,
}

impl Alerts {
    /// Gives alerts at these thresholds, in percent, rising; none of them is no alerts.
    pub fn new(
        thresholds: Vec<u16>,
        limiter: Arc<Limiter>,
        database: Arc<Database>,
        webhooks: Arc<Webhooks>,
        clock: Clock,
        metrics: AlertMetrics,
    ) -> Alerts {
        let (touched, given) = (Mutex::default(), Cache::new(REMEMBERED));
        Alerts { thresholds, limiter, database, webhooks, clock, metrics, touched, given }
    }

    /// A call of the tenant was settled, on this tier. Cheap, and waits for nothing.
    pub fn touched(&self, tenant: &str, tier: &str) {
        if self.thresholds.is_empty() {
            return;
        }
        let mut touched = self.touched.lock();
        if let Some(known) = touched.get_mut(tenant) {
            if known != tier {
                tier.clone_into(known);
            }
        } else if touched.len() < MAX_TOUCHED {
            touched.insert(tenant.to_owned(), tier.to_owned());
        } else {
            self.metrics.passed_over.inc();
        }
    }

    /// Looks at everybody who had calls lately: alerts that were due when the service ended are given now. For the start, once
    /// the limiter is restored.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn look_at_known(&self, ledger: &dyn Ledger) -> Result<(), LedgerError> {
        if self.thresholds.is_empty() {
            return Ok(());
        }
        let now_ms = (self.clock)();
        let tenants = ledger.tenants(now_ms.saturating_sub(KNOWN_MS), now_ms.saturating_add(1)).await?;
        for some in tenants.chunks(MAX_TOUCHED / 2) {
            for tenant in some {
                let tier = ledger.last_tier(tenant).await?;
                self.touched(tenant, tier.as_deref().unwrap_or_default());
            }
            self.look().await;
        }
        Ok(())
    }

    /// Looks at who was touched, as long as it is not dropped.
    pub async fn run(self: Arc<Alerts>) {
        let mut due = tokio::time::interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now_ms = (self.clock)();
        if let Err(error) = self.database.write(move |transaction| store::forget_old(transaction, now_ms)).await {
            tracing::warn!(%error, "old alerts were not forgotten; they will be after the next start");
        }
        loop {
            due.tick().await;
            self.look().await;
        }
    }

    /// Looks at who was touched, and gives the alerts that are due.
    pub async fn look(&self) {
        let touched = std::mem::take(&mut *self.touched.lock());
        let policy = self.limiter.policy();
        let mut due = Vec::new();
        for (tenant, tier) in touched {
            match self.due(&policy, &tenant, &tier).await {
                Ok(crossings) => due.extend(crossings),
                Err(_) => self.touched(&tenant, &tier),
            }
            if due.len() >= MAX_TOGETHER {
                self.give(std::mem::take(&mut due)).await;
            }
        }
        self.give(due).await;
    }

    /// The thresholds that a tenant has reached, and of which no alert is known to be given.
    async fn due(&self, policy: &Policy, tenant: &str, tier: &str) -> Result<Vec<Crossing>, Unavailable> {
        let Some(plan) = plan(policy, tenant, tier) else { return Ok(Vec::new()) };
        if plan.limits.iter().all(|limit| limit.window != Some(tollgate_domain::Window::Month)) {
            return Ok(Vec::new());
        }
        let standings = self.limiter.standings(tenant, plan).await?;
        let now_ms = (self.clock)();
        let mut due = Vec::new();
        for standing in &standings {
            let Some(spending) = rules::spending(standing, plan.anchor, now_ms) else { continue };
            let limit = standing.limit;
            let counted = (tenant.to_owned(), limit.name().to_owned(), spending.period_start_ms);
            let given = self.given.get(&counted).unwrap_or_default();
            let reached = rules::newly_reached(&self.thresholds, &given, &spending);
            due.extend(reached.into_iter().map(|threshold| Crossing {
                tenant: tenant.to_owned(),
                tier: plan.tier.clone(),
                limit: limit.name().to_owned(),
                unit: limit.unit,
                threshold,
                spending,
            }));
        }
        Ok(due)
    }

    /// Notes alerts and puts in what tells of them; whose alerts could not be noted is looked at again.
    async fn give(&self, due: Vec<Crossing>) {
        if due.is_empty() {
            return;
        }
        match self.note(due.clone()).await {
            Ok(are_new) => {
                for (crossing, is_new) in due.iter().zip(are_new) {
                    self.remember(crossing);
                    if is_new {
                        self.tell(crossing);
                    }
                }
                self.webhooks.wake();
            }
            Err(error) => {
                tracing::warn!(%error, "alerts were not noted; they will be");
                for Crossing { tenant, tier, .. } in &due {
                    self.touched(tenant, tier);
                }
            }
        }
    }

    /// Which of them are new; of those, messages are put in.
    async fn note(&self, due: Vec<Crossing>) -> Result<Vec<bool>, DatabaseError> {
        let (webhooks, now_ms) = (self.webhooks.clone(), (self.clock)());
        let noting = move |transaction: &rusqlite::Transaction<'_>| {
            let note = |crossing: &Crossing| {
                let is_new = store::note(transaction, crossing, now_ms)?;
                if is_new {
                    webhooks.put(transaction, &message(crossing, now_ms))?;
                }
                Ok(is_new)
            };
            due.iter().map(note).collect()
        };
        self.database.write(noting).await
    }

    fn remember(&self, crossing: &Crossing) {
        let counted = (crossing.tenant.clone(), crossing.limit.clone(), crossing.spending.period_start_ms);
        let mut given = self.given.get(&counted).unwrap_or_default();
        given.push(crossing.threshold);
        self.given.insert(counted, given);
    }

    fn tell(&self, crossing: &Crossing) {
        self.metrics.given(crossing.threshold).inc();
        let Crossing { tenant, limit, threshold, spending, .. } = crossing;
        let (spent, capacity) = (spending.spent, spending.capacity);
        tracing::info!(
            tenant,
            limit,
            threshold_percent = threshold,
            spent,
            capacity,
            "a tenant reached a threshold of a limit"
        );
    }
}

/// The plan of calls that were made, whatever becomes of further ones.
fn plan<'p>(policy: &'p Policy, tenant: &str, tier: &str) -> Option<&'p Plan> {
    let found = policy.plans.plan(tenant, Some(tier)).or_else(|_| policy.plans.plan(tenant, None));
    found.ok().map(|found| found.plan)
}

/// What webhooks are told. Amounts of cost are in US dollars.
#[derive(Debug, Serialize)]
struct Data<'a> {
    tenant_id: &'a str,
    plan_tier: &'a str,
    limit: &'a str,
    unit: Unit,
    threshold_percent: u16,
    used: Amount,
    capacity: Amount,
    percent: f64,
    period_start: String,
    period_end: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Amount {
    Count(u64),
    Usd(f64),
}

fn message(crossing: &Crossing, now_ms: u64) -> Message {
    let Crossing { tenant, tier, limit, unit, threshold, spending } = crossing;
    let (kind, amount): (_, fn(u64) -> Amount) = match unit {
        Unit::Cost => ("budget.threshold_reached", |nanousd| Amount::Usd(nanousd as f64 / 1e9)),
        _ => ("limit.threshold_reached", Amount::Count),
    };
    let (spent, capacity) = (spending.spent, spending.capacity.get());
    let data = Data {
        tenant_id: tenant,
        plan_tier: tier,
        limit,
        unit: *unit,
        threshold_percent: *threshold,
        used: amount(spent),
        capacity: amount(capacity),
        // To four decimals.
        percent: (spent as f64 / capacity as f64 * 1e6).round() / 1e4,
        period_start: rfc3339(spending.period_start_ms),
        period_end: rfc3339(spending.period_end_ms),
    };
    Message::new(kind, now_ms, &data)
}
