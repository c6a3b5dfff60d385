//! Billing: invoices are made of the ledger, and kept in the accounts.
//!
//! Invariants:
//! - An invoice is a function of the ledger, the prices, the plan and the tenant's earlier invoices: drafted again with
//!   nothing changed it is the same, byte for byte, and is not written.
//! - No moment of a tenant is on two invoices that are not void. What comes in late is an adjustment on a later one,
//!   and each adjustment is on one: those on final invoices, and on drafts of earlier months, are taken off.
//! - A tenant's invoices change one after the other, also by several replicas: whoever changes them leads the tenant's.
//! - What the ledger has no longer (it was purged, or is past its retention) is not taken back from an invoice.

mod agreement;
mod charges;
mod check;
mod draft;
mod kept;
mod metrics;
mod months;
mod schedule;
mod tell;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tollgate_domain::invoice::{Invoice, InvoiceError, State, TransitionError};

use crate::accounts::{self, Accounts, AccountsError, By, Record};
use crate::chance;
use crate::clock::Clock;
use crate::database::Database;
use crate::invoices::{Parties, Party};
use crate::ledger::{Ledger, LedgerError};
use crate::limiter::Limiter;
use crate::webhooks::Webhooks;

pub use agreement::{Agreement, AgreementError, MAX_EVENT_PRICE, MAX_EVENT_PRICES};
pub use charges::{MAX_EVENT_TYPES, MAX_MODELS};
pub use check::Difference;
pub use draft::MAX_EARLIER;
pub use kept::{KIND, Kept};
pub use metrics::BillingMetrics;
pub use schedule::{Rounds, TICK};

/// How long after it has died nobody else changes a tenant's invoices that a service was changing.
const CHANGE_MS: u64 = 60_000;

/// How often who changes them says that it goes on.
const GO_ON: Duration = Duration::from_secs(15);

/// How long who wants to change them waits for whoever does: the scheduler, most of the time, which is quick.
const WAIT: Duration = Duration::from_secs(10);

/// How often it is looked whether they are free.
const LOOK: Duration = Duration::from_millis(50);

/// How invoices are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillingSettings {
    /// How long after its end a month still waits for usage, in milliseconds, before its invoice becomes final.
    pub grace_ms: u64,
    /// What becomes of drafts then.
    pub closing: Closing,
    /// Who is to be paid.
    pub seller: Party,
    /// What stands below an invoice.
    pub note: String,
}

/// What becomes of drafts whose month is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Closing {
    /// An operator makes them final.
    #[default]
    ByHand,
    /// The scheduler does.
    Automatic,
}

/// What invoices are made with.
pub struct Billing {
    settings: BillingSettings,
    accounts: Accounts,
    ledger: Arc<dyn Ledger>,
    limiter: Arc<Limiter>,
    database: Arc<Database>,
    webhooks: Arc<Webhooks>,
    clock: Clock,
    metrics: BillingMetrics,
    /// The name under which this one leads.
    holder: String,
}

/// Where [`Billing`] finds what it needs.
pub struct Sources {
    /// Tenants, plans and the invoices themselves, as the operator sees them.
    pub accounts: Accounts,
    /// What was used.
    pub ledger: Arc<dyn Ledger>,
    /// Has the prices.
    pub limiter: Arc<Limiter>,
    /// Where it is noted what was told.
    pub database: Arc<Database>,
    /// Who is told.
    pub webhooks: Arc<Webhooks>,
}

/// Why an invoice is not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// The accounts did not do as asked.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It cannot be billed.
    #[error("{0}")]
    Invoice(InvoiceError),
    /// It is too far, or not far enough.
    #[error("{0}")]
    Transition(TransitionError),
    /// The plan's document is none.
    #[error("plan `{plan}`: billing: {error}")]
    Agreement {
        /// The plan.
        plan: String,
        /// What is wrong.
        error: AgreementError,
    },
    /// The tenant's calendar is none.
    #[error("{0}")]
    Calendar(String),
    /// There is no such month.
    #[error("there is no month {year}-{month:02}")]
    NoMonth {
        /// The year that was asked for.
        year: i16,
        /// The month.
        month: i8,
    },
    /// The month has yet to begin.
    #[error("the month has not begun yet: there is nothing to bill")]
    NotBegun,
    /// The month is not over.
    #[error("invoice `{0}`: its month is not over yet, so that it may still change")]
    NotOver(String),
    /// All of the month is on invoices that are final.
    #[error(
        "the month is billed already, by `{0}`: what came in since is on the next one; void it to bill the month anew"
    )]
    Billed(String),
    /// Another change is under way, and was not done in [`WAIT`].
    #[error("the tenant's invoices are being changed; try again later")]
    Busy,
    /// What the accounts have is no invoice.
    #[error("invoice `{id}` cannot be read: {what}")]
    Unreadable {
        /// Its id.
        id: String,
        /// Why.
        what: String,
    },
}

impl From<InvoiceError> for BillingError {
    fn from(error: InvoiceError) -> BillingError {
        BillingError::Invoice(error)
    }
}

impl From<TransitionError> for BillingError {
    fn from(error: TransitionError) -> BillingError {
        BillingError::Transition(error)
    }
}

/// A step that an operator takes with an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What it says now is what is to be paid. It is brought up to date first.
    Finalise,
    /// It is paid.
    Pay,
    /// It does not count any more.
    Void,
}

impl Billing {
    /// Makes invoices so.
    pub fn new(settings: BillingSettings, sources: Sources, clock: Clock, metrics: BillingMetrics) -> Billing {
        let Sources { accounts, ledger, limiter, database, webhooks } = sources;
        let holder = chance::id();
        Billing { settings, accounts, ledger, limiter, database, webhooks, clock, metrics, holder }
    }

    /// An invoice of a record.
    ///
    /// # Errors
    /// When the record is of another kind.
    pub fn read(record: Record<accounts::Invoice>) -> Result<Kept, BillingError> {
        Kept::of(record)
    }

    /// Drafts the invoice of the tenant's month that begins in this one of the calendar year, or brings the draft up to
    /// date. It goes on though nobody waits for it any more.
    ///
    /// # Errors
    /// When the month has not begun or is billed, or something cannot be read, billed or written. The draft is as it
    /// was then.
    pub async fn draft(
        self: &Arc<Billing>,
        actor: &str,
        tenant: &str,
        (year, month): (i16, i8),
    ) -> Result<Kept, BillingError> {
        let (billing, actor, tenant) = (self.clone(), actor.to_owned(), tenant.to_owned());
        let drafting = async move {
            let record = billing.accounts.get::<accounts::Tenant>(&tenant).await?.map(|record| record.value);
            let calendar = months::calendar(record.as_ref())?;
            let month = months::labelled(&calendar, year, month).ok_or(BillingError::NoMonth { year, month })?;
            billing.alone(&tenant, billing.drafted(&actor, &tenant, &month)).await
        };
        undisturbed(drafting).await
    }

    /// Takes a step with an invoice. It goes on though nobody waits for it any more.
    ///
    /// # Errors
    /// When there is none, it is too far or not far enough, or something cannot be read, billed or written. It is as it
    /// was then, or a draft that was brought up to date.
    pub async fn step(self: &Arc<Billing>, actor: &str, id: &str, step: Step) -> Result<Kept, BillingError> {
        let (billing, actor, id) = (self.clone(), actor.to_owned(), id.to_owned());
        let stepping = async move {
            let tenant = billing.kept(&id).await?.bill().tenant.clone();
            billing.alone(&tenant, billing.stepped(&actor, &id, step)).await
        };
        undisturbed(stepping).await
    }

    async fn stepped(&self, actor: &str, id: &str, step: Step) -> Result<Kept, BillingError> {
        let kept = self.kept(id).await?;
        let now_ms = (self.clock)();
        let next: fn(&Invoice, u64) -> Result<Invoice, TransitionError> = match step {
            Step::Finalise => Invoice::finalised,
            Step::Pay => Invoice::paid,
            Step::Void => Invoice::voided,
        };
        // First, so that nothing is brought up to date for nothing.
        next(&kept.invoice, now_ms)?;
        let kept = match step {
            Step::Pay | Step::Void => kept,
            Step::Finalise if now_ms < kept.bill().month.end_ms => return Err(BillingError::NotOver(kept.id)),
            Step::Finalise => {
                let month = kept.bill().month.clone();
                self.drafted(actor, &kept.bill().tenant, &month).await?
            }
        };
        self.advanced(actor, &kept, &next(&kept.invoice, now_ms)?).await
    }

    /// Writes an invoice in its next state, and tells of it.
    async fn advanced(&self, actor: &str, kept: &Kept, next: &Invoice) -> Result<Kept, BillingError> {
        let by = By { actor, at_ms: (self.clock)() };
        let record = self.accounts.update(&by, &kept.id, kept.version, kept.value(next.state())?).await?;
        let kept = Kept::of(record)?;
        if matches!(next.state(), State::Finalised { .. }) {
            self.metrics.finalised.inc();
        }
        self.tell(&kept).await;
        Ok(kept)
    }

    /// Deletes the drafts of a tenant whose usage was erased. What is final stays.
    ///
    /// # Errors
    /// When not all of them are deleted.
    pub async fn forget_drafts(self: &Arc<Billing>, actor: &str, tenant: &str) -> Result<(), BillingError> {
        let (billing, actor, tenant) = (self.clone(), actor.to_owned(), tenant.to_owned());
        undisturbed(async move { billing.alone(&tenant, billing.without_drafts(&actor, &tenant)).await }).await
    }

    async fn without_drafts(&self, actor: &str, tenant: &str) -> Result<(), BillingError> {
        let by = By { actor, at_ms: (self.clock)() };
        for draft in kept::of_tenant(&self.accounts, tenant).await?.iter().filter(|kept| kept.is_draft()) {
            self.accounts.delete::<accounts::Invoice>(&by, &draft.id, draft.version).await?;
        }
        Ok(())
    }

    async fn kept(&self, id: &str) -> Result<Kept, BillingError> {
        let record = self.accounts.get::<accounts::Invoice>(id).await?;
        let missing = || AccountsError::NotFound { kind: "invoice", id: id.to_owned() };
        Kept::of(record.ok_or_else(missing)?)
    }

    /// Does something while nobody else changes the tenant's invoices.
    async fn alone<T>(
        &self,
        tenant: &str,
        work: impl Future<Output = Result<T, BillingError>>,
    ) -> Result<T, BillingError> {
        // A tenant's name may be as long as such a name.
        let name = format!("invoices {}", hex(&digest(&SHA256, tenant.as_bytes()).as_ref()[..16]));
        let holder = chance::id();
        let free = async {
            while !self.accounts.try_lead(&name, &holder, (self.clock)(), CHANGE_MS).await? {
                tokio::time::sleep(LOOK).await;
            }
            Ok::<_, BillingError>(())
        };
        tokio::time::timeout(WAIT, free).await.unwrap_or(Err(BillingError::Busy))?;
        // Both at once: the work may hold what asking again waits for.
        let done = tokio::select! {
            done = work => done,
            lost = self.go_on(&name, &holder) => Err(lost),
        };
        if let Err(error) = self.accounts.resign(&name, &holder).await {
            tracing::warn!(tenant, %error, "the tenant's invoices cannot be changed for a while");
        }
        done
    }

    /// Leads on, until that fails: somebody else has begun, as this took too long.
    async fn go_on(&self, name: &str, holder: &str) -> BillingError {
        loop {
            tokio::time::sleep(GO_ON).await;
            match self.accounts.try_lead(name, holder, (self.clock)(), CHANGE_MS).await {
                Ok(true) => {}
                Ok(false) => return BillingError::Busy,
                Err(error) => return error.into(),
            }
        }
    }

    /// Who sends invoices to a tenant. Where to is what its metadata has as `billing_details`, a list of lines.
    fn parties(&self, tenant: Option<&accounts::Tenant>) -> Parties {
        let details = tenant.and_then(|tenant| tenant.metadata.get("billing_details"));
        let buyer = Party {
            name: tenant.and_then(|tenant| tenant.display_name.clone()).unwrap_or_default(),
            details: details.and_then(|details| details.read().ok()).unwrap_or_default(),
        };
        Parties { seller: self.settings.seller.clone(), buyer, note: self.settings.note.clone() }
    }
}

/// Does something to its end, though whoever waits for it goes away.
async fn undisturbed<T: Send + 'static>(
    work: impl Future<Output = Result<T, BillingError>> + Send + 'static,
) -> Result<T, BillingError> {
    // It fails where the work panics, or the service ends: nobody hears of that.
    tokio::spawn(work).await.unwrap_or(Err(BillingError::Busy))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
