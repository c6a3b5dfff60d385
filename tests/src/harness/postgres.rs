//! A real PostgreSQL server.
//!
//! It keeps its files in a folder of its own, which goes with it. It runs as nobody where this process is root's, as
//! which it would refuse to run. It forgets what it has not written when the machine goes down: `fsync` is off.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::process::{Signal, geteuid};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use tokio::process::Command;

use super::artifacts;
use super::certificates::ServerCertificate;
use super::port;
use super::process::Process;
use super::wait::{PATIENCE, eventually, patiently};

/// Who owns the databases, as a service should: no superuser.
const USER: &str = "tollgate";
const SUPERUSER: &str = "postgres";
const PASSWORD: &str = "of-a-test";

/// Nobody's number, and that of its group, on all Linux systems.
const NOBODY: u32 = 65_534;
const AS_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// How many ports are tried: between a port's choice and its use another process may take it.
const MAX_STARTS: u32 = 5;

/// A server, which can be ended and started again on the same port with the same files. It ends when it is dropped.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    certificate: ServerCertificate,
    port: u16,
    starts: u32,
    process: Option<Process>,
}

impl Postgres {
    /// Starts it, and waits until it takes connections. It has no database of [`Postgres::database`] yet.
    ///
    /// # Errors
    /// When it is missing or does not come up; the error has the end of its log.
    pub async fn start() -> anyhow::Result<Postgres> {
        // Not below another folder, which nobody may not enter.
        let folder = tempfile::Builder::new().prefix("tollgate-postgres-").tempdir()?;
        let certificate = ServerCertificate::issue(folder.path())?;
        fs::write(folder.path().join("password"), PASSWORD)?;
        fs::set_permissions(&certificate.key, fs::Permissions::from_mode(0o600))?;
        if is_root() {
            let files = [&certificate.authority, &certificate.certificate, &certificate.key].map(PathBuf::as_path);
            for path in files.into_iter().chain([folder.path(), &folder.path().join("password")]) {
                chown(path, Some(NOBODY), Some(NOBODY)).with_context(|| path.display().to_string())?;
            }
        }
        initialise(folder.path()).await?;
        let mut postgres = Postgres { folder, certificate, port: port::free()?, starts: 0, process: None };
        for _ in 1..MAX_STARTS {
            match postgres.start_again().await {
                Err(error) if format!("{error:#}").contains("Address already in use") => postgres.port = port::free()?,
                started => {
                    started?;
                    postgres.execute(SUPERUSER, &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")).await?;
                    return Ok(postgres);
                }
            }
        }
        bail!("no port was free for PostgreSQL")
    }

    /// Makes a database, and gives the URL of its owner, who is no superuser and is bound by row-level security.
    ///
    /// # Errors
    /// When it is there already, or the server does not answer.
    pub async fn database(&self, name: &str) -> anyhow::Result<String> {
        create_database(&self.superuser_url(SUPERUSER), name).await
    }

    /// The URL of a superuser, whom row-level security does not bind.
    pub fn superuser_url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The certificate that a client has to trust, as a PEM file.
    pub fn authority(&self) -> &Path {
        &self.certificate.authority
    }

    /// Runs a statement as the superuser.
    ///
    /// # Errors
    /// When the server refuses it, or does not answer.
    pub async fn execute(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        execute(&self.superuser_url(database), sql).await
    }

    /// Ends the running server at once, with all connections.
    ///
    /// # Errors
    /// When it does not run, or does not end in time.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("PostgreSQL does not run")?;
        process.signal(Signal::QUIT)?;
        let ended = async || match process.check_running() {
            Ok(()) => bail!("it still runs"),
            Err(_) => Ok(()),
        };
        eventually("PostgreSQL's end", PATIENCE, ended).await
    }

    /// Starts the ended server again, on the same port and with its files.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let folder = self.folder.path();
        let certificate = &self.certificate;
        let settings = [
            ("listen_addresses", Ipv4Addr::LOCALHOST.to_string()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", folder.display().to_string()),
            ("fsync", "off".to_owned()),
            // Who connects while it ends is waited for so long.
            ("authentication_timeout", "5s".to_owned()),
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", certificate.certificate.display().to_string()),
            ("ssl_key_file", certificate.key.display().to_string()),
        ];
        let settings = settings.map(|(key, value)| format!("--{key}={value}"));
        let args = ["-D".to_owned(), "data".to_owned()].into_iter().chain(settings);
        let options: &[&str] = if is_root() { &AS_NOBODY } else { &[] };
        let name = format!("postgres-{}", self.starts);
        let mut process = Process::spawn_by(options, &name, &artifacts::tool("postgres")?, args, folder)?;
        let attempt = async || match process.check_running() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) if process.log().contains("ready to accept connections") => Ok(Ok(())),
            Ok(()) => bail!("it does not say that it is ready"),
        };
        eventually("PostgreSQL's start", PATIENCE, attempt)
            .await?
            .with_context(|| format!("PostgreSQL did not come up; the end of its log:\n{}", process.log_tail()))?;
        self.process = Some(process);
        Ok(())
    }
}

/// At once and by itself, so that it leaves no shared memory behind, as it does when it is killed.
impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = process.signal(Signal::QUIT);
            process.leave(PATIENCE);
        }
    }
}

/// Makes a database of a server that a [`Postgres`] has started, in this process or another, and gives the URL of its owner.
///
/// # Errors
/// When it is there already, or the server does not answer.
pub(super) async fn create_database(superuser_url: &str, name: &str) -> anyhow::Result<String> {
    execute(superuser_url, &format!("CREATE DATABASE {name} OWNER {USER}")).await?;
    let superuser: PgConnectOptions = superuser_url.parse()?;
    Ok(format!("postgres://{USER}:{PASSWORD}@{}:{}/{name}", superuser.get_host(), superuser.get_port()))
}

async fn execute(superuser_url: &str, sql: &str) -> anyhow::Result<()> {
    let options: PgConnectOptions = superuser_url.parse()?;
    let done = async {
        let mut connection: PgConnection = options.disable_statement_logging().connect().await?;
        connection.execute(AssertSqlSafe(sql.to_owned())).await?;
        connection.close().await
    };
    patiently("a statement", done).await?.with_context(|| sql.to_owned())
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// Makes the server's files, in `folder/data`.
async fn initialise(folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(AS_NOBODY);
    }
    command.arg("--").arg(artifacts::tool("initdb")?);
    command.args(["-D", "data", "-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile=password", "--no-sync"]);
    command.args(["-E", "UTF8", "--locale=C.UTF-8"]).current_dir(folder).kill_on_drop(true);
    let output = patiently("initdb", command.output()).await?.context("running initdb (by setpriv, of util-linux)")?;
    ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
