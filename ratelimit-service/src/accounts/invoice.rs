//! Invoices: drafts change, and what is final stays.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::error::Invalid;
use super::record::{Json, Kind, MAX_DOCUMENT_BYTES, check_name, check_size};

/// A bill. Of a tenant, period and kind there is one that is not void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoice {
    /// Who pays.
    pub tenant: String,
    /// The first day in its period, such as `2026-11-01`.
    pub first_day: Date,
    /// The first day after it.
    pub end_day: Date,
    /// What it is for, by a stable name. Another kind for the same period is another invoice.
    pub kind: String,
    /// How far it is.
    pub status: InvoiceStatus,
    /// When it became final, milliseconds since the Unix epoch.
    pub finalised_at_ms: Option<u64>,
    /// When it was paid.
    pub paid_at_ms: Option<u64>,
    /// When it was given up.
    pub voided_at_ms: Option<u64>,
    /// Its lines and sums. No part of its JSON, as it may be long.
    #[serde(skip, default = "empty")]
    pub content: Json,
}

/// How far an invoice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceStatus {
    /// It may still change.
    Draft,
    /// It is owed, and no longer changes.
    Final,
    /// It is paid.
    Paid,
    /// It is owed no longer, and another one may take its place.
    Void,
}

impl InvoiceStatus {
    fn name(self) -> &'static str {
        match self {
            InvoiceStatus::Draft => "draft",
            InvoiceStatus::Final => "final",
            InvoiceStatus::Paid => "paid",
            InvoiceStatus::Void => "void",
        }
    }

    fn may_become(self, next: InvoiceStatus) -> bool {
        use InvoiceStatus::{Draft, Final, Paid, Void};
        matches!((self, next), (Draft, Draft | Final | Void) | (Final, Paid | Void))
    }
}

fn empty() -> Json {
    Json::null()
}

impl Kind for Invoice {
    const NAME: &'static str = "invoice";
    const TABLE: &'static str = "invoices";
    const COLUMNS: &'static [&'static str] = &["first_day", "end_day", "kind", "status", "content"];

    fn tenant<'a>(&'a self, _: &'a str) -> Option<&'a str> {
        Some(&self.tenant)
    }

    fn check(&self) -> Result<(), Invalid> {
        check_name("kind", &self.kind)?;
        if self.first_day >= self.end_day {
            return Err(Invalid::new("end_day", "does not come after first_day"));
        }
        check_size("content", self.content.text(), MAX_DOCUMENT_BYTES)?;
        let happened = [self.finalised_at_ms, self.paid_at_ms, self.voided_at_ms].map(|at_ms| at_ms.is_some());
        let fits = match self.status {
            InvoiceStatus::Draft => happened == [false, false, false],
            InvoiceStatus::Final => happened == [true, false, false],
            InvoiceStatus::Paid => happened == [true, true, false],
            InvoiceStatus::Void => happened[1..] == [false, true],
        };
        let what =
            || format!("is {}, and the times at which it was finalised, paid or voided differ", self.status.name());
        if fits { Ok(()) } else { Err(Invalid::new("status", what())) }
    }

    fn check_change(&self, next: &Invoice) -> Result<(), Invalid> {
        let place = |invoice: &Invoice| (invoice.first_day, invoice.end_day, invoice.kind.clone());
        if place(self) != place(next) {
            return Err(Invalid::new("kind", "an invoice keeps its period and kind"));
        }
        if !self.status.may_become(next.status) {
            let what = format!("{} does not become {}", self.status.name(), next.status.name());
            return Err(Invalid::new("status", what));
        }
        let InvoiceStatus::Draft = self.status else {
            return match self.content == next.content && self.finalised_at_ms == next.finalised_at_ms {
                true => Ok(()),
                false => Err(Invalid::new("content", "an invoice that is final keeps what it says")),
            };
        };
        Ok(())
    }

    fn check_deletion(&self) -> Result<(), Invalid> {
        match self.status {
            InvoiceStatus::Draft => Ok(()),
            status => Err(Invalid::new("status", format!("is {}; only drafts are deleted", status.name()))),
        }
    }

    fn columns(&self) -> Vec<String> {
        let days = [self.first_day, self.end_day].map(|day| day.to_string());
        let texts = [self.kind.as_str(), self.status.name(), self.content.text()].map(str::to_owned);
        days.into_iter().chain(texts).collect()
    }

    fn restore(&mut self, columns: Vec<String>) {
        // What went in is JSON; all other columns are for the index.
        let content = columns.into_iter().next_back().map(Json::parse);
        self.content = content.and_then(Result::ok).unwrap_or_else(empty);
    }
}
