//! `tollgate export`: what the ledger has of a period, as CSV, JSON lines or Parquet.
//!
//! Entries are read page by page, and written as they come: memory does not grow with the period. Columns are the fields of
//! [`EventRecord`] or [`TrackedRecord`], in their order, under their names. Of calls that expired and whose event has not come
//! there is a row with `usage_source` `unsettled`.

mod csv;
mod parquet;

use std::io::Write;

use clap::ValueEnum;

pub(crate) use self::csv::inert;
use crate::entry::{Entry, EntryRecord, EventRecord, TrackedRecord, Value};
use crate::ledger::{Ledger, LedgerError, Page, Pages};

/// Entries that are read at once.
const PAGE_ENTRIES: usize = 4096;

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// RFC 4180, with a header. Where a spreadsheet would take a text for a formula, an apostrophe stands before it.
    Csv,
    /// One JSON object a line: what `tollgate replay` reads.
    Jsonl,
    /// Apache Parquet, compressed.
    Parquet,
}

/// Which entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum What {
    /// Calls.
    #[default]
    Usage,
    /// Tracked events.
    Tracked,
}

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export<'a> {
    /// Whose entries; all tenants' where none is named.
    pub tenant: Option<&'a str>,
    /// Those of this time on, milliseconds since the Unix epoch,
    pub from_ms: u64,
    /// and before this.
    pub to_ms: u64,
    /// Which.
    pub what: What,
}

/// Writes records of one kind.
trait Writer {
    /// # Errors
    /// When the output cannot be written.
    fn write(&mut self, entry: &Entry) -> anyhow::Result<()>;

    /// # Errors
    /// When the output cannot be written.
    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}

/// Writes all entries asked for to `out`, and tells how many they were. By tenant, then time, then id.
///
/// # Errors
/// When the ledger cannot be read, or `out` cannot be written.
pub async fn run(
    ledger: &dyn Ledger,
    export: &Export<'_>,
    format: Format,
    out: impl Write + Send + 'static,
) -> anyhow::Result<u64> {
    let columns = match export.what {
        What::Usage => EventRecord::FIELDS,
        What::Tracked => TrackedRecord::FIELDS,
    };
    let mut writer: Box<dyn Writer> = match format {
        Format::Csv => Box::new(csv::CsvWriter::new(out, columns)?),
        Format::Jsonl => Box::new(Lines(out)),
        Format::Parquet => Box::new(parquet::ParquetWriter::new(out, columns, export.what)?),
    };
    let tenants = match export.tenant {
        Some(tenant) => vec![tenant.to_owned()],
        None => ledger.tenants(export.from_ms, export.to_ms).await?,
    };
    let mut written = 0;
    for tenant in &tenants {
        let (from_ms, to_ms) = (export.from_ms, export.to_ms);
        let mut pages = Pages::from(Page { tenant, from_ms, to_ms, after: None, limit: PAGE_ENTRIES });
        while let Some(page) = pages.next() {
            let entries = read(ledger, &page, export.what).await?;
            for entry in &entries {
                writer.write(entry)?;
            }
            written += entries.len() as u64;
            pages.read(&entries);
        }
    }
    writer.finish()?;
    Ok(written)
}

async fn read(ledger: &dyn Ledger, page: &Page<'_>, what: What) -> Result<Vec<Entry>, LedgerError> {
    Ok(match what {
        What::Usage => ledger.events(page).await?.into_iter().map(Entry::Usage).collect(),
        What::Tracked => ledger.tracked_events(page).await?.into_iter().map(Entry::Tracked).collect(),
    })
}

/// JSON lines.
struct Lines<W>(W);

impl<W: Write> Writer for Lines<W> {
    fn write(&mut self, entry: &Entry) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.0, &EntryRecord::from(entry))?;
        Ok(self.0.write_all(b"\n")?)
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

/// Calls something on an entry's values.
fn with_values<T>(entry: &Entry, take: impl FnOnce(&[Value<'_>]) -> T) -> T {
    match EntryRecord::from(entry) {
        EntryRecord::Usage(record) => take(&record.values()),
        EntryRecord::Tracked(record) => take(&record.values()),
    }
}
