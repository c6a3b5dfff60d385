//! The stores that a fleet shares, in the place of files: PostgreSQL, Redis and ClickHouse.
//!
//! `tollgate-local with-servers COMMAND` starts all three and names them to what it runs by the environment. Each service that a
//! test starts there has databases of its own.

use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use serde_json::{Value, json};

use super::clickhouse::{self, ClickHouse};
use super::postgres::{self, Postgres};
use super::redis::Redis;

/// Names the PostgreSQL server, by the URL of a superuser. Where it is set, the other two have to be.
const POSTGRES: &str = "TOLLGATE_TEST_POSTGRES_URL";
/// Names the Redis server.
const REDIS: &str = "TOLLGATE_TEST_REDIS_URL";

/// All three servers. They end when this is dropped.
#[derive(Debug)]
pub struct Servers {
    postgres: Postgres,
    redis: Redis,
    clickhouse: ClickHouse,
}

impl Servers {
    /// Starts them, with their files below `dir` or in folders of their own.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn start(dir: &Path) -> anyhow::Result<Servers> {
        let (postgres, redis) = (Postgres::start().await?, Redis::start(dir).await?);
        Ok(Servers { postgres, redis, clickhouse: ClickHouse::bridge(dir).await? })
    }

    /// The variables of the environment that name them.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let (user, password) = (self.clickhouse.user(), self.clickhouse.password());
        [
            (POSTGRES, self.postgres.superuser_url("postgres")),
            (REDIS, self.redis.url()),
            (clickhouse::SERVER, format!("http://{user}:{password}@{}", self.clickhouse.addr())),
        ]
    }
}

/// What one service has of the servers that the environment names.
#[derive(Debug)]
pub struct Stores {
    /// Where its ledger is.
    pub clickhouse: ClickHouse,
    config: Value,
}

impl Stores {
    /// New databases; `None` where the environment names no servers. What the service needs to know them goes to files in `dir`.
    ///
    /// # Errors
    /// When one of the servers is not named, or does not answer.
    pub async fn of_environment(dir: &Path) -> anyhow::Result<Option<Stores>> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let Ok(superuser_url) = std::env::var(POSTGRES) else { return Ok(None) };
        let redis = std::env::var(REDIS).context(REDIS)?;
        let clickhouse = ClickHouse::start(dir).await?;
        let name = format!("tollgate_test_{}_{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let accounts = postgres::create_database(&superuser_url, &name).await?;
        let password = dir.join("clickhouse-password.txt");
        std::fs::write(&password, clickhouse.password())?;
        let config = json!({
            "accounts": { "postgres": { "url": accounts, "connections": 2 } },
            // A busy machine answers late.
            "counters": { "engine": "redis", "redis": { "url": redis, "key_prefix": name, "timeout_ms": 10_000 } },
            "ledger": { "clickhouse": {
                "url": clickhouse.url(),
                "database": clickhouse.database(),
                "user": clickhouse.user(),
                "password_file": password,
            } },
        });
        Ok(Some(Stores { clickhouse, config }))
    }

    /// What the service's configuration has of them.
    pub fn config(&self) -> &Value {
        &self.config
    }
}
