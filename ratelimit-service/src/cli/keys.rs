//! Keys for the API.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use serde_json::value::RawValue;

use super::records::{Kind, moment};
use super::table::Columns;
use super::{Asking, Form};

/// What is told of a key.
const KEYS: Kind = Kind {
    path: "keys",
    columns: Columns(&[
        "id",
        "tenant",
        "name",
        "role",
        "scopes",
        "expires_at_ms",
        "revoked_at_ms",
        "created_at",
        "last_used_at",
    ]),
};

/// What is told of a new key.
const MADE: Columns = Columns(&["key", "id", "tenant", "name", "role", "scopes", "expires_at_ms"]);

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// All keys; what they are themselves is never shown again.
    List {
        /// Those of this tenant alone.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Make a key, and show it once.
    Create {
        /// What it is for.
        #[arg(long)]
        name: String,
        /// Whose; an operator's without.
        #[arg(long)]
        tenant: Option<String>,
        /// What it may do.
        #[arg(long, default_value = "viewer", value_parser = ["admin", "viewer"])]
        role: String,
        /// The parts of the API that it is for, such as usage,invoices; all of them without.
        #[arg(long, value_delimiter = ',')]
        scopes: Vec<String>,
        /// When it ends, such as 2026-12-31T00:00:00Z; never without.
        #[arg(long, value_parser = moment)]
        expires_at: Option<u64>,
    },
    /// Have a key refused from now on, for good.
    Revoke {
        /// Its id.
        id: String,
    },
}

impl KeysCommand {
    pub(super) async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (form, client) = (asking.form(), asking.service.connect()?);
        match self {
            KeysCommand::List { tenant } => KEYS.list(&client, tenant.as_deref(), form, out).await,
            KeysCommand::Create { name, tenant, role, scopes, expires_at } => {
                let wanted = json!({
                    "tenant": tenant, "name": name, "role": role, "scopes": scopes, "expires_at_ms": expires_at,
                });
                let made: Box<RawValue> = client.post(client.at(&["api", "v1", "keys"])?, wanted.to_string()).await?;
                match form {
                    Form::Json => writeln!(out, "{}", made.get())?,
                    Form::Table => MADE.write_one(&serde_json::from_str(made.get())?, out)?,
                }
                Ok(ExitCode::SUCCESS)
            }
            KeysCommand::Revoke { id } => {
                let url = client.at(&["api", "v1", "keys", &id, "revoke"])?;
                let revoked: Box<RawValue> = client.post(url, String::new()).await?;
                KEYS.show(&revoked, form, out)
            }
        }
    }
}
