//! Invoices.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::json;
use serde_json::value::RawValue;

use super::Asking;
use super::records::Kind;
use super::table::Columns;
use crate::client::Client;

/// What is told of an invoice.
const INVOICES: Kind = Kind {
    path: "invoices",
    columns: Columns(&[
        "id",
        "tenant_id",
        "period_start",
        "period_end",
        "status",
        "total",
        "estimated",
        "calls_without_price",
        "version",
    ]),
};

/// What is done with invoices.
#[derive(Debug, Subcommand)]
pub enum InvoicesCommand {
    /// All invoices.
    List {
        /// Those of this tenant alone.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// One invoice, as it is written.
    Get {
        /// Its id.
        id: String,
        /// How it is written.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Where to; standard output unless given.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Draw up a tenant's invoice of a month, anew where there is a draft.
    Generate {
        /// Whose.
        tenant: String,
        /// The month, such as 2026-11.
        #[arg(value_parser = month)]
        month: (i16, i8),
    },
    /// Finalise a draft: it never changes again.
    #[command(alias = "finalise")]
    Finalize {
        /// Its id.
        id: String,
    },
    /// Say that an invoice is paid.
    Pay {
        /// Its id.
        id: String,
    },
    /// Make an invoice void.
    Void {
        /// Its id.
        id: String,
    },
}

/// How an invoice is written.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum Format {
    /// As the API has it.
    #[default]
    Json,
    /// A line of CSV for each line.
    Csv,
    /// A page to be shown.
    Html,
    /// A document to be sent.
    Pdf,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Html => "html",
            Format::Pdf => "pdf",
        }
    }
}

impl InvoicesCommand {
    pub(super) async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (form, client) = (asking.form(), asking.service.connect()?);
        let changed = match self {
            InvoicesCommand::List { tenant } => return INVOICES.list(&client, tenant.as_deref(), form, out).await,
            InvoicesCommand::Get { id, format, output } => {
                let written = written(&client, &id, format).await?;
                match output {
                    None => out.write_all(&written)?,
                    Some(file) => {
                        fs::write(&file, written).with_context(|| format!("cannot write {}", file.display()))?;
                    }
                }
                return Ok(ExitCode::SUCCESS);
            }
            InvoicesCommand::Generate { tenant, month: (year, month) } => {
                let wanted = json!({ "tenant_id": tenant, "year": year, "month": month });
                client.post(client.at(&["api", "v1", "invoices", "generate"])?, wanted.to_string()).await?
            }
            InvoicesCommand::Finalize { id } => moved(&client, &id, "finalise").await?,
            InvoicesCommand::Pay { id } => moved(&client, &id, "pay").await?,
            InvoicesCommand::Void { id } => moved(&client, &id, "void").await?,
        };
        let changed: Box<RawValue> = changed;
        INVOICES.show(&changed, form, out)
    }
}

async fn written(client: &Client, id: &str, format: Format) -> anyhow::Result<Vec<u8>> {
    let mut url = client.at(&["api", "v1", "invoices", id])?;
    url.query_pairs_mut().append_pair("format", format.name());
    let answer = client.asked(client.request(Method::GET, url)).await?;
    Ok(answer.bytes().await.context("the answer was cut off")?.to_vec())
}

/// Takes an invoice a step further. No version is named: a step is from one status alone, and is refused from another.
async fn moved(client: &Client, id: &str, step: &str) -> anyhow::Result<Box<RawValue>> {
    client.post(client.at(&["api", "v1", "invoices", id, step])?, String::new()).await
}

fn month(name: &str) -> anyhow::Result<(i16, i8)> {
    let first = match name.len() {
        7 => format!("{name}-01").parse::<jiff::civil::Date>().ok(),
        _ => None,
    };
    match first {
        Some(first) => Ok((first.year(), first.month())),
        None => bail!("`{name}` is no month such as 2026-11"),
    }
}
