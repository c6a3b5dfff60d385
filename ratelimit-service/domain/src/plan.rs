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

/// How much longer than its plan's context a prompt may seem, in percent of the context, before it is denied.
///
/// Its length is an estimate, whose error is 3 to 13 % in the median, and a prompt that fits should not be denied. What is
/// really too long for the model is refused by the provider.
pub const CONTEXT_TOLERANCE_PERCENT: u64 = 25;

/// What a tier's tenants get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tier's name.
    pub tier: String,
    /// The longest prompt, in tokens; see [`Plan::check_context`].
    pub context_tokens: u64,
    /// At most one for each unit and window.
    pub limits: Vec<Limit>,
    others: Vec<Limit>,
}

impl Plan {
    /// A plan that stands alone.
    pub fn new(tier: String, context_tokens: u64, limits: Vec<Limit>) -> Plan {
        Plan { tier, context_tokens, limits, others: Vec::new() }
    }

    /// Whether a prompt of an estimated `input_tokens` may go on to the limits. It may still take more than is left of
    /// them.
    ///
    /// # Errors
    /// When it exceeds `context_tokens` by more than [`CONTEXT_TOLERANCE_PERCENT`].
    pub fn check_context(&self, input_tokens: u64) -> Result<(), ContextExceeded> {
        let longest_percent = u128::from(self.context_tokens) * u128::from(100 + CONTEXT_TOLERANCE_PERCENT);
        if u128::from(input_tokens) * 100 > longest_percent { Err(ContextExceeded) } else { Ok(()) }
    }

    /// What is counted for this plan's tenants: its own limits, and of what other plans limit besides one each, since a
    /// tenant's tier may change.
    pub fn counted(&self) -> impl Iterator<Item = &Limit> {
        self.limits.iter().chain(&self.others)
    }

    fn counts(&self, limit: &Limit) -> bool {
        self.counted().any(|own| own.counts_like(limit))
    }
}

/// A prompt is longer than its plan's context. Waiting does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextExceeded;

/// The plans by their tiers, one of them the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans {
    by_tier: BTreeMap<String, Plan>,
    default: Plan,
}

/// The default tier is not among the plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTier;

impl Plans {
    /// The given plans; `default_tier` names the one for calls whose tier is missing or unknown.
    ///
    /// # Errors
    /// When no plan has the default tier.
    pub fn new(mut plans: Vec<Plan>, default_tier: &str) -> Result<Plans, UnknownTier> {
        let all: Vec<Limit> = plans.iter().flat_map(|plan| &plan.limits).copied().collect();
        for plan in &mut plans {
            for limit in &all {
                if !plan.counts(limit) {
                    plan.others.push(*limit);
                }
            }
        }
        let default = plans.iter().find(|plan| plan.tier == default_tier).ok_or(UnknownTier)?.clone();
        let by_tier = plans.into_iter().map(|plan| (plan.tier.clone(), plan)).collect();
        Ok(Plans { by_tier, default })
    }

    /// The plan of this tier.
    pub fn get(&self, tier: &str) -> Option<&Plan> {
        self.by_tier.get(tier)
    }

    /// The plan for calls whose tier is missing or unknown.
    pub fn default_plan(&self) -> &Plan {
        &self.default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_may_seem_a_quarter_longer_than_the_context() {
        let checked = |context_tokens, input_tokens| {
            Plan::new("a".to_owned(), context_tokens, Vec::new()).check_context(input_tokens)
        };
        for (context_tokens, longest) in [(1, 1), (3, 3), (4, 5), (100, 125), (u64::MAX / 5 * 4, u64::MAX)] {
            assert_eq!(checked(context_tokens, longest), Ok(()), "{longest} of {context_tokens}");
            if let Some(longer) = longest.checked_add(1) {
                assert_eq!(checked(context_tokens, longer), Err(ContextExceeded), "{longer} of {context_tokens}");
            }
        }
        assert_eq!(checked(u64::MAX / 5 * 4 - 1, u64::MAX), Err(ContextExceeded));
        assert_eq!((checked(u64::MAX, u64::MAX), checked(1, 0)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_plan_counts_its_own_limits_and_what_others_limit_besides() {
        let limit = |unit, capacity, window| Limit { unit, capacity: NonZeroU64::new(capacity).unwrap(), window };
        let (minute, month) = (limit(Unit::Requests, 1, Window::Minute), limit(Unit::Tokens, 2, Window::Month));
        let large = limit(Unit::Requests, 3, Window::Minute);
        let plan = |tier: &str, limits: &[Limit]| Plan::new(tier.to_owned(), 1, limits.to_vec());
        let plans = Plans::new(vec![plan("a", &[minute]), plan("b", &[large, month])], "a").unwrap();
        assert_eq!(plans.default_plan().counted().copied().collect::<Vec<_>>(), [minute, month]);
        assert_eq!(plans.get("b").unwrap().counted().copied().collect::<Vec<_>>(), [large, month]);
        assert_eq!(Plans::new(vec![plan("a", &[])], "b"), Err(UnknownTier));
    }
}
