//! Drafts and closes invoices in the background.
//!
//! What was done is seen from the invoices themselves: a round that is made again, after a restart or by another
//! replica, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tollgate_domain::Day;
use tollgate_domain::invoice::{BillingMonth, ExactUsd, State};

use super::draft::overlap;
use super::kept::{self, Kept};
use super::{Agreement, Billing, BillingError, Closing, charges, months};
use crate::accounts::{self, Record, TenantStatus};

/// How often the scheduler asks to lead.
pub const TICK: Duration = Duration::from_secs(60);

/// How long it leads without asking again.
const LEAD_MS: u64 = 3 * 60_000;

/// How often it goes through the tenants.
const ROUND_MS: u64 = 3_600_000;

/// How soon it does so again where some could not be billed.
const AGAIN_MS: u64 = 5 * 60_000;

/// How many months before the running one are closed: one, and another for when the service was away.
const MONTHS_BEFORE: usize = 2;

/// Tenants with entries since then are billed: the months before the running one lie in it, whatever their lengths.
const KNOWN_MS: u64 = (MONTHS_BEFORE as u64 + 1) * 32 * 86_400_000;

/// The name under which replicas lead.
const LEADER: &str = "billing";

/// The name under which the audit log knows the scheduler.
const ACTOR: &str = "billing";

/// What is remembered from round to round. To forget it makes more work, and nothing else.
#[derive(Debug, Default)]
pub struct Rounds {
    /// When the last one began.
    at_ms: Option<u64>,
    /// The day on which all drafts were brought up to date.
    day: Option<Day>,
    /// Who could not be billed, and is tried again.
    failed: BTreeSet<String>,
}

/// What a round does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Brings all drafts up to date.
    All,
    /// Those alone that are to be closed.
    Due,
}

/// What the running months come to.
#[derive(Debug, Default)]
struct Tally {
    exact: ExactUsd,
    estimated: ExactUsd,
    calls_without_price: u64,
}

impl Rounds {
    fn is_due(&self, now_ms: u64) -> bool {
        let every_ms = if self.failed.is_empty() { ROUND_MS } else { AGAIN_MS };
        self.at_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= every_ms)
    }
}

impl Billing {
    /// Goes through the tenants once an hour, the drafts once a day, as long as it is not dropped; and only while no
    /// other replica does. Then call [`Billing::resign`].
    pub async fn run(self: Arc<Billing>) {
        let mut rounds = Rounds::default();
        let mut due = tokio::time::interval(TICK);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let now_ms = (self.clock)();
            match self.accounts.try_lead(LEADER, &self.holder, now_ms, LEAD_MS).await {
                Ok(true) if rounds.is_due(now_ms) => self.round(&mut rounds).await,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "nobody knows who bills; it is asked again"),
            }
        }
    }

    /// Lets another replica lead, or the next start: it need not wait until this one's time is over.
    pub async fn resign(&self) {
        if let Err(error) = self.accounts.resign(LEADER, &self.holder).await {
            tracing::warn!(%error, "nobody bills for {} s", LEAD_MS / 1000);
        }
    }

    /// Goes through the tenants once.
    pub async fn round(&self, rounds: &mut Rounds) {
        let now_ms = (self.clock)();
        let today = Day::of(now_ms);
        let extent = if rounds.day == Some(today) { Extent::Due } else { Extent::All };
        rounds.at_ms = Some(now_ms);
        let known = self.ledger.tenants(now_ms.saturating_sub(KNOWN_MS), now_ms.saturating_add(1)).await;
        let mut tenants: BTreeSet<_> = match known {
            Ok(tenants) => tenants.into_iter().collect(),
            Err(error) => {
                self.metrics.failures.inc();
                return tracing::warn!(%error, "nobody is billed for now; the ledger cannot be read");
            }
        };
        let owing = match self.owing().await {
            Ok(owing) => owing,
            Err(error) => {
                self.metrics.failures.inc();
                return tracing::warn!(%error, "nobody is billed for now; the accounts cannot be read");
            }
        };
        tenants.extend(owing.keys().cloned());
        let failed = std::mem::take(&mut rounds.failed);
        let mut tally = Tally::default();
        for tenant in tenants {
            let extent = if failed.contains(&tenant) { Extent::All } else { extent };
            let owing_since_ms = owing.get(&tenant).copied();
            let billed = self.bill(&tenant, now_ms, extent, owing_since_ms, &mut tally);
            if let Err(error) = self.alone(&tenant, billed).await {
                self.metrics.failures.inc();
                tracing::error!(tenant, %error, "a tenant was not billed; it is tried again");
                rounds.failed.insert(tenant);
            }
        }
        if extent == Extent::All {
            rounds.day = Some(today);
            self.metrics.calls_without_price.set(i64::try_from(tally.calls_without_price).unwrap_or(i64::MAX));
            self.metrics.estimated_share.set(tally.estimated_share());
        }
        self.metrics.runs.inc();
    }

    /// Tenants that owe a minimum whether they use anything or not, and since when they are known: those whose record has a plan
    /// with one, as long as they are not suspended.
    async fn owing(&self) -> Result<BTreeMap<String, u64>, BillingError> {
        let plans = self.accounts.all::<accounts::Plan>().await?.into_iter();
        // What can't be read is told of when an invoice is made by it.
        let has_minimum = |plan: &Record<accounts::Plan>| {
            Agreement::read(plan.value.billing.text()).is_ok_and(|agreement| agreement.has_minimum())
        };
        let plans: BTreeSet<_> = plans.filter(has_minimum).map(|plan| plan.id).collect();
        if plans.is_empty() {
            return Ok(BTreeMap::new());
        }
        let tenants = self.accounts.all::<accounts::Tenant>().await?.into_iter();
        let owing = tenants.filter(|Record { value: tenant, .. }| {
            tenant.status == TenantStatus::Active && tenant.tier.as_ref().is_some_and(|tier| plans.contains(tier))
        });
        Ok(owing.map(|tenant| (tenant.id, tenant.created_at_ms)).collect())
    }

    /// A tenant's months, the earliest first: what it adjusts is on the earliest draft.
    async fn bill(
        &self,
        tenant: &str,
        now_ms: u64,
        extent: Extent,
        owing_since_ms: Option<u64>,
        tally: &mut Tally,
    ) -> Result<(), BillingError> {
        let record = self.accounts.get::<accounts::Tenant>(tenant).await?.map(|record| record.value);
        let calendar = months::calendar(record.as_ref())?;
        let mut months = vec![calendar.month(now_ms)];
        for _ in 0..MONTHS_BEFORE {
            let first_ms = months.last().map_or(0, |month| month.start_ms);
            months.extend((first_ms > 0).then(|| calendar.month(first_ms - 1)));
        }
        let all = kept::of_tenant(&self.accounts, tenant).await?;
        for kept in &all {
            self.tell(kept).await;
        }
        for month in months.iter().rev() {
            let is_closing = self.settings.closing == Closing::Automatic
                && now_ms >= month.end_ms.saturating_add(self.settings.grace_ms);
            let owes = owing_since_ms.is_some_and(|since_ms| since_ms <= month.start_ms);
            if (extent == Extent::Due && !is_closing) || !self.has_to_be_billed(tenant, month, owes, &all).await? {
                continue;
            }
            let kept = match self.drafted(ACTOR, tenant, month).await {
                Ok(kept) => kept,
                Err(BillingError::Billed(_)) => continue,
                Err(error) => return Err(error),
            };
            if now_ms < month.end_ms {
                tally.add(&kept);
            }
            if is_closing {
                self.advanced(ACTOR, &kept, &kept.invoice.finalised(now_ms)?).await?;
            }
        }
        Ok(())
    }

    /// Whether a month has usage, or a draft, or something is owed for it all the same; and nobody has voided its invoice: who did
    /// so bills it again, or not.
    async fn has_to_be_billed(
        &self,
        tenant: &str,
        month: &BillingMonth,
        owes: bool,
        all: &[Kept],
    ) -> Result<bool, BillingError> {
        let mut of_month = all.iter().filter(|kept| overlap(&kept.bill().month, month));
        if of_month.clone().any(Kept::is_draft) {
            return Ok(true);
        }
        if of_month.any(|kept| matches!(kept.invoice.state(), State::Void { .. })) {
            return Ok(false);
        }
        let standing = all.iter().filter(|kept| kept.stands()).map(|kept| &kept.bill().month);
        let Some(left) = months::unbilled(month, standing) else { return Ok(false) };
        Ok(owes || charges::sums(self.ledger.as_ref(), tenant, &left).await?.has_any())
    }
}

impl Tally {
    fn add(&mut self, kept: &Kept) {
        let bill = kept.bill();
        let exact = bill.lines.iter().fold(0_i128, |sum, line| sum.saturating_add(line.sums.exact_usd.parts()));
        self.exact = self.exact.plus(ExactUsd::from_parts(exact)).unwrap_or(self.exact);
        self.estimated = self.estimated.plus(bill.totals.estimated).unwrap_or(self.estimated);
        self.calls_without_price = self.calls_without_price.saturating_add(kept.calls_without_price);
    }

    /// A figure for people: what is billed is exact.
    fn estimated_share(&self) -> f64 {
        match self.exact.parts() {
            0 => 0.0,
            exact => self.estimated.parts() as f64 / exact as f64,
        }
    }
}
