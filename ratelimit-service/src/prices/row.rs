//! One price in columns: rows of CSV, of a configuration's `prices`, and JSON documents.
//!
//! Columns are called as the configuration's keys; those of `long_context` begin with `long_`. An empty one is not
//! given.

use std::collections::HashSet;
use std::fmt::Write;

use serde_json::{Map, Value};
use tollgate_domain::{PerToken, Price, TokenClass};

use crate::config::price_from_json;
use crate::decimal;

/// The most rows of a table.
pub const MAX_ROWS: usize = 10_000;

/// In this order.
pub const COLUMNS: [&str; 24] = [
    "provider",
    "model",
    "from",
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "output",
    "reasoning",
    "audio_output",
    "per_request",
    "per_image",
    "long_above_tokens",
    "long_input",
    "long_cache_read",
    "long_cache_write",
    "long_cache_write_1h",
    "long_audio_input",
    "long_output",
    "long_reasoning",
    "long_audio_output",
    "source",
    "seen",
];

/// What columns of long prompts begin with.
pub(super) const LONG: &str = "long_";

/// What a price has in a column; empty where it has nothing. Prices are US dollars, for a million tokens, a call or an image.
pub fn cell(price: &Price, column: &str) -> String {
    let day = |day: tollgate_domain::Day| day.to_string();
    let long = |column: &str| {
        let long = price.long_context()?;
        if column == "above_tokens" { Some(long.above_tokens.to_string()) } else { of_class(&long.per_token, column) }
    };
    let each = |nanousd: u64| (nanousd > 0).then(|| decimal::written(nanousd.into(), 9));
    let text = match column {
        "provider" => price.provider().map(str::to_owned),
        "model" => Some(price.model().to_string()),
        "from" => (price.from() != Price::ALWAYS).then(|| day(price.from())),
        "per_request" => each(price.per_request_nanousd()),
        "per_image" => each(price.per_image_nanousd()),
        "source" => Some(price.source().to_owned()),
        "seen" => price.seen().map(day),
        class => class.strip_prefix(LONG).map_or_else(|| of_class(price.per_token(), class), long),
    };
    text.unwrap_or_default()
}

/// 1e-12 dollars for a token are a millionth of a dollar for a million tokens.
fn of_class(per_token: &PerToken, class: &str) -> Option<String> {
    let class = TokenClass::ALL.into_iter().find(|known| known.as_str() == class)?;
    per_token.given(class).map(|picousd| decimal::written(picousd.into(), 6))
}

/// The columns that say something, each with what it says.
fn cells(price: &Price) -> impl Iterator<Item = (&'static str, String)> {
    COLUMNS.into_iter().map(|column| (column, cell(price, column))).filter(|(_, text)| !text.is_empty())
}

/// The price as a JSON document with the keys of the configuration. Amounts are texts, so that they stay exact.
pub fn document(price: &Price) -> Value {
    document_of(cells(price))
}

/// Nests what belongs to long prompts.
fn document_of<'c>(cells: impl Iterator<Item = (&'c str, String)>) -> Value {
    let (mut document, mut long) = (Map::new(), Map::new());
    for (column, text) in cells {
        match column.strip_prefix(LONG) {
            // A number, unless it is none: that is told where documents are read.
            Some(key @ "above_tokens") => {
                let value = text.parse::<u64>().map_or(Value::String(text), Value::from);
                long.insert(key.to_owned(), value)
            }
            Some(key) => long.insert(key.to_owned(), text.into()),
            None => document.insert(column.to_owned(), text.into()),
        };
    }
    if !long.is_empty() {
        document.insert("long_context".to_owned(), long.into());
    }
    document.into()
}

/// Reads a table with a header row. Columns may come in any order, and be left out.
///
/// # Errors
/// When it is no such CSV, or has more than [`MAX_ROWS`]; when a row is no price, or is for the same models, provider
/// and day as an earlier one: with its line.
pub fn from_csv(text: &str) -> Result<Vec<Price>, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    if let Some(unknown) = header.iter().find(|name| !COLUMNS.contains(name)) {
        return Err(format!("line 1: there is no column `{unknown}`; there are {}", COLUMNS.join(", ")));
    }
    let (mut prices, mut known) = (Vec::new(), HashSet::new());
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        if prices.len() == MAX_ROWS {
            return Err(format!("line {line}: at most {MAX_ROWS} rows are read"));
        }
        let cells = header.iter().zip(&record).filter(|(_, text)| !text.is_empty());
        let document = document_of(cells.map(|(column, text)| (column, text.to_owned())));
        let price = price_from_json(document).map_err(|what| format!("line {line}: {what}"))?;
        if !known.insert((price.provider().map(str::to_owned), price.version())) {
            return Err(format!("line {line}: {} is there already; give it another day", price.version()));
        }
        prices.push(price);
    }
    Ok(prices)
}

/// The table as CSV with all [`COLUMNS`].
///
/// # Errors
/// When a row cannot be written.
pub fn to_csv<'p>(prices: impl IntoIterator<Item = &'p Price>) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for price in prices {
        writer.write_record(COLUMNS.map(|column| cell(price, column)))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// The table as the configuration's `prices`, a line for each.
pub fn to_yaml<'p>(prices: impl IntoIterator<Item = &'p Price>) -> String {
    let mut text = String::from("prices:\n");
    for price in prices {
        let (long, plain): (Vec<_>, Vec<_>) = cells(price).partition(|(column, _)| column.starts_with(LONG));
        let mut keys: Vec<String> = plain.iter().map(|(column, text)| key(column, text)).collect();
        if !long.is_empty() {
            let long: Vec<_> = long.iter().map(|(column, text)| key(&column[LONG.len()..], text)).collect();
            keys.push(format!("long_context: {{ {} }}", long.join(", ")));
        }
        // Writing to a text does not fail.
        let _ = writeln!(text, "  - {{ {} }}", keys.join(", "));
    }
    text
}

/// A key of YAML with its value. JSON's texts are YAML's.
fn key(column: &str, text: &str) -> String {
    match column {
        "provider" | "model" | "source" => format!("{column}: {}", Value::from(text)),
        _ => format!("{column}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_domain::{Day, LongContext, Pattern};

    use super::*;
    use crate::config::{Config, MAX_LONG_CONTEXT_TOKENS, MAX_PRICE_USD};

    /// The highest price of a token.
    const MAX_PICOUSD: u64 = MAX_PRICE_USD * 1_000_000;

    const TABLE: &str = "\
provider,model,from,input,cache_read,cache_write,cache_write_1h,audio_input,output,reasoning,audio_output,per_request,\
per_image,long_above_tokens,long_input,long_cache_read,long_cache_write,long_cache_write_1h,long_audio_input,long_output,\
long_reasoning,long_audio_output,source,seen
openai,gpt-4o-mini,,0.15,0.075,,,,0.6,,,,,,,,,,,,,,https://example.org/pricing,2026-11-26
anthropic,claude-*,2026-03-13,3,0.3,3.75,6,,15,,,,,200000,6,0.6,7.5,12,,22.5,,,\"said, by \"\"them\"\"\",2026-11-26
,all,,1.000001,2,3,4,5,6,7,8,0.000000001,0.04,1,2,3,4,5,6,7,8,9,,
openai,dall-e-3,,,,,,,,,,,0.04,,,,,,,,,,,
";

    #[test]
    fn a_table_is_the_same_in_all_its_forms() {
        let prices = from_csv(TABLE).unwrap();
        assert_eq!(to_csv(&prices).unwrap(), TABLE);
        let documents: Vec<_> = prices.iter().map(|price| price_from_json(document(price)).unwrap()).collect();
        assert_eq!(documents, prices);
        let yaml = to_yaml(&prices);
        assert!(
            yaml.contains("\n  - { provider: \"openai\", model: \"gpt-4o-mini\", input: 0.15, cache_read: 0.075,"),
            "{yaml}"
        );
        let config = Config::parse(&yaml, "written").unwrap();
        for price in &prices {
            let found =
                config.policy.plans.prices("").at(price.provider(), Some(&price.model().to_string()), price.from());
            assert_eq!(found.unwrap().price(), price);
        }
    }

    #[test]
    fn a_wrong_row_is_told_by_its_line() {
        for (row, what) in [
            ("model,input\na,1e-7", "line 2: input: `1e-7` is no number from 0 up with at most 6 decimals"),
            ("model,inputs\na,1", "line 1: there is no column `inputs`; there are provider, model, from,"),
            ("model,input\na,1\n\"a\nb\",1", "line 3: model: `a\\nb` has characters other than"),
            ("model,input\na,1\nb,1\na,2", "line 4: a@1970-01-01 is there already; give it another day"),
            ("model,input,from\na,1,2026-13-01", "line 2: from: `2026-13-01` is no day"),
            ("model,from\na,2026-01-01", "line 2: names no price; give input: 0"),
            ("model,input,long_input\na,1,2", "line 2: long_context: missing field `above_tokens`"),
            ("model,input,long_above_tokens\na,1,10", "line 2: long_context: names no price"),
            ("model,input,long_above_tokens,long_input\na,1,x,1", "line 2: long_context.above_tokens: invalid type"),
            ("model,input\na", "CSV error: record 1 (line: 2, byte: 12): found record with 1 fields"),
        ] {
            let said = from_csv(row).unwrap_err();
            assert!(said.starts_with(what), "{said}");
        }
    }

    fn any_price() -> impl Strategy<Value = Price> {
        let per_token = || prop::collection::vec(prop::option::of(0..=MAX_PICOUSD), TokenClass::ALL.len());
        let by_class = |prices: Vec<Option<u64>>| -> PerToken {
            TokenClass::ALL.into_iter().zip(prices).filter_map(|(class, price)| Some((class, price?))).collect()
        };
        let long = prop::option::of((1..=MAX_LONG_CONTEXT_TOKENS, per_token()));
        let texts = ("[!-+./-:<-Z_-z*]{1,20}", prop::option::of("[ -~]{1,20}"), "[ -~é\n]{0,20}");
        let days = (0..100_000i32, prop::option::of(0..100_000i32));
        (texts, days, per_token(), (1..1_000_000_000u64, 0..1_000_000_000u64), long).prop_map(
            move |((model, provider, source), (from, seen), prices, (per_request_nanousd, per_image_nanousd), long)| {
                let long = long.map(|(above_tokens, prices)| LongContext { above_tokens, per_token: by_class(prices) });
                Price::new(Pattern::new(&model), by_class(prices))
                    .with_provider(provider)
                    .with_from(Day::from_number(from))
                    .with_per_request_nanousd(per_request_nanousd)
                    .with_per_image_nanousd(per_image_nanousd)
                    .with_long_context(long.filter(|long| !long.per_token.is_empty()))
                    .with_source(source, seen.map(Day::from_number))
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(price in any_price()) {
            let prices = std::slice::from_ref(&price);
            prop_assert_eq!(from_csv(&to_csv(prices).unwrap()).unwrap(), prices);
            prop_assert_eq!(&price_from_json(document(&price)).unwrap(), &price);
            let config = Config::parse(&to_yaml(prices), "written").unwrap();
            let name = price.model().to_string();
            let found = config.policy.plans.prices("").at(price.provider(), Some(&name), price.from()).unwrap();
            prop_assert_eq!(found.price(), &price);
        }
    }
}
