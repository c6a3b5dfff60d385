//! How long answers were lately, for calls that set no cap of their own.

/// Bins of half an octave each, from 1 to some 1.5 million tokens.
const BINS: usize = 42;

/// When so many answers are counted, all counts are halved: the older an answer, the less it weighs.
const FORGET_AT: u32 = 128;

/// Fewer answers than these have no quantiles: the next may well be twice as long as the longest of them.
const MIN_ANSWERS: u32 = 5;

/// The lengths of recent answers, each known to within a half, in 48 bytes.
#[derive(Debug, Clone)]
pub struct AnswerLengths {
    bins: [u8; BINS],
    answers: u32,
}

impl Default for AnswerLengths {
    fn default() -> AnswerLengths {
        AnswerLengths { bins: [0; BINS], answers: 0 }
    }
}

impl AnswerLengths {
    /// Counts an answer of so many tokens.
    pub fn record(&mut self, tokens: u64) {
        let bin = (0..BINS - 1).find(|bin| longest_in(*bin) >= tokens).unwrap_or(BINS - 1);
        self.bins[bin] += 1;
        self.answers += 1;
        if self.answers >= FORGET_AT {
            for count in &mut self.bins {
                *count /= 2;
            }
            self.answers = self.bins.iter().map(|count| u32::from(*count)).sum();
        }
    }

    /// The length that so many percent of the recent answers did not exceed, rounded up to its bin's longest; of few answers
    /// twice the longest; `None` before the first.
    pub fn quantile(&self, percent: u8) -> Option<u64> {
        if self.answers < MIN_ANSWERS {
            return self.bins.iter().rposition(|count| *count > 0).map(|bin| 2 * longest_in(bin));
        }
        let wanted = (self.answers * u32::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        let reaches = |count: &u8| {
            seen += u32::from(*count);
            seen >= wanted
        };
        self.bins.iter().position(reaches).map(longest_in)
    }
}

/// 1, 2, 3, 4, 6, 8, 12, 16, …
fn longest_in(bin: usize) -> u64 {
    match bin {
        0 => 1,
        _ if bin % 2 == 1 => 1 << bin.div_ceil(2),
        _ => 3 << (bin / 2 - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bins_grow_by_half_octaves() {
        assert_eq!((0..9).map(longest_in).collect::<Vec<_>>(), [1, 2, 3, 4, 6, 8, 12, 16, 24]);
        assert_eq!(longest_in(BINS - 1), 1 << 21);
        assert_eq!(size_of::<AnswerLengths>(), 48);
    }

    #[test]
    fn few_answers_are_doubled_and_old_ones_fade() {
        let mut lengths = AnswerLengths::default();
        assert_eq!(lengths.quantile(90), None);
        for tokens in [50, 100, 7, 20] {
            lengths.record(tokens);
        }
        assert_eq!(lengths.quantile(1), Some(256));
        lengths.record(0);
        assert_eq!((lengths.quantile(90), lengths.quantile(1)), (Some(128), Some(1)));
        for _ in 0..10_000 {
            lengths.record(u64::MAX);
        }
        assert_eq!(lengths.quantile(1), Some(1 << 21));
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_half_too_long(mut answers in prop::collection::vec(1..1_000_000u64, 5..100), percent in 1..100u8) {
            let mut lengths = AnswerLengths::default();
            for tokens in &answers {
                lengths.record(*tokens);
            }
            answers.sort_unstable();
            let exact = answers[(answers.len() * usize::from(percent)).div_ceil(100) - 1];
            let told = lengths.quantile(percent).unwrap();
            prop_assert!(told >= exact && told <= exact * 2, "{told} for {exact}");
        }
    }
}
