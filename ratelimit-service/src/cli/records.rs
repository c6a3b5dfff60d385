//! Tenants, plans and budgets: each is listed, shown, set and deleted alike.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::table::Columns;
use super::{Asking, Form};
use crate::client::Client;
use crate::decimal;

/// Fields that the service gives a record.
const GIVEN: [&str; 4] = ["id", "version", "created_at", "updated_at"];

/// What is told of a tenant.
pub(super) const TENANTS: Kind = Kind {
    path: "tenants",
    columns: Columns(&["id", "display_name", "tier", "status", "time_zone", "billing_anchor_ms", "version"]),
};

/// What is told of a plan.
pub(super) const PLANS: Kind =
    Kind { path: "plans", columns: Columns(&["id", "context_tokens", "markup_ppm", "limits", "billing", "version"]) };

/// What is told of a budget.
pub(super) const BUDGETS: Kind = Kind {
    path: "budgets",
    columns: Columns(&["id", "tenant", "key", "amount_nanousd", "enforcement", "thresholds", "version"]),
};

/// A kind of record.
pub(super) struct Kind {
    /// Where it is, under `/api/v1`.
    pub(super) path: &'static str,
    pub(super) columns: Columns,
}

/// A record's fields, each as it is written: no number loses a digit.
pub(super) type Fields = BTreeMap<String, Box<RawValue>>;

/// A page of a list.
#[derive(Debug, Deserialize)]
struct Listed {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// What is to be set.
#[derive(Default)]
pub(super) struct Changes(Fields);

impl Changes {
    /// Sets a field to a value, if there is one.
    pub(super) fn set(mut self, field: &str, value: Option<impl Serialize>) -> anyhow::Result<Changes> {
        if let Some(value) = value {
            self.0.insert(field.to_owned(), serde_json::value::to_raw_value(&value)?);
        }
        Ok(self)
    }

    /// Sets a text, and clears it where that is empty.
    fn text(self, field: &str, text: Option<&str>) -> anyhow::Result<Changes> {
        self.set(field, text.map(|text| (!text.is_empty()).then_some(text)))
    }
}

impl Kind {
    /// Writes all of them, page by page.
    pub(super) async fn list(
        &self,
        client: &Client,
        tenant: Option<&str>,
        form: Form,
        out: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let (mut rows, mut cursor): (Vec<Value>, Option<String>) = (Vec::new(), None);
        loop {
            let mut url = client.at(&["api", "v1", self.path])?;
            let asked = [("tenant", tenant), ("cursor", cursor.as_deref())];
            for (key, value) in asked.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                url.query_pairs_mut().append_pair(key, value);
            }
            let Listed { items, next_cursor } = client.get(url).await?;
            for item in items {
                match form {
                    Form::Json => writeln!(out, "{}", item.get())?,
                    Form::Table => rows.push(serde_json::from_str(item.get())?),
                }
            }
            let Some(next) = next_cursor else { break };
            cursor = Some(next);
        }
        if form == Form::Table {
            self.columns.write(&rows, out)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Writes one.
    pub(super) async fn get(
        &self,
        client: &Client,
        id: &str,
        form: Form,
        out: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let record: Box<RawValue> = client.get(client.at(&["api", "v1", self.path, id])?).await?;
        self.show(&record, form, out)
    }

    pub(super) fn show(&self, record: &RawValue, form: Form, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        match form {
            Form::Json => writeln!(out, "{}", record.get())?,
            Form::Table => self.columns.write_one(&serde_json::from_str(record.get())?, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Makes one, or changes these fields of the one there is, and writes it.
    pub(super) async fn set(
        &self,
        client: &Client,
        id: &str,
        changes: Changes,
        form: Form,
        out: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let known: Option<Fields> = client.find(client.at(&["api", "v1", self.path, id])?).await?;
        self.put(client, id, known, changes, form, out).await
    }

    /// Changes these fields of the one there is, and writes it.
    async fn change(
        &self,
        client: &Client,
        id: &str,
        changes: Changes,
        form: Form,
        out: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let known: Fields = client.get(client.at(&["api", "v1", self.path, id])?).await?;
        self.put(client, id, Some(known), changes, form, out).await
    }

    async fn put(
        &self,
        client: &Client,
        id: &str,
        known: Option<Fields>,
        Changes(changes): Changes,
        form: Form,
        out: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let mut request = client.request(Method::PUT, client.at(&["api", "v1", self.path, id])?);
        let mut fields = Fields::new();
        if let Some(known) = known {
            request = request.header(IF_MATCH, etag(&known)?);
            fields = known;
            fields.retain(|field, _| !GIVEN.contains(&field.as_str()));
        }
        fields.extend(changes);
        let request = request.header(CONTENT_TYPE, "application/json").body(serde_json::to_string(&fields)?);
        let record: Box<RawValue> = client.json(request).await?;
        self.show(&record, form, out)
    }

    /// Deletes the version that there is now.
    pub(super) async fn delete(&self, client: &Client, id: &str, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let url = client.at(&["api", "v1", self.path, id])?;
        let known: Fields = client.get(url.clone()).await?;
        client.asked(client.request(Method::DELETE, url).header(IF_MATCH, etag(&known)?)).await?;
        writeln!(out, "{id}: deleted")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The version of what was read, as its ETag tells it.
pub(super) fn etag(known: &Fields) -> anyhow::Result<HeaderValue> {
    let version = known.get("version").context("the service tells no version")?;
    HeaderValue::from_str(&format!("\"{}\"", version.get())).with_context(|| format!("{ETAG}: the version is none"))
}

/// What is done with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// All tenants.
    List,
    /// One tenant.
    Get {
        /// Its name in the tenant's header.
        id: String,
    },
    /// Make a tenant, or change what is given here of one. An empty text clears what was there.
    Set {
        /// Its name in the tenant's header.
        id: String,
        #[command(flatten)]
        fields: TenantFields,
    },
    /// Deny a tenant's calls.
    Suspend {
        /// Its name in the tenant's header.
        id: String,
    },
    /// Let a tenant call again.
    Resume {
        /// Its name in the tenant's header.
        id: String,
    },
    /// Delete a tenant's record; what it has used stays.
    Delete {
        /// Its name in the tenant's header.
        id: String,
    },
}

/// What may be set of a tenant.
#[derive(Debug, Args)]
pub struct TenantFields {
    /// What people call it.
    #[arg(long)]
    display_name: Option<String>,
    /// The plan that it is on, whatever its calls say.
    #[arg(long)]
    tier: Option<String>,
    /// The name of its time zone in the IANA database.
    #[arg(long)]
    time_zone: Option<String>,
    /// A moment at which one of its months began, such as 2026-01-15T08:00:00Z.
    #[arg(long, value_parser = moment)]
    billing_anchor: Option<u64>,
    /// What else is to be remembered: a JSON object, or `@` and a file that has one.
    #[arg(long, value_parser = json)]
    metadata: Option<Box<RawValue>>,
}

impl TenantsCommand {
    pub(super) async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (form, client) = (asking.form(), asking.service.connect()?);
        let status = |status: &str| Changes::default().set("status", Some(status));
        match self {
            TenantsCommand::List => TENANTS.list(&client, None, form, out).await,
            TenantsCommand::Get { id } => TENANTS.get(&client, &id, form, out).await,
            TenantsCommand::Set { id, fields } => TENANTS.set(&client, &id, fields.changes()?, form, out).await,
            TenantsCommand::Suspend { id } => TENANTS.change(&client, &id, status("suspended")?, form, out).await,
            TenantsCommand::Resume { id } => TENANTS.change(&client, &id, status("active")?, form, out).await,
            TenantsCommand::Delete { id } => TENANTS.delete(&client, &id, out).await,
        }
    }
}

impl TenantFields {
    fn changes(self) -> anyhow::Result<Changes> {
        Changes::default()
            .text("display_name", self.display_name.as_deref())?
            .text("tier", self.tier.as_deref())?
            .set("time_zone", self.time_zone)?
            .set("billing_anchor_ms", self.billing_anchor)?
            .set("metadata", self.metadata)
    }
}

/// What is done with plans.
#[derive(Debug, Subcommand)]
pub enum PlansCommand {
    /// All plans of the accounts; those of the configuration are not among them.
    List,
    /// One plan.
    Get {
        /// The tier's name.
        id: String,
    },
    /// Make a plan, or change what is given here of one.
    Set {
        /// The tier's name.
        id: String,
        #[command(flatten)]
        fields: PlanFields,
    },
    /// Delete a plan.
    Delete {
        /// The tier's name.
        id: String,
    },
}

/// What may be set of a plan.
#[derive(Debug, Args)]
pub struct PlanFields {
    /// The longest prompt, in tokens. A new plan needs it.
    #[arg(long)]
    context_tokens: Option<u64>,
    /// Its limits, as a configuration's `limits` has them: a JSON array, or `@` and a file that has one.
    #[arg(long, value_parser = json)]
    limits: Option<Box<RawValue>>,
    /// What its tenants pay, in parts per million of the list price.
    #[arg(long)]
    markup_ppm: Option<u64>,
    /// How it is billed: a JSON object, or `@` and a file that has one.
    #[arg(long, value_parser = json)]
    billing: Option<Box<RawValue>>,
}

impl PlansCommand {
    pub(super) async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (form, client) = (asking.form(), asking.service.connect()?);
        match self {
            PlansCommand::List => PLANS.list(&client, None, form, out).await,
            PlansCommand::Get { id } => PLANS.get(&client, &id, form, out).await,
            PlansCommand::Set { id, fields: PlanFields { context_tokens, limits, markup_ppm, billing } } => {
                let changes = Changes::default().set("context_tokens", context_tokens)?.set("limits", limits)?;
                let changes = changes.set("markup_ppm", markup_ppm)?.set("billing", billing)?;
                PLANS.set(&client, &id, changes, form, out).await
            }
            PlansCommand::Delete { id } => PLANS.delete(&client, &id, out).await,
        }
    }
}

/// What is done with budgets.
#[derive(Debug, Subcommand)]
pub enum BudgetsCommand {
    /// All budgets.
    List {
        /// Those of this tenant alone.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Make a budget, or change what is given here of one.
    Set {
        /// Its id.
        id: String,
        #[command(flatten)]
        fields: BudgetFields,
    },
    /// Delete a budget.
    Delete {
        /// Its id.
        id: String,
    },
}

/// What may be set of a budget.
#[derive(Debug, Args)]
pub struct BudgetFields {
    /// Whose. A new budget needs it, the amount and the enforcement.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this key's calls alone; an empty text: of all.
    #[arg(long)]
    key: Option<String>,
    /// In a month, in US dollars with at most 9 decimals.
    #[arg(long, value_name = "USD", value_parser = nanousd)]
    amount: Option<u64>,
    /// `hard`: calls are denied once it is spent. `soft`: it is told.
    #[arg(long, value_parser = ["hard", "soft"])]
    enforcement: Option<String>,
    /// At which shares of it, in percent, that is told: rising, such as 50,80,100.
    #[arg(long, value_delimiter = ',')]
    thresholds: Option<Vec<u16>>,
}

impl BudgetsCommand {
    pub(super) async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (form, client) = (asking.form(), asking.service.connect()?);
        match self {
            BudgetsCommand::List { tenant } => BUDGETS.list(&client, tenant.as_deref(), form, out).await,
            BudgetsCommand::Set { id, fields } => {
                let BudgetFields { tenant, key, amount, enforcement, thresholds } = fields;
                let changes = Changes::default().set("tenant", tenant)?.text("key", key.as_deref())?;
                let changes = changes.set("amount_nanousd", amount)?.set("enforcement", enforcement)?;
                BUDGETS.set(&client, &id, changes.set("thresholds", thresholds)?, form, out).await
            }
            BudgetsCommand::Delete { id } => BUDGETS.delete(&client, &id, out).await,
        }
    }
}

/// JSON, or the file behind an `@` that has it.
fn json(text: &str) -> anyhow::Result<Box<RawValue>> {
    Ok(RawValue::from_string(given(text)?)?)
}

/// A text, or the file behind an `@` that has it.
pub(super) fn given(text: &str) -> anyhow::Result<String> {
    match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}")),
        None => Ok(text.to_owned()),
    }
}

/// A moment in RFC 3339, in milliseconds since the Unix epoch.
pub(super) fn moment(text: &str) -> anyhow::Result<u64> {
    let at = text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.with_context(|| format!("`{text}` is no moment since 1970 such as 2026-01-15T08:00:00Z"))
}

/// US dollars, in billionths.
fn nanousd(text: &str) -> anyhow::Result<u64> {
    match decimal::read(text, 9).and_then(|nanousd| u64::try_from(nanousd).ok()) {
        Some(nanousd) => Ok(nanousd),
        None => bail!("`{text}` is no amount in US dollars with at most 9 decimals, such as 10.5"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_exact_and_an_empty_text_clears() {
        let changes = Changes::default().text("tier", Some("")).unwrap().text("key", None).unwrap();
        let limits = json(r#"[{"capacity":0.10000000000000000000001}]"#).unwrap();
        let Changes(fields) = changes.set("limits", Some(limits)).unwrap();
        let fields = serde_json::to_string(&fields).unwrap();
        assert_eq!(fields, r#"{"limits":[{"capacity":0.10000000000000000000001}],"tier":null}"#);
    }

    #[test]
    fn amounts_and_moments_are_read() {
        assert_eq!(nanousd("10.5").unwrap(), 10_500_000_000);
        assert!(nanousd("1e3").is_err() && nanousd("99999999999999999999").is_err());
        assert_eq!(moment("1970-01-01T00:00:01Z").unwrap(), 1000);
        assert!(moment("2026-01-15").is_err());
    }
}
