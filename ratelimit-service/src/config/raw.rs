//! The configuration as it is written, each field with its default.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use tollgate_domain::{
    Access, Anchor, LeaseTerms, Limit, MAX_LIMITS, MissingTier, Plan, Plans, Terms, Unit, UnknownTier, Window,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};

use super::accounts::Accounts;
use super::alerts::{Alerts, Webhooks};
use super::billing::Billing;
use super::clickhouse::ClickHouse;
use super::collector::{Collector, Metrics};
use super::limits::Limits;
use super::prices::Prices;
use super::scalar::{BillingAnchor, Name, Within};
use super::sinks::Sinks;
use super::tls::Tls;
use super::warnings::{self, Around};
use super::{ConfigError, Engine, LogFormat};
use crate::limiter::Policy;
use crate::rest::{MAX_RATE, OpenTo, Rate};
use crate::spool::SpoolSettings;

const DEFAULT_TIER: &str = "starter";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    grpc: Grpc,
    rest: Rest,
    limiter: Limiter,
    counters: Engine,
    ledger: Ledger,
    accounts: Accounts,
    billing: Billing,
    spool: Spool,
    collector: Collector,
    sinks: Sinks,
    webhooks: Webhooks,
    alerts: Alerts,
    metrics: Metrics,
    reconcile: Reconcile,
    log: Log,
    tiers: Tiers,
    tenants: BTreeMap<Name, Tenant>,
    prices: Prices,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Grpc {
    listen: SocketAddr,
    tls: Option<Tls>,
}

impl Default for Grpc {
    fn default() -> Grpc {
        Grpc { listen: (Ipv4Addr::LOCALHOST, 8081).into(), tls: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rest {
    listen: SocketAddr,
    tls: Option<Tls>,
    open_to: OpenTo,
    requests_per_second: Within<1, MAX_RATE>,
    burst: Within<1, MAX_RATE>,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            tls: None,
            open_to: OpenTo::Loopback,
            requests_per_second: Within(500),
            burst: Within(1000),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limiter {
    domain: Name,
    default_tier: Spanned<String>,
    unknown_tier: WhenUnknown,
    reservation_timeout_s: Within<1, 86_400>,
    answer_percentile: Within<1, 100>,
    unknown_answer_tokens: Within<0, 10_000_000>,
    /// 0 lends nothing.
    lease_lifetime_ms: Within<0, 60_000>,
    lease_share_percent: Within<1, 100>,
}

impl Default for Limiter {
    fn default() -> Limiter {
        Limiter {
            domain: Name("tollgate".to_owned()),
            default_tier: Spanned::new(DEFAULT_TIER.to_owned(), Location::UNKNOWN, Location::UNKNOWN),
            unknown_tier: WhenUnknown::Default,
            reservation_timeout_s: Within(600),
            answer_percentile: Within(90),
            unknown_answer_tokens: Within(1000),
            lease_lifetime_ms: Within(1000),
            lease_share_percent: Within(5),
        }
    }
}

/// What becomes of a call whose tier is not known.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WhenUnknown {
    Default,
    Deny,
}

impl From<WhenUnknown> for UnknownTier {
    fn from(unknown: WhenUnknown) -> UnknownTier {
        match unknown {
            WhenUnknown::Default => UnknownTier::Default,
            WhenUnknown::Deny => UnknownTier::Deny,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ledger {
    sqlite: PathBuf,
    clickhouse: Option<ClickHouse>,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { sqlite: PathBuf::from("tollgate.db"), clickhouse: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Spool {
    folder: Option<PathBuf>,
    max_mib: Within<1, 1_048_576>,
}

impl Default for Spool {
    fn default() -> Spool {
        Spool { folder: None, max_mib: Within(4096) }
    }
}

impl Spool {
    /// Beside the database, unless it is said where.
    fn settings(self, sqlite: &Path) -> SpoolSettings {
        let beside = || sqlite.with_extension("spool");
        SpoolSettings { folder: self.folder.unwrap_or_else(beside), max_bytes: self.max_mib.get() << 20 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Reconcile {
    every_h: Within<1, 720>,
}

impl Default for Reconcile {
    fn default() -> Reconcile {
        Reconcile { every_h: Within(24) }
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
struct Tiers(BTreeMap<Name, Tier>);

impl Default for Tiers {
    fn default() -> Tiers {
        let tier = |name: &str, context_tokens, requests, tokens, monthly_tokens| {
            let limits = [
                (Unit::Requests, Window::Minute, requests),
                (Unit::Tokens, Window::Minute, tokens),
                (Unit::Tokens, Window::Month, monthly_tokens),
            ];
            let limits = limits.into_iter().map(|(unit, window, capacity)| Limit::new(unit, Some(window), capacity));
            let limits = Limits(limits.collect::<Result<_, _>>().unwrap_or_default());
            (Name(name.to_owned()), Tier { context_tokens, limits })
        };
        Tiers(BTreeMap::from([
            tier(DEFAULT_TIER, amount!(4_096), amount!(60), amount!(100_000), amount!(1_000_000)),
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

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tenant {
    tier: Option<Spanned<String>>,
    billing_anchor: Option<BillingAnchor>,
    context_tokens: Option<NonZeroU64>,
    limits: Limits,
    prices: Prices,
}

impl From<&Tenant> for Terms {
    fn from(tenant: &Tenant) -> Terms {
        Terms {
            tier: tenant.tier.as_ref().map(|tier| tier.value.clone()),
            context_tokens: tenant.context_tokens.map(NonZeroU64::get),
            limits: tenant.limits.0.clone(),
            budgets: Vec::new(),
            anchor: tenant.billing_anchor.map_or(Anchor::UTC, |BillingAnchor(anchor)| anchor),
            access: Access::Open,
            prices: tenant.prices.0.clone(),
        }
    }
}

impl Config {
    /// Checks what no field can know alone.
    pub(super) fn validated(self, file: &str) -> Result<super::Config, ConfigError> {
        let warnings = self.warnings();
        let Config { grpc, rest, limiter, counters, ledger, accounts, spool, collector, metrics, .. } = self;
        let Config { billing, reconcile, sinks, webhooks, alerts, log, tiers, tenants, prices, .. } = self;
        let names = tiers.0.keys().map(|Name(name)| name.clone()).collect();
        let given = Given { file, default_tier: limiter.default_tier, tiers: names, tenants: &tenants };
        let plan = |(Name(name), tier): (Name, Tier)| Plan::new(name, tier.context_tokens.get(), tier.limits.0);
        let terms = tenants.iter().map(|(Name(name), tenant)| (name.clone(), tenant.into()));
        let plans = Plans::new(
            tollgate_domain::Given {
                plans: tiers.0.into_iter().map(plan).collect(),
                terms: terms.collect(),
                prices: Vec::new(),
            },
            &given.default_tier.value,
            limiter.unknown_tier.into(),
            tollgate_domain::Prices::new(prices.0, crate::prices::shipped()),
        );
        let plans = plans.map_err(|missing| given.missing(missing))?;
        given.check_sums(&plans)?;
        if billing.is_automatic() && accounts.are_shared() && ledger.clickhouse.is_none() {
            let what = "with accounts.postgres it needs ledger.clickhouse: a ledger in SQLite has the calls of its own replica \
                        alone, and those of others would be on no invoice";
            return Err(ConfigError::at(file, Location::UNKNOWN, "billing.auto_finalise", what));
        }
        Ok(super::Config {
            grpc_listen: grpc.listen,
            grpc_tls: grpc.tls.map(|Tls(settings)| settings),
            rest_listen: rest.listen,
            rest_tls: rest.tls.map(|Tls(settings)| settings),
            rest_open_to: rest.open_to,
            rest_rate: Rate { per_second: rest.requests_per_second.get(), burst: rest.burst.get() },
            domain: limiter.domain.0,
            policy: Policy {
                plans,
                budgets: Arc::default(),
                reservation_timeout_ms: limiter.reservation_timeout_s.get() * 1000,
                answer_percentile: limiter.answer_percentile.get() as u8,
                unknown_answer_tokens: limiter.unknown_answer_tokens.get(),
                leases: (limiter.lease_lifetime_ms.get() > 0).then(|| LeaseTerms {
                    lifetime_ms: limiter.lease_lifetime_ms.get(),
                    share_percent: limiter.lease_share_percent.get() as u8,
                }),
            },
            counters,
            spool: spool.settings(&ledger.sqlite),
            intake: collector.settings(&ledger.sqlite),
            label_caps: metrics.caps(),
            accounts: accounts.settings(&ledger.sqlite),
            billing: billing.settings(),
            sqlite: ledger.sqlite,
            clickhouse: ledger.clickhouse.map(|ClickHouse(settings)| settings),
            sinks: sinks.0,
            webhooks: webhooks.0,
            alert_thresholds: alerts.thresholds.0,
            reconcile_every: Duration::from_secs(reconcile.every_h.get() * 3600),
            log_format: log.format,
            log_filter: log.filter.0,
            warnings,
        })
    }

    /// What is allowed, and hardly meant.
    fn warnings(&self) -> Vec<String> {
        let tiers = self.tiers.0.iter();
        let tiers = tiers.map(|(name, tier)| (format!("tiers.{name}"), Some(tier.context_tokens), &tier.limits));
        let tenants = self.tenants.iter();
        let tenants = tenants.map(|(name, tenant)| (format!("tenants.{name}"), tenant.context_tokens, &tenant.limits));
        let mut warnings = Vec::new();
        for (path, context_tokens, Limits(limits)) in tiers.chain(tenants) {
            let around = Around {
                context_tokens,
                unknown_answer_tokens: self.limiter.unknown_answer_tokens.get(),
                prices_are_complete: self.prices.are_complete(),
            };
            for (index, limit) in limits.iter().enumerate() {
                let of_limit = warnings::of(limit, &around);
                warnings.extend(of_limit.iter().map(|what| format!("{path}.limits[{index}]: {what}")));
            }
        }
        warnings
    }
}

/// What is left of the text once plans are made of it, to say where it is wrong.
struct Given<'a> {
    file: &'a str,
    default_tier: Spanned<String>,
    tiers: Vec<String>,
    tenants: &'a BTreeMap<Name, Tenant>,
}

impl Given<'_> {
    fn missing(&self, missing: MissingTier) -> ConfigError {
        let default = ("limiter.default_tier".to_owned(), Some(&self.default_tier));
        let (path, tier) = match missing {
            MissingTier::Default => default,
            MissingTier::Of(tenant) => (format!("tenants.{tenant}.tier"), self.tenants[&Name(tenant)].tier.as_ref()),
        };
        let (name, at) = tier.map_or(("", Location::UNKNOWN), |tier| (&tier.value, tier.referenced));
        let what = format!("no tier is called `{name}`; `tiers` has: {}", self.tiers.join(", "));
        ConfigError::at(self.file, at, &path, &what)
    }

    /// A tenant's limits come to those of its tier.
    fn check_sums(&self, plans: &Plans) -> Result<(), ConfigError> {
        for (Name(tenant), _) in self.tenants.iter().filter(|(_, terms)| !terms.limits.0.is_empty()) {
            for tier in &self.tiers {
                let limits = plans.plan(tenant, Some(tier)).map_or(0, |found| found.plan.limits.len());
                if limits > MAX_LIMITS {
                    let path = format!("tenants.{tenant}.limits");
                    let what = format!("{limits} with those of {tier}; at most {MAX_LIMITS} hold together");
                    return Err(ConfigError::at(self.file, Location::UNKNOWN, &path, &what));
                }
            }
        }
        Ok(())
    }
}
