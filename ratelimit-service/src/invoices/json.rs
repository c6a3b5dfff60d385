//! JSON.

use serde::Serialize;
use tollgate_domain::invoice::Invoice;

use super::{CURRENCY, Parties};

#[derive(Serialize)]
struct Document<'a> {
    currency: &'static str,
    #[serde(flatten)]
    invoice: &'a Invoice,
    #[serde(flatten)]
    parties: &'a Parties,
}

/// The invoice as an indented JSON object. Its fields, less `currency` and those of the parties, are those that an
/// [`Invoice`] is read from. Amounts and quantities are strings of decimal numbers.
///
/// # Errors
/// None is known of; what the serializer may tell.
pub fn json(invoice: &Invoice, parties: &Parties) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(&Document { currency: CURRENCY, invoice, parties })?;
    text.push('\n');
    Ok(text)
}
