//! ClickHouse: its real engine behind the bridge of `tests/clickhouse`, or a database of a real server.
//!
//! The bridge keeps its data in a folder of its own below the given one, and finds it there when it is started again. Its
//! port lies below the range that the kernel gives out, so that it finds that free again.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::artifacts::{self, repository};
use super::port;
use super::process::{End, Process};
use super::wait::{PATIENCE, eventually};

/// Names a real server's HTTP interface, as `http://user:password@host:port`.
pub const SERVER: &str = "CLICKHOUSE_URL";
/// How long a server may take to drop a database at the end.
const DROP_TIMEOUT: Duration = Duration::from_secs(30);
/// How many ports are tried: between a port's choice and its use another process may take it.
const MAX_STARTS: u32 = 5;

/// A database of ClickHouse. It is gone when this is dropped.
#[derive(Debug)]
pub struct ClickHouse {
    server: Server,
    database: String,
    user: String,
    password: String,
}

#[derive(Debug)]
enum Server {
    Bridge(Bridge),
    Given { addr: SocketAddr },
}

#[derive(Debug)]
struct Bridge {
    dir: PathBuf,
    port: u16,
    starts: u32,
    process: Option<Process>,
}

impl ClickHouse {
    /// A new database: of the server that [`SERVER`] names, else of a bridge with its files in a folder below `dir`.
    ///
    /// # Errors
    /// When the server's URL is none, or the bridge is missing or does not come up; the error has the end of its log.
    pub async fn start(dir: &Path) -> anyhow::Result<ClickHouse> {
        match std::env::var(SERVER) {
            Ok(url) => ClickHouse::given(&url).with_context(|| format!("{SERVER}: {url}")),
            Err(_) => ClickHouse::bridge(dir).await,
        }
    }

    /// As [`ClickHouse::start`], but always of a bridge, which can be killed.
    ///
    /// # Errors
    /// As [`ClickHouse::start`].
    pub async fn bridge(dir: &Path) -> anyhow::Result<ClickHouse> {
        let mut starts = 1;
        let bridge = loop {
            let port = port::free()?;
            let dir = dir.join(format!("clickhouse-{port}"));
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            let mut bridge = Bridge { dir, port, starts: 0, process: None };
            match bridge.start().await {
                Err(error) if starts < MAX_STARTS && format!("{error:#}").contains("Address already in use") => {
                    starts += 1;
                }
                started => break started.map(|()| bridge)?,
            }
        };
        let (user, password) = (Bridge::USER.to_owned(), Bridge::PASSWORD.to_owned());
        Ok(ClickHouse { server: Server::Bridge(bridge), database: "ledger".to_owned(), user, password })
    }

    fn given(url: &str) -> anyhow::Result<ClickHouse> {
        static GIVEN: AtomicU32 = AtomicU32::new(0);
        let rest = url.strip_prefix("http://").context("is no http:// URL")?.trim_end_matches('/');
        let (login, host) = rest.rsplit_once('@').unwrap_or(("default", rest));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let addr = host.to_socket_addrs()?.next().context("names no host")?;
        let database = format!("tollgate_test_{}_{}", process::id(), GIVEN.fetch_add(1, Ordering::Relaxed));
        let (user, password) = (user.to_owned(), password.to_owned());
        Ok(ClickHouse { server: Server::Given { addr }, database, user, password })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        match &self.server {
            Server::Bridge(bridge) => (Ipv4Addr::LOCALHOST, bridge.port).into(),
            Server::Given { addr } => *addr,
        }
    }

    /// Its HTTP interface, without a login.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The database's name. It does not exist yet.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Who may use it.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The user's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The running bridge.
    ///
    /// # Errors
    /// When it was killed, or this is a database of a server.
    pub fn process(&self) -> anyhow::Result<&Process> {
        match &self.server {
            Server::Bridge(bridge) => bridge.process.as_ref().context("the bridge does not run"),
            Server::Given { .. } => bail!("a server that was given is not ours to touch"),
        }
    }

    /// Kills the bridge (SIGKILL).
    ///
    /// # Errors
    /// When it does not run, or this is a database of a server.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Bridge(bridge) => bridge.process.take().context("the bridge does not run")?.end(End::Kill).await,
            Server::Given { .. } => bail!("a server that was given is not ours to kill"),
        }
    }

    /// Starts the killed bridge again, on the same port and with its files.
    ///
    /// # Errors
    /// When it does not come up, or this is a database of a server.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Bridge(bridge) => bridge.start().await,
            Server::Given { .. } => bail!("a server that was given is not ours to start"),
        }
    }

    /// What it answers to a statement in its database, by itself: as tab-separated lines.
    ///
    /// # Errors
    /// When it answers with an error, or not at all.
    pub fn query(&self, statement: &str) -> anyhow::Result<String> {
        self.ask(statement, &self.database, PATIENCE)
    }

    /// Without a client's library, which a test may be about, and without a runtime, which may be gone.
    fn ask(&self, statement: &str, database: &str, timeout: Duration) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.addr())?;
        stream.set_read_timeout(Some(timeout))?;
        write!(
            stream,
            "POST /?database={database} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             X-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n\r\n{statement}",
            self.addr(),
            statement.len(),
            self.user,
            self.password
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no whole answer")?;
        ensure!(head.contains(" 200 "), "{statement}: {}", body.trim_end());
        Ok(body.trim_end().to_owned())
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        if matches!(self.server, Server::Given { .. }) {
            let statement = format!("DROP DATABASE IF EXISTS {} SYNC", self.database);
            if let Err(error) = self.ask(&statement, "default", DROP_TIMEOUT) {
                eprintln!("the database {} stays: {error:#}", self.database);
            }
        }
    }
}

impl Bridge {
    const USER: &str = "tollgate";
    const PASSWORD: &str = "a secret";

    async fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "the bridge runs already");
        self.starts += 1;
        let program = repository().join("tests/clickhouse/bridge.py");
        let (program, data, port) = (program.display().to_string(), self.dir.join("data"), self.port.to_string());
        let data = data.display().to_string();
        let args = [program.as_str(), &data, &port, Bridge::USER, Bridge::PASSWORD];
        let name = format!("clickhouse-{}", self.starts);
        let mut process = Process::spawn(&name, &artifacts::python()?, args, &self.dir)?;
        let attempt = async || match process.check_running() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) if process.log().contains("listening on ") => Ok(Ok(())),
            Ok(()) => bail!("it does not say that it listens"),
        };
        let started = eventually("ClickHouse's start", PATIENCE, attempt).await?;
        started.with_context(|| {
            format!(
                "ClickHouse did not come up (`make clickhouse` gets it); the end of its log:\n{}",
                process.log_tail()
            )
        })?;
        self.process = Some(process);
        Ok(())
    }
}
