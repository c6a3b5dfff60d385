//! Tables of prices that are compared with those in force, and taken over.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, IF_MATCH};
use serde_json::{Value, json};
use tollgate_domain::{Day, Period, Price, PriceTable, Span};

use super::{Offline, list_prices, today};
use crate::cli::records::{Fields, etag};
use crate::cli::table;
use crate::cli::{Asking, Form, day};
use crate::client::Client;
use crate::clock;
use crate::prices::diff::{Diff, diff};
use crate::prices::import::{Import, Terms, genai_prices, litellm};
use crate::prices::{row, shipped};

/// Whose table it is.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum From {
    /// Our own columns.
    #[default]
    Csv,
    /// LiteLLM's `model_prices_and_context_window.json`.
    Litellm,
    /// The JSON of pydantic's genai-prices.
    GenaiPrices,
}

/// A table of prices in a file.
#[derive(Debug, Args)]
pub struct TableArgs {
    /// The table.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Whose table it is.
    #[arg(long, value_enum, default_value_t)]
    from: From,
    /// Prices of this provider alone, by OpenTelemetry's name; may be given again.
    #[arg(long)]
    provider: Vec<String>,
    /// The first UTC day of prices that have none of their own; today without.
    #[arg(long, value_parser = day)]
    day: Option<Day>,
}

impl TableArgs {
    /// The table, in its order. What is not read of it is told on standard error.
    fn read(&self) -> anyhow::Result<PriceTable> {
        let text = fs::read_to_string(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let providers: Vec<&str> = self.provider.iter().map(String::as_str).collect();
        let from = self.day.unwrap_or_else(today);
        let terms = Terms { from, seen: today(), providers: &providers };
        let import = match self.from {
            From::Litellm => litellm(&text, &terms),
            From::GenaiPrices => genai_prices(&text, &terms),
            From::Csv => row::from_csv(&text).map(|prices| own(prices, &terms)),
        };
        let Import { prices, skipped, skipped_beyond, .. } =
            import.map_err(anyhow::Error::msg).with_context(|| self.file.display().to_string())?;
        if let Some(first) = skipped.first() {
            let count = skipped.len() + skipped_beyond;
            eprintln!("tollgate: {count} rows are not imported, first {}: {}", first.name, first.why);
        }
        Ok(PriceTable::new(prices))
    }

    /// Shows how it differs.
    pub(super) async fn diff(
        self,
        asking: Asking,
        offline: &Offline,
        out: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let (form, imported) = (asking.form(), self.read()?);
        let day = self.day.unwrap_or_else(today);
        let (online, shipped);
        let in_force = if offline.offline {
            shipped = self::shipped();
            &*shipped
        } else {
            online = list_prices(&asking.service.connect()?, day).await?;
            &online
        };
        let diff = diff(in_force, &imported, day);
        write(&diff, form, out)?;
        Ok(if diff.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Shows how it differs, and if `apply` says so has the service take it over.
    pub(super) async fn import(self, asking: Asking, apply: bool, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let (form, imported) = (asking.form(), self.read()?);
        let client = asking.service.connect()?;
        let day = self.day.unwrap_or_else(today);
        let in_force = list_prices(&client, day).await?;
        let diff = diff(&in_force, &imported, day);
        write(&diff, form, out)?;
        let new = diff.added.len() + diff.changed.len();
        if !apply {
            eprintln!("tollgate: {new} prices are new; nothing is changed without --apply");
            return Ok(ExitCode::SUCCESS);
        }
        let (mut put, mut code) = (0, ExitCode::SUCCESS);
        let month = Period::around(Span::Month, clock::now_ms()).first;
        for (place, price) in imported.versions().iter().enumerate() {
            let is_added = diff.added.iter().any(|added| std::ptr::eq(*added, price));
            let is_changed = diff.changed.iter().any(|changed| std::ptr::eq(changed.after, price));
            if is_changed && price.from() < month {
                eprintln!("tollgate: {} would change what finished months cost, and is left out", price.version());
                code = ExitCode::FAILURE;
            } else if is_added || is_changed {
                apply_one(&client, price, place).await.with_context(|| price.version())?;
                put += 1;
            }
        }
        eprintln!("tollgate: {put} prices are put");
        Ok(code)
    }
}

/// Rows without a day are from the one on that is given.
fn own(prices: Vec<Price>, terms: &Terms<'_>) -> Import {
    let is_wanted = |price: &Price| {
        terms.providers.is_empty() || price.provider().is_some_and(|provider| terms.providers.contains(&provider))
    };
    let dated = |price: Price| match price.from() {
        Price::ALWAYS => price.with_from(terms.from),
        _ => price,
    };
    Import { prices: prices.into_iter().filter(is_wanted).map(dated).collect(), ..Import::default() }
}

/// Puts a row. Its id is its provider's and version's name: put again, it is the same one.
async fn apply_one(client: &Client, price: &Price, place: usize) -> anyhow::Result<()> {
    let id = format!("{}:{}", price.provider().unwrap_or("*"), price.version());
    let url = client.at(&["api", "v1", "price-rows", &id])?;
    let known: Option<Fields> = client.find(url.clone()).await?;
    let row = json!({ "tenant": null, "position": place, "price": row::document(price) });
    let request = client.request(Method::PUT, url).header(CONTENT_TYPE, "application/json").body(row.to_string());
    let request = match known {
        Some(known) => request.header(IF_MATCH, etag(&known)?),
        None => request,
    };
    client.asked(request).await.map(drop)
}

/// Writes what is added, changed and removed, in that order.
fn write(diff: &Diff<'_>, form: Form, out: &mut impl Write) -> anyhow::Result<()> {
    let of = |change: &str, price: &Price| json!({ "change": change, "version": price.version(), "price": row::document(price) });
    let cells = |change: &str, price: &Price, what: [&str; 3]| -> Vec<String> {
        let named = [change, price.provider().unwrap_or("-"), &price.version()].map(str::to_owned);
        named.into_iter().chain(what.map(str::to_owned)).collect()
    };
    match form {
        Form::Json => {
            let added = diff.added.iter().map(|price| of("added", price));
            let changed = diff.changed.iter().map(|changed| {
                let mut told = of("changed", changed.after);
                told["before"] = json!({
                    "version": changed.before.version(), "price": row::document(changed.before),
                });
                told
            });
            let removed = diff.removed.iter().map(|price| of("removed", price));
            added.chain(changed).chain(removed).try_for_each(|told: Value| writeln!(out, "{told}"))?;
        }
        Form::Table if diff.is_empty() => writeln!(out, "the tables agree")?,
        Form::Table => {
            let mut rows: Vec<Vec<String>> = Vec::new();
            rows.extend(diff.added.iter().map(|price| {
                let [input, output] = ["input", "output"].map(|column| row::cell(price, column));
                cells("added", price, ["input/output", "-", &format!("{input}/{output}")])
            }));
            for changed in &diff.changed {
                rows.extend(changed.costs.iter().map(|cost| {
                    let given = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                    cells("changed", changed.after, [cost.column, &given(&cost.from), &given(&cost.to)])
                }));
            }
            rows.extend(diff.removed.iter().map(|price| cells("removed", price, ["-"; 3])));
            let header = ["change", "provider", "version", "column", "before", "after"].map(str::to_owned).into();
            table::write(header, rows.into_iter(), out)?;
        }
    }
    Ok(())
}
