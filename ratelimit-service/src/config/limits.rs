//! Limits as they are written, with their weights and the calls that they count.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use tollgate_domain::{Action, Limit, LimitError, MAX_LIMITS, Price, Scope, TokenClass, Unit, Weight, Weights, Window};

use super::FIELD;
use super::scalar::{self, Capacity, Pattern, TokenWeight, Usd};

/// The most prices.
pub const MAX_PRICES: usize = 1000;

/// A mapping that has a key for each class of token, beside those given.
macro_rules! by_class {
    ($name:ident<$value:ty> { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($(#[$attribute])* $field: $type,)*
            input: Option<$value>,
            cache_read: Option<$value>,
            cache_write: Option<$value>,
            cache_write_1h: Option<$value>,
            audio_input: Option<$value>,
            output: Option<$value>,
            reasoning: Option<$value>,
            audio_output: Option<$value>,
        }

        impl $name {
            /// Those that are given.
            fn classes(&self) -> impl Iterator<Item = (TokenClass, $value)> {
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
                .into_iter()
                .filter_map(|(class, value)| value.map(|value| (class, value)))
            }
        }
    };
}

by_class! {
    RawWeights<TokenWeight> {
        #[serde(default)]
        models: Ordered<Pattern, TokenWeight>,
    }
}

impl From<RawWeights> for Weights {
    fn from(raw: RawWeights) -> Weights {
        let classes: Vec<(TokenClass, Weight)> =
            raw.classes().map(|(class, TokenWeight(weight))| (class, weight)).collect();
        let models = raw.models.0.iter().map(|(model, TokenWeight(weight))| (model.into(), *weight));
        Weights::new(classes, models.collect())
    }
}

/// A mapping in the order in which it is written.
#[derive(Debug)]
struct Ordered<K, V>(Vec<(K, V)>);

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Ordered<K, V> {
        Ordered(Vec::new())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Ordered<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ordered<K, V>, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = Ordered<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<K, V>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "RawMatch")]
struct Match(Scope);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawMatch {
    models: Vec<Pattern>,
    apis: Vec<Pattern>,
}

impl TryFrom<RawMatch> for Match {
    type Error = &'static str;

    fn try_from(raw: RawMatch) -> Result<Match, &'static str> {
        if raw.models.is_empty() && raw.apis.is_empty() {
            return Err("names neither models nor apis; leave it out for all calls");
        }
        let patterns = |patterns: &[Pattern]| patterns.iter().map(Into::into).collect();
        Ok(Match(Scope { models: patterns(&raw.models), apis: patterns(&raw.apis) }))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimit {
    unit: Unit,
    capacity: Capacity,
    window: Option<Window>,
    burst: Option<Capacity>,
    #[serde(default)]
    action: Action,
    #[serde(rename = "match")]
    scope: Option<Match>,
    weights: Option<RawWeights>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawLimit")]
struct OneLimit(Limit);

impl TryFrom<RawLimit> for OneLimit {
    type Error = String;

    fn try_from(raw: RawLimit) -> Result<OneLimit, String> {
        let RawLimit { unit, capacity, window, burst, action, scope, weights } = raw;
        let said = |error: LimitError| format!("{FIELD}{error}");
        let too_large = |error: LimitError, key: &str| match error {
            LimitError::TooLarge => scalar::too_large(key),
            error => said(error),
        };
        let limit = Limit::new(unit, window, capacity.in_unit(unit, "capacity")?)
            .map_err(|error| too_large(error, "capacity"))?;
        let limit = match burst {
            Some(burst) => {
                limit.with_burst(burst.in_unit(unit, "burst")?).map_err(|error| too_large(error, "burst"))?
            }
            None => limit,
        };
        let scope = scope.map_or_else(Scope::default, |Match(scope)| scope);
        let weights = weights.map_or_else(Weights::default, Weights::from);
        limit.with_action(action).with_scope(scope).with_weights(weights).map(OneLimit).map_err(said)
    }
}

/// At most [`MAX_LIMITS`], each of which counts something else.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Vec<OneLimit>")]
pub(super) struct Limits(pub(super) Vec<Limit>);

impl TryFrom<Vec<OneLimit>> for Limits {
    type Error = String;

    fn try_from(given: Vec<OneLimit>) -> Result<Limits, String> {
        if given.len() > MAX_LIMITS {
            return Err(format!("{} limits; at most {MAX_LIMITS} hold together", given.len()));
        }
        let limits: Vec<Limit> = given.into_iter().map(|OneLimit(limit)| limit).collect();
        match first_pair(&limits, |a, b| a.counter() == b.counter()) {
            Some((first, second)) => {
                Err(format!("[{second}] and [{first}] both limit {}; keep one of them", limits[first]))
            }
            None => Ok(Limits(limits)),
        }
    }
}

/// The places of the first two that are alike.
fn first_pair<T>(all: &[T], are_alike: impl Fn(&T, &T) -> bool) -> Option<(usize, usize)> {
    let earlier = |second: usize| all[..second].iter().position(|first| are_alike(first, &all[second]));
    (0..all.len()).find_map(|second| earlier(second).map(|first| (first, second)))
}

by_class! {
    RawPrice<Usd<6>> {
        model: Pattern,
        per_request: Option<Usd<9>>,
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "RawPrice")]
struct OnePrice {
    model: Pattern,
    price: Price,
}

impl TryFrom<RawPrice> for OnePrice {
    type Error = &'static str;

    fn try_from(raw: RawPrice) -> Result<OnePrice, &'static str> {
        // A millionth of a dollar for a million tokens is 1e-12 dollars for each.
        let per_token_picousd: Vec<_> = raw.classes().map(|(class, Usd(millionths))| (class, millionths)).collect();
        if per_token_picousd.is_empty() && raw.per_request.is_none() {
            return Err("names no price; give input: 0 for a model that costs nothing");
        }
        let per_request_nanousd = raw.per_request.map_or(0, |Usd(nano)| nano);
        let price = Price { model: (&raw.model).into(), per_token_picousd, per_request_nanousd };
        Ok(OnePrice { model: raw.model, price })
    }
}

/// At most [`MAX_PRICES`], each of other models.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<OnePrice>")]
pub(super) struct Prices {
    pub(super) prices: Vec<Price>,
    /// Whether every model has one.
    pub(super) are_complete: bool,
}

impl TryFrom<Vec<OnePrice>> for Prices {
    type Error = String;

    fn try_from(given: Vec<OnePrice>) -> Result<Prices, String> {
        if given.len() > MAX_PRICES {
            return Err(format!("{} prices; at most {MAX_PRICES} are taken", given.len()));
        }
        if let Some((first, second)) = first_pair(&given, |a, b| a.model == b.model) {
            return Err(format!(
                "[{second}] and [{first}] are both for {}; keep one of them",
                given[first].model.as_str()
            ));
        }
        let are_complete = given.iter().any(|price| price.model.as_str() == "*");
        Ok(Prices { prices: given.into_iter().map(|OnePrice { price, .. }| price).collect(), are_complete })
    }
}
