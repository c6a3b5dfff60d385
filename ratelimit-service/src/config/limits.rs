//! Limits as they are written, with their weights and the calls that they count.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use tollgate_domain::{Action, Limit, LimitError, MAX_LIMITS, Scope, TokenClass, Unit, Weight, Weights, Window};

use super::FIELD;
use super::by_class::by_class;
use super::scalar::{self, Capacity, Name, Pattern, TokenWeight};

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
    keys: Vec<Name>,
}

impl TryFrom<RawMatch> for Match {
    type Error = &'static str;

    fn try_from(raw: RawMatch) -> Result<Match, &'static str> {
        if raw.models.is_empty() && raw.apis.is_empty() && raw.keys.is_empty() {
            return Err("names no models, apis or keys; leave it out for all calls");
        }
        let patterns = |patterns: &[Pattern]| patterns.iter().map(Into::into).collect();
        let keys = raw.keys.into_iter().map(|Name(key)| key).collect();
        Ok(Match(Scope { models: patterns(&raw.models), apis: patterns(&raw.apis), keys }))
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
pub(super) fn first_pair<T>(all: &[T], are_alike: impl Fn(&T, &T) -> bool) -> Option<(usize, usize)> {
    let earlier = |second: usize| all[..second].iter().position(|first| are_alike(first, &all[second]));
    (0..all.len()).find_map(|second| earlier(second).map(|first| (first, second)))
}
