//! ClickHouse as the ledger calls it: each call has an end, and each error a text.

use std::time::Duration;

use clickhouse::query::Query;
use clickhouse::{Client, RowOwned, RowRead, RowWrite};

use super::ClickHouseSettings;
use crate::ledger::LedgerError;

/// How long a change of tables, or of rows in place, may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(600);

/// How much longer may take what is seldom done and has to be looked at as a whole.
const PATIENCE: u32 = 10;

/// The most rows of one answer: more is an error.
const MAX_RESULT_ROWS: u64 = 4_000_000;

/// The longest statement, in bytes: ids stand in it.
const MAX_QUERY_BYTES: u64 = 1 << 26;

/// The most values in a statement's list.
pub(super) const MAX_LIST: usize = 5_000;

/// The database, cheap to clone.
#[derive(Clone)]
pub(super) struct Database {
    client: Client,
    /// For rows that hold a record: they are written and read by the columns' order, and statements name the columns.
    records: Client,
    timeout: Duration,
}

impl Database {
    pub(super) fn new(settings: &ClickHouseSettings) -> Database {
        let client = Client::default()
            .with_url(&settings.url)
            .with_database(&settings.database)
            .with_user(&settings.user)
            .with_password(settings.password.expose())
            .with_product_info("tollgate", env!("CARGO_PKG_VERSION"))
            .with_setting("max_query_size", MAX_QUERY_BYTES.to_string());
        Database { records: client.clone().with_validation(false), client, timeout: settings.timeout }
    }

    /// The server itself, for what is done outside the database.
    pub(super) fn server(&self) -> Database {
        let in_default = |client: &Client| client.clone().with_database("default");
        Database { client: in_default(&self.client), records: in_default(&self.records), timeout: self.timeout }
    }

    /// The same, which waits longer.
    pub(super) fn patient(&self) -> Database {
        Database { timeout: self.timeout * PATIENCE, ..self.clone() }
    }

    /// A question or statement with `?` where values are bound, and `??` where one is meant.
    pub(super) fn query(&self, sql: &str) -> Query {
        self.client.query(sql)
    }

    /// A question for whole rows of records.
    pub(super) fn query_records(&self, sql: &str) -> Query {
        self.records.query(sql)
    }

    /// All rows of an answer.
    pub(super) async fn rows<T: RowOwned + RowRead>(&self, query: Query) -> Result<Vec<T>, LedgerError> {
        let query = query
            .with_setting("max_result_rows", MAX_RESULT_ROWS.to_string())
            .with_setting("max_execution_time", self.timeout.as_secs().max(1).to_string());
        within(self.timeout, query.fetch_all()).await
    }

    /// The one row of an answer.
    pub(super) async fn row<T: RowOwned + RowRead>(&self, query: Query) -> Result<T, LedgerError> {
        within(self.timeout, query.fetch_one()).await
    }

    /// Whether it answers.
    pub(super) async fn ping(&self) -> Result<(), LedgerError> {
        within(self.timeout, self.query("SELECT 1 FORMAT Null").execute()).await
    }

    /// Changes tables, or rows in place, and waits until that is done.
    pub(super) async fn change(&self, query: Query) -> Result<(), LedgerError> {
        within(CHANGE_TIMEOUT, query.with_setting("mutations_sync", "2").execute()).await
    }

    /// Changes what is known of a table; its rows follow later.
    pub(super) async fn alter(&self, query: Query) -> Result<(), LedgerError> {
        within(CHANGE_TIMEOUT, query.with_setting("mutations_sync", "0").execute()).await
    }

    /// Inserts the rows as one block, and as much by the views on the table. What was inserted under the token before is not
    /// inserted again, neither there nor in the views.
    pub(super) async fn insert<T>(&self, table: &str, token: &str, rows: &[T]) -> Result<(), LedgerError>
    where
        T: for<'a> clickhouse::Row<Value<'a> = T> + RowWrite,
    {
        let insert = async {
            let mut insert = self.records.insert::<T>(table).await?;
            for (name, value) in INSERT_SETTINGS {
                insert = insert.with_setting(*name, *value);
            }
            insert = insert.with_setting("insert_deduplication_token", token);
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        within(self.timeout, insert).await
    }
}

/// One block of rows stays one block, and whoever is told of success can rely on it.
const INSERT_SETTINGS: &[(&str, &str)] = &[
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("materialized_views_ignore_errors", "0"),
    ("max_insert_threads", "1"),
    // A late batch may hold events of many months.
    ("max_partitions_per_insert_block", "0"),
    ("wait_end_of_query", "1"),
];

async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, clickhouse::error::Error>>,
) -> Result<T, LedgerError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(LedgerError::Database(format!("ClickHouse did not answer within {timeout:?}"))),
    }
}

/// With all causes: the first alone often says no more than that there was an error.
fn failed(error: &clickhouse::error::Error) -> LedgerError {
    let mut text = format!("ClickHouse: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    LedgerError::Database(text)
}
