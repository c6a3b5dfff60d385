//! What a finished period comes to after all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::line::{Item, Line, Sums, rate};
use super::month::BillingMonth;
use super::{Bill, Charge, InvoiceError};

/// A line of an earlier period, put onto a later invoice: what is to be paid or taken back for that period.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Adjustment {
    /// The period that it is of.
    #[serde(rename = "of")]
    pub month: BillingMonth,
    /// The difference.
    #[serde(flatten)]
    pub line: Line,
}

/// What is to be put onto the next invoice, now that the period of `bill` comes to other charges than it was billed by.
/// `earlier` are the adjustments that stand on invoices already; those of other periods are passed over.
///
/// Over all invoices, the lines of a period sum up to its latest charges under the terms of its bill, item by item:
/// exactly, and in cents as well, for an adjustment's cents are not rounded from its own amount: they are the item's,
/// rounded once, less what was invoiced of it. So many small adjustments cost no more than one, and a period's minimum
/// tops up less when usage comes late.
///
/// # Errors
/// When an amount is too large.
pub fn adjust(bill: &Bill, earlier: &[Adjustment], charges: &[Charge]) -> Result<Vec<Adjustment>, InvoiceError> {
    let mut differences = BTreeMap::<Item, Sums>::new();
    for Line { item, sums } in rate(&bill.terms, charges)? {
        differences.insert(item, sums);
    }
    let earlier = earlier.iter().filter(|adjustment| adjustment.month == bill.month).map(|adjustment| &adjustment.line);
    for Line { item, sums } in bill.lines.iter().chain(earlier) {
        let difference = differences.entry(item.clone()).or_default();
        *difference = difference.minus(*sums).ok_or_else(|| InvoiceError::TooLarge("adjustments".into()))?;
    }
    let changed = differences.into_iter().filter(|(_, sums)| *sums != Sums::default());
    Ok(changed.map(|(item, sums)| Adjustment { month: bill.month.clone(), line: Line { item, sums } }).collect())
}
