//! What is spent of one limit.

use crate::bucket::Bucket;
use crate::calendar::{Day, Period, Span};
use crate::decision::{Amounts, Outcome, Settlement, Standing};
use crate::plan::{Limit, Refill};

/// What is spent of one limit. All but `new` and `advance` speak of the moment last advanced to.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    pub(crate) limit: Limit,
    spent: Spent,
}

#[derive(Debug, Clone)]
enum Spent {
    Draining(Bucket),
    InPeriod { span: Span, period: Period, used: u64, now_ms: u64 },
}

impl Counter {
    pub(crate) fn new(limit: Limit, now_ms: u64) -> Counter {
        let spent = match limit.window.refill() {
            Refill::Continuous { window_ms } => Spent::Draining(Bucket::new(window_ms, now_ms)),
            Refill::AtTheEndOf(span) => Spent::InPeriod { span, period: Period::around(span, now_ms), used: 0, now_ms },
        };
        Counter { limit, spent }
    }

    pub(crate) fn advance(&mut self, to_ms: u64) {
        match &mut self.spent {
            Spent::Draining(bucket) => bucket.drain(self.limit.capacity.get(), to_ms),
            Spent::InPeriod { span, period, used, now_ms } => {
                *now_ms = to_ms;
                if to_ms >= period.end.start_ms() {
                    *period = Period::around(*span, to_ms);
                    *used = 0;
                } else if Day::of(to_ms).plus(1) < period.first {
                    // The clock had been far ahead. What is spent stays spent, in the period that it really is.
                    *period = Period::around(*span, to_ms);
                }
            }
        }
    }

    pub(crate) fn spend(&mut self, amount: u64) {
        match &mut self.spent {
            Spent::Draining(bucket) => bucket.spend(amount),
            Spent::InPeriod { used, .. } => *used = used.saturating_add(amount),
        }
    }

    pub(crate) fn used(&self) -> u64 {
        match &self.spent {
            Spent::Draining(bucket) => bucket.used(),
            Spent::InPeriod { used, .. } => *used,
        }
    }

    /// Whether a call that is settled at `now_ms` still counts here.
    pub(crate) fn reaches_back_to(&self, call: Settlement, now_ms: u64) -> bool {
        match &self.spent {
            Spent::Draining(bucket) => now_ms.saturating_sub(call.ended_at_ms) < bucket.window_ms(),
            Spent::InPeriod { period, .. } => Day::of(call.started_at_ms) >= period.first,
        }
    }

    /// What this limit says to a call. Without an amount of its unit it admits while anything is left.
    pub(crate) fn standing_for(&self, amounts: Amounts) -> Standing {
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
    pub(crate) fn standing(&self) -> Standing {
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::plan::{Unit, Window};

    #[test]
    fn a_clock_that_was_far_ahead_leaves_what_is_spent_in_the_real_month() {
        let day_ms = Day::from_number(1).start_ms();
        let limit = Limit { unit: Unit::Tokens, capacity: NonZeroU64::MIN, window: Window::Month };
        let mut counter = Counter::new(limit, 400 * day_ms);
        counter.spend(7);
        counter.advance(10 * day_ms);
        let call =
            Settlement { input_tokens: 1, output_tokens: 0, started_at_ms: 10 * day_ms, ended_at_ms: 10 * day_ms };
        assert!(counter.reaches_back_to(call, 10 * day_ms));
        assert_eq!(counter.used(), 7);
        counter.advance(31 * day_ms);
        assert_eq!(counter.used(), 0, "February begins");
    }
}
