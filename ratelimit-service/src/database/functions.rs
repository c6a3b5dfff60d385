//! What SQLite is taught: sums of histograms.

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::{Connection, Result};

use crate::ledger::Histogram;

/// `add_counts(a, b)` adds two encoded histograms; `sum_counts(a)` those of all rows.
pub(super) fn add(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("add_counts", 2, flags, |context| {
        let mut sum = histogram(context, 0)?;
        sum.add(&histogram(context, 1)?);
        Ok(sum.encode())
    })?;
    connection.create_aggregate_function("sum_counts", 1, flags, Sum)
}

struct Sum;

impl Aggregate<Histogram, Vec<u8>> for Sum {
    fn init(&self, _: &mut Context<'_>) -> Result<Histogram> {
        Ok(Histogram::default())
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Histogram) -> Result<()> {
        sum.add(&histogram(context, 0)?);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Histogram>) -> Result<Vec<u8>> {
        Ok(sum.unwrap_or_default().encode())
    }
}

fn histogram(context: &Context<'_>, index: usize) -> Result<Histogram> {
    Ok(Histogram::decode(context.get_raw(index).as_blob()?))
}
