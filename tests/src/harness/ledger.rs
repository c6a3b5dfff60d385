//! The ledger, read past the service: each event as it was stored.

use std::path::Path;

use anyhow::Context;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Map, Value};

use super::clickhouse::ClickHouse;

/// A tenant's events, oldest first: each an object with the columns of `usage_events`.
///
/// # Errors
/// When the file can't be read.
pub fn events(file: &Path, tenant: &str) -> anyhow::Result<Vec<Value>> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("cannot open {}", file.display()))?;
    let mut query =
        connection.prepare("SELECT * FROM usage_events WHERE tenant = ? ORDER BY started_at_ms, event_id")?;
    let columns: Vec<String> = query.column_names().into_iter().map(str::to_owned).collect();
    let rows = query.query_map([tenant], |row| object(&columns, row))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The same of a ledger in ClickHouse.
///
/// # Errors
/// When it doesn't answer.
pub fn events_in_clickhouse(clickhouse: &ClickHouse, tenant: &str) -> anyhow::Result<Vec<Value>> {
    let tenant = tenant.replace('\\', "\\\\").replace('\'', "\\'");
    let rows = clickhouse.query(&format!(
        "SELECT * FROM usage_events WHERE tenant = '{tenant}' AND kind = 'real' ORDER BY started_at_ms, event_id \
         FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0"
    ))?;
    let event = |row: &str| -> anyhow::Result<Value> {
        let columns: Map<String, Value> = serde_json::from_str(row)?;
        Ok(columns.into_iter().map(|(name, value)| (name, as_in_a_file(value))).collect())
    };
    rows.lines().map(event).collect()
}

/// A file has neither truth values nor lists: numbers stand there, and JSON.
fn as_in_a_file(value: Value) -> Value {
    match value {
        Value::Bool(is_so) => u8::from(is_so).into(),
        Value::Array(_) => value.to_string().into(),
        other => other,
    }
}

fn object(columns: &[String], row: &Row<'_>) -> rusqlite::Result<Value> {
    let value = |index| -> rusqlite::Result<Value> {
        Ok(match row.get_ref(index)? {
            ValueRef::Integer(number) => number.into(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Null,
        })
    };
    let columns = columns.iter().enumerate().map(|(index, name)| Ok((name.clone(), value(index)?)));
    Ok(Value::Object(columns.collect::<rusqlite::Result<Map<_, _>>>()?))
}
