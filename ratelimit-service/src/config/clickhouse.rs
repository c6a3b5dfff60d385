//! Where ClickHouse is, as it is written.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use serde::Deserialize;

use super::scalar::Within;
use crate::ledger::{ClickHouseSettings, MAX_RETENTION_MONTHS};
use crate::secret::Secret;

/// The longest that a question or an insert may take, in milliseconds.
const MAX_TIMEOUT_MS: u64 = 600_000;

const MAX_MONTHS: u64 = MAX_RETENTION_MONTHS as u64;

/// What is written, checked.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct ClickHouse(pub(super) ClickHouseSettings);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    url: Option<Url>,
    database: Identifier,
    user: String,
    password_file: Option<PasswordFile>,
    password_env: Option<PasswordVariable>,
    retention_months: Within<1, MAX_MONTHS>,
    sums_retention_months: Within<1, MAX_MONTHS>,
    timeout_ms: Within<1, MAX_TIMEOUT_MS>,
}

impl Default for Written {
    fn default() -> Written {
        Written {
            url: None,
            database: Identifier("tollgate".to_owned()),
            user: "default".to_owned(),
            password_file: None,
            password_env: None,
            retention_months: Within(36),
            sums_retention_months: Within(120),
            timeout_ms: Within(30_000),
        }
    }
}

impl TryFrom<Written> for ClickHouse {
    type Error = String;

    fn try_from(written: Written) -> Result<ClickHouse, String> {
        let Some(Url(url)) = written.url else { return Err(".url: is missing".to_owned()) };
        let password = match (written.password_file, written.password_env) {
            (None, None) => Secret::new(""),
            (Some(PasswordFile(password)), None) | (None, Some(PasswordVariable(password))) => password,
            (Some(_), Some(_)) => return Err(".password_env: leave out either this or password_file".to_owned()),
        };
        let months = |Within(months): Within<1, MAX_MONTHS>| u32::try_from(months).unwrap_or(MAX_RETENTION_MONTHS);
        let (retention_months, sums_retention_months) =
            (months(written.retention_months), months(written.sums_retention_months));
        if sums_retention_months < retention_months {
            return Err(format!(
                ".sums_retention_months: is shorter than retention_months, {retention_months}: sums are kept at least as \
                 long as what they are made of"
            ));
        }
        Ok(ClickHouse(ClickHouseSettings {
            url,
            database: written.database.0,
            user: written.user,
            password,
            retention_months,
            sums_retention_months,
            timeout: Duration::from_millis(written.timeout_ms.0),
        }))
    }
}

/// May hold a password by mistake: shows nothing.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Url(String);

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Url")
    }
}

impl TryFrom<String> for Url {
    type Error = &'static str;

    fn try_from(url: String) -> Result<Url, &'static str> {
        const NO_URL: &str = "is no URL of ClickHouse's HTTP interface: write http://host:8123 or https://host:8443";
        let uri: Uri = url.parse().map_err(|_| NO_URL)?;
        let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().filter(|_| has_scheme).ok_or(NO_URL)?;
        if authority.as_str().contains('@') {
            return Err("has a login: write it as user, and password_file or password_env");
        }
        match uri.query() {
            None => Ok(Url(url)),
            Some(_) => Err("has parameters, which would not be used: leave them out"),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Identifier(String);

impl TryFrom<String> for Identifier {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Identifier, &'static str> {
        let is_word = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        match name.is_empty() || !is_word(&name) || name.len() > 64 {
            true => Err("is no name of a database: 1 to 64 letters, digits and `_`"),
            false => Ok(Identifier(name)),
        }
    }
}

/// The first line of a file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "PathBuf")]
struct PasswordFile(Secret);

impl TryFrom<PathBuf> for PasswordFile {
    type Error = String;

    fn try_from(file: PathBuf) -> Result<PasswordFile, String> {
        let text = fs::read_to_string(&file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        Ok(PasswordFile(Secret::new(text.lines().next().unwrap_or_default())))
    }
}

/// What a variable of the environment holds.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct PasswordVariable(Secret);

impl TryFrom<String> for PasswordVariable {
    type Error = String;

    fn try_from(variable: String) -> Result<PasswordVariable, String> {
        match env::var(&variable) {
            Ok(password) => Ok(PasswordVariable(Secret::new(password))),
            Err(error) => Err(format!("{variable}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crate::config::Config;
    use crate::ledger::ClickHouseSettings;

    fn parse(clickhouse: &str) -> Result<Option<ClickHouseSettings>, String> {
        let text = format!("ledger: {{ clickhouse: {clickhouse} }}");
        Config::parse(&text, "t.yaml").map(|config| config.clickhouse).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_as_configured_and_shows_no_password() {
        assert_eq!(Config::parse("{}", "t.yaml").unwrap().clickhouse, None);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "s3cret").unwrap();
        let given = format!("{{ url: 'http://a:8123', user: u, password_file: {} }}", file.path().display());
        let settings = parse(&given).unwrap().unwrap();
        assert_eq!(
            (settings.database.as_str(), settings.user.as_str(), settings.password.expose()),
            ("tollgate", "u", "s3cret")
        );
        assert_eq!((settings.retention_months, settings.sums_retention_months), (36, 120));
        assert_eq!(settings.timeout.as_millis(), 30_000);
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_without_the_password() {
        for (clickhouse, expected) in [
            ("{}", "ledger.clickhouse.url: is missing"),
            ("{ url: 'a:8123' }", "ledger.clickhouse.url: is no URL of ClickHouse's HTTP interface"),
            ("{ url: 'http://u:s3cret@a' }", "ledger.clickhouse.url: has a login"),
            ("{ url: 'http://a/?password=s3cret' }", "ledger.clickhouse.url: has parameters"),
            ("{ url: 'http://a', database: 'a b' }", "ledger.clickhouse.database: is no name of a database"),
            ("{ url: 'http://a', password_file: /none }", "ledger.clickhouse.password_file: /none cannot be read"),
            ("{ url: 'http://a', password_env: NOT_SET_1 }", "ledger.clickhouse.password_env: NOT_SET_1: "),
            (
                "{ url: 'http://a', password_env: PATH, password_file: /dev/null }",
                "ledger.clickhouse.password_env: leave out either this or password_file",
            ),
            ("{ url: 'http://a', retention_months: 0 }", "ledger.clickhouse.retention_months: "),
            (
                "{ url: 'http://a', sums_retention_months: 12 }",
                "ledger.clickhouse.sums_retention_months: is shorter than retention_months, 36",
            ),
            ("{ url: 'http://a', timeout_ms: 0 }", "ledger.clickhouse.timeout_ms: "),
            ("{ url: 'http://a', pass: s3cret }", "ledger.clickhouse.pass: unknown field `pass`"),
        ] {
            let error = parse(clickhouse).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
    }
}
