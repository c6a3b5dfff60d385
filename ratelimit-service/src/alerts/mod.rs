//! Alerts: a tenant nears a monthly limit or a budget, or has passed it.
//!
//! Invariants:
//! - An alert is given once for each tenant, limit or budget, threshold and period, also over restarts and by several processes on one
//!   database: it is given by whoever notes it there, in one transaction with the messages that tell of it.
//! - What is looked at is what is spent, as the limiter counts it; what open calls hold is none of it.
//! - Each of a tenant's budgets is looked at by its own amount, whichever of them is the limit; that limit is not told of besides.
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
use tollgate_domain::{Limit, Plan, Unit};

use crate::budgets::{Budgets, Marked};
use crate::clock::{Clock, rfc3339};
use crate::counters::Unavailable;
use crate::database::{Database, DatabaseError};
use crate::ledger::{Ledger, LedgerError};
use crate::limiter::{Limiter, Policy};
use crate::webhooks::{Event, Message, Webhooks};

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
    /// The id of the budget, where it is one's threshold.
    budget: Option<String>,
    unit: Unit,
    threshold: u16,
    spending: Spending,
}

/// A limit or budget of a tenant in a period: tenant, what it is known by, beginning.
type Counted = (String, String, u64);

impl Crossing {
    fn counted(&self) -> Counted {
        let known_by = known_by(&self.limit, self.budget.as_deref());
        (self.tenant.clone(), known_by, self.spending.period_start_ms)
    }
}

/// What alerts are noted by. A limit's name begins with its unit, and so is no budget's.
fn known_by(limit: &str, budget: Option<&str>) -> String {
    budget.map_or_else(|| limit.to_owned(), |budget| format!("budget:{budget}"))
}

/// Looks at tenants' monthly limits and budgets.
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
    /// The budgets whose tenants were looked at.
    budgets: Mutex<Arc<Budgets>>,
    /// Thresholds that are known to be noted.
    given: Cache<Counted, Vec<u16>>,
}

impl Alerts {
    /// Gives alerts at these thresholds, in percent, rising; none of them is no alerts but of budgets that have their own.
    pub fn new(
        thresholds: Vec<u16>,
        limiter: Arc<Limiter>,
        database: Arc<Database>,
        webhooks: Arc<Webhooks>,
        clock: Clock,
        metrics: AlertMetrics,
    ) -> Alerts {
        let (touched, given) = (Mutex::default(), Cache::new(REMEMBERED));
        let budgets = Mutex::new(limiter.policy().budgets.clone());
        Alerts { thresholds, limiter, database, webhooks, clock, metrics, touched, budgets, given }
    }

    /// A call of the tenant was settled, on this tier; an empty one tells nothing. Cheap, and waits for nothing.
    pub fn touched(&self, tenant: &str, tier: &str) {
        if self.have_none() {
            return;
        }
        let mut touched = self.touched.lock();
        if let Some(known) = touched.get_mut(tenant) {
            if known != tier && !tier.is_empty() {
                tier.clone_into(known);
            }
        } else if touched.len() < MAX_TOUCHED {
            touched.insert(tenant.to_owned(), tier.to_owned());
        } else {
            self.metrics.passed_over.inc();
        }
    }

    /// Whether there is no threshold at all.
    fn have_none(&self) -> bool {
        self.thresholds.is_empty() && !self.limiter.policy().budgets.have_thresholds()
    }

    /// Looks at everybody who had calls lately: alerts that were due when the service ended are given now. For the start, once
    /// the limiter is restored.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn look_at_known(&self, ledger: &dyn Ledger) -> Result<(), LedgerError> {
        if self.have_none() {
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

    /// Looks at who was touched, and at whose budgets change, as long as it is not dropped.
    pub async fn run(self: Arc<Alerts>, ledger: Arc<dyn Ledger>) {
        let mut due = tokio::time::interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now_ms = (self.clock)();
        if let Err(error) = self.database.write(move |transaction| store::forget_old(transaction, now_ms)).await {
            tracing::warn!(%error, "old alerts were not forgotten; they will be after the next start");
        }
        loop {
            due.tick().await;
            self.touch_changed(ledger.as_ref()).await;
            self.look().await;
        }
    }

    /// Has those looked at whose budgets changed: one that is spent already may deny all the calls that would touch them.
    async fn touch_changed(&self, ledger: &dyn Ledger) {
        let budgets = self.limiter.policy().budgets.clone();
        let before = std::mem::replace(&mut *self.budgets.lock(), budgets.clone());
        if Arc::ptr_eq(&budgets, &before) {
            return;
        }
        for tenant in budgets.changed_since(&before) {
            // The tier is only told.
            let tier = ledger.last_tier(tenant).await.ok().flatten();
            self.touched(tenant, tier.as_deref().unwrap_or_default());
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
            for (budget, spending, thresholds) in self.looked_at(policy, tenant, standing.limit, spending) {
                let (limit, budget) = (standing.limit.name(), budget.map(|budget| budget.id.as_str()));
                let counted = (tenant.to_owned(), known_by(limit, budget), spending.period_start_ms);
                let given = self.given.get(&counted).unwrap_or_default();
                let reached = rules::newly_reached(thresholds, &given, &spending);
                due.extend(reached.into_iter().map(|threshold| Crossing {
                    tenant: tenant.to_owned(),
                    tier: plan.tier.clone(),
                    limit: limit.to_owned(),
                    budget: budget.map(str::to_owned),
                    unit: standing.limit.unit,
                    threshold,
                    spending,
                }));
            }
        }
        Ok(due)
    }

    /// What is looked at of a limit, each with its thresholds: all budgets that count the same, of which it is one, or else
    /// itself.
    fn looked_at<'p>(
        &'p self,
        policy: &'p Policy,
        tenant: &str,
        limit: &Limit,
        spending: Spending,
    ) -> Vec<(Option<&'p Marked>, Spending, &'p [u16])> {
        let budgets = policy.budgets.of(tenant).iter().filter(|budget| budget.counter == limit.counter());
        let looked_at: Vec<_> = budgets
            .map(|budget| {
                let own = Some(budget.thresholds.as_slice()).filter(|own| !own.is_empty());
                (Some(budget), spending.of(budget.amount_nanousd), own.unwrap_or(&self.thresholds))
            })
            .collect();
        if looked_at.is_empty() { vec![(None, spending, self.thresholds.as_slice())] } else { looked_at }
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
        let counted = crossing.counted();
        let mut given = self.given.get(&counted).unwrap_or_default();
        given.push(crossing.threshold);
        self.given.insert(counted, given);
    }

    fn tell(&self, crossing: &Crossing) {
        self.metrics.given(crossing.threshold).inc();
        let Crossing { tenant, limit, budget, threshold, spending, .. } = crossing;
        let (spent, capacity) = (spending.spent, spending.capacity);
        tracing::info!(
            tenant,
            limit,
            budget,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_id: Option<&'a str>,
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
    let Crossing { tenant, tier, limit, budget, unit, threshold, spending } = crossing;
    let (event, amount): (_, fn(u64) -> Amount) = match unit {
        Unit::Cost => (Event::BudgetThreshold, |nanousd| Amount::Usd(nanousd as f64 / 1e9)),
        _ => (Event::LimitThreshold, Amount::Count),
    };
    let (spent, capacity) = (spending.spent, spending.capacity.get());
    let data = Data {
        tenant_id: tenant,
        plan_tier: tier,
        limit,
        budget_id: budget.as_deref(),
        unit: *unit,
        threshold_percent: *threshold,
        used: amount(spent),
        capacity: amount(capacity),
        // To four decimals.
        percent: (spent as f64 / capacity as f64 * 1e6).round() / 1e4,
        period_start: rfc3339(spending.period_start_ms),
        period_end: rfc3339(spending.period_end_ms),
    };
    let (_, known_by, period_start_ms) = crossing.counted();
    let what = format!("{tenant}\n{known_by}\n{period_start_ms}\n{threshold}");
    Message::new(event, Some(tenant), now_ms, &data).with_id_of(&what)
}
