//! How an invoice is written: as JSON, CSV, HTML or PDF; and which months it may be of.
//!
//! Each is a function of the invoice and the [`Parties`] alone: written again it is the same, byte for byte. What
//! people read (HTML, PDF) is made from one [`view`], so that both say the same.

mod calendar;
mod csv;
mod html;
mod json;
mod pdf;
mod view;

use serde::{Deserialize, Serialize};

pub use self::calendar::calendar;
pub use self::csv::csv;
pub use self::html::html;
pub use self::json::json;
pub use self::pdf::pdf;

/// The currency that every amount is in.
pub(crate) const CURRENCY: &str = "USD";

/// Who sends an invoice to whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parties {
    /// Who is to be paid.
    pub seller: Party,
    /// Who pays. Without a name the tenant's stands there.
    pub buyer: Party,
    /// What stands below, such as how to pay; may have several lines.
    pub note: String,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Party {
    /// The name.
    pub name: String,
    /// Lines below the name: address, tax number, mail.
    pub details: Vec<String>,
}

#[cfg(test)]
mod tests;
