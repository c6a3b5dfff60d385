//! Whether the books agree: the ledger's sums with its entries, the limiter's counters with the ledger, and invoices with
//! the entries that they bill.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tollgate_domain::Period;
use utoipa::ToSchema;

use crate::audit::Audit;
use crate::billing::Billing;
use crate::clock;
use crate::ledger::Ledger;
use crate::limiter::Limiter;
use crate::metrics::Metrics;

/// What does not agree is looked at so often before it is told: entries come in meanwhile, and are counted in one place before
/// the other.
const LOOKS: u32 = 5;

const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

/// The days that [`watch`] compares: no month is longer.
const WATCHED_DAYS: u16 = 31;

/// The most differences that are logged at once.
const MAX_LOGGED: usize = 10;

/// A figure that stands in two places, and is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Whose.
    pub tenant: String,
    /// Which place disagrees with the entries: the sums of a grain, a limit's counter, or an invoice.
    pub place: String,
    /// Which figure.
    pub figure: String,
    /// What the ledger's entries come to.
    pub entries: u128,
    /// What stands there.
    pub found: u128,
}

/// What is compared, and where.
pub struct Books<'a> {
    /// The ledger.
    pub ledger: &'a dyn Ledger,
    /// The counters.
    pub limiter: &'a Limiter,
    /// Who was reset, and when.
    pub audit: &'a dyn Audit,
    /// What was billed.
    pub billing: &'a Billing,
}

/// The same, to be looked at again and again.
pub struct Watched {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The counters.
    pub limiter: Arc<Limiter>,
    /// Who was reset, and when.
    pub audit: Arc<dyn Audit>,
    /// What was billed.
    pub billing: Arc<Billing>,
}

impl Watched {
    fn books(&self) -> Books<'_> {
        let Watched { ledger, limiter, audit, billing } = self;
        Books { ledger: ledger.as_ref(), limiter, audit: audit.as_ref(), billing }
    }
}

impl Books<'_> {
    /// What does not agree of the UTC days that begin in `from_ms..to_ms` (milliseconds since the Unix epoch), and, where the
    /// present lies in them, of the limits' present periods. Of final invoices whose months overlap, all entries are rated anew.
    ///
    /// # Errors
    /// When the ledger, the audit log, the counters or the accounts cannot be read.
    pub async fn differences(&self, from_ms: u64, to_ms: u64, now_ms: u64) -> anyhow::Result<Vec<Difference>> {
        let is_present = (from_ms..to_ms).contains(&now_ms);
        let mut differences = self.look(from_ms, to_ms, is_present).await?;
        for _ in 1..LOOKS {
            if differences.is_empty() {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            let again = self.look(from_ms, to_ms, is_present).await?;
            let is_same =
                |a: &Difference, b: &Difference| (&a.tenant, &a.place, &a.figure) == (&b.tenant, &b.place, &b.figure);
            differences =
                again.into_iter().filter(|now| differences.iter().any(|before| is_same(before, now))).collect();
        }
        differences.extend(self.invoices(from_ms, to_ms).await?);
        Ok(differences)
    }

    /// Once is enough: a final invoice does not change while entries come in, and what is late is late.
    async fn invoices(&self, from_ms: u64, to_ms: u64) -> anyhow::Result<impl Iterator<Item = Difference>> {
        let invoices = self.billing.differences(from_ms, to_ms).await?;
        Ok(invoices.into_iter().map(|difference| Difference {
            tenant: difference.tenant,
            place: "invoice".to_owned(),
            figure: difference.figure,
            entries: u128::try_from(difference.entries).unwrap_or(0),
            found: u128::try_from(difference.invoiced).unwrap_or(0),
        }))
    }

    async fn look(&self, from_ms: u64, to_ms: u64, is_present: bool) -> anyhow::Result<Vec<Difference>> {
        let sums = self.ledger.differences(from_ms, to_ms).await?.into_iter().map(|difference| Difference {
            tenant: difference.tenant,
            place: difference.place,
            figure: difference.sum,
            entries: difference.entries,
            found: difference.sums,
        });
        let mut differences: Vec<_> = sums.collect();
        if is_present {
            let limits = self.limiter.differences(self.ledger, self.audit).await?;
            differences.extend(limits.into_iter().map(|difference| Difference {
                tenant: difference.tenant,
                place: "limiter".to_owned(),
                figure: difference.limit,
                entries: difference.entries.into(),
                found: difference.spent.into(),
            }));
        }
        Ok(differences)
    }
}

/// Compares the books of the last days again and again, and tells by log and metrics, until it is dropped.
pub async fn watch(watched: Watched, every: Duration, metrics: Metrics) {
    let mut due = tokio::time::interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let now_ms = clock::now_ms();
        let period = Period::last_days(WATCHED_DAYS, now_ms);
        match watched.books().differences(period.first.start_ms(), period.end.start_ms(), now_ms).await {
            Ok(differences) => {
                metrics.reconcile_differences.set(differences.len() as i64);
                metrics.reconciled.inc();
                for difference in differences.iter().take(MAX_LOGGED) {
                    let Difference { tenant, place, figure, entries, found } = difference;
                    tracing::error!(tenant, place, figure, entries, found, "the books do not agree");
                }
            }
            Err(error) => tracing::warn!(%error, "the books were not compared"),
        }
    }
}
