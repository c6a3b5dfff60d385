//! Webhooks of the accounts.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use serde_json::value::RawValue;

use super::records::{Kind, given};
use super::table::Columns;
use super::{Asking, Form};

/// What is told of a webhook.
const WEBHOOKS: Kind = Kind {
    path: "webhooks",
    columns: Columns(&["id", "tenant", "origin", "event_kinds", "allow_private_addresses", "created_at", "version"]),
};

/// What is told of a new webhook.
const MADE: Columns = Columns(&["secret", "id", "tenant", "origin", "event_kinds", "allow_private_addresses"]);

/// What is told of a message.
const SENDING: Columns = Columns(&["message_id"]);

/// What is done with webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhooksCommand {
    /// All webhooks but those of the configuration; of where one is only the origin is shown.
    List {
        /// Those of this tenant alone.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Make a webhook, and show once what its messages are signed with.
    Create {
        /// Where it is, such as https://hooks.example/tollgate; or `@` and a file that has it, as its path may be a secret.
        #[arg(value_name = "URL")]
        at: String,
        /// Whose events alone it is told; everybody's without.
        #[arg(long)]
        tenant: Option<String>,
        /// Of what it is told, such as invoice.paid,budget.threshold_reached; of everything without.
        #[arg(long, value_delimiter = ',')]
        events: Vec<String>,
        /// A file with the secret that its messages are signed with, `whsec_` and base64; made without.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// It may be on this machine or a private network.
        #[arg(long, conflicts_with = "tenant")]
        allow_private_addresses: bool,
    },
    /// Have a webhook told nothing more.
    Delete {
        /// Its id.
        id: String,
    },
    /// Send a webhook a message that tells nothing.
    Test {
        /// Its id.
        id: String,
    },
}

impl WebhooksCommand {
    pub(super) async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (form, client) = (asking.form(), asking.service.connect()?);
        let (told, columns): (Box<RawValue>, _) = match self {
            WebhooksCommand::List { tenant } => return WEBHOOKS.list(&client, tenant.as_deref(), form, out).await,
            WebhooksCommand::Delete { id } => return WEBHOOKS.delete(&client, &id, out).await,
            WebhooksCommand::Create { at, tenant, events, secret_file, allow_private_addresses } => {
                let read = |file: PathBuf| {
                    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
                };
                let secret = secret_file.map(read).transpose()?;
                let url = given(&at)?;
                let wanted = json!({
                    "url": url.trim(), "tenant": tenant, "event_kinds": events, "secret": secret.as_deref().map(str::trim),
                    "allow_private_addresses": allow_private_addresses,
                });
                (client.post(client.at(&["api", "v1", "webhooks"])?, wanted.to_string()).await?, MADE)
            }
            WebhooksCommand::Test { id } => {
                let url = client.at(&["api", "v1", "webhooks", &id, "test"])?;
                (client.post(url, String::new()).await?, SENDING)
            }
        };
        match form {
            Form::Json => writeln!(out, "{}", told.get())?,
            Form::Table => columns.write_one(&serde_json::from_str(told.get())?, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
