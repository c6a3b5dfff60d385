//! The words of a decision: what is asked, what was used, and what limits say to it.

use crate::plan::{Limit, Unit};

/// What a call asks for. An amount of 0 asks whether anything is left, and takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Calls.
    pub requests: u64,
    /// Estimated tokens of the prompt.
    pub input_tokens: u64,
    /// Estimated tokens of the answer.
    pub output_tokens: u64,
}

impl Amounts {
    pub(crate) fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.input_tokens.saturating_add(self.output_tokens),
            Unit::InputTokens => self.input_tokens,
            Unit::OutputTokens => self.output_tokens,
        }
    }
}

/// What a finished call has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// All tokens of the prompt.
    pub input_tokens: u64,
    /// All tokens of the answer.
    pub output_tokens: u64,
    /// When the call began: the calendar period that it belongs to.
    pub started_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: u64,
}

/// May the call go on?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It fits.
    Admitted,
    /// It does not.
    Denied,
}

/// Where one limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which limit.
    pub limit: Limit,
    /// What this limit says to the call.
    pub outcome: Outcome,
    /// What is spent; more than the capacity when the limit is in debt.
    pub used: u64,
    /// What is left.
    pub remaining: u64,
    /// Milliseconds until the limit would admit, when it denied; `None` when it never would, the amount being more than
    /// the capacity. For a limit that admitted: until all of its capacity is there again.
    pub reset_ms: Option<u64>,
}

impl Standing {
    /// Whether a caller should hear of this limit rather than of `other`: one that denied before one that did not; of two
    /// that denied the one that does so longer, of two that did not the one with the smaller share left.
    pub(crate) fn outranks(&self, other: &Standing) -> bool {
        match (self.outcome, other.outcome) {
            (Outcome::Denied, Outcome::Denied) => {
                self.reset_ms.unwrap_or(u64::MAX) > other.reset_ms.unwrap_or(u64::MAX)
            }
            (Outcome::Admitted, Outcome::Admitted) => {
                u128::from(self.remaining) * u128::from(other.limit.capacity.get())
                    < u128::from(other.remaining) * u128::from(self.limit.capacity.get())
            }
            (mine, _) => mine == Outcome::Denied,
        }
    }
}

/// The answer to a call: the decision of all limits, and for each amount asked for the limit to tell of, the one that
/// denied or else the nearest to its end. A limit of both kinds of tokens stands for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What all limits say together.
    pub outcome: Outcome,
    /// Of the limits of calls.
    pub requests: Option<Standing>,
    /// Of the limits that count input.
    pub input_tokens: Option<Standing>,
    /// Of the limits that count output.
    pub output_tokens: Option<Standing>,
}

impl Decision {
    /// The limit that denied the call, the one that does so longest where several did.
    pub fn denied_by(&self) -> Option<Standing> {
        let told = [self.requests, self.input_tokens, self.output_tokens].into_iter().flatten();
        told.filter(|standing| standing.outcome == Outcome::Denied)
            .reduce(|first, next| if next.outranks(&first) { next } else { first })
    }
}
