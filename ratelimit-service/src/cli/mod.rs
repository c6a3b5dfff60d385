//! What operators ask of a running service from the command line.
//!
//! - Every command goes through the REST API, and shows the key that it is given there. What needs no service has `--offline`.
//! - A table is for people and may change; `--json` is for programs: a line of JSON for each thing, as the API tells it.
//! - A change names the version that was read before it. Nothing is asked twice.
//! - The exit code is 0; or 1 when the service refuses, or there are differences where these are asked for; or 2 when the
//!   command line is wrong.

mod demo;
mod invoices;
mod keys;
mod prices;
mod records;
mod table;
mod usage;
mod webhooks;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::Url;
use tollgate_domain::Day;

use crate::client::{Client, Trust};
use crate::period;
use crate::secret::Secret;

/// Has the key, where no file has it: an argument would be seen by others on the machine.
const KEY: &str = "TOLLGATE_KEY";

/// Where the service is, and who asks it.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Where the service's REST is.
    #[arg(
        long = "service",
        env = "TOLLGATE_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        global = true,
        help_heading = "Service"
    )]
    url: Url,
    /// A file with the key that the service is shown; without, the one in TOLLGATE_KEY, if there is one.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Service")]
    key_file: Option<PathBuf>,
    /// The authorities that the service's certificate may be of, as PEM; without, the system's.
    #[arg(long, env = "TOLLGATE_CA", value_name = "FILE", global = true, help_heading = "Service")]
    ca: Option<PathBuf>,
    /// The certificate that the service is shown where it asks for one, as PEM.
    #[arg(long, env = "TOLLGATE_CLIENT_CERTIFICATE", value_name = "FILE", global = true, help_heading = "Service")]
    client_certificate: Option<PathBuf>,
    /// That certificate's key, as PEM.
    #[arg(long, env = "TOLLGATE_CLIENT_KEY", value_name = "FILE", global = true, help_heading = "Service")]
    client_key: Option<PathBuf>,
}

impl ServiceArgs {
    /// # Errors
    /// When the key or a certificate cannot be read, or is none.
    pub fn connect(self) -> anyhow::Result<Client> {
        let key = match &self.key_file {
            Some(file) => Some(fs::read_to_string(file).with_context(|| cannot_read(file))?),
            None => std::env::var(KEY).ok(),
        };
        let key = key.map(|key| Secret::new(key.trim())).filter(|key| !key.expose().is_empty());
        let pem = |file: &Path| fs::read(file).with_context(|| cannot_read(file));
        let trust = Trust {
            ca: self.ca.as_deref().map(pem).transpose()?,
            own: match (&self.client_certificate, &self.client_key) {
                (None, None) => None,
                (Some(certificate), Some(key)) => Some((pem(certificate)?, pem(key)?)),
                (Some(_), None) => bail!("--client-key is missing: a certificate needs its key"),
                (None, Some(_)) => bail!("--client-certificate is missing: a key needs its certificate"),
            },
        };
        Client::new(self.url, key.as_ref(), &trust)
    }
}

fn cannot_read(file: &Path) -> String {
    format!("cannot read {}", file.display())
}

/// What is asked, and how the answer is shown.
#[derive(Debug, Args)]
pub struct Asking {
    #[command(flatten)]
    service: ServiceArgs,
    /// Show JSON, a line for each thing, instead of a table.
    #[arg(long, global = true, help_heading = "Service")]
    json: bool,
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
}

impl Asking {
    fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Table }
    }
}

/// What is asked of one part of the API.
#[derive(Debug, Args)]
pub struct Asked<C: Subcommand> {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    command: C,
}

/// What is asked of the accounts, of prices, and for invoices.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tenants: what they are called, their plans, and whether they may call.
    Tenants(Asked<records::TenantsCommand>),
    /// Plans: what a tier's tenants get, and what they pay.
    Plans(Asked<records::PlansCommand>),
    /// Budgets: caps on what tenants spend in a month.
    Budgets(Asked<records::BudgetsCommand>),
    /// Keys for the API.
    Keys(Asked<keys::KeysCommand>),
    /// Webhooks: who is told of what happens.
    Webhooks(Asked<webhooks::WebhooksCommand>),
    /// What a tenant has used in the present period.
    Usage(usage::UsageArgs),
    /// Invoices.
    Invoices(Asked<invoices::InvoicesCommand>),
    /// What models cost.
    Prices(Asked<prices::PricesCommand>),
    /// Fill a running service with plausible tenants, plans, budgets and usage.
    DemoData(demo::DemoArgs),
}

impl Command {
    /// Does it, and writes the answer to `out`.
    ///
    /// # Errors
    /// When the service refuses or does not answer, or a file cannot be read or written.
    pub async fn run(self, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        match self {
            Command::Tenants(Asked { asking, command }) => command.run(asking, out).await,
            Command::Plans(Asked { asking, command }) => command.run(asking, out).await,
            Command::Budgets(Asked { asking, command }) => command.run(asking, out).await,
            Command::Keys(Asked { asking, command }) => command.run(asking, out).await,
            Command::Webhooks(Asked { asking, command }) => command.run(asking, out).await,
            Command::Usage(args) => args.run(out).await,
            Command::Invoices(Asked { asking, command }) => command.run(asking, out).await,
            Command::Prices(Asked { asking, command }) => command.run(asking, out).await,
            Command::DemoData(args) => args.run(out).await,
        }
    }
}

/// A UTC day by its name.
fn day(name: &str) -> Result<Day, String> {
    period::day(name).ok_or_else(|| format!("`{name}` is no day such as 2026-11-25"))
}
