//! Whether invoices are what their months' entries come to.

use tollgate_domain::invoice::{Adjustment, Item, Line};

use super::kept::{self, Kept, adjustments};
use super::{Billing, BillingError};

/// A part of an invoice that is not what the ledger's entries come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Whose.
    pub tenant: String,
    /// The invoice and the item.
    pub figure: String,
    /// What the entries come to, in millionths of what is counted; in cents for what lacks to a minimum.
    pub entries: i128,
    /// What was invoiced, with all adjustments, those on drafts too.
    pub invoiced: i128,
}

impl Billing {
    /// Rates the entries of all final invoices anew whose months overlap `from_ms..to_ms`, milliseconds since the Unix
    /// epoch, of tenants that have entries there: which items differ from what stands on invoices and drafts.
    ///
    /// # Errors
    /// When something cannot be read or rated.
    pub async fn differences(&self, from_ms: u64, to_ms: u64) -> Result<Vec<Difference>, BillingError> {
        let mut differences = Vec::new();
        let policy = self.limiter.policy();
        for tenant in self.ledger.tenants(from_ms, to_ms).await? {
            let all = kept::of_tenant(&self.accounts, &tenant).await?;
            let others: Vec<_> = all.iter().filter(|kept| kept.stands() || kept.is_draft()).collect();
            let is_within = |kept: &&&Kept| {
                let month = &kept.bill().month;
                kept.stands() && month.start_ms < to_ms && from_ms < month.end_ms
            };
            let mut within = others.iter().filter(is_within).peekable();
            if within.peek().is_none() {
                continue;
            }
            let today = self.today(&policy, &tenant).await?;
            for kept in within {
                let wanted = self.recomputed(&today, kept, &others).await?;
                differences.extend(wanted.iter().map(|wanted| difference(kept, wanted, &others)));
            }
        }
        Ok(differences)
    }
}

fn difference(kept: &Kept, wanted: &Adjustment, others: &[&Kept]) -> Difference {
    let stand = adjustments(others.iter().copied());
    let of_month =
        stand.iter().filter(|adjustment| adjustment.month == wanted.month).map(|adjustment| &adjustment.line);
    let of_item = kept.bill().lines.iter().chain(of_month).filter(|line| line.item == wanted.line.item);
    let invoiced = of_item.fold(0_i128, |sum, line| sum.saturating_add(figure(line)));
    Difference {
        tenant: kept.bill().tenant.clone(),
        figure: format!("{}: {}", kept.id, name(&wanted.line.item)),
        entries: invoiced.saturating_add(figure(&wanted.line)),
        invoiced,
    }
}

fn figure(line: &Line) -> i128 {
    match line.item {
        Item::Minimum => line.sums.cents.parts(),
        Item::Usage(_) | Item::Unpriced { .. } => line.sums.quantity.parts(),
    }
}

fn name(item: &Item) -> String {
    let of = |model: &Option<String>| model.as_ref().map(|model| format!(" of {model}")).unwrap_or_default();
    match item {
        Item::Usage(rated) => format!("{}{} at {}", rated.meter, of(&rated.model), rated.price.version),
        Item::Minimum => "minimum".to_owned(),
        Item::Unpriced { meter, model } => format!("{meter}{} without a price", of(model)),
    }
}
