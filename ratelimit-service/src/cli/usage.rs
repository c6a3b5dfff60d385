//! What a tenant has used.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::value::RawValue;

use super::table::Columns;
use super::{Asking, Form};

/// What is told of it.
const SUMMARY: Columns = Columns(&[
    "tenant_id",
    "period_start",
    "period_end",
    "plan_tier",
    "requests",
    "requests_succeeded",
    "requests_without_cost",
    "input_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
    "cost_usd",
    "token_limit",
    "limit_used_percent",
    "overage_tokens",
    "last_7_days_tokens",
    "last_30_days_tokens",
]);

/// Whose usage is told, and of when.
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// Its name in the tenant's header.
    tenant: String,
    /// The present one of which.
    #[arg(long, default_value = "month", value_parser = ["month", "week", "day"])]
    period: String,
    #[command(flatten)]
    asking: Asking,
}

impl UsageArgs {
    pub(super) async fn run(self, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (form, client) = (self.asking.form(), self.asking.service.connect()?);
        let mut url = client.at(&["api", "v1", "usage", &self.tenant])?;
        url.query_pairs_mut().append_pair("period", &self.period);
        let summary: Box<RawValue> = client.get(url).await?;
        match form {
            Form::Json => writeln!(out, "{}", summary.get())?,
            Form::Table => SUMMARY.write_one(&serde_json::from_str(summary.get())?, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
