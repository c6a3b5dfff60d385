//! How a draft is made.

use std::collections::BTreeMap;

use jiff::civil::Date;
use tollgate_domain::Day;
use tollgate_domain::invoice::{
    Adjustment, Bill, BillingMonth, Cents, Heading, Item, MAX_CENTS, Meter, State, UnitPrice, adjust,
};

use super::charges::{self, Charges, Rates, Sums};
use super::kept::{self, Content, Kept, adjustments, value};
use super::{Agreement, Billing, BillingError, months};
use crate::accounts::{self, By};
use crate::limiter::{self, Policy};

/// How many earlier invoices are looked at for usage that came late: those of the last two years. Of each the ledger's
/// sums are compared; its entries are read again only where these have changed, or what had no price has one now.
pub const MAX_EARLIER: usize = 24;

/// What a tenant's usage is rated by today.
pub(super) struct Today<'p> {
    policy: &'p Policy,
    tenant: &'p str,
    agreement: Agreement,
    events: BTreeMap<String, UnitPrice>,
}

impl Billing {
    /// The draft of a month, or of what is left of it, as of now. It is written where it has changed.
    pub(super) async fn drafted(&self, actor: &str, tenant: &str, month: &BillingMonth) -> Result<Kept, BillingError> {
        if month.start_ms > (self.clock)() {
            return Err(BillingError::NotBegun);
        }
        let all = kept::of_tenant(&self.accounts, tenant).await?;
        let standing = all.iter().filter(|kept| kept.stands());
        let Some(month) = months::unbilled(month, standing.clone().map(|kept| &kept.bill().month)) else {
            let covering = standing.clone().find(|kept| overlap(&kept.bill().month, month));
            return Err(BillingError::Billed(covering.map(|kept| kept.id.clone()).unwrap_or_default()));
        };
        let policy = self.limiter.policy();
        let today = self.today(&policy, tenant).await?;
        let mut drafts = all.iter().filter(|kept| kept.is_draft() && overlap(&kept.bill().month, &month));
        let existing = drafts.clone().find(|kept| {
            let of = &kept.bill().month;
            (of.first, of.last) == (month.first, month.last)
        });
        let free = || (1..).map(|nth| months::number(tenant, month.first, nth));
        let number = match existing {
            Some(kept) => kept.id.clone(),
            None => free().find(|number| all.iter().all(|kept| kept.id != *number)).unwrap_or_default(),
        };
        let beside = Beside::new(&all, &month);
        let content = self.content(&today, number, &month, &beside).await?;
        // Those that another calendar has made; they are in nobody's way before it is known that there is another.
        for old in drafts.by_ref().filter(|draft| existing.is_none_or(|kept| kept.id != draft.id)) {
            let by = By { actor, at_ms: (self.clock)() };
            self.accounts.delete::<accounts::Invoice>(&by, &old.id, old.version).await?;
        }
        self.written(actor, existing, content).await
    }

    /// What the month's invoice says, beside others.
    async fn content(
        &self,
        today: &Today<'_>,
        number: String,
        month: &BillingMonth,
        beside: &Beside<'_>,
    ) -> Result<Content, BillingError> {
        let tenant = today.tenant;
        // Before the entries: what comes in between is read again.
        let mut books = BTreeMap::from([(month.first, charges::sums(self.ledger.as_ref(), tenant, month).await?)]);
        let rates = Rates::new(today.events.clone());
        let Charges { charges, calls_without_price, rates } =
            charges::read(self.ledger.as_ref(), today.policy, tenant, month, rates).await?;
        let mut changes = self.adjustments(today, month, beside, &mut books).await?;
        let terms = today.agreement.terms(credits(today.agreement.credits(), &beside.counting));
        let heading = Heading { number, tenant: tenant.to_owned(), month: month.clone() };
        let mut bill = Bill::new(heading.clone(), terms.clone(), &charges, changes.clone())?;
        // In the place of a void invoice: what was adjusted of that one stands on later ones, and is taken off here.
        let own = adjust(&bill, &adjustments(beside.counting.iter().copied()), &charges)?;
        if !own.is_empty() {
            changes.extend(own);
            bill = Bill::new(heading, terms, &charges, changes)?;
        }
        let record = self.accounts.get::<accounts::Tenant>(tenant).await?.map(|record| record.value);
        Ok(Content { bill, parties: self.parties(record.as_ref()), rates, books, calls_without_price })
    }

    /// Writes a draft that is new or has changed.
    async fn written(&self, actor: &str, existing: Option<&Kept>, content: Content) -> Result<Kept, BillingError> {
        let by = By { actor, at_ms: (self.clock)() };
        let value = value(&content, State::Draft)?;
        let record = match existing {
            Some(kept) if kept.value(State::Draft)? == value => return Ok(kept.clone()),
            Some(kept) => self.accounts.update(&by, &kept.id, kept.version, value).await?,
            None => self.accounts.create(&by, &content.bill.number, value).await?,
        };
        self.metrics.drafted.inc();
        let kept = Kept::of(record)?;
        self.tell(&kept).await;
        Ok(kept)
    }

    /// What the tenant is rated by now: the plan is that of its record, or else of its latest call.
    pub(super) async fn today<'p>(&self, policy: &'p Policy, tenant: &'p str) -> Result<Today<'p>, BillingError> {
        let tier = self.ledger.last_tier(tenant).await?.unwrap_or_default();
        let plan = limiter::used_plan(policy, tenant, &tier).map(|plan| plan.tier.clone()).unwrap_or_default();
        let agreement = match self.accounts.get::<accounts::Plan>(&plan).await? {
            None => Agreement::default(),
            Some(record) => Agreement::read(record.value.billing.text())
                .map_err(|error| BillingError::Agreement { plan: plan.clone(), error })?,
        };
        let events = agreement.events(&plan);
        Ok(Today { policy, tenant, agreement, events })
    }

    /// What earlier months come to after all, beside what others have of that; the sums of those months go to `books`.
    async fn adjustments(
        &self,
        today: &Today<'_>,
        month: &BillingMonth,
        beside: &Beside<'_>,
        books: &mut BTreeMap<Date, Sums>,
    ) -> Result<Vec<Adjustment>, BillingError> {
        let mut all = Vec::new();
        let others = &beside.counting;
        let earlier = others.iter().filter(|kept| kept.stands() && kept.bill().month.end_ms <= month.start_ms);
        for kept in earlier.rev().take(MAX_EARLIER) {
            let of = &kept.bill().month;
            let sums = charges::sums(self.ledger.as_ref(), today.tenant, of).await?;
            let known = others.iter().rev().find_map(|other| other.books.get(&of.first));
            if known.is_some_and(|known| sums.is_less_than(known)) {
                tracing::warn!(invoice = kept.id, "the ledger has less than was invoiced; nothing is taken back");
                continue;
            }
            if known == Some(&sums) && !beside.is_adjusted_elsewhere(of) && !today.has_price_for_unpriced(kept) {
                continue;
            }
            all.extend(self.recomputed(today, kept, others).await?);
            books.insert(of.first, sums);
        }
        Ok(all)
    }

    /// What is to be put onto another invoice, now that this one's month comes to what it does by the rates of then:
    /// beside what stands on it and on `others`.
    pub(super) async fn recomputed(
        &self,
        today: &Today<'_>,
        kept: &Kept,
        others: &[&Kept],
    ) -> Result<Vec<Adjustment>, BillingError> {
        let rates = kept.rates.clone().or(&today.events);
        let month = &kept.bill().month;
        let Charges { charges, .. } =
            charges::read(self.ledger.as_ref(), today.policy, today.tenant, month, rates).await?;
        Ok(adjust(kept.bill(), &adjustments(others.iter().copied()), &charges)?)
    }
}

/// A tenant's other invoices.
struct Beside<'k> {
    /// Final ones, and drafts of earlier months: what stands on these is not billed again.
    counting: Vec<&'k Kept>,
    all: &'k [Kept],
}

impl<'k> Beside<'k> {
    fn new(all: &'k [Kept], month: &BillingMonth) -> Beside<'k> {
        let counts = |kept: &&Kept| kept.stands() || (kept.is_draft() && kept.bill().month.end_ms <= month.start_ms);
        Beside { counting: all.iter().filter(counts).collect(), all }
    }

    /// Whether a month was adjusted by an invoice that does not count: one that is void by now, or a draft that is made anew, or
    /// will be. Then it is rated anew, though no entries came: invoices that do count may have left to it what it had.
    fn is_adjusted_elsewhere(&self, month: &BillingMonth) -> bool {
        let counts = |kept: &Kept| self.counting.iter().any(|counting| counting.id == kept.id);
        let others = self.all.iter().filter(|kept| !counts(kept));
        adjustments(others).iter().any(|adjustment| adjustment.month == *month)
    }
}

impl Today<'_> {
    /// Whether something of an invoice that had no price may have one now.
    fn has_price_for_unpriced(&self, kept: &Kept) -> bool {
        let bill = kept.bill();
        let day = Day::of(bill.month.end_ms.saturating_sub(1));
        let prices = self.policy.plans.prices(self.tenant);
        bill.lines.iter().any(|line| match &line.item {
            Item::Unpriced { meter: Meter::Event(of), .. } => !kept.rates.has_event(of) && self.events.contains_key(of),
            Item::Unpriced { model, .. } => prices.at(None, model.as_deref(), day).is_some(),
            Item::Usage(_) | Item::Minimum => false,
        })
    }
}

/// What is left of the credits that were ever granted, beside what invoices have used. What they give back counts, too.
fn credits(granted: Cents, others: &[&Kept]) -> Cents {
    let used = others.iter().map(|kept| kept.bill().totals.credits_used);
    let left = used.fold(granted.parts(), |left, used| left.saturating_sub(used.parts()));
    Cents::from_parts(left.clamp(0, MAX_CENTS.parts()))
}

pub(super) fn overlap(one: &BillingMonth, other: &BillingMonth) -> bool {
    one.start_ms < other.end_ms && other.start_ms < one.end_ms
}
