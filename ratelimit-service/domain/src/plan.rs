//! What a tenant has bought: limits, and how long a prompt may be.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::calendar::Span;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Calls.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Tokens sent to the model.
    InputTokens,
    /// Tokens that the model answered with.
    OutputTokens,
}

impl Unit {
    /// As it is written in configs and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::Tokens => "tokens",
            Unit::InputTokens => "input_tokens",
            Unit::OutputTokens => "output_tokens",
        }
    }
}

/// The time in which a limit's capacity may be spent.
///
/// Up to an hour it is refilled continuously, so a burst of the whole capacity may be followed by what has come back
/// since. A day and a month are those of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Window {
    Second,
    Minute,
    Hour,
    Day,
    Month,
}

/// How a window gives back what was spent in it.
pub(crate) enum Refill {
    Continuous { window_ms: u64 },
    AtTheEndOf(Span),
}

impl Window {
    /// As it is written in configs and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Window::Second => "second",
            Window::Minute => "minute",
            Window::Hour => "hour",
            Window::Day => "day",
            Window::Month => "month",
        }
    }

    /// The calendar period that this window is; `None` for one that is refilled continuously.
    pub fn calendar(self) -> Option<Span> {
        match self.refill() {
            Refill::Continuous { .. } => None,
            Refill::AtTheEndOf(span) => Some(span),
        }
    }

    pub(crate) fn refill(self) -> Refill {
        match self {
            Window::Second => Refill::Continuous { window_ms: 1_000 },
            Window::Minute => Refill::Continuous { window_ms: 60_000 },
            Window::Hour => Refill::Continuous { window_ms: 3_600_000 },
            Window::Day => Refill::AtTheEndOf(Span::Day),
            Window::Month => Refill::AtTheEndOf(Span::Month),
        }
    }
}

/// So much of a unit in a window.
///
/// A tenant has one count for each unit and window, also when its tier changes: the new capacity then holds against what
/// is already spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What is counted.
    pub unit: Unit,
    /// How much may be spent.
    pub capacity: NonZeroU64,
    /// In which time.
    pub window: Window,
}

impl Limit {
    /// Whether both count the same, whatever their capacities.
    pub fn counts_like(&self, other: &Limit) -> bool {
        self.unit == other.unit && self.window == other.window
    }
}

/// Prints its name, such as `requests_per_minute`.
impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_per_{}", self.unit.as_str(), self.window.as_str())
    }
}

/// What a tier's tenants get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tier's name.
    pub tier: String,
    /// The longest prompt, in tokens.
    pub context_tokens: u64,
    /// At most one for each unit and window.
    pub limits: Vec<Limit>,
}

/// The plans by their tiers, one of them the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans {
    by_tier: BTreeMap<String, Plan>,
    default: Plan,
    tracked: Vec<Limit>,
}

/// The default tier is not among the plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTier;

impl Plans {
    /// The given plans; `default_tier` names the one for calls whose tier is missing or unknown.
    ///
    /// # Errors
    /// When no plan has the default tier.
    pub fn new(plans: Vec<Plan>, default_tier: &str) -> Result<Plans, UnknownTier> {
        let default = plans.iter().find(|plan| plan.tier == default_tier).ok_or(UnknownTier)?.clone();
        let mut tracked: Vec<Limit> = Vec::new();
        for limit in plans.iter().flat_map(|plan| &plan.limits) {
            if !tracked.iter().any(|other| other.counts_like(limit)) {
                tracked.push(*limit);
            }
        }
        let by_tier = plans.into_iter().map(|plan| (plan.tier.clone(), plan)).collect();
        Ok(Plans { by_tier, default, tracked })
    }

    /// The plan of this tier.
    pub fn get(&self, tier: &str) -> Option<&Plan> {
        self.by_tier.get(tier)
    }

    /// The plan for calls whose tier is missing or unknown.
    pub fn default_plan(&self) -> &Plan {
        &self.default
    }

    /// All plans, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Plan> {
        self.by_tier.values()
    }

    /// One limit for each unit and window that any plan limits: what must be counted for a tenant, whose tier may change.
    pub fn tracked(&self) -> &[Limit] {
        &self.tracked
    }
}
