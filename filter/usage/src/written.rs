//! How much the model wrote: an estimate in tokens of the generated text that passed.
//!
//! - All bytes are counted. The first [`READ_WHOLE_BYTES`] of a channel are estimated, and after that [`SAMPLE_BYTES`] of
//!   every [`STRIDE_BYTES`]: the rest has as many tokens for its bytes as these have. A long text costs a sixteenth of what
//!   reading it would.
//! - What is estimated is chosen by its place among the channel's bytes alone: the cut does not matter.

use crate::estimate::TextEstimate;
use crate::format::Channel;

/// As many bytes are all estimated.
const READ_WHOLE_BYTES: u64 = 2048;
/// Of each stride, its last bytes, this many.
const SAMPLE_BYTES: u64 = 256;
const STRIDE_BYTES: u64 = 16 * SAMPLE_BYTES;

/// The generated text, by channel.
#[derive(Debug, Default)]
pub(crate) struct Written([Sampled; Channel::ReasoningDetails as usize + 1]);

#[derive(Debug, Default)]
struct Sampled {
    estimate: TextEstimate,
    passed_bytes: u64,
    estimated_bytes: u64,
}

/// What is done with the next bytes, and how many they are.
enum Next {
    Estimate(u64),
    Pass(u64),
}

impl Written {
    /// Takes a piece of a text, escapes as they stand.
    pub(crate) fn feed(&mut self, channel: Channel, raw: &[u8]) {
        if let Some(sampled) = self.0.get_mut(channel as usize) {
            sampled.feed(raw);
        }
    }

    /// Ends a text.
    pub(crate) fn end(&mut self, channel: Channel) {
        if let Some(sampled) = self.0.get_mut(channel as usize) {
            sampled.estimate.end();
        }
    }

    /// The tokens of all texts, each once.
    pub(crate) fn tokens(&self) -> u64 {
        let [text, whole, reasoning @ ..] = &self.0;
        let text = if text.passed_bytes > 0 { text } else { whole };
        text.tokens().saturating_add(reasoning.iter().map(Sampled::tokens).max().unwrap_or(0))
    }
}

impl Sampled {
    fn feed(&mut self, raw: &[u8]) {
        let mut rest = raw;
        while !rest.is_empty() {
            let (next, is_estimated) = match self.next() {
                Next::Estimate(bytes) => (bytes, true),
                Next::Pass(bytes) => (bytes, false),
            };
            let taken = usize::try_from(next).unwrap_or(usize::MAX).min(rest.len());
            if is_estimated {
                self.estimate.feed(rest.get(..taken).unwrap_or_default());
                self.estimated_bytes = self.estimated_bytes.saturating_add(taken as u64);
                if taken as u64 == next {
                    self.estimate.end();
                }
            }
            self.passed_bytes = self.passed_bytes.saturating_add(taken as u64);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    fn next(&self) -> Next {
        match self.passed_bytes.checked_sub(READ_WHOLE_BYTES) {
            None => Next::Estimate(READ_WHOLE_BYTES - self.passed_bytes),
            Some(beyond) => {
                let left = STRIDE_BYTES - beyond % STRIDE_BYTES;
                if left > SAMPLE_BYTES { Next::Pass(left - SAMPLE_BYTES) } else { Next::Estimate(left) }
            }
        }
    }

    fn tokens(&self) -> u64 {
        if self.estimated_bytes == self.passed_bytes {
            return self.estimate.tokens();
        }
        let scaled = u128::from(self.estimate.tokens()) * u128::from(self.passed_bytes);
        u64::try_from(scaled.div_ceil(u128::from(self.estimated_bytes.max(1)))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(texts: &[String], chunk_bytes: usize) -> u64 {
        let mut written = Written::default();
        for text in texts {
            text.as_bytes().chunks(chunk_bytes).for_each(|chunk| written.feed(Channel::Text, chunk));
            written.end(Channel::Text);
        }
        written.tokens()
    }

    #[test]
    fn a_long_text_has_as_many_tokens_for_its_bytes_as_a_part_of_it() {
        let words = ["The", " capital", " of", " Germany", " is", " Berlin", ",", " 1", "237", "\\n", " und", " schön"];
        let texts: Vec<_> = (0..40_000).map(|at: usize| words[at * at / 7 % words.len()].to_owned()).collect();
        let mut whole = TextEstimate::default();
        for text in &texts {
            whole.feed(text.as_bytes());
            whole.end();
        }
        let (whole, sampled) = (whole.tokens() as f64, tokens(&texts, usize::MAX) as f64);
        assert!((sampled / whole - 1.0).abs() < 0.05, "{sampled} instead of {whole}");
    }

    #[test]
    fn what_stands_apart_in_a_text_is_not_joined_by_its_samples() {
        let strides = 100;
        let (whole, sample) = (vec![b'a'; READ_WHOLE_BYTES as usize], [b'a'; SAMPLE_BYTES as usize]);
        let (mut apart, mut joined) = (TextEstimate::default(), TextEstimate::default());
        apart.feed(&whole);
        joined.feed(&whole);
        for _ in 0..strides {
            apart.end();
            apart.feed(&sample);
            joined.feed(&sample);
        }
        let estimated_bytes = READ_WHOLE_BYTES + strides * SAMPLE_BYTES;
        let passed_bytes = READ_WHOLE_BYTES + strides * STRIDE_BYTES;
        let scaled = |estimate: TextEstimate| (estimate.tokens() * passed_bytes).div_ceil(estimated_bytes);
        assert_ne!(scaled(apart), scaled(joined));
        assert_eq!(tokens(&["a".repeat(passed_bytes as usize)], usize::MAX), scaled(apart));
    }

    #[test]
    fn a_text_at_several_places_counts_once() {
        let mut written = Written::default();
        written.feed(Channel::Whole, b"text");
        let text = written.tokens();
        assert!(text > 0);
        written.feed(Channel::Text, b"text");
        assert_eq!(written.tokens(), text);
        for channel in [Channel::Reasoning, Channel::ReasoningContent, Channel::ReasoningDetails] {
            written.feed(channel, b"text");
            assert_eq!(written.tokens(), 2 * text);
        }
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(
            texts in prop::collection::vec("[a-z0-9 é你]{0,999}", 0..30),
            chunk_bytes in 1..999usize,
        ) {
            prop_assert_eq!(tokens(&texts, chunk_bytes), tokens(&texts, usize::MAX));
        }
    }
}
