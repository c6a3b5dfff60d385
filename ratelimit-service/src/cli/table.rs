//! Tables for people.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::clock::rfc3339;
use crate::decimal;

/// What stands where there is nothing.
const NOTHING: &str = "-";

/// Columns of JSON objects' fields, by the fields' names. Amounts in `…_nanousd` are shown as `…_usd`, and times in `…_ms`
/// as moments.
pub(super) struct Columns(pub(super) &'static [&'static str]);

impl Columns {
    /// Writes a table with a row for each object.
    pub(super) fn write<'v>(
        &self,
        objects: impl IntoIterator<Item = &'v Value>,
        out: &mut impl Write,
    ) -> std::io::Result<()> {
        let header = self.0.iter().map(|field| header(field)).collect();
        let rows = objects.into_iter().map(|object| self.0.iter().map(|field| cell(field, &object[*field])).collect());
        write(header, rows, out)
    }

    /// Writes a row for each field of one object.
    pub(super) fn write_one(&self, object: &Value, out: &mut impl Write) -> std::io::Result<()> {
        let rows = self.0.iter().map(|field| vec![header(field), cell(field, &object[*field])]);
        writeln!(out, "{}", aligned(None, rows))
    }
}

/// Writes a table. A column of numbers alone stands to the right.
pub(super) fn write(
    header: Vec<String>,
    rows: impl Iterator<Item = Vec<String>>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    writeln!(out, "{}", aligned(Some(header), rows))
}

fn aligned(header: Option<Vec<String>>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let has_header = header.is_some();
    let rows: Vec<Vec<String>> = rows.map(|row| row.iter().map(|text| shown(text)).collect()).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    header.map(|header| table.set_header(header));
    let is_number = |text: &str| text == NOTHING || decimal::read(text, 12).is_some();
    let width = rows.first().map_or(0, Vec::len);
    let numbers: Vec<bool> = (0..width).map(|at| has_header && rows.iter().all(|row| is_number(&row[at]))).collect();
    table.add_rows(rows);
    for (column, is_of_numbers) in table.column_iter_mut().zip(numbers) {
        column.set_padding((0, 2));
        if is_of_numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn header(field: &str) -> String {
    match (field.strip_suffix("_nanousd"), field.strip_suffix("_ms")) {
        (Some(amount), _) => format!("{amount}_usd"),
        (_, Some(what)) => what.to_owned(),
        _ => field.to_owned(),
    }
}

fn cell(field: &str, value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.iter().all(|value| !value.is_array() && !value.is_object()) => {
            let texts: Vec<_> = values.iter().map(|value| cell("", value)).collect();
            if texts.is_empty() { NOTHING.to_owned() } else { texts.join(",") }
        }
        Value::Number(number) => match number.as_u64() {
            Some(nano) if field.ends_with("_nanousd") => decimal::written(nano.into(), 9),
            Some(at_ms) if field.ends_with("_ms") => rfc3339(at_ms),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// A text that does nothing to a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_nothing_reaches_the_terminal() {
        let objects = [
            json!({"id": "a\u{1b}[2J", "amount_nanousd": 1_500_000_000, "made_at_ms": 0, "of": ["x", "y"]}),
            json!({"id": "bb", "amount_nanousd": 20_000_000_000_u64, "of": [], "made_at_ms": null}),
        ];
        let mut out = Vec::new();
        Columns(&["id", "amount_nanousd", "made_at_ms", "of"]).write(&objects, &mut out).unwrap();
        let expected = "\
id     amount_usd  made_at               of
a\u{fffd}[2J         1.5  1970-01-01T00:00:00Z  x,y
bb             20  -                     -
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
