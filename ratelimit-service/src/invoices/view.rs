//! What people read of an invoice, as text.

use jiff::Timestamp;
use tollgate_domain::invoice::{
    BillingMonth, Cents, Decimal, Invoice, Item, Line, Meter, Part, Rated, State, Totals, WHOLE_PPM,
};

use super::{CURRENCY, Parties, Party};

/// An invoice's texts, in the order in which they stand.
pub(super) struct View {
    /// `Invoice` and its number.
    pub(super) title: String,
    /// How far it is, and since when.
    pub(super) state: String,
    /// The month, and the zone that it is of.
    pub(super) month: String,
    /// Who sends it and who pays, by their roles.
    pub(super) parties: [(&'static str, Party); 2],
    /// Tables that are not empty.
    pub(super) tables: Vec<Table>,
    /// From the usage to what is to be paid, which is the last.
    pub(super) totals: Vec<Total>,
    /// What is to be said beside, a paragraph each.
    pub(super) notes: Vec<String>,
}

pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) rows: Vec<Row>,
}

/// The columns' headings.
pub(super) const HEADINGS: [&str; 4] = ["Item", "Quantity", "Price", "Amount"];

pub(super) struct Row {
    pub(super) item: String,
    /// What stands smaller below it.
    pub(super) detail: String,
    /// Under the other headings.
    pub(super) cells: [String; 3],
}

pub(super) struct Total {
    pub(super) label: String,
    pub(super) amount: String,
}

impl View {
    pub(super) fn new(invoice: &Invoice, parties: &Parties) -> View {
        let bill = invoice.bill();
        let Parties { seller, buyer, note } = parties.clone();
        let name = if buyer.name.is_empty() { bill.tenant.clone() } else { buyer.name };
        let priced = |line: &&Line| !matches!(line.item, Item::Unpriced { .. });
        let rows = |lines: &mut dyn Iterator<Item = &Line>| lines.map(|line| row(line, None)).collect::<Vec<_>>();
        let adjustments = bill.adjustments.iter().map(|adjustment| row(&adjustment.line, Some(&adjustment.month)));
        let tables = [
            Table { title: "Usage", rows: rows(&mut bill.lines.iter().filter(priced)) },
            Table { title: "Adjustments of earlier months", rows: adjustments.collect() },
            Table { title: "Not priced", rows: rows(&mut bill.lines.iter().filter(|line| !priced(line))) },
        ];
        View {
            title: format!("Invoice {}", bill.number),
            state: state(invoice.state()),
            month: month(&bill.month),
            parties: [("From", seller), ("To", Party { name, details: buyer.details })],
            tables: tables.into_iter().filter(|table| !table.rows.is_empty()).collect(),
            totals: totals(&bill.totals, bill.terms.tax_ppm),
            notes: notes(&bill.totals, &note),
        }
    }
}

fn state(state: State) -> String {
    let on = |at_ms: u64| {
        let at =
            i64::try_from(at_ms).ok().and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok()).unwrap_or_default();
        format!("{} UTC", at.strftime("%Y-%m-%d"))
    };
    match state {
        State::Draft => "Draft: may still change".into(),
        State::Finalised { finalised_at_ms } => format!("Issued {}", on(finalised_at_ms)),
        State::Paid { finalised_at_ms, paid_at_ms } => {
            format!("Issued {}, paid {}", on(finalised_at_ms), on(paid_at_ms))
        }
        State::Void { finalised_at_ms, voided_at_ms } => {
            format!("Void since {}; was issued {}", on(voided_at_ms), on(finalised_at_ms))
        }
    }
}

fn month(month: &BillingMonth) -> String {
    let zone = if month.zone.is_empty() { String::new() } else { format!(" ({})", month.zone) };
    format!("{} to {}{zone}", month.first, month.last)
}

fn row(line: &Line, of: Option<&BillingMonth>) -> Row {
    let (item, mut details) = match &line.item {
        Item::Usage(rated) => (usage(&rated.model, &rated.meter), rated_details(rated)),
        Item::Minimum => ("Up to the agreed minimum".into(), Vec::new()),
        Item::Unpriced { meter, model } => (usage(model, meter), vec!["no price is known".into()]),
    };
    if let Some(of) = of {
        details.insert(0, format!("of {} to {}", of.first, of.last));
    }
    let estimated = line.sums.estimated_quantity;
    if estimated != Decimal::ZERO {
        details.push(format!("{} estimated", grouped(&estimated.to_string())));
    }
    let quantity = || grouped(&line.sums.quantity.to_string());
    let amount = || grouped(&line.sums.cents.to_string());
    let cells = match &line.item {
        Item::Usage(rated) => [quantity(), price(rated), amount()],
        Item::Minimum => [String::new(), String::new(), amount()],
        Item::Unpriced { .. } => [quantity(), String::new(), String::new()],
    };
    Row { item, detail: details.join(", "), cells }
}

fn usage(model: &Option<String>, meter: &Meter) -> String {
    let model = model.iter().map(|model| format!("{model}: ")).collect::<String>();
    let name = meter.to_string();
    match (meter, name.split_once('.')) {
        (Meter::Tokens(_), Some((_, class))) => format!("{model}{} tokens", class.replace('_', " ")),
        (Meter::Event(of), _) => format!("{model}{of}"),
        _ => format!("{model}{name}"),
    }
}

fn rated_details(rated: &Rated) -> Vec<String> {
    let mut details = vec![rated.price.version.clone()];
    match rated.part {
        Part::Standard => {}
        Part::Included => details.push("included".into()),
        Part::Overage => details.push("beyond what is included".into()),
    }
    if rated.part != Part::Included && rated.factor_ppm != WHOLE_PPM {
        details.push(format!("at {} % of its price", percent(rated.factor_ppm)));
    }
    details
}

/// Millionths as percent.
fn percent(ppm: u32) -> Decimal<4> {
    Decimal::from_parts(ppm.into())
}

/// Of a million tokens, or of one of anything else.
fn price(rated: &Rated) -> String {
    let each = rated.price.each;
    match rated.meter {
        // A million times 1e-12 is 1e-6.
        Meter::Tokens(_) => format!("{} / 1M", with_cents(&Decimal::<6>::from_parts(each.parts()).to_string())),
        Meter::Requests | Meter::Images | Meter::Event(_) => with_cents(&each.to_string()),
    }
}

/// A decimal number with two places at least, and its thousands apart.
fn with_cents(number: &str) -> String {
    let places = number.split_once('.').map_or(0, |(_, places)| places.len());
    let missing = [".00", "0", ""][places.min(2)];
    grouped(&format!("{number}{missing}"))
}

/// A decimal number with its thousands apart.
fn grouped(number: &str) -> String {
    let end = number.find('.').unwrap_or(number.len());
    let begin = usize::from(number.starts_with('-'));
    let mut text = number.to_owned();
    for at in (begin + 1..end).rev().filter(|at| (end - at).is_multiple_of(3)) {
        text.insert(at, ',');
    }
    text
}

fn totals(totals: &Totals, tax_ppm: u32) -> Vec<Total> {
    let credits = Cents::from_parts(-totals.credits_used.parts());
    let credits_label = if credits > Cents::ZERO { "Added to your credit" } else { "Paid from your credit" };
    let parts = [
        ("Usage".to_owned(), totals.usage),
        ("Up to the agreed minimum".to_owned(), totals.minimum),
        ("Adjustments of earlier months".to_owned(), totals.adjustments),
    ];
    let below = [(format!("Tax, {} %", percent(tax_ppm)), totals.tax), (credits_label.to_owned(), credits)];
    let given = |(_, amount): &(String, Cents)| *amount != Cents::ZERO;
    let subtotal = ("Subtotal".to_owned(), totals.subtotal);
    let total = (format!("Total, {CURRENCY}"), totals.total);
    let shown = parts.into_iter().filter(given).chain([subtotal]).chain(below.into_iter().filter(given));
    shown.chain([total]).map(|(label, amount)| Total { label, amount: grouped(&amount.to_string()) }).collect()
}

fn notes(totals: &Totals, note: &str) -> Vec<String> {
    let mut notes = Vec::new();
    if totals.estimated != Decimal::ZERO {
        let estimated = grouped(&totals.estimated.rounded().to_string());
        notes.push(format!("{CURRENCY} {estimated} of this month's usage rests on estimates."));
    }
    if totals.unpriced_lines > 0 {
        notes.push("What is not priced is not charged here; it may follow on a later invoice.".into());
    }
    if totals.credits_left != Cents::ZERO {
        notes.push(format!("Credit left: {CURRENCY} {}.", grouped(&totals.credits_left.to_string())));
    }
    notes.extend(note.lines().filter(|line| !line.is_empty()).map(str::to_owned));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let numbers = ["0", "999", "1000", "-1000.5", "-100", "1234567.0001"].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "-1,000.5", "-100", "1,234,567.0001"]);
        assert_eq!(["1", "2.5", "0.000002", "1000.25"].map(with_cents), ["1.00", "2.50", "0.000002", "1,000.25"]);
    }
}
