//! What one tenant has spent of its limits, and the decisions that follow.

use crate::bucket::Bucket;
use crate::calendar::{Day, Period, Span};
use crate::plan::{Limit, Plan, Refill, Unit};

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
    fn of(&self, unit: Unit) -> u64 {
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
    fn outranks(&self, other: &Standing) -> bool {
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

/// What one tenant has spent of each limit that it met.
#[derive(Debug, Clone, Default)]
pub struct TenantCounters {
    counters: Vec<Counter>,
}

impl TenantCounters {
    /// Decides about a call, and takes its requests when all limits of the plan agree. Nothing else is taken.
    pub fn take(&mut self, plan: &Plan, amounts: Amounts, now_ms: u64) -> Decision {
        self.advance(&plan.limits, now_ms);
        let fits = |counter: &Counter| counter.standing_for(amounts).outcome == Outcome::Admitted;
        if plan.limits.iter().all(|limit| self.counter(limit).is_none_or(fits)) {
            for limit in plan.limits.iter().filter(|limit| limit.unit == Unit::Requests) {
                self.spend(limit, amounts.requests);
            }
            return self.told(plan, Outcome::Admitted, |counter| counter.standing());
        }
        self.told(plan, Outcome::Denied, |counter| counter.standing_for(amounts))
    }

    /// Decides like [`TenantCounters::take`], and takes nothing.
    pub fn check(&self, plan: &Plan, amounts: Amounts, now_ms: u64) -> Decision {
        self.clone().take(plan, amounts, now_ms)
    }

    /// Takes the tokens of a finished call from every limit that counts them: those in `limits` and all met before.
    ///
    /// A window that is refilled continuously is left alone by a call that ended a whole window ago: what it would have
    /// taken then has come back since. So is a day or month by a call that began before it.
    pub fn settle(&mut self, limits: &[Limit], used: Settlement, now_ms: u64) {
        self.advance(limits, now_ms);
        let amounts = Amounts { requests: 0, input_tokens: used.input_tokens, output_tokens: used.output_tokens };
        for counter in &mut self.counters {
            if counter.reaches_back_to(used, now_ms) {
                counter.spend(amounts.of(counter.limit.unit));
            }
        }
    }

    /// Takes what a ledger says was used in the current calendar period of one length, after a restart.
    pub fn restore(&mut self, limits: &[Limit], span: Span, used: Amounts, now_ms: u64) {
        self.advance(limits, now_ms);
        for counter in &mut self.counters {
            if counter.limit.window.calendar() == Some(span) {
                counter.spend(used.of(counter.limit.unit));
            }
        }
    }

    /// Where each limit of the plan stands, in the plan's order.
    pub fn standings(&self, plan: &Plan, now_ms: u64) -> Vec<Standing> {
        let mut now = self.clone();
        now.advance(&plan.limits, now_ms);
        plan.limits.iter().filter_map(|limit| now.counter(limit)).map(Counter::standing).collect()
    }

    /// Whether nothing is spent any more, so that forgetting this tenant forgives it nothing.
    pub fn is_untouched(&mut self, now_ms: u64) -> bool {
        self.advance(&[], now_ms);
        self.counters.iter().all(|counter| counter.used() == 0)
    }

    /// Brings all counters up to the present, with one for each of `limits`, at its capacity.
    fn advance(&mut self, limits: &[Limit], now_ms: u64) {
        for counter in &mut self.counters {
            counter.advance(now_ms);
        }
        for limit in limits {
            match self.counters.iter_mut().find(|counter| counter.limit.counts_like(limit)) {
                Some(counter) => counter.limit = *limit,
                None => self.counters.push(Counter::new(*limit, now_ms)),
            }
        }
    }

    fn counter(&self, limit: &Limit) -> Option<&Counter> {
        self.counters.iter().find(|counter| counter.limit.counts_like(limit))
    }

    fn spend(&mut self, limit: &Limit, amount: u64) {
        for counter in self.counters.iter_mut().filter(|counter| counter.limit.counts_like(limit)) {
            counter.spend(amount);
        }
    }

    fn told(&self, plan: &Plan, outcome: Outcome, standing: impl Fn(&Counter) -> Standing) -> Decision {
        let mut decision = Decision { outcome, requests: None, input_tokens: None, output_tokens: None };
        for counter in plan.limits.iter().filter_map(|limit| self.counter(limit)) {
            let standing = standing(counter);
            let tell = |place: &mut Option<Standing>| {
                if place.is_none_or(|told| standing.outranks(&told)) {
                    *place = Some(standing);
                }
            };
            match standing.limit.unit {
                Unit::Requests => tell(&mut decision.requests),
                Unit::InputTokens => tell(&mut decision.input_tokens),
                Unit::OutputTokens => tell(&mut decision.output_tokens),
                Unit::Tokens => {
                    tell(&mut decision.input_tokens);
                    tell(&mut decision.output_tokens);
                }
            }
        }
        decision
    }
}

/// What is spent of one limit. All but `new` and `advance` speak of the moment last advanced to.
#[derive(Debug, Clone)]
struct Counter {
    limit: Limit,
    spent: Spent,
}

#[derive(Debug, Clone)]
enum Spent {
    Draining(Bucket),
    InPeriod { span: Span, period: Period, used: u64, now_ms: u64 },
}

impl Counter {
    fn new(limit: Limit, now_ms: u64) -> Counter {
        let spent = match limit.window.refill() {
            Refill::Continuous { window_ms } => Spent::Draining(Bucket::new(window_ms, now_ms)),
            Refill::AtTheEndOf(span) => Spent::InPeriod { span, period: Period::around(span, now_ms), used: 0, now_ms },
        };
        Counter { limit, spent }
    }

    fn advance(&mut self, to_ms: u64) {
        match &mut self.spent {
            Spent::Draining(bucket) => bucket.drain(self.limit.capacity.get(), to_ms),
            Spent::InPeriod { span, period, used, now_ms } => {
                *now_ms = to_ms.max(*now_ms);
                if *now_ms >= period.end.start_ms() {
                    *period = Period::around(*span, *now_ms);
                    *used = 0;
                }
            }
        }
    }

    fn spend(&mut self, amount: u64) {
        match &mut self.spent {
            Spent::Draining(bucket) => bucket.spend(amount),
            Spent::InPeriod { used, .. } => *used = used.saturating_add(amount),
        }
    }

    fn used(&self) -> u64 {
        match &self.spent {
            Spent::Draining(bucket) => bucket.used(),
            Spent::InPeriod { used, .. } => *used,
        }
    }

    /// Whether a call that is settled at `now_ms` still counts here.
    fn reaches_back_to(&self, call: Settlement, now_ms: u64) -> bool {
        match &self.spent {
            Spent::Draining(bucket) => now_ms.saturating_sub(call.ended_at_ms) < bucket.window_ms(),
            Spent::InPeriod { period, .. } => Day::of(call.started_at_ms) >= period.first,
        }
    }

    /// What this limit says to a call. Without an amount of its unit it admits while anything is left.
    fn standing_for(&self, amounts: Amounts) -> Standing {
        let amount = amounts.of(self.limit.unit).max(1);
        let capacity = self.limit.capacity.get();
        if amount > capacity {
            return Standing { outcome: Outcome::Denied, reset_ms: None, ..self.standing() };
        }
        match self.wait_ms(amount) {
            0 => self.standing(),
            wait_ms => Standing { outcome: Outcome::Denied, reset_ms: Some(wait_ms), ..self.standing() },
        }
    }

    /// Where it stands for one who asks for nothing.
    fn standing(&self) -> Standing {
        let capacity = self.limit.capacity.get();
        let used = self.used();
        Standing {
            limit: self.limit,
            outcome: Outcome::Admitted,
            used,
            remaining: capacity.saturating_sub(used),
            reset_ms: Some(self.wait_ms(capacity)),
        }
    }

    /// Milliseconds until `amount` fits, which is at most the capacity.
    fn wait_ms(&self, amount: u64) -> u64 {
        let capacity = self.limit.capacity.get();
        match &self.spent {
            Spent::Draining(bucket) => bucket.wait_ms(capacity, amount),
            Spent::InPeriod { used, .. } if used.saturating_add(amount) <= capacity => 0,
            Spent::InPeriod { period, now_ms, .. } => period.end.start_ms().saturating_sub(*now_ms),
        }
    }
}
