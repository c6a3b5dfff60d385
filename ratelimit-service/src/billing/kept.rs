//! Invoices as the accounts keep them.

use std::collections::BTreeMap;

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use tollgate_domain::invoice::{Adjustment, Bill, Invoice, State};

use super::BillingError;
use super::charges::{Rates, Sums};
use crate::accounts::{self, Accounts, InvoiceStatus, Json, Page, Record};
use crate::invoices::Parties;

/// What the accounts call invoices for usage.
pub const KIND: &str = "usage";

/// What an invoice's record holds: what it says, and what that was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) bill: Bill,
    pub(super) parties: Parties,
    pub(super) rates: Rates,
    /// The ledger's sums that it accounts for, by the first days of the months that they are of: its own, and earlier
    /// ones that it adjusts.
    pub(super) books: BTreeMap<Date, Sums>,
    /// Calls of the month that used something and that no price is known for.
    pub(super) calls_without_price: u64,
}

/// An invoice of the accounts.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its id: the invoice's number.
    pub id: String,
    /// One more with each change.
    pub version: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When it was changed last.
    pub updated_at_ms: u64,
    /// What it says, and how far it is.
    pub invoice: Invoice,
    /// Who sends it to whom.
    pub parties: Parties,
    /// Calls of its month that used something and that no price was known for.
    pub calls_without_price: u64,
    pub(super) rates: Rates,
    pub(super) books: BTreeMap<Date, Sums>,
}

impl Kept {
    /// # Errors
    /// When the record is not one of ours.
    pub(super) fn of(record: Record<accounts::Invoice>) -> Result<Kept, BillingError> {
        let Record { id, version, created_at_ms, updated_at_ms, value } = record;
        let unreadable = |what: String| BillingError::Unreadable { id: id.clone(), what };
        let Content { bill, parties, rates, books, calls_without_price } =
            value.content.read().map_err(|error| unreadable(error.to_string()))?;
        let draft = Invoice::draft(bill);
        let finalised_at_ms = value.finalised_at_ms.unwrap_or(updated_at_ms);
        let invoice = match value.status {
            InvoiceStatus::Draft => Ok(draft),
            InvoiceStatus::Final => draft.finalised(finalised_at_ms),
            InvoiceStatus::Paid => draft
                .finalised(finalised_at_ms)
                .and_then(|invoice| invoice.paid(value.paid_at_ms.unwrap_or(updated_at_ms))),
            InvoiceStatus::Void => draft
                .finalised(finalised_at_ms)
                .and_then(|invoice| invoice.voided(value.voided_at_ms.unwrap_or(updated_at_ms))),
        };
        let invoice = invoice.map_err(|error| unreadable(error.to_string()))?;
        Ok(Kept { id, version, created_at_ms, updated_at_ms, invoice, parties, calls_without_price, rates, books })
    }

    /// What it says.
    pub fn bill(&self) -> &Bill {
        self.invoice.bill()
    }

    pub(super) fn is_draft(&self) -> bool {
        self.invoice.state() == State::Draft
    }

    /// Whether it is owed or paid: what it says does not change, and counts.
    pub(super) fn stands(&self) -> bool {
        matches!(self.invoice.state(), State::Finalised { .. } | State::Paid { .. })
    }

    /// The record, with the invoice in another state.
    pub(super) fn value(&self, state: State) -> Result<accounts::Invoice, BillingError> {
        let content = Content {
            bill: self.bill().clone(),
            parties: self.parties.clone(),
            rates: self.rates.clone(),
            books: self.books.clone(),
            calls_without_price: self.calls_without_price,
        };
        value(&content, state)
    }
}

/// The record of an invoice.
pub(super) fn value(content: &Content, state: State) -> Result<accounts::Invoice, BillingError> {
    let (status, finalised_at_ms, paid_at_ms, voided_at_ms) = match state {
        State::Draft => (InvoiceStatus::Draft, None, None, None),
        State::Finalised { finalised_at_ms } => (InvoiceStatus::Final, Some(finalised_at_ms), None, None),
        State::Paid { finalised_at_ms, paid_at_ms } => {
            (InvoiceStatus::Paid, Some(finalised_at_ms), Some(paid_at_ms), None)
        }
        State::Void { finalised_at_ms, voided_at_ms } => {
            (InvoiceStatus::Void, Some(finalised_at_ms), None, Some(voided_at_ms))
        }
    };
    let Bill { tenant, month, number, .. } = &content.bill;
    let json = Json::of(content);
    Ok(accounts::Invoice {
        tenant: tenant.clone(),
        first_day: month.first,
        end_day: month.last.saturating_add(1.day()),
        kind: KIND.to_owned(),
        status,
        finalised_at_ms,
        paid_at_ms,
        voided_at_ms,
        content: json.map_err(|error| BillingError::Unreadable { id: number.clone(), what: error.to_string() })?,
    })
}

/// All of a tenant's invoices for usage, in the order of their months.
pub(super) async fn of_tenant(accounts: &Accounts, tenant: &str) -> Result<Vec<Kept>, BillingError> {
    let mut all: Vec<Kept> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        // Some at a time: each may be long.
        let page = Page { tenant: Some(tenant), after: after.as_deref(), limit: 100 };
        let records = accounts.list::<accounts::Invoice>(&page).await?;
        let is_last = records.len() < page.limit;
        after = records.last().map(|record| record.id.clone());
        let of_usage = records.into_iter().filter(|record| record.value.kind == KIND);
        all.extend(of_usage.map(Kept::of).collect::<Result<Vec<_>, _>>()?);
        if is_last {
            break;
        }
    }
    all.sort_by_key(|kept| kept.bill().month.start_ms);
    Ok(all)
}

/// The adjustments on some invoices.
pub(super) fn adjustments<'k>(kept: impl Iterator<Item = &'k Kept>) -> Vec<Adjustment> {
    kept.flat_map(|kept| kept.bill().adjustments.iter().cloned()).collect()
}
