//! CSV, as RFC 4180 has it.

use tollgate_domain::invoice::{Bill, BillingMonth, Cents, Invoice, Item, Line, Part, Sums};

use super::CURRENCY;
use crate::export::inert;

const COLUMNS: [&str; 19] = [
    "invoice",
    "state",
    "tenant",
    "month_first",
    "month_last",
    "of_month_first",
    "item",
    "model",
    "meter",
    "price",
    "part",
    "factor_ppm",
    "quantity",
    "estimated_quantity",
    "unit_usd",
    "exact_usd",
    "estimated_usd",
    "amount",
    "currency",
];

/// The invoice's lines and adjustments, and its tax and credits where there are any, each a row: the column `amount`
/// sums up to the total. Where a spreadsheet would take a text for a formula, an apostrophe stands before it.
///
/// # Errors
/// None is known of; what the writer may tell.
pub fn csv(invoice: &Invoice) -> anyhow::Result<String> {
    let bill = invoice.bill();
    let mut writer = ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    let lines = bill.lines.iter().map(|line| (&bill.month, line));
    let adjustments = bill.adjustments.iter().map(|adjustment| (&adjustment.month, &adjustment.line));
    for (of, line) in lines.chain(adjustments) {
        writer.write_record(Row::of_line(line).cells(invoice, of))?;
    }
    for row in totals(bill) {
        writer.write_record(row.cells(invoice, &bill.month))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// What differs from row to row, beside the month.
#[derive(Default)]
struct Row {
    item: &'static str,
    model: String,
    meter: String,
    price: String,
    part: &'static str,
    factor_ppm: String,
    quantity: String,
    estimated_quantity: String,
    unit_usd: String,
    exact_usd: String,
    estimated_usd: String,
    amount: String,
}

/// What the lines are followed by on the way to the total.
fn totals(bill: &Bill) -> impl Iterator<Item = Row> {
    let credits = Cents::from_parts(-bill.totals.credits_used.parts());
    let amounts = [("tax", bill.totals.tax), ("credits", credits)];
    let given = amounts.into_iter().filter(|(_, amount)| *amount != Cents::ZERO);
    given.map(|(item, amount)| Row { item, amount: amount.to_string(), ..Row::default() })
}

impl Row {
    fn of_line(line: &Line) -> Row {
        let Sums { quantity, estimated_quantity, exact_usd, estimated_usd, cents } = line.sums;
        let measured = Row {
            quantity: quantity.to_string(),
            estimated_quantity: estimated_quantity.to_string(),
            ..Row::default()
        };
        let amounts = Row {
            exact_usd: exact_usd.to_string(),
            estimated_usd: estimated_usd.to_string(),
            amount: cents.to_string(),
            ..Row::default()
        };
        let model = |model: &Option<String>| model.clone().unwrap_or_default();
        match &line.item {
            Item::Usage(rated) => Row {
                item: "usage",
                model: model(&rated.model),
                meter: rated.meter.to_string(),
                price: rated.price.version.clone(),
                part: match rated.part {
                    Part::Standard => "standard",
                    Part::Included => "included",
                    Part::Overage => "overage",
                },
                factor_ppm: rated.factor_ppm.to_string(),
                unit_usd: rated.price.each.to_string(),
                quantity: measured.quantity,
                estimated_quantity: measured.estimated_quantity,
                ..amounts
            },
            Item::Minimum => Row { item: "minimum", ..amounts },
            Item::Unpriced { meter, model: of } => {
                Row { item: "unpriced", model: model(of), meter: meter.to_string(), ..measured }
            }
        }
    }

    fn cells(self, invoice: &Invoice, of: &BillingMonth) -> [String; COLUMNS.len()] {
        let bill = invoice.bill();
        let text = |text: &str| inert(text).into_owned();
        [
            text(&bill.number),
            invoice.state().to_string(),
            text(&bill.tenant),
            bill.month.first.to_string(),
            bill.month.last.to_string(),
            of.first.to_string(),
            self.item.to_owned(),
            text(&self.model),
            text(&self.meter),
            text(&self.price),
            self.part.to_owned(),
            self.factor_ppm,
            self.quantity,
            self.estimated_quantity,
            self.unit_usd,
            self.exact_usd,
            self.estimated_usd,
            self.amount,
            CURRENCY.to_owned(),
        ]
    }
}
