//! The ledger's file, read past the service: each event as it was stored.

use std::path::Path;

use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{Column, ConnectOptions, Connection, Row};

/// A tenant's events, oldest first: each an object with the columns of `usage_events`.
///
/// # Errors
/// When the file can't be read.
pub async fn events(file: &Path, tenant: &str) -> anyhow::Result<Vec<Value>> {
    let mut connection = SqliteConnectOptions::new().filename(file).read_only(true).connect().await?;
    let query = sqlx::query("SELECT * FROM usage_events WHERE tenant = ? ORDER BY started_at_ms, event_id");
    let rows = query.bind(tenant).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(rows.iter().map(object).collect())
}

fn object(row: &SqliteRow) -> Value {
    let value = |index| {
        let number = row.try_get::<Option<i64>, _>(index).map(Value::from);
        number.or_else(|_| row.try_get::<Option<String>, _>(index).map(Value::from)).unwrap_or_default()
    };
    let columns = row.columns().iter().map(|column| (column.name().to_owned(), value(column.ordinal())));
    Value::Object(columns.collect::<Map<_, _>>())
}
