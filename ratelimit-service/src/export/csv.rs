//! CSV, as RFC 4180 has it.

use std::borrow::Cow;
use std::io::Write;

use super::{Writer, with_values};
use crate::entry::{Entry, Value};

/// What a spreadsheet takes for the beginning of a formula
/// (<https://owasp.org/www-community/attacks/CSV_Injection>).
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

pub(super) struct CsvWriter<W: Write>(csv::Writer<W>);

impl<W: Write> CsvWriter<W> {
    pub(super) fn new(out: W, columns: &[&str]) -> anyhow::Result<CsvWriter<W>> {
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
        writer.write_record(columns)?;
        Ok(CsvWriter(writer))
    }
}

impl<W: Write> Writer for CsvWriter<W> {
    fn write(&mut self, entry: &Entry) -> anyhow::Result<()> {
        with_values(entry, |values| self.0.write_record(values.iter().map(|value| cell(value).into_owned())))?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

fn cell<'a>(value: &Value<'a>) -> Cow<'a, str> {
    match value {
        Value::Text(text) => inert(text.unwrap_or_default()),
        Value::Texts([]) => "".into(),
        Value::Texts(texts) => serde_json::Value::from(*texts).to_string().into(),
        Value::Count(count) => count.map(|count| count.to_string()).unwrap_or_default().into(),
        Value::Flag(flag) => flag.to_string().into(),
    }
}

/// The text, so that no spreadsheet takes it for a formula.
pub(crate) fn inert(text: &str) -> Cow<'_, str> {
    if text.starts_with(FORMULA) { format!("'{text}").into() } else { text.into() }
}
