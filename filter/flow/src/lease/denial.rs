//! Denials that hold for a while, as they are told.

use std::cell::RefCell;
use std::rc::Rc;

use tollgate_wire::admission::{self, AdmissionResponse, Decision, DeniedCalls};

use super::Amounts;
use crate::reply::{Dialect, Reply};

/// A denial that holds for a while.
#[derive(Debug)]
pub(super) struct Denial {
    /// What was asked for then: less may fit.
    of: Amounts,
    pub(super) calls: DeniedCalls,
    answer: AdmissionResponse,
    told_at_ms: u64,
    pub(super) until_ms: u64,
    /// As it was told last, and when.
    last: Option<(u64, Rc<Denied>)>,
}

/// A denial as it is told at one moment. The calls of a flood come many in a millisecond, and share it.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) answer: AdmissionResponse,
    /// What clients get, by the dialect that they are spoken to in.
    replies: RefCell<Vec<(Dialect, Reply)>>,
}

impl Denied {
    /// What a client gets that is spoken to so; it is `made` once.
    pub(crate) fn reply(&self, dialect: Dialect, made: impl FnOnce() -> Reply) -> Reply {
        let mut replies = self.replies.borrow_mut();
        if let Some((_, reply)) = replies.iter().find(|(of, _)| *of == dialect) {
            return reply.clone();
        }
        let reply = made();
        replies.push((dialect, reply.clone()));
        reply
    }
}

impl Denial {
    pub(super) fn new(of: Amounts, answer: AdmissionResponse, told_at_ms: u64, told: admission::Denial) -> Denial {
        let admission::Denial { until_ms, calls } = told;
        Denial { of, calls, answer, told_at_ms, until_ms, last: None }
    }

    /// Whether a call that asks for so much would be denied too.
    pub(super) fn covers(&self, asked: &Amounts) -> bool {
        let is_as_long = match (asked.output_tokens, self.of.output_tokens) {
            (_, None) | (Some(0), Some(0)) => true,
            // What is reserved for an answer without a cap is the limiter's guess.
            (Some(0), Some(_)) | (_, Some(0)) => false,
            (asked, Some(of)) => asked.unwrap_or(0) >= of,
        };
        (is_as_long && asked.input_tokens >= self.of.input_tokens) || self.calls == DeniedCalls::All
    }

    /// Whether it was not told in this millisecond.
    pub(super) fn is_of_before(&self, now_ms: u64) -> bool {
        self.last.as_ref().is_none_or(|(at_ms, _)| *at_ms != now_ms)
    }

    /// The denial, as it is told now.
    pub(super) fn now(&mut self, now_ms: u64) -> Rc<Denied> {
        if let Some((_, denied)) = self.last.as_ref().filter(|_| !self.is_of_before(now_ms)) {
            return Rc::clone(denied);
        }
        let mut answer = self.answer.clone();
        let (elapsed_ms, left_ms) = (now_ms.saturating_sub(self.told_at_ms), self.until_ms.saturating_sub(now_ms));
        for limit in &mut answer.limits {
            let least_ms = if limit.decision == Decision::Denied { left_ms } else { 0 };
            limit.reset_ms = limit.reset_ms.map(|reset_ms| reset_ms.saturating_sub(elapsed_ms).max(least_ms));
        }
        let denied = Rc::new(Denied { answer, replies: RefCell::default() });
        self.last = Some((now_ms, Rc::clone(&denied)));
        denied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(of: (u64, Option<u64>), calls: DeniedCalls, asked: (u64, Option<u64>)) -> bool {
        let amounts = |(input_tokens, output_tokens)| Amounts { input_tokens, output_tokens, images: 0 };
        let told = admission::Denial { until_ms: 1, calls };
        let answer = AdmissionResponse {
            decision: Decision::Denied,
            limits: Vec::new(),
            response_headers: Vec::new(),
            lease: None,
            denial: None,
        };
        Denial::new(amounts(of), answer, 0, told).covers(&amounts(asked))
    }

    #[test]
    fn calls_that_ask_for_less_may_fit() {
        for (of, asked, expected) in [
            ((10, Some(20)), (10, Some(20)), true),
            ((10, Some(20)), (9, Some(20)), false),
            ((10, Some(20)), (10, Some(19)), false),
            ((10, None), (10, Some(5)), true),
            ((10, Some(5)), (10, None), false),
            // Without a cap as much is reserved as the limiter guesses.
            ((10, Some(0)), (10, Some(0)), true),
            ((10, Some(0)), (10, Some(1_000_000)), false),
            ((10, Some(1)), (10, Some(0)), false),
            ((10, Some(0)), (10, None), false),
        ] {
            assert_eq!(covers(of, DeniedCalls::Alike, asked), expected, "{of:?} {asked:?}");
            assert!(covers(of, DeniedCalls::All, asked));
        }
    }
}
