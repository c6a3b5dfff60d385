//! Engines to be tested, each on data of its own that can be opened again.

use std::sync::Arc;

use tempfile::TempDir;
use tollgate::ledger::{Ledger, SqliteLedger};

/// A ledger's data.
pub(crate) enum Engine {
    Sqlite(TempDir),
}

impl Engine {
    /// One of each kind, empty.
    pub(crate) fn all() -> Vec<Engine> {
        vec![Engine::Sqlite(tempfile::tempdir().unwrap())]
    }

    /// Opens it, as at a start of the service.
    pub(crate) async fn open(&self) -> Arc<dyn Ledger> {
        match self {
            Engine::Sqlite(folder) => {
                Arc::new(SqliteLedger::open(&folder.path().join("data/ledger.db")).await.unwrap())
            }
        }
    }
}
