//! The configuration as it is written, each field with its default.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;

use serde::Deserialize;
use tollgate_domain::{Limit, LimitError, Plan, Plans, Prices, Unit, UnknownTier, Window};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};

use super::{ConfigError, Engine, LogFormat};
use crate::limiter::Policy;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    grpc: Grpc,
    rest: Rest,
    limiter: Limiter,
    counters: Engine,
    ledger: Ledger,
    log: Log,
    tiers: Tiers,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Grpc {
    listen: SocketAddr,
}

impl Default for Grpc {
    fn default() -> Grpc {
        Grpc { listen: (Ipv4Addr::LOCALHOST, 8081).into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rest {
    listen: SocketAddr,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest { listen: (Ipv4Addr::LOCALHOST, 8080).into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limiter {
    domain: String,
    default_tier: String,
}

impl Default for Limiter {
    fn default() -> Limiter {
        Limiter { domain: "tollgate".to_owned(), default_tier: "starter".to_owned() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ledger {
    sqlite: PathBuf,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { sqlite: PathBuf::from("tollgate.db") }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Log {
    format: LogFormat,
    filter: Filter,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Text, filter: Filter(Targets::new().with_default(LevelFilter::INFO)) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Filter(Targets);

impl TryFrom<String> for Filter {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Filter, ParseError> {
        text.parse().map(Filter)
    }
}

macro_rules! amount {
    ($amount:literal) => {
        const { NonZeroU64::new($amount).unwrap() }
    };
}

/// Given tiers replace the default ones.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Tiers(BTreeMap<String, Tier>);

impl Default for Tiers {
    fn default() -> Tiers {
        let tier = |name: &str, context_tokens, requests, tokens, monthly_tokens| {
            let limits = [
                (Unit::Requests, Window::Minute, requests),
                (Unit::Tokens, Window::Minute, tokens),
                (Unit::Tokens, Window::Month, monthly_tokens),
            ];
            let limits = limits.map(|(unit, window, capacity)| RawLimit { unit, capacity, window: Some(window) });
            let limits = limits.into_iter().map(Limit::try_from).collect::<Result<_, _>>().unwrap_or_default();
            (name.to_owned(), Tier { context_tokens, limits: Limits(limits) })
        };
        Tiers(BTreeMap::from([
            tier("starter", amount!(4_096), amount!(60), amount!(100_000), amount!(1_000_000)),
            tier("pro", amount!(8_192), amount!(120), amount!(250_000), amount!(10_000_000)),
            tier("enterprise", amount!(16_384), amount!(300), amount!(1_000_000), amount!(100_000_000)),
        ]))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier {
    context_tokens: NonZeroU64,
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimit {
    unit: Unit,
    capacity: NonZeroU64,
    window: Option<Window>,
}

impl TryFrom<RawLimit> for Limit {
    type Error = LimitError;

    fn try_from(raw: RawLimit) -> Result<Limit, LimitError> {
        Limit::new(raw.unit, raw.window, raw.capacity)
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<RawLimit>")]
struct Limits(Vec<Limit>);

impl TryFrom<Vec<RawLimit>> for Limits {
    type Error = String;

    fn try_from(raw: Vec<RawLimit>) -> Result<Limits, String> {
        let mut limits: Vec<Limit> = Vec::with_capacity(raw.len());
        for (index, raw) in raw.into_iter().enumerate() {
            let limit = Limit::try_from(raw).map_err(|error| format!("[{index}]: {error}"))?;
            if let Some(first) = limits.iter().position(|other| other.counter() == limit.counter()) {
                return Err(format!("[{index}] and [{first}] both limit {limit}; keep one of them"));
            }
            limits.push(limit);
        }
        Ok(Limits(limits))
    }
}

impl Config {
    /// Checks what no field can know alone.
    pub(super) fn validated(self, name: &str) -> Result<super::Config, ConfigError> {
        let Config { grpc, rest, limiter, counters, ledger, log, tiers } = self;
        let names: Vec<_> = tiers.0.keys().cloned().collect();
        let plans = tiers.0.into_iter().map(|(name, tier)| Plan::new(name, tier.context_tokens.get(), tier.limits.0));
        let (unknown, terms, prices) = (UnknownTier::Default, HashMap::new(), Prices::default());
        let plans = Plans::new(plans.collect(), &limiter.default_tier, unknown, terms, prices).map_err(|_| {
            let (tier, names) = (&limiter.default_tier, names.join(", "));
            ConfigError(format!("{name}: limiter.default_tier: no tier is called `{tier}`; `tiers` has: {names}"))
        })?;
        Ok(super::Config {
            grpc_listen: grpc.listen,
            rest_listen: rest.listen,
            domain: limiter.domain,
            policy: Policy {
                plans,
                reservation_timeout_ms: 600_000,
                answer_percentile: 90,
                unknown_answer_tokens: 1_000,
            },
            counters,
            sqlite: ledger.sqlite,
            log_format: log.format,
            log_filter: log.filter.0,
        })
    }
}
