//! Engines to be tested, each on data of its own that can be opened again.

use std::time::Duration;

use tempfile::TempDir;
use tollgate::accounts::{Accounts, AccountsSettings, PostgresSettings};
use tollgate::secret::Secret;
use tollgate_e2e::harness::postgres::Postgres;

/// Accounts' data.
pub(crate) enum Engine {
    Sqlite(TempDir),
    Postgres(Postgres, String),
}

impl Engine {
    /// One of each kind, empty.
    pub(crate) async fn all() -> [Engine; 2] {
        [Engine::sqlite(), Engine::postgres().await]
    }

    pub(crate) fn sqlite() -> Engine {
        Engine::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(crate) async fn postgres() -> Engine {
        let postgres = Postgres::start().await.unwrap();
        let url = postgres.database("accounts").await.unwrap();
        Engine::Postgres(postgres, url)
    }

    pub(crate) fn settings(&self) -> AccountsSettings {
        match self {
            Engine::Sqlite(folder) => AccountsSettings::Sqlite(folder.path().join("data/accounts.db")),
            Engine::Postgres(_, url) => AccountsSettings::Postgres(Box::new(postgres_settings(url))),
        }
    }

    /// Opens it, as at a start of the service.
    pub(crate) async fn open(&self) -> Accounts {
        Accounts::open(&self.settings()).await.unwrap()
    }
}

/// Nothing is looked at by the clock: what is known is told.
pub(crate) fn postgres_settings(url: &str) -> PostgresSettings {
    PostgresSettings { url: Secret::new(url), connections: 8, ca: None, poll: Duration::from_secs(3600) }
}
