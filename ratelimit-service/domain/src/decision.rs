//! What a call asks of each limit, and what the limits say to it.

use crate::amount::MAX_AMOUNT;
use crate::counter::{Counter, Rule};
use crate::limit::{Action, Limit, Unit};

/// What a call asks of one limit.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'p> {
    /// Which limit.
    pub limit: &'p Limit,
    /// How its counter is to be read now.
    pub rule: Rule,
    /// How much of it; 0 asks whether anything is left.
    pub amount: u64,
    /// What its word is worth.
    pub role: Role,
}

/// What a limit's word is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Without room there, the call is denied.
    Binding,
    /// Without room there, the call is admitted with a warning.
    Warning,
    /// Only metrics tell.
    Shadow,
    /// It belongs to another plan, and is counted lest it begin at nothing when the tenant changes to that one.
    Tracked,
}

impl Ask<'_> {
    /// How much may be spent of it. A limit that binds nobody is gone over without end: where it is refilled, it owes no
    /// more than this, so that it recovers when the load does.
    pub(crate) fn most_spent(&self) -> u64 {
        match (self.role, self.rule) {
            (Role::Warning | Role::Shadow, Rule::Refilled { burst, .. }) => burst.saturating_mul(2).min(MAX_AMOUNT),
            _ => MAX_AMOUNT,
        }
    }
}

impl From<Action> for Role {
    fn from(action: Action) -> Role {
        match action {
            Action::Enforce => Role::Binding,
            Action::Warn => Role::Warning,
            Action::Shadow => Role::Shadow,
        }
    }
}

/// May the call go on?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It fits.
    Admitted,
    /// It does not.
    Denied,
}

/// What an engine answers: what all binding limits say together, and the counters as they stand afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Taken, or nothing taken at all.
    pub outcome: Outcome,
    /// One for each ask, in order, brought to `now_ms`.
    pub counters: Vec<Counter>,
    /// For how many calls there are reservations: of those to be lent to, or the one that asked for one.
    pub reserved: usize,
    /// The engine's clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Where one limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'p> {
    /// Which limit.
    pub limit: &'p Limit,
    /// What this limit says to the call.
    pub outcome: Outcome,
    /// What is spent or held; more than the limit's depth when it is in debt.
    pub used: u64,
    /// Of it, what open reservations hold.
    pub held: u64,
    /// What is left.
    pub remaining: u64,
    /// Milliseconds until the limit would admit, when it denied; `None` when it never would, the amount being more than
    /// it ever holds. For a limit that admitted: until nothing is spent of it. What is held counts as though it were
    /// spent: when its calls end is not known.
    pub reset_ms: Option<u64>,
}

impl<'p> Standing<'p> {
    /// Where the limit stands for one who asks for nothing.
    pub fn of(limit: &'p Limit, rule: &Rule, counter: &Counter, now_ms: u64) -> Standing<'p> {
        let (used, held, outcome) = (counter.used(), counter.held, Outcome::Admitted);
        let (remaining, reset_ms) = (rule.depth().saturating_sub(used), Some(counter.reset_ms(rule, now_ms)));
        Standing { limit, outcome, used, held, remaining, reset_ms }
    }

    fn denying(ask: &Ask<'p>, counter: &Counter, now_ms: u64) -> Standing<'p> {
        let reset_ms = counter.wait_ms(&ask.rule, ask.amount, now_ms);
        Standing { outcome: Outcome::Denied, reset_ms, ..Standing::of(ask.limit, &ask.rule, counter, now_ms) }
    }

    /// Whether a caller should hear of this limit rather than of `other`: one that denied before one that did not; of two
    /// that denied the one that does so longer, of two that did not the one with the smaller share left.
    fn outranks(&self, other: &Standing<'_>) -> bool {
        match (self.outcome, other.outcome) {
            (Outcome::Denied, Outcome::Denied) => {
                self.reset_ms.unwrap_or(u64::MAX) > other.reset_ms.unwrap_or(u64::MAX)
            }
            (Outcome::Admitted, Outcome::Admitted) => {
                u128::from(self.remaining) * u128::from(other.limit.burst.get())
                    < u128::from(other.remaining) * u128::from(self.limit.burst.get())
            }
            (mine, _) => mine == Outcome::Denied,
        }
    }
}

/// The answer to a call: the decision of all limits, and for what it asks for the binding limit to tell of, the one that
/// denied or else the nearest to its end. A limit of both kinds of tokens stands for both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<'p> {
    /// What all limits say together.
    pub outcome: Outcome,
    /// Of the limits of calls and of concurrency.
    pub requests: Option<Standing<'p>>,
    /// Of the limits that count input.
    pub input_tokens: Option<Standing<'p>>,
    /// Of the limits that count output or cost.
    pub output_tokens: Option<Standing<'p>>,
    /// Limits that only warn, and had no room.
    pub warnings: Vec<&'p Limit>,
    /// Limits that only count, and had no room.
    pub shadowed: Vec<&'p Limit>,
}

impl<'p> Decision<'p> {
    /// What a verdict says of what was asked.
    pub fn new(asks: &[Ask<'p>], verdict: &Verdict) -> Decision<'p> {
        let (warnings, shadowed) = (Vec::new(), Vec::new());
        let outcome = verdict.outcome;
        let mut decision =
            Decision { outcome, requests: None, input_tokens: None, output_tokens: None, warnings, shadowed };
        for (ask, counter) in asks.iter().zip(&verdict.counters) {
            decision.hear(ask, counter, verdict.now_ms);
        }
        decision
    }

    fn hear(&mut self, ask: &Ask<'p>, counter: &Counter, now_ms: u64) {
        match ask.role {
            Role::Binding => {}
            // What was admitted is taken already.
            Role::Warning | Role::Shadow => {
                if self.outcome == Outcome::Admitted && counter.used() > ask.rule.depth() {
                    let exceeded = if ask.role == Role::Warning { &mut self.warnings } else { &mut self.shadowed };
                    exceeded.push(ask.limit);
                }
                return;
            }
            Role::Tracked => return,
        }
        let standing = match self.outcome {
            Outcome::Denied if !counter.fits(&ask.rule, ask.amount) => Standing::denying(ask, counter, now_ms),
            _ => Standing::of(ask.limit, &ask.rule, counter, now_ms),
        };
        let tell = |place: &mut Option<Standing<'p>>| {
            if place.is_none_or(|told| standing.outranks(&told)) {
                *place = Some(standing);
            }
        };
        match ask.limit.unit {
            Unit::Requests | Unit::Concurrency => tell(&mut self.requests),
            Unit::InputTokens => tell(&mut self.input_tokens),
            Unit::OutputTokens | Unit::Cost => tell(&mut self.output_tokens),
            Unit::Tokens => {
                tell(&mut self.input_tokens);
                tell(&mut self.output_tokens);
            }
        }
    }

    /// The limit that denied the call, the one that does so longest where several did.
    pub fn denied_by(&self) -> Option<Standing<'p>> {
        let told = [self.requests, self.input_tokens, self.output_tokens].into_iter().flatten();
        told.filter(|standing| standing.outcome == Outcome::Denied)
            .reduce(|first, next| if next.outranks(&first) { next } else { first })
    }
}
