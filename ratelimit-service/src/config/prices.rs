//! Prices as they are written.

use serde::Deserialize;
use tollgate_domain::{LongContext, PerToken, Price};

use super::FIELD;
use super::by_class::by_class;
use super::limits::first_pair;
use super::scalar::{FirstDay, Name, Pattern, Usd, Within};

/// The most prices, of the operator or of a tenant.
pub const MAX_PRICES: usize = 1000;

/// The longest source of a price, in bytes.
pub const MAX_SOURCE_BYTES: usize = 1024;

/// The longest prompt that may count as short.
pub const MAX_LONG_CONTEXT_TOKENS: u64 = 1_000_000_000;

by_class! {
    RawPrice<Usd<6>> {
        model: Pattern,
        provider: Option<Name>,
        from: Option<FirstDay>,
        per_request: Option<Usd<9>>,
        per_image: Option<Usd<9>>,
        long_context: Option<RawLongContext>,
        source: Option<Source>,
        seen: Option<FirstDay>,
    }
}

by_class! {
    RawLongContext<Usd<6>> {
        above_tokens: Within<1, MAX_LONG_CONTEXT_TOKENS>,
    }
}

/// Where a price was read.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Source(String);

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Source, String> {
        match text.len() {
            0..=MAX_SOURCE_BYTES => Ok(Source(text)),
            bytes => Err(format!("a source has at most {MAX_SOURCE_BYTES} bytes; this one has {bytes}")),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawPrice")]
struct OnePrice(Price);

impl TryFrom<RawPrice> for OnePrice {
    type Error = String;

    fn try_from(raw: RawPrice) -> Result<OnePrice, String> {
        // A millionth of a dollar for a million tokens is 1e-12 dollars for each.
        let per_token: PerToken = raw.classes().map(|(class, Usd(millionths))| (class, millionths)).collect();
        if per_token.is_empty() && raw.per_request.is_none() && raw.per_image.is_none() {
            return Err("names no price; give input: 0 for a model that costs nothing".to_owned());
        }
        let long_context = raw.long_context.as_ref().map(|long| LongContext {
            above_tokens: long.above_tokens.get(),
            per_token: long.classes().map(|(class, Usd(millionths))| (class, millionths)).collect(),
        });
        if long_context.is_some_and(|long| long.per_token.is_empty()) {
            return Err(format!("{FIELD}long_context: names no price; leave it out where long prompts cost the same"));
        }
        let day = |FirstDay(day)| day;
        let price = Price::new((&raw.model).into(), per_token)
            .with_provider(raw.provider.map(|Name(provider)| provider))
            .with_from(raw.from.map_or(Price::ALWAYS, day))
            .with_per_request_nanousd(raw.per_request.map_or(0, |Usd(nano)| nano))
            .with_per_image_nanousd(raw.per_image.map_or(0, |Usd(nano)| nano))
            .with_long_context(long_context)
            .with_source(raw.source.map(|Source(text)| text).unwrap_or_default(), raw.seen.map(day));
        Ok(OnePrice(price))
    }
}

/// At most [`MAX_PRICES`], each of other models, for another provider or from another day.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Vec<OnePrice>")]
pub(super) struct Prices(pub(super) Vec<Price>);

impl TryFrom<Vec<OnePrice>> for Prices {
    type Error = String;

    fn try_from(given: Vec<OnePrice>) -> Result<Prices, String> {
        if given.len() > MAX_PRICES {
            return Err(format!("{} prices; at most {MAX_PRICES} are taken", given.len()));
        }
        let prices: Vec<Price> = given.into_iter().map(|OnePrice(price)| price).collect();
        match first_pair(&prices, |a, b| a.is_alike(b) && a.from() == b.from()) {
            Some((first, second)) => {
                Err(format!("[{second}] and [{first}] are both for {}; keep one of them", named(&prices[first])))
            }
            None => Ok(Prices(prices)),
        }
    }
}

impl Prices {
    /// Whether every call has one.
    pub(super) fn are_complete(&self) -> bool {
        let is_for_all = |price: &&Price| price.provider().is_none() && price.from() == Price::ALWAYS;
        self.0.iter().filter(is_for_all).any(|price| price.model().to_string() == "*")
    }
}

/// A price from a document with the keys of the configuration. Amounts are texts there, so that they stay exact.
///
/// # Errors
/// When it is no price: the path of what is wrong, and what.
pub fn price_from_json(document: serde_json::Value) -> Result<Price, String> {
    let price: Result<OnePrice, _> = serde_path_to_error::deserialize(document);
    price.map(|OnePrice(price)| price).map_err(|error| {
        let (path, what) = (error.path().to_string(), error.inner().to_string());
        match what.strip_prefix(FIELD) {
            Some(what) => what.to_owned(),
            None if path == "." => what,
            None => format!("{path}: {what}"),
        }
    })
}

/// What a price is for, by what is written of it.
fn named(price: &Price) -> String {
    let provider = price.provider().map(|provider| format!(" of {provider}")).unwrap_or_default();
    match price.from() {
        Price::ALWAYS => format!("{}{provider}", price.model()),
        from => format!("{}{provider} from {from}", price.model()),
    }
}

#[cfg(test)]
mod tests {
    use tollgate_domain::{Calls, Day, Layer, Quote, Tokens};

    use crate::config::Config;

    const DATED: &str = "
prices:
  - { model: gpt-4o, provider: openai, input: 2.5, cache_read: 1.25, output: 10, source: 'https://openai.com', seen: 2026-01-02 }
  - { model: gpt-4o, provider: openai, from: 2026-01-31, input: 2, output: 8, per_request: 0.000000001, per_image: 0.04,
      long_context: { above_tokens: 100, input: 4, output: 12.000001 } }
tenants:
  acme: { prices: [{ model: 'gpt-*', input: 1, output: 1 }] }";

    fn cost(config: &Config, tenant: &str, day: &str, tokens: &Tokens) -> Option<(Layer, String, u128)> {
        let day = crate::period::day(day).unwrap();
        let quote: Option<Quote<'_>> = config.policy.plans.prices(tenant).at(Some("openai"), Some("gpt-4o"), day);
        quote.map(|quote| (quote.layer(), quote.price().version(), quote.cost_picousd(&Calls::one(*tokens))))
    }

    #[test]
    fn a_price_has_days_providers_long_prompts_and_tenants() {
        let config = Config::parse(DATED, "test").unwrap();
        let (short, long) = (Tokens::plain(100, 1), Tokens::plain(101, 1));
        let cost = |tenant, day, tokens| cost(&config, tenant, day, tokens);
        let version = |day| format!("gpt-4o@{day}");
        let operators = |day, picousd| Some((Layer::Operator, version(day), picousd));
        assert_eq!(cost("other", "2026-01-30", &long), operators("1970-01-01", 101 * 2_500_000 + 10_000_000));
        assert_eq!(cost("other", "2026-01-31", &short), operators("2026-01-31", 100 * 2_000_000 + 8_000_000 + 1000));
        assert_eq!(cost("other", "2026-02-01", &long), operators("2026-01-31", 101 * 4_000_000 + 12_000_001 + 1000));
        assert_eq!(cost("acme", "2026-02-01", &short), Some((Layer::Tenant, "gpt-*@1970-01-01".into(), 101_000_000)));
        let prices = config.policy.plans.prices("other");
        let drawn = prices.at(None, Some("gpt-4o"), crate::period::day("2026-02-01").unwrap()).unwrap().price();
        assert_eq!(drawn.per_image_nanousd(), 40_000_000);
        let price = prices.at(None, Some("gpt-4o"), Day::EPOCH).unwrap().price();
        assert_eq!((price.source(), price.seen()), ("https://openai.com", crate::period::day("2026-01-02")));
    }

    #[test]
    fn a_price_that_is_wrong_is_refused_where_it_stands() {
        let refused = |price: &str| Config::parse(&format!("prices:\n  - {price}\n"), "f").unwrap_err().to_string();
        for (price, what) in [
            (
                "{ model: a, input: 1, from: 2026-02-30 }",
                "f:2:33: prices[0].from: `2026-02-30` is no day of 1970 or later, such as 2026-01-31",
            ),
            (
                "{ model: a, input: 1, provider: '' }",
                "f:2:37: prices[0].provider: a name has 1 to 256 bytes; this one has 0",
            ),
            (
                "{ model: a, from: 2026-01-31 }",
                "f:2:5: prices[0]: names no price; give input: 0 for a model that costs nothing",
            ),
            (
                "{ model: a, input: 1, long_context: { above_tokens: 5 } }",
                "f:2:5: prices[0].long_context: names no price; leave it out where long prompts cost the same",
            ),
            (
                "{ model: a, input: 1, long_context: { above_tokens: 0, input: 1 } }",
                "f:2:57: prices[0].long_context.above_tokens: 0 is not between 1 and 1000000000",
            ),
            (
                "{ model: a, input: 1, long_context: { above_tokens: 5, inputs: 1 } }",
                "f:2:60: prices[0].long_context.inputs: unknown field",
            ),
            (
                "{ model: a, from: 2026-01-31, input: 1 }\n  - { model: a, from: 2026-01-31, output: 1 }",
                "f:2:3: prices: [1] and [0] are both for a from 2026-01-31; keep one of them",
            ),
        ] {
            let said = refused(price);
            assert!(said.starts_with(what), "{said}");
        }
        let two = "prices:\n  - { model: a, input: 1 }\n  - { model: a, provider: b, input: 1 }\n  - { model: a, from: 2026-01-31, input: 1 }\n";
        Config::parse(two, "f").unwrap();
    }
}
