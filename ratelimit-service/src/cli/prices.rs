//! What models cost: the prices in force, comparisons, and tables that are imported.

mod import;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tollgate_domain::{Calls, Comparison, Day, MarkUp, Pattern, PriceTable, Prices, Quote, TokenClass, Tokens};

use super::table::{self, Columns};
use super::{Asking, Form, day};
use crate::client::Client;
use crate::clock;
use crate::config::price_from_json;
use crate::decimal;
use crate::prices::{self, row, shipped};

/// What is told of a model that is compared.
const COMPARED: Columns = Columns(&["model", "provider", "cost_usd", "version", "layer"]);

/// What is told of a cost.
const COST: Columns = Columns(&["model", "provider", "day", "version", "layer", "cost_usd"]);

/// The columns of a price that most prices have.
const LISTED: [&str; 10] = [
    "provider",
    "model",
    "from",
    "input",
    "cache_read",
    "cache_write",
    "output",
    "per_request",
    "per_image",
    "long_above_tokens",
];

/// What is asked of prices.
#[derive(Debug, Subcommand)]
pub enum PricesCommand {
    /// The prices in force, in US dollars for a million tokens, for a call and for an image.
    List(ListArgs),
    /// What calls would cost by every model, the cheapest first.
    Compare(CompareArgs),
    /// What calls to a model would cost. Exit 1 if it has no price.
    Cost(CostArgs),
    /// How a table of prices differs from those in force. Exit 1 if it does.
    Diff {
        #[command(flatten)]
        table: import::TableArgs,
        #[command(flatten)]
        offline: Offline,
    },
    /// Show how a table of prices differs from those in force, and with --apply have the service take that over.
    Import {
        #[command(flatten)]
        table: import::TableArgs,
        /// Put what is added and changed as the operator's price rows. What is removed stays.
        #[arg(long)]
        apply: bool,
    },
}

/// Which prices.
#[derive(Debug, Args)]
pub struct Offline {
    /// Go by the table that comes with this program, and ask no service.
    #[arg(long)]
    offline: bool,
}

/// Whose prices, and of when.
#[derive(Debug, Args)]
pub(super) struct WhoseArgs {
    /// This tenant's; list prices without, or with a tenant's key its own.
    #[arg(long, conflicts_with = "offline")]
    tenant: Option<String>,
    /// Of this UTC day; today without.
    #[arg(long, value_parser = day)]
    day: Option<Day>,
    /// This provider's alone, by OpenTelemetry's name.
    #[arg(long)]
    provider: Option<String>,
    #[command(flatten)]
    offline: Offline,
}

/// Which prices are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The one of this model; or, where a `*` stands for anything, of those that are named so.
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    whose: WhoseArgs,
}

/// What is compared.
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    calls: CallsArgs,
    /// Models that are named so alone: `*` stands for anything.
    #[arg(long)]
    model: Option<String>,
    /// How many models at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    whose: WhoseArgs,
}

/// What is to be priced.
#[derive(Debug, Args)]
pub struct CostArgs {
    /// The model.
    model: String,
    #[command(flatten)]
    calls: CallsArgs,
    #[command(flatten)]
    whose: WhoseArgs,
}

/// What calls use together. A token is of one class alone.
#[derive(Debug, Args)]
pub(super) struct CallsArgs {
    /// Tokens of the prompt, and of no other class.
    #[arg(long, default_value_t)]
    input: u64,
    /// Of the prompt, read from a cache.
    #[arg(long, default_value_t)]
    cache_read: u64,
    /// Of the prompt, written to a cache.
    #[arg(long, default_value_t)]
    cache_write: u64,
    /// Of the prompt, written to a cache that keeps it for an hour.
    #[arg(long = "cache-write-1h", default_value_t)]
    cache_write_1h: u64,
    /// Of the prompt, sound.
    #[arg(long, default_value_t)]
    audio_input: u64,
    /// Tokens of the answer, and of no other class.
    #[arg(long, default_value_t)]
    output: u64,
    /// Of the answer, not shown to the client.
    #[arg(long, default_value_t)]
    reasoning: u64,
    /// Of the answer, sound.
    #[arg(long, default_value_t)]
    audio_output: u64,
    /// How many images they make.
    #[arg(long, default_value_t)]
    images: u64,
    /// How many calls.
    #[arg(long, default_value_t = 1)]
    requests: u64,
}

impl CallsArgs {
    fn by_class(&self) -> [(TokenClass, u64); 8] {
        [
            (TokenClass::Input, self.input),
            (TokenClass::CacheRead, self.cache_read),
            (TokenClass::CacheWrite, self.cache_write),
            (TokenClass::CacheWrite1h, self.cache_write_1h),
            (TokenClass::AudioInput, self.audio_input),
            (TokenClass::Output, self.output),
            (TokenClass::Reasoning, self.reasoning),
            (TokenClass::AudioOutput, self.audio_output),
        ]
    }

    fn calls(&self) -> Calls {
        let tokens: Tokens = self.by_class().into_iter().collect();
        Calls { requests: self.requests, images: self.images, tokens }
    }

    /// A question of the API's, with what else it has.
    fn question(&self, whose: &WhoseArgs, more: &[(&str, Value)]) -> String {
        let tokens: Map<String, Value> =
            self.by_class().into_iter().map(|(class, count)| (class.as_str().to_owned(), count.into())).collect();
        let mut question = json!({
            "tenant_id": whose.tenant, "provider": whose.provider, "tokens": tokens, "images": self.images, "requests": self.requests,
            "day": whose.day.map(|day| day.to_string()),
        });
        more.iter().for_each(|(key, value)| question[*key] = value.clone());
        question.to_string()
    }
}

/// A version of a price, as the API tells it.
#[derive(Debug, Deserialize)]
struct Item {
    layer: String,
    price: Value,
}

#[derive(Debug, Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

impl PricesCommand {
    pub(super) async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        match self {
            PricesCommand::List(args) => args.run(asking, out).await,
            PricesCommand::Compare(args) => args.run(asking, out).await,
            PricesCommand::Cost(args) => args.run(asking, out).await,
            PricesCommand::Diff { table, offline } => table.diff(asking, &offline, out).await,
            PricesCommand::Import { table, apply } => table.import(asking, apply, out).await,
        }
    }
}

impl ListArgs {
    async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let ListArgs { model, whose } = self;
        let form = asking.form();
        let items: Vec<Value> = if whose.offline.offline {
            let (day, prices) = (whose.day.unwrap_or_else(today), Prices::new(Vec::new(), shipped()));
            let found = prices::asked(prices.with_own(None), whose.provider.as_deref(), model.as_deref(), day);
            let item = |quote: &Quote<'_>| {
                let price = quote.price();
                json!({ "layer": quote.layer().as_str(), "version": price.version(), "price": row::document(price) })
            };
            found.iter().map(item).collect()
        } else {
            let client = asking.service.connect()?;
            in_force(&client, &whose, model.as_deref()).await?
        };
        match form {
            Form::Json => items.iter().try_for_each(|item| writeln!(out, "{item}"))?,
            Form::Table => {
                let header = std::iter::once("layer").chain(LISTED).map(str::to_owned).collect();
                let rows = items.into_iter().map(listed).collect::<anyhow::Result<Vec<_>>>()?;
                table::write(header, rows.into_iter(), out)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn listed(item: Value) -> anyhow::Result<Vec<String>> {
    let Item { layer, price } = serde_json::from_value(item)?;
    let price = price_from_json(price).map_err(anyhow::Error::msg)?;
    let cells = LISTED.into_iter().map(|column| row::cell(&price, column));
    let shown = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    Ok(std::iter::once(layer).chain(cells.map(shown)).collect())
}

/// What the service goes by.
async fn in_force(client: &Client, whose: &WhoseArgs, model: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut url = client.at(&["api", "v1", "prices"])?;
    let day = whose.day.map(|day| day.to_string());
    let asked =
        [("tenant", &whose.tenant), ("provider", &whose.provider), ("model", &model.map(str::to_owned)), ("day", &day)];
    for (key, value) in asked {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(key, value);
        }
    }
    Ok(client.get::<Items<Value>>(url).await?.items)
}

/// The same as a table, of list prices on a day.
async fn list_prices(client: &Client, day: Day) -> anyhow::Result<PriceTable> {
    let whose = WhoseArgs { tenant: None, day: Some(day), provider: None, offline: Offline { offline: false } };
    let prices = in_force(client, &whose, None).await?.into_iter().map(|item| {
        let Item { price, .. } = serde_json::from_value(item)?;
        price_from_json(price).map_err(anyhow::Error::msg)
    });
    Ok(PriceTable::new(prices.collect::<anyhow::Result<_>>()?))
}

impl CompareArgs {
    async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let CompareArgs { calls, model, limit, whose } = self;
        let form = asking.form();
        let items: Vec<Value> = if whose.offline.offline {
            let asked = Comparison {
                day: whose.day.unwrap_or_else(today),
                calls: calls.calls(),
                mark_up: MarkUp::NONE,
                provider: whose.provider.as_deref(),
                models: model.as_deref().map(Pattern::new),
            };
            let prices = Prices::new(Vec::new(), shipped());
            let compared = prices.with_own(None).compare(&asked);
            let item = |compared: &tollgate_domain::Compared<'_>| {
                let price = compared.quote.price();
                json!({
                    "model": price.model().to_string(), "provider": price.provider(), "version": price.version(),
                    "cost_usd": decimal::written(compared.picousd, 12), "layer": compared.quote.layer().as_str(),
                })
            };
            compared.iter().take(limit.into()).map(item).collect()
        } else {
            let client = asking.service.connect()?;
            let question = calls.question(&whose, &[("model", json!(model)), ("limit", json!(limit))]);
            client.post::<Items<Value>>(client.at(&["api", "v1", "cost", "compare"])?, question).await?.items
        };
        match form {
            Form::Json => items.iter().try_for_each(|item| writeln!(out, "{item}"))?,
            Form::Table => COMPARED.write(&items, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl CostArgs {
    async fn run(self, asking: Asking, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let CostArgs { model, calls, whose } = self;
        let form = asking.form();
        let cost: Value = if whose.offline.offline {
            let (day, prices) = (whose.day.unwrap_or_else(today), Prices::new(Vec::new(), shipped()));
            let quote = prices.with_own(None).at(whose.provider.as_deref(), Some(&model), day);
            let picousd = quote.map(|quote| quote.cost_picousd(&calls.calls()));
            json!({
                "model": model, "day": day.to_string(), "cost_known": quote.is_some(),
                "provider": quote.and_then(|quote| quote.price().provider()),
                "version": quote.map(|quote| quote.price().version()),
                "layer": quote.map(|quote| quote.layer().as_str()),
                "cost_usd": picousd.map(|picousd| decimal::written(picousd, 12)),
            })
        } else {
            let client = asking.service.connect()?;
            let question = calls.question(&whose, &[("model", json!(model))]);
            client.post(client.at(&["api", "v1", "cost"])?, question).await?
        };
        match form {
            Form::Json => writeln!(out, "{cost}")?,
            Form::Table => COST.write_one(&cost, out)?,
        }
        Ok(if cost["cost_known"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn today() -> Day {
    Day::of(clock::now_ms())
}
