//! The prices that come with the program.

use std::sync::{Arc, LazyLock};

use tollgate_domain::PriceTable;

use super::row;

/// Providers' public list prices, in US dollars, at their standard tier of service. Each row says where it was read,
/// and when; `prices.NOTICE` has the notices of the tables that it was made from.
const CSV: &str = include_str!("../../prices.csv");

/// The table, which is parsed once. A new price becomes a new row with a later day, and old rows stay.
///
/// # Panics
/// When the table is broken, which a test would have told.
pub fn shipped() -> Arc<PriceTable> {
    static TABLE: LazyLock<Arc<PriceTable>> =
        LazyLock::new(|| Arc::new(PriceTable::new(row::from_csv(CSV).expect("the shipped prices are well-formed"))));
    Arc::clone(&TABLE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tollgate_domain::{Comparison, Day, Pattern, Prices, Tokens};

    use super::*;
    use crate::config::MAX_PRICES;
    use crate::period;
    use crate::prices::row::cell;

    fn today() -> Day {
        period::day("2026-11-26").unwrap()
    }

    /// A model's prices for these columns.
    fn costs<const N: usize>(provider: &str, model: &str, day: Day, columns: [&str; N]) -> [String; N] {
        let table = shipped();
        let price = table.at(Some(provider), Some(model), day).unwrap_or_else(|| panic!("{model} has no price"));
        columns.map(|column| cell(price, column))
    }

    #[test]
    fn the_table_is_whole() {
        let table = shipped();
        let rows = table.versions();
        assert_eq!(row::to_csv(rows).unwrap(), CSV, "it is as it would be written");
        assert!(rows.len() <= MAX_PRICES, "it may be brought into a configuration");
        let models: BTreeSet<_> = rows.iter().map(|row| row.model().to_string()).collect();
        assert!(models.len() >= 60, "{}", models.len());
        let providers: BTreeSet<_> = rows.iter().filter_map(|row| row.provider()).collect();
        let expected = [
            "anthropic",
            "aws.bedrock",
            "cohere",
            "deepseek",
            "gcp.gemini",
            "gcp.vertex_ai",
            "mistral_ai",
            "openai",
            "x_ai",
        ];
        assert_eq!(providers.into_iter().collect::<Vec<_>>(), expected);
        for row in rows {
            assert!(row.source().starts_with("https://") && row.seen().is_some(), "{}", row.version());
            let costs = ["input", "per_image"].map(|column| cell(row, column)).concat();
            assert!(row.provider().is_some() && !costs.is_empty(), "{}", row.version());
        }
    }

    #[test]
    fn no_row_goes_before_a_more_specific_one() {
        let table = shipped();
        for row in table.versions() {
            // A name that only this row and wider ones may match.
            let name = row.model().to_string().replace('*', "x");
            let found = table.at(row.provider(), Some(&name), row.from());
            assert_eq!(found.map(|found| found.version()), Some(row.version()));
        }
        let input = |model| costs("openai", model, today(), ["input"]).concat();
        let models = ["gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-05-13", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"];
        assert_eq!(models.map(input), ["2.5", "2.5", "5", "0.15", "0.15"]);
    }

    #[test]
    fn known_prices_are_there() {
        let classes = ["input", "cache_read", "cache_write", "cache_write_1h", "output"];
        let of = |provider, model| costs(provider, model, today(), classes);
        assert_eq!(of("openai", "gpt-4o-mini"), ["0.15", "0.075", "", "", "0.6"]);
        assert_eq!(of("openai", "gpt-4.1-2025-04-14"), ["2", "0.5", "", "", "8"]);
        assert_eq!(of("anthropic", "claude-sonnet-4-5-20250929"), ["3", "0.3", "3.75", "6", "15"]);
        assert_eq!(of("anthropic", "claude-sonnet-4-20250514"), ["3", "0.3", "3.75", "6", "15"]);
        assert_eq!(of("anthropic", "claude-3-5-haiku-20241022"), ["0.8", "0.08", "1", "1.6", "4"]);
        assert_eq!(of("aws.bedrock", "amazon.nova-pro-v1:0"), ["0.8", "0.2", "", "", "3.2"]);
        assert_eq!(of("aws.bedrock", "us.amazon.nova-micro-v1:0"), ["0.035", "0.00875", "", "", "0.14"]);
        assert_eq!(of("deepseek", "deepseek-chat"), ["0.28", "0.028", "", "", "0.42"]);
        assert_eq!(of("cohere", "command-r-plus-08-2024"), ["2.5", "", "", "", "10"]);
        assert_eq!(of("mistral_ai", "mistral-large-latest"), ["0.5", "0.05", "", "", "1.5"]);
        assert_eq!(of("x_ai", "grok-4.3"), ["1.25", "0.2", "", "", "2.5"]);
        let images = |provider, model| costs(provider, model, today(), ["input", "output", "per_image"]);
        assert_eq!(images("openai", "dall-e-3"), ["", "", "0.04"]);
        assert_eq!(images("openai", "gpt-image-1"), ["5", "40", ""]);
        assert_eq!(images("gcp.vertex_ai", "imagen-4.0-ultra-generate-001"), ["", "", "0.06"]);
        let long = ["input", "output", "long_above_tokens", "long_input", "long_output"];
        for provider in ["gcp.gemini", "gcp.vertex_ai"] {
            let pro = costs(provider, "gemini-2.5-pro", today(), long);
            assert_eq!(pro, ["1.25", "10", "200000", "2.5", "15"]);
        }
    }

    #[test]
    fn a_price_that_changed_is_what_it_was_before() {
        let day = |name| period::day(name).unwrap();
        let o3 = |name| costs("openai", "o3-2025-04-16", day(name), ["input", "output"]);
        assert_eq!(
            (o3("2025-06-09"), o3("2025-06-10")),
            (["10", "40"].map(str::to_owned), ["2", "8"].map(str::to_owned))
        );
        let opus = |name| costs("anthropic", "claude-opus-4-6", day(name), ["long_input"]).concat();
        assert_eq!((opus("2026-03-12"), opus("2026-03-13")), ("10".to_owned(), String::new()));
    }

    #[test]
    fn the_cheapest_model_is_found() {
        let prices = Prices::new(Vec::new(), shipped());
        let mini = Comparison {
            provider: Some("openai"),
            models: Some(Pattern::new("gpt-4o*")),
            ..Comparison::of(today(), Tokens::plain(1000, 1000))
        };
        let cheapest = prices.with_own(None).cheapest(&mini).unwrap();
        assert_eq!(
            (cheapest.quote.price().version(), cheapest.picousd),
            ("gpt-4o-mini@1970-01-01".into(), 750_000_000)
        );
        let all = prices.with_own(None).compare(&Comparison::of(today(), Tokens::plain(1, 1)));
        assert!(all.len() > 300 && all.is_sorted_by_key(|compared| compared.picousd), "{}", all.len());
    }
}
