//! The audit log: who did what to whose limits, for good.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Row, params};
use serde_json::Value;

use crate::database::{Database, DatabaseError, integer};

/// The most entries that one question is answered with.
pub const MAX_ENTRIES: usize = 1000;

/// The action by which a tenant's limits were forgiven.
pub const RESET: &str = "reset";

/// The action by which a tenant's entries were erased.
pub const PURGE: &str = "purge";

/// The action by which entries were brought again.
pub const REPLAY: &str = "replay";

/// What somebody did.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who, by the name under which they are known to the service.
    pub actor: String,
    /// What, by a stable name: [`RESET`], [`PURGE`], …
    pub action: String,
    /// The tenant that it concerned; `None` when it concerned no single one.
    pub tenant: Option<String>,
    /// What else there is to know. Its writer keeps it short.
    pub detail: Value,
}

/// An entry as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Greater than that of every earlier entry, and at least 1: the cursor of [`Audit::entries`].
    pub id: u64,
    /// What was done.
    pub entry: Entry,
}

/// An append-only log.
#[tonic::async_trait]
pub trait Audit: Send + Sync {
    /// Keeps an entry, and gives its id. It is durable when this returns; dropping the future does not take it back.
    ///
    /// # Errors
    /// When it was not kept: too much is waiting, or the database failed.
    async fn record(&self, entry: Entry) -> Result<u64, DatabaseError>;

    /// The latest entries of one tenant or all, newest first: at most `limit`, and at most [`MAX_ENTRIES`]. `before` is the
    /// last id of the page before; `None` starts at the newest.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn entries(
        &self,
        tenant: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Recorded>, DatabaseError>;

    /// Tenants that were reset at or after `from_ms`, each with when that was last.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn last_resets(&self, from_ms: u64) -> Result<HashMap<String, u64>, DatabaseError>;
}

/// The log in the service's SQLite file.
pub struct SqliteAudit(Arc<Database>);

impl SqliteAudit {
    /// In this file.
    pub fn new(database: Arc<Database>) -> SqliteAudit {
        SqliteAudit(database)
    }
}

#[tonic::async_trait]
impl Audit for SqliteAudit {
    async fn record(&self, entry: Entry) -> Result<u64, DatabaseError> {
        let insert = "INSERT INTO audit_log (at_ms, actor, action, tenant, detail) VALUES (?, ?, ?, ?, ?)";
        let Entry { at_ms, actor, action, tenant, detail } = entry;
        let at_ms = integer(at_ms);
        let written = self.0.write(move |transaction| {
            transaction.execute(insert, params![at_ms, actor, action, tenant, detail.to_string()])?;
            Ok(transaction.last_insert_rowid().unsigned_abs())
        });
        written.await
    }

    async fn entries(
        &self,
        tenant: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Recorded>, DatabaseError> {
        let of_tenant = if tenant.is_some() { "tenant = ?2" } else { "?2 IS NULL" };
        let query = format!(
            "SELECT id, at_ms, actor, action, tenant, detail FROM audit_log WHERE id < ?1 AND {of_tenant} \
             ORDER BY id DESC LIMIT ?3"
        );
        let before = before.map_or(i64::MAX, integer);
        let (tenant, limit) = (tenant.map(str::to_owned), limit.min(MAX_ENTRIES) as i64);
        let read = self.0.read(move |transaction| {
            transaction.prepare_cached(&query)?.query_map(params![before, tenant, limit], recorded)?.collect()
        });
        read.await
    }

    async fn last_resets(&self, from_ms: u64) -> Result<HashMap<String, u64>, DatabaseError> {
        let Ok(from_ms) = i64::try_from(from_ms) else { return Ok(HashMap::new()) };
        let query = "SELECT tenant, max(at_ms) FROM audit_log \
                     WHERE action = ? AND at_ms >= ? AND tenant IS NOT NULL GROUP BY tenant";
        let read = self.0.read(move |transaction| {
            let reset = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()));
            transaction.prepare_cached(query)?.query_map(params![RESET, from_ms], reset)?.collect()
        });
        read.await
    }
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let entry = Entry {
        at_ms: row.get::<_, i64>("at_ms")?.unsigned_abs(),
        actor: row.get("actor")?,
        action: row.get("action")?,
        tenant: row.get("tenant")?,
        detail: row.get("detail")?,
    };
    Ok(Recorded { id: row.get::<_, i64>("id")?.unsigned_abs(), entry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use serde_json::json;
    use tempfile::TempDir;

    struct Opened {
        audit: SqliteAudit,
        database: Arc<Database>,
        folder: TempDir,
    }

    impl Opened {
        async fn new() -> Opened {
            let folder = tempfile::tempdir().unwrap();
            let database = Arc::new(Database::open(&folder.path().join("audit.db")).await.unwrap());
            Opened { audit: SqliteAudit::new(database.clone()), database, folder }
        }

        /// Another process's.
        fn connection(&self) -> Connection {
            Connection::open(self.folder.path().join("audit.db")).unwrap()
        }
    }

    fn audited(at_ms: u64, tenant: Option<&str>) -> Entry {
        Entry {
            at_ms,
            actor: "alice".to_owned(),
            action: RESET.to_owned(),
            tenant: tenant.map(str::to_owned),
            detail: json!({ "reason": "\"quoted\", é", "limits": [1, null] }),
        }
    }

    #[tokio::test]
    async fn entries_are_kept_and_read_newest_first_page_by_page() {
        let opened = Opened::new().await;
        let entries = [audited(5, Some("acme")), audited(3, None), audited(9, Some("zeta")), audited(1, Some("acme"))];
        let mut ids = Vec::new();
        for entry in &entries {
            ids.push(opened.audit.record(entry.clone()).await.unwrap());
        }
        assert!(ids.is_sorted_by(|earlier, later| earlier < later), "{ids:?}");
        let recorded = |at: usize| Recorded { id: ids[at], entry: entries[at].clone() };
        let read = async |tenant, before, limit| opened.audit.entries(tenant, before, limit).await.unwrap();
        assert_eq!(read(None, None, 100).await, [recorded(3), recorded(2), recorded(1), recorded(0)]);
        assert_eq!(read(None, None, 2).await, [recorded(3), recorded(2)]);
        assert_eq!(read(None, Some(ids[2]), 2).await, [recorded(1), recorded(0)]);
        assert_eq!(read(Some("acme"), None, 100).await, [recorded(3), recorded(0)]);
        assert_eq!(read(Some("acme"), Some(ids[3]), 100).await, [recorded(0)]);
        assert_eq!(read(Some("acme"), Some(ids[0]), 100).await, []);
        assert_eq!(read(None, Some(u64::MAX), 1).await, [recorded(3)]);
        let resets = opened.audit.last_resets(2).await.unwrap();
        assert_eq!(resets, HashMap::from([("acme".to_owned(), 5), ("zeta".to_owned(), 9)]));
    }

    #[tokio::test]
    async fn entries_outlive_the_process_and_are_never_changed() {
        let opened = Opened::new().await;
        opened.audit.record(audited(1, Some("acme"))).await.unwrap();
        let connection = opened.connection();
        let actor: String = connection.query_row("SELECT actor FROM audit_log", [], |row| row.get(0)).unwrap();
        assert_eq!(actor, "alice");
        for statement in ["UPDATE audit_log SET actor = 'mallory'", "DELETE FROM audit_log"] {
            let refused = connection.execute(statement, []).unwrap_err();
            assert!(refused.to_string().contains("audit_log is append-only"), "{refused}");
        }
        opened.database.close().await;
        assert_eq!(opened.audit.record(audited(2, None)).await.unwrap_err(), DatabaseError::Closed);
    }

    #[tokio::test]
    async fn an_entry_that_cannot_be_kept_is_an_error_and_the_next_one_is_tried() {
        let opened = Opened::new().await;
        let fail = "CREATE TRIGGER full BEFORE INSERT ON audit_log BEGIN SELECT raise(ABORT, 'no room'); END";
        opened.connection().execute_batch(fail).unwrap();
        let failed = opened.audit.record(audited(1, None)).await.unwrap_err();
        assert!(failed.to_string().ends_with("audit.db: no room"), "{failed}");
        opened.connection().execute_batch("DROP TRIGGER full").unwrap();
        opened.audit.record(audited(1, None)).await.unwrap();
    }
}
