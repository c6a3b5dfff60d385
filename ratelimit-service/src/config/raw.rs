//! The configuration as it is written, each field with its default.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;

use serde::Deserialize;
use tollgate_domain::{Limit, Plan, Plans, Unit, Window};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};

use super::{ConfigError, LogFormat};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    grpc: Grpc,
    rest: Rest,
    limiter: Limiter,
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
            let limit = |unit, capacity, window| Limit { unit, capacity, window };
            let limits = Limits(vec![
                limit(Unit::Requests, requests, Window::Minute),
                limit(Unit::Tokens, tokens, Window::Minute),
                limit(Unit::Tokens, monthly_tokens, Window::Month),
            ]);
            (name.to_owned(), Tier { context_tokens, limits })
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
#[serde(try_from = "Vec<Limit>")]
struct Limits(Vec<Limit>);

impl TryFrom<Vec<Limit>> for Limits {
    type Error = String;

    fn try_from(limits: Vec<Limit>) -> Result<Limits, String> {
        for (index, limit) in limits.iter().enumerate() {
            if let Some(first) = limits[..index].iter().position(|other| other.counts_like(limit)) {
                return Err(format!("[{index}] and [{first}] both limit {limit}; keep one of them"));
            }
        }
        Ok(Limits(limits))
    }
}

impl Config {
    /// Checks what no field can know alone.
    pub(super) fn validated(self, name: &str) -> Result<super::Config, ConfigError> {
        let Config { grpc, rest, limiter, ledger, log, tiers } = self;
        let names: Vec<_> = tiers.0.keys().cloned().collect();
        let plans = tiers.0.into_iter().map(|(name, tier)| Plan::new(name, tier.context_tokens.get(), tier.limits.0));
        let plans = Plans::new(plans.collect(), &limiter.default_tier).map_err(|_| {
            let (tier, names) = (&limiter.default_tier, names.join(", "));
            ConfigError(format!("{name}: limiter.default_tier: no tier is called `{tier}`; `tiers` has: {names}"))
        })?;
        Ok(super::Config {
            grpc_listen: grpc.listen,
            rest_listen: rest.listen,
            domain: limiter.domain,
            plans,
            sqlite: ledger.sqlite,
            log_format: log.format,
            log_filter: log.filter.0,
        })
    }
}
