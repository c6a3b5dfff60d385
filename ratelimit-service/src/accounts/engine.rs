//! What the databases differ in: how a transaction begins. All else is SQL that both understand, over texts and
//! integers.

use std::time::Duration;

use sqlx::error::ErrorKind;

/// How long the database may take for one statement, or to have a connection free.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// For whom a transaction is, and so what it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    Operator,
    /// What is this tenant's.
    Tenant(String),
}

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A database.
#[tonic::async_trait]
pub(super) trait Engine: Send + Sync {
    /// Begins a transaction. It is undone when it is dropped.
    async fn begin(&self, access: Access, scope: &Scope) -> Result<Box<dyn Transaction>, Failure>;

    /// Waits for what is under way, and closes.
    async fn close(&self);
}

/// Statements have `$1`, `$2` and so on for their values.
#[tonic::async_trait]
pub(super) trait Transaction: Send {
    /// Runs a statement, and tells how many rows it changed.
    async fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Failure>;

    /// All that a query finds.
    async fn rows(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Failure>;

    /// Makes all of it last.
    async fn commit(self: Box<Self>) -> Result<(), Failure>;
}

/// What goes into a column, or comes from it. An absent integer is not needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(Option<String>),
    Integer(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(Some(text))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Value {
        Value::Text(text.map(str::to_owned))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Integer(crate::database::integer(number))
    }
}

/// The columns of a row, to be taken from the first to the last.
#[derive(Debug)]
pub(super) struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(super) fn optional_text(&mut self) -> Result<Option<String>, Failure> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(text),
            other => Err(unexpected("a text", other.as_ref())),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Failure> {
        self.optional_text()?.ok_or_else(|| unexpected("a text", None))
    }

    /// A negative one is none of ours, and counts as 0.
    pub(super) fn integer(&mut self) -> Result<u64, Failure> {
        match self.0.next() {
            Some(Value::Integer(number)) => Ok(u64::try_from(number).unwrap_or(0)),
            other => Err(unexpected("an integer", other.as_ref())),
        }
    }
}

fn unexpected(what: &str, found: Option<&Value>) -> Failure {
    // Of a text nothing is shown: it may be a secret.
    let found = match found {
        None | Some(Value::Text(None)) => "nothing",
        Some(Value::Text(Some(_))) => "a text",
        Some(Value::Integer(_)) => "an integer",
    };
    Failure::Failed(format!("there is {found} where {what} belongs"))
}

/// Why a statement was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is such a row already.
    Duplicate,
    /// Other rows and this one would no longer belong together.
    Reference,
    /// It is closed.
    Closed,
    /// The database said no, or did not answer.
    Failed(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Failure {
        match &error {
            sqlx::Error::PoolClosed => Failure::Closed,
            sqlx::Error::Database(told) => match told.kind() {
                ErrorKind::UniqueViolation => Failure::Duplicate,
                ErrorKind::ForeignKeyViolation => Failure::Reference,
                _ => Failure::Failed(told.message().to_owned()),
            },
            _ => Failure::Failed(error.to_string()),
        }
    }
}

/// Waits no longer than [`TIMEOUT`].
pub(super) async fn in_time<T>(what: impl Future<Output = Result<T, sqlx::Error>> + Send) -> Result<T, Failure> {
    let done = tokio::time::timeout(TIMEOUT, what).await;
    Ok(done.map_err(|_| Failure::Failed(format!("no answer within {} seconds", TIMEOUT.as_secs())))??)
}

/// A row of either database. Their names for integers differ.
pub(super) fn row<R>(row: &R) -> Result<Row, Failure>
where
    R: sqlx::Row,
    usize: sqlx::ColumnIndex<R>,
    for<'r> i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    use sqlx::{TypeInfo as _, ValueRef as _};
    let value = |index: usize| {
        let raw = row.try_get_raw(index)?;
        let is_integer = matches!(raw.type_info().name(), "INTEGER" | "INT8");
        Ok(match is_integer && !raw.is_null() {
            true => Value::Integer(row.try_get(index)?),
            false => Value::Text(row.try_get(index)?),
        })
    };
    let values: Vec<_> = (0..row.len()).map(value).collect::<Result<_, sqlx::Error>>()?;
    Ok(Row(values.into_iter()))
}

/// A transaction of sqlx as one of ours: the same for each database, whose traits would take more words than this.
macro_rules! transaction {
    ($database:ty) => {
        #[tonic::async_trait]
        impl $crate::accounts::engine::Transaction for sqlx::Transaction<'static, $database> {
            async fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Failure> {
                let done = in_time(query(sql, values).execute(&mut **self)).await?;
                Ok(done.rows_affected())
            }

            async fn rows(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Failure> {
                let rows = in_time(query(sql, values).fetch_all(&mut **self)).await?;
                rows.iter().map(row).collect()
            }

            async fn commit(self: Box<Self>) -> Result<(), Failure> {
                in_time(sqlx::Transaction::commit(*self)).await
            }
        }

        fn query<'q>(
            sql: &str,
            values: &'q [Value],
        ) -> sqlx::query::Query<'q, $database, <$database as sqlx::Database>::Arguments> {
            // All SQL is ours: what comes from elsewhere is a value.
            let query = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()));
            values.iter().fold(query, |query, value| match value {
                Value::Text(text) => query.bind(text.as_deref()),
                Value::Integer(number) => query.bind(*number),
            })
        }
    };
}
pub(super) use transaction;
