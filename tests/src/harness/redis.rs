//! Real Redis servers: alone, as a cluster, or with a replica under a sentinel.
//!
//! Each keeps its files in a folder of its own below the given one, and nothing outlives it there unless it is asked to
//! persist. Ports lie below the range that the kernel gives out, so that a server that was ended finds its own free.

mod groups;

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::artifacts;
use super::certificates::ServerCertificate;
use super::port;
use super::process::{End, Process};
use super::wait::{PATIENCE, eventually, patiently};

pub use groups::{Cluster, MASTER_NAME, Sentinel};

/// The configuration's file name.
const CONFIG: &str = "redis.conf";
/// How many ports are tried: between a port's choice and its use another process may take it.
const MAX_STARTS: u32 = 5;

/// A server, which can be ended and started again on the same port with the same files. It is killed when it is dropped.
#[derive(Debug)]
pub struct Redis {
    dir: PathBuf,
    port: u16,
    settings: Settings,
    starts: u32,
    process: Option<Process>,
}

/// What a server is started with, and how one talks to it.
#[derive(Debug, Clone, Default)]
struct Settings {
    access: Access,
    transport: Transport,
    persistence: Persistence,
    role: Role,
}

#[derive(Debug, Clone, Default)]
enum Access {
    #[default]
    Open,
    Password(String),
    User {
        name: String,
        password: String,
    },
}

#[derive(Debug, Clone, Default)]
enum Transport {
    #[default]
    Plain,
    /// With a certificate that is made at the start.
    NewTls(Clients),
    Tls(ServerCertificate, Clients),
}

/// Who may connect by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    All,
    /// Who has a certificate by the same authority.
    Certified,
}

#[derive(Debug, Clone, Copy, Default)]
enum Persistence {
    #[default]
    None,
    AppendOnly,
}

#[derive(Debug, Clone, Copy, Default)]
enum Role {
    #[default]
    Master,
    Replica {
        of: u16,
    },
    ClusterNode,
    Sentinel {
        watched: u16,
    },
}

/// A server to be started.
#[derive(Debug, Clone, Default)]
pub struct Builder(Settings);

impl Builder {
    /// Clients have to give this password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Builder {
        self.0.access = Access::Password(password.to_owned());
        self
    }

    /// Clients have to log in as this user of the access control list, who may do all; the default user may do nothing.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Builder {
        self.0.access = Access::User { name: name.to_owned(), password: password.to_owned() };
        self
    }

    /// It speaks TLS alone, with a certificate by [`Redis::authority`].
    #[must_use]
    pub fn tls(mut self) -> Builder {
        self.0.transport = Transport::NewTls(Clients::All);
        self
    }

    /// As [`Builder::tls`], and it talks to those alone who show [`Redis::client_certificate`] or another by its authority.
    #[must_use]
    pub fn mutual_tls(mut self) -> Builder {
        self.0.transport = Transport::NewTls(Clients::Certified);
        self
    }

    /// What was written outlives it (`appendonly yes`).
    #[must_use]
    pub fn append_only(mut self) -> Builder {
        self.0.persistence = Persistence::AppendOnly;
        self
    }

    /// It copies `master`, and takes over who may talk to it and how, with the same certificate.
    #[must_use]
    pub fn replica_of(mut self, master: &Redis) -> Builder {
        let Settings { access, transport, .. } = master.settings.clone();
        self.0 = Settings { access, transport, role: Role::Replica { of: master.port }, ..self.0 };
        self
    }

    /// Starts it with its files in a folder below `dir`, and waits until it takes connections.
    ///
    /// # Errors
    /// When it is missing or does not come up; the error has the end of its log.
    pub async fn start(self, dir: &Path) -> anyhow::Result<Redis> {
        for _ in 1..MAX_STARTS {
            match self.start_on(port::free()?, dir).await {
                Err(error) if port_was_taken(&error) => {}
                started => return started,
            }
        }
        self.start_on(port::free()?, dir).await
    }

    async fn start_on(&self, port: u16, dir: &Path) -> anyhow::Result<Redis> {
        let dir = dir.join(format!("redis-{port}"));
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let mut settings = self.0.clone();
        if let Transport::NewTls(clients) = settings.transport {
            settings.transport = Transport::Tls(ServerCertificate::issue(&dir)?, clients);
        }
        fs::write(dir.join(CONFIG), config(&settings, port)?)?;
        let mut redis = Redis { dir, port, settings, starts: 0, process: None };
        redis.start_again().await?;
        Ok(redis)
    }
}

impl Redis {
    /// Starts a server that is open to all and forgets all, with its files in a folder below `dir`.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start(dir: &Path) -> anyhow::Result<Redis> {
        Redis::builder().start(dir).await
    }

    /// A server to be started otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where it listens and how to log in, as a client takes it: `redis://` or `rediss://`.
    pub fn url(&self) -> String {
        let scheme = match self.settings.transport {
            Transport::Plain => "redis",
            Transport::NewTls(_) | Transport::Tls(..) => "rediss",
        };
        let login = match &self.settings.access {
            Access::Open => String::new(),
            Access::Password(password) => format!(":{password}@"),
            Access::User { name, password } => format!("{name}:{password}@"),
        };
        format!("{scheme}://{login}{}", self.addr())
    }

    /// The certificate that a client has to trust, as a PEM file; `None` where it does not speak TLS.
    pub fn authority(&self) -> Option<&Path> {
        match &self.settings.transport {
            Transport::Plain | Transport::NewTls(_) => None,
            Transport::Tls(certificate, _) => Some(&certificate.authority),
        }
    }

    /// The certificate and key, as PEM files, that a client has to show; `None` where it need not.
    pub fn client_certificate(&self) -> Option<(&Path, &Path)> {
        match &self.settings.transport {
            Transport::Tls(ServerCertificate { certificate, key, .. }, Clients::Certified) => Some((certificate, key)),
            Transport::Plain | Transport::NewTls(_) | Transport::Tls(..) => None,
        }
    }

    /// The running process.
    ///
    /// # Errors
    /// When the server was ended.
    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("Redis does not run")
    }

    /// Ends the running server.
    ///
    /// # Errors
    /// When it does not run, or does not end well and in time.
    pub async fn end(&mut self, how: End) -> anyhow::Result<()> {
        self.process.take().context("Redis does not run")?.end(how).await
    }

    /// Starts the ended server again, on the same port and with its files.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let (ready, mode): (_, &[_]) = match self.settings.role {
            Role::Sentinel { .. } => ("Sentinel ID is", &["--sentinel"]),
            _ => ("Ready to accept connections", &[]),
        };
        let args = [&[CONFIG], mode].concat();
        let name = format!("redis-{}", self.starts);
        let mut process = Process::spawn(&name, &artifacts::tool("redis-server")?, args, &self.dir)?;
        let attempt = async || match process.check_running() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) if process.log().contains(ready) => Ok(Ok(())),
            Ok(()) => bail!("it does not say that it is ready"),
        };
        eventually("Redis's start", PATIENCE, attempt)
            .await?
            .with_context(|| format!("Redis did not come up; the end of its log:\n{}", process.log_tail()))?;
        self.process = Some(process);
        Ok(())
    }

    /// What `redis-cli` answers to a command: a line for each element of an array.
    ///
    /// # Errors
    /// When the server answers with an error, or not in time.
    pub async fn cli(&self, command: &[&str]) -> anyhow::Result<String> {
        let mut cli = Command::new(artifacts::tool("redis-cli")?);
        // -e: an error in the answer makes an error of the command.
        cli.args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()]).kill_on_drop(true);
        match &self.settings.access {
            Access::Open => {}
            Access::Password(password) => drop(cli.env("REDISCLI_AUTH", password)),
            Access::User { name, password } => drop(cli.args(["--user", name]).env("REDISCLI_AUTH", password)),
        }
        if let Some(authority) = self.authority() {
            cli.arg("--tls").arg("--cacert").arg(authority);
        }
        if let Some((certificate, key)) = self.client_certificate() {
            cli.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        let what = command.join(" ");
        let output = patiently(&what, cli.args(command).output()).await?.context("running redis-cli")?;
        let answer = String::from_utf8(output.stdout).with_context(|| format!("the answer to {what}"))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "redis-cli {what}: {}{}", answer.trim_end(), error.trim_end());
        Ok(answer.trim_end().to_owned())
    }

    /// Makes it forget its cached scripts: calls by hash are answered with `NOSCRIPT` until a script is loaded again.
    ///
    /// # Errors
    /// As [`Redis::cli`].
    pub async fn flush_scripts(&self) -> anyhow::Result<()> {
        self.expect_ok(&["SCRIPT", "FLUSH", "SYNC"]).await
    }

    /// Changes a setting while it runs.
    ///
    /// # Errors
    /// As [`Redis::cli`].
    pub async fn set_config(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.expect_ok(&["CONFIG", "SET", name, value]).await
    }

    async fn expect_ok(&self, command: &[&str]) -> anyhow::Result<()> {
        let answer = self.cli(command).await?;
        ensure!(answer == "OK", "{}: {answer}", command.join(" "));
        Ok(())
    }
}

fn config(settings: &Settings, port: u16) -> anyhow::Result<String> {
    let mut config = String::from("bind 127.0.0.1\n");
    match &settings.transport {
        Transport::Plain | Transport::NewTls(_) => writeln!(config, "port {port}")?,
        Transport::Tls(ServerCertificate { authority, certificate, key }, clients) => {
            let asks = if *clients == Clients::Certified { "yes" } else { "no" };
            writeln!(config, "port 0\ntls-port {port}\ntls-auth-clients {asks}\ntls-replication yes")?;
            writeln!(config, "tls-ca-cert-file {}", authority.display())?;
            writeln!(config, "tls-cert-file {}\ntls-key-file {}", certificate.display(), key.display())?;
        }
    }
    match &settings.access {
        Access::Open => {}
        Access::Password(password) => writeln!(config, "requirepass {password}")?,
        Access::User { name, password } => {
            writeln!(config, "user {name} on >{password} ~* &* +@all\nuser default off")?;
        }
    }
    if let Role::Sentinel { watched } = settings.role {
        writeln!(config, "{}", groups::sentinel_config(watched))?;
        return Ok(config);
    }
    writeln!(config, "save \"\"\nenable-debug-command local\nrepl-diskless-sync-delay 0")?;
    match &settings.access {
        Access::Open => {}
        Access::Password(password) => writeln!(config, "masterauth {password}")?,
        Access::User { name, password } => writeln!(config, "masteruser {name}\nmasterauth {password}")?,
    }
    match settings.persistence {
        Persistence::None => {}
        Persistence::AppendOnly => writeln!(config, "appendonly yes")?,
    }
    match settings.role {
        Role::Replica { of } => writeln!(config, "replicaof 127.0.0.1 {of}")?,
        Role::ClusterNode => writeln!(config, "{}", groups::cluster_config(port::free()?))?,
        Role::Master | Role::Sentinel { .. } => {}
    }
    Ok(config)
}

fn port_was_taken(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("Address already in use")
}
