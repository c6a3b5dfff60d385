//! What the limiter goes by: what is configured, and what the accounts have beside it or in its place. And whom webhooks tell: the
//! copy of the accounts is one.
//!
//! The limiter never asks the accounts: it goes by a copy, which is made anew whenever the configuration or a record changes. While
//! the accounts do not answer, the copy stays as it is.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tollgate_domain::{
    Access, Action, Anchor, Given, Limit, MarkUp, MissingTier, Overlap, Plan, Scope, Tenants, Terms, Unit, Window,
};

use crate::accounts::{
    self, Accounts, AccountsError, Budget, Enforcement, LimitOverrides, PriceRow, Record, Tenant, TenantStatus,
    WebhookEndpoint,
};
use crate::audit::Audit;
use crate::budgets::{Budgets, Marked};
use crate::config;
use crate::ledger::Ledger;
use crate::limiter::{Limiter, Policy};
use crate::webhooks::{MAX_AGREED, Recipient, Webhooks};

/// How long the accounts are left alone after they were read, or did not answer. Changes come together meanwhile.
pub const PAUSE: Duration = Duration::from_millis(200);

/// How long after a limit has begun to count it is looked into the ledger once more: what was settled before had come there by
/// then, if it ever takes what comes in as it comes.
const SETTLED: Duration = Duration::from_secs(5);

/// How long the ledger is left alone that could not be read.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

/// Keeps the limiter's policy as the configuration and the accounts have it.
pub struct Policies {
    limiter: Arc<Limiter>,
    webhooks: Arc<Webhooks>,
    accounts: Accounts,
    metrics: PolicyMetrics,
    parts: Mutex<Parts>,
    begun: Mutex<Tenants>,
    has_begun: Notify,
}

/// How the copy of the accounts is.
#[derive(Debug, Clone, Default)]
pub struct PolicyMetrics {
    revision: Gauge,
    refused: Gauge,
    failed: Counter,
}

impl PolicyMetrics {
    /// Registered.
    pub fn new(registry: &mut Registry) -> PolicyMetrics {
        let metrics = PolicyMetrics::default();
        let PolicyMetrics { revision, refused, failed } = metrics.clone();
        registry.register(
            "accounts_revision",
            "The change of the accounts up to which the limiter goes by them",
            revision,
        );
        registry.register("accounts_refused", "Records of the accounts that can't be gone by", refused);
        registry.register("accounts_read_failures", "Times that the accounts could not be read", failed);
        metrics
    }
}

/// What a policy is made of.
struct Parts {
    configured: Policy,
    agreed: Agreed,
}

/// What the accounts have, as of a revision.
#[derive(Debug, Clone, Default)]
pub struct Agreed {
    revision: u64,
    given: Given,
    budgets: Arc<Budgets>,
    told: Vec<Recipient>,
    /// Records that can't be gone by, each with why.
    refused: Vec<String>,
}

impl Agreed {
    /// Reads all of it.
    ///
    /// # Errors
    /// When the accounts cannot be read.
    pub async fn read(accounts: &Accounts) -> Result<Agreed, AccountsError> {
        // What changes from here on is read again.
        let mut agreed = Agreed { revision: accounts.revision().await?, ..Agreed::default() };
        for record in accounts.all::<accounts::Plan>().await? {
            match config::limits(record.value.limits.text()) {
                Ok(limits) => {
                    let mark_up = u32::try_from(record.value.markup_ppm).map_or(MarkUp::NONE, MarkUp::from_ppm);
                    let mut plan = Plan::new(record.id, record.value.context_tokens, limits);
                    plan.mark_up = mark_up;
                    agreed.given.plans.push(plan);
                }
                Err(error) => agreed.refused.push(format!("plan `{}`: limits{error}", record.id)),
            }
        }
        let terms = &mut agreed.given.terms;
        for Record { id, value, .. } in accounts.all::<Tenant>().await? {
            terms.insert(id, terms_of(&value));
        }
        for Record { id, value, .. } in accounts.all::<LimitOverrides>().await? {
            let terms = terms.entry(id.clone()).or_default();
            terms.context_tokens = value.context_tokens;
            match config::limits(value.limits.text()) {
                Ok(limits) => terms.limits = limits,
                Err(error) => agreed.refused.push(format!("limit overrides of `{id}`: limits{error}")),
            }
        }
        let mut rows = accounts.all::<PriceRow>().await?;
        rows.sort_by_key(|row| row.value.position);
        for Record { id, value, .. } in rows {
            let price = value.price.read().map_err(|error| error.to_string()).and_then(config::price_from_json);
            match (price, value.tenant) {
                (Ok(price), Some(tenant)) => terms.entry(tenant).or_default().prices.push(price),
                (Ok(price), None) => agreed.given.prices.push(price),
                (Err(error), _) => agreed.refused.push(format!("price `{id}`: {error}")),
            }
        }
        let records = accounts.all::<Budget>().await?;
        agreed.budgets = Arc::new(marked(&records));
        for Record { value: budget, .. } in records {
            if let Some(limit) = limit(&budget) {
                terms.entry(budget.tenant).or_default().budgets.push(limit);
            }
        }
        for record in accounts.all::<WebhookEndpoint>().await? {
            match Recipient::agreed(&record) {
                Ok(_) if agreed.told.len() == MAX_AGREED => {
                    agreed.refused.push(format!("webhook `{}`: there are more than {MAX_AGREED}", record.id));
                }
                Ok(recipient) => agreed.told.push(recipient),
                Err(error) => agreed.refused.push(format!("webhook `{}`: {error}", record.id)),
            }
        }
        Ok(agreed)
    }

    /// The policy that comes of it: what is agreed on goes before what is configured. Tenants whose tier no plan has are on the
    /// one that their calls name.
    pub fn over(&self, configured: &Policy) -> (Policy, Vec<String>) {
        let mut refused = self.refused.clone();
        let mut given = self.given.clone();
        let has = |tier: &str| configured.plans.has(tier) || self.given.plans.iter().any(|plan| plan.tier == tier);
        for (tenant, terms) in &mut given.terms {
            if let Some(tier) = terms.tier.take_if(|tier| !has(tier)) {
                refused.push(format!("tenant `{tenant}`: tier: no plan is called `{tier}`"));
            }
        }
        match configured.plans.with(given) {
            Ok(plans) => (Policy { plans, budgets: self.budgets.clone(), ..configured.clone() }, refused),
            // There is none: the default tier's plan is replaced at the most.
            Err(MissingTier::Default | MissingTier::Of(_)) => (configured.clone(), refused),
        }
    }
}

impl Policies {
    /// Has `limiter` go by what is configured and agreed on from now on, and `webhooks` tell who is agreed on.
    pub fn new(
        limiter: Arc<Limiter>,
        webhooks: Arc<Webhooks>,
        accounts: Accounts,
        configured: Policy,
        agreed: Agreed,
        metrics: PolicyMetrics,
    ) -> Policies {
        let (parts, begun) = (Mutex::new(Parts { configured, agreed }), Mutex::default());
        let policies = Policies { limiter, webhooks, accounts, metrics, parts, begun, has_begun: Notify::new() };
        policies.change(|_| {});
        policies
    }

    /// Another configuration is in force.
    pub fn configure(&self, configured: Policy) {
        self.change(|parts| parts.configured = configured);
    }

    /// Takes over what changes in the accounts, until it is dropped.
    pub async fn follow(&self) {
        loop {
            let known = self.parts.lock().agreed.revision;
            self.accounts.wait_for_change(known).await;
            match Agreed::read(&self.accounts).await {
                Ok(agreed) => self.change(|parts| parts.agreed = agreed),
                Err(error) => {
                    self.metrics.failed.inc();
                    tracing::warn!(%error, "what changed in the accounts does not hold yet; they are asked again");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Brings counters to what was used in their period already, as long as it is not dropped: those that outlived the service at
    /// once, should they have lost something, and those that begin to count. `caught_up` is notified when all is in the ledger
    /// that came before the start.
    pub async fn count_what_was(&self, ledger: &dyn Ledger, audit: &dyn Audit, caught_up: &Notify) {
        let (started, outlives) = (Instant::now(), self.limiter.outlives());
        if outlives {
            caught_up.notified().await;
            // They are among all.
            drop(std::mem::take(&mut *self.begun.lock()));
            self.restore(ledger, audit, &Tenants::All, Overlap::Held).await;
        }
        loop {
            let begun = std::mem::take(&mut *self.begun.lock());
            if begun.is_empty() {
                self.has_begun.notified().await;
                continue;
            }
            // What was lost with the service's predecessor has run out then.
            let timeout = Duration::from_millis(self.limiter.policy().reservation_timeout_ms);
            let overlap = if outlives && started.elapsed() < timeout { Overlap::Held } else { Overlap::Nothing };
            self.restore(ledger, audit, &begun, overlap).await;
        }
    }

    async fn restore(&self, ledger: &dyn Ledger, audit: &dyn Audit, tenants: &Tenants, overlap: Overlap) {
        for pause in [SETTLED, Duration::ZERO] {
            while let Err(error) = self.limiter.restore(ledger, audit, tenants, overlap).await {
                tracing::warn!(%error, "limits may not know yet what was used before; it is tried again");
                tokio::time::sleep(LEDGER_PAUSE).await;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock();
        change(&mut parts);
        let (policy, refused) = parts.agreed.over(&parts.configured);
        let begun = policy.plans.begun_since(&self.limiter.policy().plans);
        self.limiter.replace(policy);
        self.begun.lock().add(begun);
        self.has_begun.notify_one();
        self.webhooks.agree(&parts.agreed.told);
        for what in &refused {
            tracing::error!("the accounts have what can't be gone by: {what}");
        }
        self.metrics.refused.set(refused.len() as i64);
        self.metrics.revision.set(i64::try_from(parts.agreed.revision).unwrap_or(i64::MAX));
    }
}

fn terms_of(tenant: &Tenant) -> Terms {
    Terms {
        tier: tenant.tier.clone(),
        anchor: tenant.billing_anchor_ms.map_or(Anchor::UTC, Anchor::at),
        access: match tenant.status {
            TenantStatus::Active => Access::Open,
            TenantStatus::Suspended => Access::Suspended,
        },
        ..Terms::default()
    }
}

/// A budget as a limit; `None` for an amount that no budget has.
fn limit(budget: &Budget) -> Option<Limit> {
    let capacity = NonZeroU64::new(budget.amount_nanousd)?;
    let scope = Scope { keys: budget.key.clone().into_iter().collect(), ..Scope::default() };
    let limit = Limit::new(Unit::Cost, Some(Window::Month), capacity).ok()?.with_scope(scope);
    let action = match budget.enforcement {
        Enforcement::Hard => Action::Enforce,
        Enforcement::Soft => Action::Warn,
    };
    Some(limit.with_action(action))
}

/// All of them as alerts look at them: also those that are not their tenant's limit, for what is spent is counted once.
fn marked(records: &[Record<Budget>]) -> Budgets {
    let mut budgets = Budgets::default();
    for Record { id, value: budget, .. } in records {
        let Some(limit) = limit(budget) else { continue };
        let thresholds = budget.thresholds.clone();
        let marked = Marked { id: id.clone(), amount_nanousd: limit.capacity, thresholds, counter: limit.counter() };
        budgets.insert(budget.tenant.clone(), marked);
    }
    budgets
}
