//! pydantic's `genai-prices` (`data.json`): a list of providers with their models, in US dollars for a million tokens.
//!
//! A model is told by clauses about its name, of which the first model's hold: they become patterns, in the same order.
//! What the clauses of `and` and `regex` say has no pattern.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tollgate_domain::{Price, TokenClass};

use super::{Costs, Import, Terms, bounded, number, source};
use crate::period;

/// Where prices of tokens stand.
const CLASSES: [(&str, TokenClass); 9] = [
    ("input_mtok", TokenClass::Input),
    ("cache_read_mtok", TokenClass::CacheRead),
    ("cache_write_mtok", TokenClass::CacheWrite),
    ("cache_write_5m_mtok", TokenClass::CacheWrite),
    ("cache_write_1h_mtok", TokenClass::CacheWrite1h),
    ("input_audio_mtok", TokenClass::AudioInput),
    ("output_mtok", TokenClass::Output),
    ("output_reasoning_mtok", TokenClass::Reasoning),
    ("output_audio_mtok", TokenClass::AudioOutput),
];

/// For a thousand calls.
const REQUESTS: &str = "requests_kcount";

/// Providers that OpenTelemetry calls otherwise.
const PROVIDERS: [(&str, &str); 7] = [
    ("aws", "aws.bedrock"),
    ("azure", "azure.ai.openai"),
    ("google", "gcp.gemini"),
    ("mistral", "mistral_ai"),
    ("moonshotai", "moonshot"),
    ("x-ai", "x_ai"),
    ("zai", "z_ai"),
];

#[derive(Debug, Deserialize)]
struct Provider<'t> {
    id: String,
    #[serde(default)]
    pricing_urls: Vec<String>,
    #[serde(borrow)]
    models: Vec<Model<'t>>,
}

#[derive(Debug, Deserialize)]
struct Model<'t> {
    id: String,
    #[serde(rename = "match")]
    clause: Clause,
    #[serde(borrow)]
    prices: &'t RawValue,
}

/// What is said of a model's name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Clause {
    Equals(String),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Or(Vec<Clause>),
    Regex(String),
    And(IgnoredAny),
}

type Amounts<'t> = BTreeMap<String, &'t RawValue>;

/// A model's prices on some condition.
#[derive(Debug, Deserialize)]
struct Conditional<'t> {
    #[serde(default)]
    constraint: Option<Constraint>,
    #[serde(borrow)]
    prices: Amounts<'t>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Constraint {
    From { start_date: String },
    Daily { start_time: String },
}

/// A price that is another one beyond some lengths of a prompt.
#[derive(Debug, Deserialize)]
struct Tiered<'t> {
    #[serde(borrow)]
    base: &'t RawValue,
    #[serde(borrow)]
    tiers: Vec<Tier<'t>>,
}

#[derive(Debug, Deserialize)]
struct Tier<'t> {
    start: u64,
    #[serde(borrow)]
    price: &'t RawValue,
}

/// Reads the table. A model's only price is from [`Terms::from`] on; where it has several, each is from its own day on,
/// and the one without a day from the beginning.
///
/// # Errors
/// When it is no such JSON, or too long.
pub fn genai_prices(text: &str, terms: &Terms<'_>) -> Result<Import, String> {
    let providers: Vec<Provider<'_>> =
        serde_json::from_str(bounded(text)?).map_err(|error| format!("no table of genai-prices: {error}"))?;
    let mut import = Import::default();
    for provider in &providers {
        let name = PROVIDERS.iter().find(|(known, _)| *known == provider.id).map_or(&*provider.id, |(_, ours)| ours);
        if !terms.wants(name) {
            continue;
        }
        let source = source(provider.pricing_urls.first().map(String::as_str));
        for model in &provider.models {
            let called = format!("{}/{}", provider.id, model.id);
            match versions(model, terms, &mut import) {
                Ok(versions) => take(&called, name, &model.clause, &source, &versions, terms, &mut import),
                Err(why) => import.skip(&called, why),
            }
        }
    }
    Ok(import)
}

/// A version's first day, and what it costs.
type Version = (tollgate_domain::Day, Costs);

/// Adds each version for each of the model's patterns.
fn take(
    called: &str,
    provider: &str,
    clause: &Clause,
    source: &str,
    versions: &[Version],
    terms: &Terms<'_>,
    import: &mut Import,
) {
    let mut patterns = Vec::new();
    clause.patterns(&mut |pattern| match pattern {
        Ok(pattern) => patterns.push(pattern),
        Err(why) => import.skip(called, why),
    });
    for pattern in patterns {
        for (from, costs) in versions {
            match costs.price(&pattern, provider, &Terms { from: *from, ..*terms }) {
                Ok(price) => import.push(called, price.with_source(source.to_owned(), Some(terms.seen))),
                Err(why) => import.skip(called, why),
            }
        }
    }
}

impl Clause {
    /// Tells the patterns that say the same, or why there is none.
    fn patterns(&self, tell: &mut impl FnMut(Result<String, String>)) {
        // A star in a name would stand for anything.
        let literal = |text: &String, pattern: String| match text.contains('*') {
            true => Err(format!("`{text}` is no part of a name")),
            false => Ok(pattern),
        };
        match self {
            Clause::Equals(text) => tell(literal(text, text.clone())),
            Clause::StartsWith(text) => tell(literal(text, format!("{text}*"))),
            Clause::EndsWith(text) => tell(literal(text, format!("*{text}"))),
            Clause::Contains(text) => tell(literal(text, format!("*{text}*"))),
            Clause::Or(clauses) => clauses.iter().for_each(|clause| clause.patterns(tell)),
            Clause::Regex(regex) => tell(Err(format!("names that match {regex} have no pattern"))),
            Clause::And(_) => tell(Err("names that match several clauses at once have no pattern".to_owned())),
        }
    }
}

fn versions(model: &Model<'_>, terms: &Terms<'_>, import: &mut Import) -> Result<Vec<Version>, String> {
    let text = model.prices.get();
    if let Ok(amounts) = serde_json::from_str::<Amounts<'_>>(text) {
        return Ok(vec![(terms.from, costs(&amounts, import)?)]);
    }
    let conditional: Vec<Conditional<'_>> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut versions = Vec::new();
    for one in &conditional {
        let from = match &one.constraint {
            None => Price::ALWAYS,
            Some(Constraint::From { start_date }) => {
                period::day(start_date).ok_or_else(|| format!("`{start_date}` is no day"))?
            }
            // The price without a condition is then that of some hours, and would be wrong for the others.
            Some(Constraint::Daily { start_time }) => {
                return Err(format!("has prices by the time of day, from {start_time}"));
            }
        };
        versions.push((from, costs(&one.prices, import)?));
    }
    Ok(versions)
}

fn costs(amounts: &Amounts<'_>, import: &mut Import) -> Result<Costs, String> {
    let mut costs = Costs::default();
    for (key, value) in amounts {
        let named = |why: String| format!("{key}: {why}");
        if let Some((_, class)) = CLASSES.iter().find(|(known, _)| known == key) {
            add(&mut costs, *class, value).map_err(named)?;
        } else if key == REQUESTS {
            // A dollar for a thousand calls is a millionth of 1e9 for each.
            let nanousd = number::read(value.get(), 6).map_err(named)?;
            costs.per_request_nanousd = u64::try_from(nanousd).map_err(|_| named("is too large".to_owned()))?;
        } else {
            costs.has_other |= number::read(value.get(), 6) != Ok(0);
            import.left_out.insert(key.clone());
        }
    }
    Ok(costs)
}

/// A dollar for a million tokens is 1e6 of 1e-12 dollars for each.
fn add(costs: &mut Costs, class: TokenClass, value: &RawValue) -> Result<(), String> {
    let Ok(tiered) = serde_json::from_str::<Tiered<'_>>(value.get()) else {
        return costs.add(class, number::read(value.get(), 6)?, None);
    };
    costs.add(class, number::read(tiered.base.get(), 6)?, None)?;
    tiered.tiers.iter().try_for_each(|tier| costs.add(class, number::read(tier.price.get(), 6)?, Some(tier.start)))
}
