//! HTML.

use askama::Template;
use tollgate_domain::invoice::Invoice;

use super::Parties;
use super::view::{HEADINGS, View};

#[derive(Template)]
#[template(path = "invoice.html")]
struct Page {
    view: View,
    headings: [&'static str; 4],
}

/// The invoice as a page that needs nothing else, and prints well. Texts are escaped.
///
/// # Errors
/// None is known of; what the template may tell.
pub fn html(invoice: &Invoice, parties: &Parties) -> anyhow::Result<String> {
    Ok(Page { view: View::new(invoice, parties), headings: HEADINGS }.render()?)
}
