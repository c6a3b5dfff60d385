//! A token bucket that is drained continuously.
//!
//! It holds what is *spent*, not what is left: an untouched bucket is zero whatever its capacity, debt is more spent than
//! the capacity, and a capacity may change without a conversion. `spent` counts in fractions of 1/window, so that one
//! millisecond drains exactly `capacity` fractions: no remainder is ever dropped.

/// What is spent of one limit with a short window. The capacity is the caller's, and is never 0.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    window_ms: u64,
    /// In 1/`window_ms` of an amount.
    spent: u128,
    drained_at_ms: u64,
}

impl Bucket {
    pub(crate) fn new(window_ms: u64, now_ms: u64) -> Bucket {
        Bucket { window_ms, spent: 0, drained_at_ms: now_ms }
    }

    pub(crate) fn window_ms(&self) -> u64 {
        self.window_ms
    }

    /// Gives back what the time up to `now_ms` gives back. The other methods speak of that moment.
    ///
    /// Nothing drains while a clock that stepped back catches up, so that no time counts twice. After a step of more than
    /// a window the clock was set, and catching up could take forever: time goes on from where it was set to.
    pub(crate) fn drain(&mut self, capacity: u64, now_ms: u64) {
        if now_ms < self.drained_at_ms {
            if self.drained_at_ms - now_ms > self.window_ms {
                self.drained_at_ms = now_ms;
            }
            return;
        }
        let elapsed_ms = now_ms - self.drained_at_ms;
        self.spent = self.spent.saturating_sub(u128::from(capacity) * u128::from(elapsed_ms));
        self.drained_at_ms = now_ms;
    }

    pub(crate) fn spend(&mut self, amount: u64) {
        self.spent = self.spent.saturating_add(self.fractions(amount));
    }

    /// Whole amounts that are spent, a begun one counted as one.
    pub(crate) fn used(&self) -> u64 {
        saturating(self.spent.div_ceil(u128::from(self.window_ms)))
    }

    /// Milliseconds until `amount` fits into `capacity`; 0 when it does. The amount is at most the capacity.
    pub(crate) fn wait_ms(&self, capacity: u64, amount: u64) -> u64 {
        let excess = self.spent.saturating_add(self.fractions(amount)).saturating_sub(self.fractions(capacity));
        saturating(excess.div_ceil(u128::from(capacity)))
    }

    fn fractions(&self, amount: u64) -> u128 {
        u128::from(amount) * u128::from(self.window_ms)
    }
}

fn saturating(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is spent at the end of `history`, by another road: the worst over all beginnings of what was spent since,
    /// less what has drained since.
    fn spent_naively(window_ms: u64, capacity: u64, history: &[(u64, u64)], now_ms: u64) -> i128 {
        (0..history.len())
            .map(|begin| {
                let amounts: u64 = history[begin..].iter().map(|(_, amount)| amount).sum();
                i128::from(amounts) * i128::from(window_ms)
                    - i128::from(capacity) * i128::from(now_ms - history[begin].0)
            })
            .max()
            .unwrap_or(0)
            .max(0)
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_sum(
            capacity in 1..2000u64,
            window_ms in prop::sample::select(vec![1_000u64, 60_000, 3_600_000]),
            steps in prop::collection::vec((0..5000u64, 0..1500u64), 1..60),
        ) {
            let mut bucket = Bucket::new(window_ms, 0);
            let mut history = Vec::new();
            let mut now_ms = 0;
            for (step_ms, amount) in steps {
                now_ms += step_ms;
                bucket.drain(capacity, now_ms);
                prop_assert_eq!(bucket.spent as i128, spent_naively(window_ms, capacity, &history, now_ms));
                bucket.spend(amount);
                history.push((now_ms, amount));
            }
        }

        #[test]
        fn a_wait_is_long_enough_and_not_a_millisecond_too_long(
            capacity in 1..2000u64, window_ms in 1..100_000u64, spent in 0..5000u64, amount in 1..2000u64,
        ) {
            prop_assume!(amount <= capacity);
            let mut bucket = Bucket::new(window_ms, 7);
            bucket.spend(spent);
            let wait_ms = bucket.wait_ms(capacity, amount);
            let after = |ms: u64| { let mut later = bucket.clone(); later.drain(capacity, 7 + ms); later.wait_ms(capacity, amount) };
            prop_assert_eq!(after(wait_ms), 0);
            prop_assert!(wait_ms == 0 || after(wait_ms - 1) == 1);
        }
    }

    #[test]
    fn time_that_steps_back_gives_nothing_back() {
        let mut bucket = Bucket::new(1000, 10_000);
        bucket.spend(10);
        for (now_ms, used) in [(9_000, 10), (9_900, 10), (10_100, 9), (9_099, 9), (9_199, 8), (10_100, 0)] {
            bucket.drain(10, now_ms);
            assert_eq!(bucket.used(), used, "at {now_ms}");
        }
    }

    #[test]
    fn extremes_saturate() {
        let mut bucket = Bucket::new(3_600_000, 0);
        for _ in 0..4 {
            bucket.spend(u64::MAX);
        }
        assert_eq!(bucket.used(), u64::MAX);
        assert_eq!(bucket.wait_ms(1, 1), u64::MAX);
        bucket.drain(u64::MAX, u64::MAX);
        assert_eq!(bucket.used(), 0);
    }
}
