//! Where accounts are, as it is written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::FIELD;
use super::counters::Bytes;
use super::scalar::Within;
use super::secrets::{self, Given, InEnvironment, InFile};
use crate::accounts::{AccountsSettings, PostgresSettings};

/// The most connections to PostgreSQL, whose own default is 100 for all.
const MAX_CONNECTIONS: u64 = 64;

/// How often the revision is looked at besides being told of changes.
const POLL: Duration = Duration::from_secs(10);

/// A SQLite file, or PostgreSQL.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Accounts(Option<AccountsSettings>);

impl Accounts {
    /// Whether several replicas may have them.
    pub(super) fn are_shared(&self) -> bool {
        matches!(self.0, Some(AccountsSettings::Postgres(_)))
    }

    /// Beside the ledger's database, unless it is said where.
    pub(super) fn settings(self, sqlite: &Path) -> AccountsSettings {
        self.0.unwrap_or_else(|| AccountsSettings::Sqlite(sqlite.with_extension("accounts.db")))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    sqlite: Option<PathBuf>,
    postgres: Option<Postgres>,
}

impl TryFrom<Written> for Accounts {
    type Error = String;

    fn try_from(written: Written) -> Result<Accounts, String> {
        Ok(Accounts(match (written.sqlite, written.postgres) {
            (None, None) => None,
            (Some(file), None) => Some(AccountsSettings::Sqlite(file)),
            (None, Some(Postgres(settings))) => Some(AccountsSettings::Postgres(Box::new(settings))),
            (Some(_), Some(_)) => return Err(format!("{FIELD}sqlite: leave out either this or postgres")),
        }))
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "WrittenPostgres")]
struct Postgres(PostgresSettings);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenPostgres {
    url: Option<Given>,
    url_file: Option<InFile>,
    url_env: Option<InEnvironment>,
    connections: Within<1, MAX_CONNECTIONS>,
    ca_file: Option<Bytes>,
}

impl Default for WrittenPostgres {
    fn default() -> WrittenPostgres {
        WrittenPostgres { url: None, url_file: None, url_env: None, connections: Within(8), ca_file: None }
    }
}

impl TryFrom<WrittenPostgres> for Postgres {
    type Error = String;

    fn try_from(written: WrittenPostgres) -> Result<Postgres, String> {
        let key = match (&written.url, &written.url_file) {
            (Some(_), _) => "url",
            (None, Some(_)) => "url_file",
            (None, None) => "url_env",
        };
        let url = secrets::one_of("url", written.url, written.url_file, written.url_env)?;
        let mut settings = PostgresSettings {
            url: url.ok_or_else(|| format!("{FIELD}url: is missing; give it, or url_file, or url_env"))?,
            connections: u32::try_from(written.connections.get()).unwrap_or(1),
            ca: None,
            poll: POLL,
        };
        settings.check().map_err(|error| format!("{FIELD}{key}: {error}"))?;
        settings.ca = written.ca_file.map(|Bytes(pem)| pem);
        settings.check().map_err(|error| format!("{FIELD}ca_file: {error}"))?;
        Ok(Postgres(settings))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use crate::accounts::AccountsSettings;
    use crate::config::Config;

    fn parse(text: &str) -> Result<AccountsSettings, String> {
        Config::parse(text, "t.yaml").map(|config| config.accounts).map_err(|error| error.to_string())
    }

    #[test]
    fn accounts_are_beside_the_ledger_or_where_it_is_said() {
        let file = |file: &str| Ok(AccountsSettings::Sqlite(PathBuf::from(file)));
        assert_eq!(parse("{}"), file("tollgate.accounts.db"));
        assert_eq!(parse("ledger: { sqlite: data/a.db }"), file("data/a.accounts.db"));
        assert_eq!(parse("accounts: { sqlite: b.db }"), file("b.db"));
        let mut url_file = tempfile::NamedTempFile::new().unwrap();
        writeln!(url_file, "postgres://me:s3cret@db/tollgate").unwrap();
        for key in ["url: 'postgres://me:s3cret@db/tollgate'".to_owned(), format!("url_file: {:?}", url_file.path())] {
            let parsed = parse(&format!("accounts: {{ postgres: {{ {key}, connections: 3 }} }}")).unwrap();
            assert!(!format!("{parsed:?}").contains("s3cret"), "{parsed:?}");
            let AccountsSettings::Postgres(settings) = parsed else { panic!("it is PostgreSQL") };
            assert_eq!((settings.url.expose(), settings.connections), ("postgres://me:s3cret@db/tollgate", 3));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_without_the_password() {
        for (accounts, expected) in [
            ("{ mysql: {} }", "accounts.mysql: unknown field"),
            (
                "{ sqlite: a, postgres: { url: 'postgres://a/b' } }",
                "accounts.sqlite: leave out either this or postgres",
            ),
            ("{ postgres: {} }", "accounts.postgres.url: is missing; give it, or url_file, or url_env"),
            ("{ postgres: { url: 'mysql://s3cret' } }", "accounts.postgres.url: is no URL of PostgreSQL"),
            ("{ postgres: { url: 'postgres://a:s3cret@b:x/c' } }", "accounts.postgres.url: is no URL of PostgreSQL"),
            ("{ postgres: { url: 'postgres://a/b', connections: 0 } }", "accounts.postgres.connections: 0 is not"),
            ("{ postgres: { url_file: /none } }", "accounts.postgres.url_file: /none cannot be read"),
            (
                "{ postgres: { url: 'postgres://a/b', ca_file: /none } }",
                "accounts.postgres.ca_file: /none cannot be read",
            ),
            (
                "{ postgres: { url: 'postgres://a/b', ca_file: /dev/null } }",
                "accounts.postgres.ca_file: holds no certif",
            ),
            (
                "{ postgres: { url: 'postgres://a/b?sslmode=disable', ca_file: /dev/null } }",
                "accounts.postgres.ca_file: is of no use with the URL's sslmode",
            ),
        ] {
            let error = parse(&format!("accounts: {accounts}")).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
    }
}
