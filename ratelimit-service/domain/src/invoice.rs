//! What a tenant has to pay for a month.
//!
//! Charges are summed to lines ([`rate`]), lines make a [`Bill`], and a bill is an [`Invoice`], which does not change
//! once it is finalised: what changes later is an [`Adjustment`] on the next one ([`adjust`]).
//!
//! Invariants:
//! - A bill is a function of its arguments, and the order of the charges does not matter.
//! - Each charge lies in one line, with its whole amount, exact. Each line is rounded once, to whole cents, half to
//!   even; sums are those of the rounded lines. The tax is rounded once, on its subtotal.
//! - `lines + adjustments = subtotal`, and `subtotal + tax - credits = total`, which is never negative: what the tenant
//!   gets back becomes credit.
//! - Usage that has no price is listed, counted, and comes to nothing.
//! - Nothing overflows: what is too large is an error.

mod adjustment;
mod amounts;
mod charge;
mod line;
mod month;
mod state;
mod terms;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use adjustment::{Adjustment, adjust};
pub use amounts::{Cents, Decimal, ExactUsd, NoDecimal, Quantity, UnitUsd};
pub use charge::{Basis, Charge, Meter, UnitPrice, UnknownMeter};
pub use line::{Item, Line, Part, Rated, Sums, WHOLE_PPM, rate};
pub use month::{BillingCalendar, BillingMonth};
pub use state::{Invoice, State, TransitionError};
pub use terms::{
    Allowance, BillingTerms, MAX_CENTS, MAX_SCOPES, MAX_STEPS, MAX_TAX_PPM, Scope, Step, TermsError, Volume,
};

/// What an invoice says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// What it is known by; the caller's to make unique.
    pub number: String,
    /// Who pays.
    pub tenant: String,
    /// The month that it is of.
    pub month: BillingMonth,
    /// The terms that it was made by.
    pub terms: BillingTerms,
    /// The month's lines, in the order of their items.
    pub lines: Vec<Line>,
    /// What earlier months come to after all, in the order of those and of the items.
    pub adjustments: Vec<Adjustment>,
    /// What they come to together.
    pub totals: Totals,
}

/// A bill's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The month's usage.
    #[serde(rename = "usage_usd")]
    pub usage: Cents,
    /// What that lacks to the minimum.
    #[serde(rename = "minimum_usd")]
    pub minimum: Cents,
    /// What earlier months come to after all.
    #[serde(rename = "adjustments_usd")]
    pub adjustments: Cents,
    /// The three together: what is taxed.
    #[serde(rename = "subtotal_usd")]
    pub subtotal: Cents,
    /// The tax on it.
    #[serde(rename = "tax_usd")]
    pub tax: Cents,
    /// What the tenant's credit pays of that; negative where the tenant gets something back, as credit.
    #[serde(rename = "credits_used_usd")]
    pub credits_used: Cents,
    /// What is left of the credit.
    #[serde(rename = "credits_left_usd")]
    pub credits_left: Cents,
    /// What is to be paid; not negative.
    #[serde(rename = "total_usd")]
    pub total: Cents,
    /// How much of the month's usage rests on estimates, exactly.
    #[serde(rename = "estimated_usd")]
    pub estimated: ExactUsd,
    /// How many of the month's lines have no price.
    pub unpriced_lines: usize,
}

/// Why there is no bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvoiceError {
    /// The terms cannot be billed by.
    Terms(TermsError),
    /// What this says comes to more than can be counted: some 10^14 US dollars, or 10^32 units.
    TooLarge(String),
}

impl fmt::Display for InvoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvoiceError::Terms(error) => write!(f, "terms.{error}"),
            InvoiceError::TooLarge(of) => {
                write!(f, "{of}: comes to more than can be billed; check its price and quantity")
            }
        }
    }
}

impl std::error::Error for InvoiceError {}

impl From<TermsError> for InvoiceError {
    fn from(error: TermsError) -> InvoiceError {
        InvoiceError::Terms(error)
    }
}

/// What a bill is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// See [`Bill::number`].
    pub number: String,
    /// Who pays.
    pub tenant: String,
    /// The month.
    pub month: BillingMonth,
}

impl Bill {
    /// What a tenant has to pay for the month's charges under `terms`, and for what earlier months come to after all.
    /// Whatever order charges and adjustments come in, the bill is the same.
    ///
    /// # Errors
    /// When the terms cannot be billed by, or an amount is too large.
    pub fn new(
        heading: Heading,
        terms: BillingTerms,
        charges: &[Charge],
        mut adjustments: Vec<Adjustment>,
    ) -> Result<Bill, InvoiceError> {
        let lines = rate(&terms, charges)?;
        adjustments.sort();
        let totals = Totals::of(&terms, &lines, &adjustments).ok_or_else(|| InvoiceError::TooLarge("total".into()))?;
        let Heading { number, tenant, month } = heading;
        Ok(Bill { number, tenant, month, terms, lines, adjustments, totals })
    }
}

impl Totals {
    /// `None` where something is too large.
    fn of(terms: &BillingTerms, lines: &[Line], adjustments: &[Adjustment]) -> Option<Totals> {
        let cents =
            |is: fn(&Item) -> bool| Cents::sum(lines.iter().filter(|line| is(&line.item)).map(|line| line.sums.cents));
        let usage = cents(|item| matches!(item, Item::Usage(_)))?;
        let minimum = cents(|item| matches!(item, Item::Minimum))?;
        let adjusted = Cents::sum(adjustments.iter().map(|adjustment| adjustment.line.sums.cents))?;
        let subtotal = usage.plus(minimum)?.plus(adjusted)?;
        let tax = subtotal.part(terms.tax_ppm)?;
        let due = subtotal.plus(tax)?;
        let credits_used = due.min(terms.credits);
        Some(Totals {
            usage,
            minimum,
            adjustments: adjusted,
            subtotal,
            tax,
            credits_used,
            credits_left: terms.credits.minus(credits_used)?,
            total: due.minus(credits_used)?,
            estimated: ExactUsd::sum(lines.iter().map(|line| line.sums.estimated_usd))?,
            unpriced_lines: lines.iter().filter(|line| matches!(line.item, Item::Unpriced { .. })).count(),
        })
    }
}

#[cfg(test)]
mod tests;
