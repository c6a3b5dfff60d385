//! PDF.

mod sheets;

use tollgate_domain::invoice::Invoice;

use self::sheets::{Cell, Column, LEFT, RIGHT, Sheets, Style};
use super::Parties;
use super::view::{HEADINGS, Row, Table, View};

/// Where a table's columns end: quantity, price, amount.
const ENDS: [f32; 3] = [RIGHT - 170.0, RIGHT - 80.0, RIGHT];
/// Where the item's column ends.
const ITEM_END: f32 = RIGHT - 252.0;
const MIDDLE: f32 = (LEFT + RIGHT) / 2.0;

/// The invoice on A4. Fonts are embedded; the text can be searched and copied. They have Latin, Greek, Cyrillic and
/// some other letters, but no Chinese, Japanese or Korean ones: what they lack is shown as U+FFFD.
///
/// # Errors
/// None is known of; what the writer of PDFs may tell.
pub fn pdf(invoice: &Invoice, parties: &Parties) -> anyhow::Result<Vec<u8>> {
    let view = View::new(invoice, parties);
    let mut sheets = Sheets::new()?;
    head(&mut sheets, &view);
    for table in &view.tables {
        rows(&mut sheets, table);
    }
    totals(&mut sheets, &view);
    sheets.space(18.0);
    for note in &view.notes {
        sheets.row(&[across(Style::Small, note)], &[]);
    }
    sheets.written(&view.title)
}

fn across(style: Style, text: &str) -> Cell<'_> {
    Cell { column: Column::From(LEFT, RIGHT), texts: vec![(style, text)] }
}

fn head(sheets: &mut Sheets, view: &View) {
    sheets.row(&[across(Style::Title, &view.title)], &[]);
    sheets.space(4.0);
    sheets.row(&[across(Style::Plain, &view.state)], &[]);
    sheets.row(&[across(Style::Plain, &view.month)], &[]);
    sheets.space(18.0);
    let columns = [Column::From(LEFT, MIDDLE - 12.0), Column::From(MIDDLE, RIGHT)];
    let cells = view.parties.iter().zip(columns).map(|((role, party), column)| {
        let details = party.details.iter().map(|detail| (Style::Plain, detail.as_str()));
        let name = [(Style::Small, *role), (Style::Strong, &*party.name)];
        Cell { column, texts: name.into_iter().chain(details).collect() }
    });
    sheets.row(&cells.collect::<Vec<_>>(), &[]);
}

fn rows(sheets: &mut Sheets, table: &Table) {
    sheets.space(16.0);
    // The title, the headings and a row.
    sheets.keep(80.0);
    sheets.row(&[across(Style::Heading, table.title)], &[]);
    let [item, others @ ..] = HEADINGS;
    let headings = beside(vec![(Style::Strong, item)], Style::Strong, others);
    sheets.row(&headings, &[]);
    sheets.rule();
    for Row { item, detail, cells } in &table.rows {
        let texts = vec![(Style::Plain, item.as_str()), (Style::Small, detail)];
        sheets.row(&beside(texts, Style::Plain, cells.each_ref().map(String::as_str)), &headings);
        sheets.space(4.0);
    }
}

/// An item, and what stands in the columns beside it.
fn beside<'a>(item: Vec<(Style, &'a str)>, style: Style, others: [&'a str; 3]) -> Vec<Cell<'a>> {
    let item = Cell { column: Column::From(LEFT, ITEM_END), texts: item };
    let others = ENDS.into_iter().zip(others);
    let others = others.map(|(end, text)| Cell { column: Column::UpTo(end), texts: vec![(style, text)] });
    [item].into_iter().chain(others).collect()
}

fn totals(sheets: &mut Sheets, view: &View) {
    sheets.space(14.0);
    // They stay together.
    sheets.keep(18.0 * view.totals.len() as f32);
    for (total, left) in view.totals.iter().zip((0..view.totals.len()).rev()) {
        let style = if left == 0 { Style::Heading } else { Style::Plain };
        if left == 0 {
            sheets.rule();
        }
        let cell = |column, text| Cell { column, texts: vec![(style, text)] };
        let label = cell(Column::From(MIDDLE, RIGHT - 80.0), total.label.as_str());
        sheets.row(&[label, cell(Column::UpTo(RIGHT), &total.amount)], &[]);
        sheets.space(2.0);
    }
}
