//! How often calls of a kind come.

use tollgate_wire::admission::LeaseRequest;

use super::Amounts;

/// Over how long calls are counted.
pub(super) const SECOND_MS: u64 = 1000;

/// How often a kind is called, and for how much.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Demand {
    since_ms: u64,
    calls: u64,
    last_calls: u64,
    most: Most,
    last_most: Most,
    pub(super) last_call_ms: u64,
    pub(super) has_output: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Most {
    input_tokens: u64,
    output_tokens: u64,
    has_uncapped: bool,
}

impl Most {
    fn or(self, other: Most) -> Most {
        Most {
            input_tokens: self.input_tokens.max(other.input_tokens),
            output_tokens: self.output_tokens.max(other.output_tokens),
            has_uncapped: self.has_uncapped || other.has_uncapped,
        }
    }
}

impl Demand {
    /// None, from now on.
    pub(super) fn new(now_ms: u64) -> Demand {
        Demand { since_ms: now_ms, ..Demand::default() }
    }

    pub(super) fn advance(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.since_ms);
        if elapsed_ms >= 2 * SECOND_MS {
            (self.last_calls, self.last_most) = (0, Most::default());
        } else if elapsed_ms >= SECOND_MS {
            (self.last_calls, self.last_most) = (self.calls, self.most);
        }
        if elapsed_ms >= SECOND_MS {
            let over_ms = if elapsed_ms >= 2 * SECOND_MS { elapsed_ms } else { SECOND_MS };
            self.since_ms = self.since_ms.saturating_add(over_ms);
            (self.calls, self.most) = (0, Most::default());
        }
    }

    fn count(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.calls = self.calls.saturating_add(1);
        self.last_call_ms = now_ms;
    }

    /// One more call, of which no more is known: it is taken to be like those before.
    pub(super) fn note_alike(&mut self, now_ms: u64) {
        self.count(now_ms);
        self.most = self.most.or(self.last_most);
    }

    pub(super) fn note(&mut self, asked: &Amounts, now_ms: u64) {
        self.count(now_ms);
        self.has_output = asked.output_tokens.is_some();
        let (input_tokens, output_tokens) = (asked.input_tokens, asked.output_tokens.unwrap_or(0));
        let has_uncapped = asked.output_tokens == Some(0);
        self.most = self.most.or(Most { input_tokens, output_tokens, has_uncapped });
    }

    /// In the last second, as far as it is known: of the second before this one, the part that is not over.
    pub(super) fn calls_per_s(&self, now_ms: u64) -> u64 {
        let left_ms = SECOND_MS.saturating_sub(now_ms.saturating_sub(self.since_ms));
        (self.last_calls.saturating_mul(left_ms) / SECOND_MS).saturating_add(self.calls)
    }

    pub(super) fn request(&self, now_ms: u64) -> LeaseRequest {
        let Most { input_tokens, output_tokens, has_uncapped } = self.most.or(self.last_most);
        LeaseRequest { now_ms, calls_per_s: self.calls_per_s(now_ms), input_tokens, output_tokens, has_uncapped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_ask_for_is_forgotten_with_them_unless_others_are_alike() {
        let mut demand = Demand::new(0);
        demand.note(&Amounts { input_tokens: 10, output_tokens: Some(0), images: 0 }, 0);
        for now_ms in (0..5_000).step_by(500) {
            demand.note_alike(now_ms);
        }
        let asked = |demand: &Demand, now_ms| {
            let request = demand.request(now_ms);
            (request.calls_per_s, request.input_tokens, request.has_uncapped)
        };
        assert_eq!(asked(&demand, 4_500), (3, 10, true));
        for now_ms in (5_000..8_000).step_by(500) {
            demand.note(&Amounts { input_tokens: 2, output_tokens: Some(7), images: 0 }, now_ms);
        }
        assert_eq!(asked(&demand, 7_500), (3, 2, false));
    }
}
