//! Tenants, plans and what tenants have agreed on, budgets, webhooks and prices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tollgate_domain::MAX_AMOUNT;
use utoipa::ToSchema;

use super::error::Invalid;
use super::record::{Json, Kind, MAX_METADATA_BYTES, check_name, check_names, check_size};
use crate::config::MAX_THRESHOLDS;
use crate::config::documents::{LimitsDocument, PriceDocument, TermsDocument};
use crate::secret::Secret;

/// The highest mark-up, in parts per million of the list price: a hundred times that.
pub const MAX_MARKUP_PPM: u64 = 100_000_000;

/// The highest threshold of a budget, in percent of it.
pub const MAX_THRESHOLD_PERCENT: u16 = 1000;

/// The longest URL of a webhook, in bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// The most kinds of events that a webhook is told of.
pub const MAX_EVENT_KINDS: usize = 32;

/// The most webhooks of one tenant, and of the operator.
pub const MAX_WEBHOOKS_OF_ONE: usize = 16;

/// Who pays. Its id is its name in the tenant's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// What people call it, unless that is its id.
    pub display_name: Option<String>,
    /// The plan that it is on, whatever its calls say.
    pub tier: Option<String>,
    /// Whether it may call.
    #[serde(default)]
    pub status: TenantStatus,
    /// A moment at which one of its days and months began, milliseconds since the Unix epoch; `None`: as in UTC.
    pub billing_anchor_ms: Option<u64>,
    /// The name of its time zone in the IANA database. Only its shape is checked.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// What else is to be remembered of it, at most [`MAX_METADATA_BYTES`].
    #[serde(default)]
    pub metadata: BTreeMap<String, Json>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Whether a tenant may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// It may.
    #[default]
    Active,
    /// It may not.
    Suspended,
}

impl Kind for Tenant {
    const NAME: &'static str = "tenant";
    const TABLE: &'static str = "tenants";

    fn tenant<'a>(&'a self, id: &'a str) -> Option<&'a str> {
        Some(id)
    }

    fn check(&self) -> Result<(), Invalid> {
        self.display_name.iter().try_for_each(|name| check_name("display_name", name))?;
        self.tier.iter().try_for_each(|tier| check_name("tier", tier))?;
        check_name("time_zone", &self.time_zone)?;
        if !self.time_zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte)) {
            return Err(Invalid::new("time_zone", "is no name of a time zone, such as Europe/Berlin or UTC"));
        }
        check_size("metadata", &serde_json::to_string(&self.metadata).unwrap_or_default(), MAX_METADATA_BYTES)
    }
}

/// What a tier's tenants get. Its id is the tier's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The longest prompt, in tokens; at least 1.
    pub context_tokens: u64,
    /// Its limits, as a configuration's `limits` has them.
    #[serde(default = "none")]
    #[schema(value_type = LimitsDocument)]
    pub limits: Json,
    /// What its tenants pay, in parts per million of the list price: 1,000,000 is the list price itself.
    #[serde(default = "list_price")]
    pub markup_ppm: u64,
    /// How it is billed.
    #[serde(default = "nothing_agreed")]
    #[schema(value_type = TermsDocument)]
    pub billing: Json,
}

fn none() -> Json {
    Json::text_of("[]")
}

fn list_price() -> u64 {
    1_000_000
}

fn nothing_agreed() -> Json {
    Json::text_of("{}")
}

impl Kind for Plan {
    const NAME: &'static str = "plan";
    const TABLE: &'static str = "plans";
    const IS_TIER: bool = true;

    fn tenant<'a>(&'a self, _: &'a str) -> Option<&'a str> {
        None
    }

    fn check(&self) -> Result<(), Invalid> {
        if self.context_tokens == 0 {
            return Err(Invalid::new("context_tokens", "is zero"));
        }
        match self.markup_ppm {
            0..=MAX_MARKUP_PPM => Ok(()),
            more => Err(Invalid::new("markup_ppm", format!("is {more}; at most {MAX_MARKUP_PPM} are charged"))),
        }
    }
}

/// What a tenant has agreed on instead of parts of its plan. Its id is the tenant's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitOverrides {
    /// The longest prompt, in tokens, at least 1; `None`: as in the plan.
    pub context_tokens: Option<u64>,
    /// Limits beside the plan's, or instead of those that count the same.
    #[serde(default = "none")]
    #[schema(value_type = LimitsDocument)]
    pub limits: Json,
}

impl Kind for LimitOverrides {
    const NAME: &'static str = "limit_overrides";
    const TABLE: &'static str = "limit_overrides";

    fn tenant<'a>(&'a self, id: &'a str) -> Option<&'a str> {
        Some(id)
    }

    fn check(&self) -> Result<(), Invalid> {
        match self.context_tokens {
            Some(0) => Err(Invalid::new("context_tokens", "is zero")),
            _ => Ok(()),
        }
    }
}

/// A cap on what is spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Whose.
    pub tenant: String,
    /// Of which of its keys, as calls name them; `None`: of all its calls.
    pub key: Option<String>,
    /// How much in a month of the tenant's, which begins as its billing anchor says, in 1e-9 US dollars: from 1 to
    /// [`MAX_AMOUNT`].
    pub amount_nanousd: u64,
    /// What happens when it is spent.
    pub enforcement: Enforcement,
    /// At which shares of it, in percent, that is told: rising.
    #[serde(default)]
    pub thresholds: Vec<u16>,
}

/// What happens when a budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Calls are denied.
    Hard,
    /// It is told, and calls go on.
    Soft,
}

impl Kind for Budget {
    const NAME: &'static str = "budget";
    const TABLE: &'static str = "budgets";

    fn tenant<'a>(&'a self, _: &'a str) -> Option<&'a str> {
        Some(&self.tenant)
    }

    fn check(&self) -> Result<(), Invalid> {
        self.key.iter().try_for_each(|key| check_name("key", key))?;
        if !(1..=MAX_AMOUNT).contains(&self.amount_nanousd) {
            return Err(Invalid::new("amount_nanousd", format!("is not from 1 to {MAX_AMOUNT}")));
        }
        let thresholds = &self.thresholds;
        if thresholds.len() > MAX_THRESHOLDS {
            return Err(Invalid::new("thresholds", format!("at most {MAX_THRESHOLDS} are looked at")));
        }
        let are_within = thresholds.iter().all(|percent| (1..=MAX_THRESHOLD_PERCENT).contains(percent));
        match are_within && thresholds.is_sorted_by(|earlier, later| earlier < later) {
            true => Ok(()),
            false => Err(Invalid::new("thresholds", format!("give 1 to {MAX_THRESHOLD_PERCENT} percent, rising"))),
        }
    }
}

/// Who is told of what happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEndpoint {
    /// Whose events; `None`: the operator's, which are everybody's.
    pub tenant: Option<String>,
    /// Of which events it is told, by their types; none at all: of every one.
    pub event_kinds: Vec<String>,
    /// Whether it may be on this machine or a private network: the operator's alone.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// Where it is. Its path may be a secret, so it is no part of its JSON.
    #[serde(skip, default = "nothing")]
    pub url: Secret,
    /// What messages are signed with.
    #[serde(skip, default = "nothing")]
    pub secret: Secret,
}

fn nothing() -> Secret {
    Secret::new("")
}

impl Kind for WebhookEndpoint {
    const NAME: &'static str = "webhook_endpoint";
    const TABLE: &'static str = "webhook_endpoints";
    const COLUMNS: &'static [&'static str] = &["url", "secret"];
    const MOST_OF_ONE: Option<usize> = Some(MAX_WEBHOOKS_OF_ONE);

    fn tenant<'a>(&'a self, _: &'a str) -> Option<&'a str> {
        self.tenant.as_deref()
    }

    fn check(&self) -> Result<(), Invalid> {
        check_names("event_kinds", &self.event_kinds, MAX_EVENT_KINDS)?;
        check_name("secret", self.secret.expose())?;
        if self.tenant.is_some() && self.allow_private_addresses {
            return Err(Invalid::new("allow_private_addresses", "is for the operator's own: a tenant's are public"));
        }
        match self.url.expose() {
            "" => Err(Invalid::new("url", "is missing")),
            url if url.contains(char::is_control) => Err(Invalid::new("url", "has control characters")),
            url => check_size("url", url, MAX_URL_BYTES),
        }
    }

    fn columns(&self) -> Vec<String> {
        [&self.url, &self.secret].map(|secret| secret.expose().to_owned()).into()
    }

    fn restore(&mut self, columns: Vec<String>) {
        let mut columns = columns.into_iter().map(Secret::new);
        self.url = columns.next().unwrap_or_else(nothing);
        self.secret = columns.next().unwrap_or_else(nothing);
    }
}

/// A price version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceRow {
    /// Whose layer it is in: a tenant's own; `None`: the operator's, for all.
    pub tenant: Option<String>,
    /// Where it stands in its layer, from the first on; those that share a place stand by their ids.
    #[serde(default)]
    pub position: u32,
    /// The models, the first day and the prices.
    #[schema(value_type = PriceDocument)]
    pub price: Json,
}

impl Kind for PriceRow {
    const NAME: &'static str = "price";
    const TABLE: &'static str = "prices";

    fn tenant<'a>(&'a self, _: &'a str) -> Option<&'a str> {
        self.tenant.as_deref()
    }

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}
