//! Accounts in a SQLite file of one service.
//!
//! One connection writes, and who has to wait for it does so in order.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use sqlx::Sqlite;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::engine::{Access, Engine, Failure, Row, Scope, TIMEOUT, Transaction, Value, in_time, row, transaction};
use super::migrated;

/// How many reads there may be at once.
const READERS: u32 = 4;

/// How long a statement waits for another process that has the file locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct SqliteEngine {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteEngine {
    /// Opens the file, creating it and its folder where they are missing, and brings its tables up to date.
    pub(super) async fn open(file: &Path) -> anyhow::Result<SqliteEngine> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(LOCK_TIMEOUT);
        let opening = || format!("cannot open {}", file.display());
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(TIMEOUT);
        let writer = pool(1).connect_with(options.clone()).await.with_context(opening)?;
        migrated(sqlx::migrate!("migrations/accounts/sqlite").run(&writer).await).with_context(opening)?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await.with_context(opening)?;
        Ok(SqliteEngine { writer, readers })
    }
}

#[tonic::async_trait]
impl Engine for SqliteEngine {
    // The queries themselves keep to the scope.
    async fn begin(&self, access: Access, _: &Scope) -> Result<Box<dyn Transaction>, Failure> {
        let transaction = match access {
            Access::Read => in_time(self.readers.begin()).await?,
            Access::Write => in_time(self.writer.begin_with("BEGIN IMMEDIATE")).await?,
        };
        Ok(Box::new(transaction))
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

transaction!(Sqlite);
