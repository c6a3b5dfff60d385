//! What a limit may be, and is hardly meant to be.

use std::num::NonZeroU64;

use tollgate_domain::{Action, Limit, Side, Unit};
use tollgate_usage::Format;

/// What of the rest of the configuration a limit is held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// The longest prompt; `None` where it is the tier's.
    pub(super) context_tokens: Option<NonZeroU64>,
    /// How long an answer is taken to be of which nothing is known.
    pub(super) unknown_answer_tokens: u64,
    /// Whether every model has a price.
    pub(super) prices_are_complete: bool,
}

/// All of it, each beginning with the field where it is a single one.
pub(super) fn of(limit: &Limit, around: &Around) -> Vec<String> {
    let mut warnings = Vec::new();
    if limit.unit == Unit::Cost && !around.prices_are_complete {
        warnings.push("calls of models without a price cost nothing here; end `prices` with one for *".to_owned());
    }
    // Where they are weighed, tokens cannot be held against it.
    let is_strict = limit.action == Action::Enforce && limit.weights.is_plain();
    let (burst, unknown) = (limit.burst, around.unknown_answer_tokens);
    if matches!(limit.unit, Unit::Tokens | Unit::InputTokens)
        && is_strict
        && around.context_tokens.is_some_and(|context_tokens| burst < context_tokens)
    {
        warnings.push(format!("a prompt as long as context_tokens never passes: {burst} are taken at once"));
    }
    if matches!(limit.unit, Unit::Tokens | Unit::OutputTokens) && is_strict && burst.get() < unknown {
        warnings.push(format!(
            "a call without a cap holds all of it: its answer is taken to have limiter.unknown_answer_tokens, {unknown}, and \
             {burst} are taken at once"
        ));
    }
    let is_idle = |side: Side| match limit.unit {
        Unit::Requests => true,
        Unit::InputTokens => side == Side::Output,
        Unit::OutputTokens => side == Side::Input,
        Unit::Tokens | Unit::Cost | Unit::Concurrency => false,
    };
    if limit.weights.classes().any(|class| is_idle(class.side())) {
        warnings
            .push(format!("weights: some are of tokens that {} do not count, and change nothing", limit.unit.as_str()));
    }
    let is_unknown =
        |pattern: &&tollgate_domain::Pattern| !Format::all().any(|format| pattern.matches(format.as_str()));
    for pattern in limit.scope.apis.iter().filter(is_unknown) {
        let known: Vec<_> = Format::all().map(Format::as_str).collect();
        warnings.push(format!("match.apis: `{pattern}` is none that the filter knows: {}", known.join(", ")));
    }
    warnings
}
