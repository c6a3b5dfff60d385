//! What calls are measured in: requests, slots, tokens by class, and money.

use serde::Deserialize;

/// The largest amount that is counted; larger ones count as this. Every integer up to it is exact in the doubles that
/// scripts inside a store calculate with.
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// The sum, at most [`MAX_AMOUNT`].
pub(crate) fn plus(a: u64, b: u64) -> u64 {
    a.saturating_add(b).min(MAX_AMOUNT)
}

/// A kind of token that may have its own weight or price. A token is of one class alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenClass {
    /// Of the prompt, and of no other class.
    Input,
    /// Of the prompt, read from a cache.
    CacheRead,
    /// Of the prompt, written to a cache.
    CacheWrite,
    /// Of the prompt, written to a cache that keeps it for an hour.
    #[serde(rename = "cache_write_1h")]
    CacheWrite1h,
    /// Of the prompt, sound.
    AudioInput,
    /// Of the answer, and of no other class.
    Output,
    /// Of the answer, not shown to the client.
    Reasoning,
    /// Of the answer, sound.
    AudioOutput,
}

impl TokenClass {
    /// Every class; those of the prompt come first.
    pub const ALL: [TokenClass; 8] = [
        TokenClass::Input,
        TokenClass::CacheRead,
        TokenClass::CacheWrite,
        TokenClass::CacheWrite1h,
        TokenClass::AudioInput,
        TokenClass::Output,
        TokenClass::Reasoning,
        TokenClass::AudioOutput,
    ];

    /// As configurations and tables of prices call it.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenClass::Input => "input",
            TokenClass::CacheRead => "cache_read",
            TokenClass::CacheWrite => "cache_write",
            TokenClass::CacheWrite1h => "cache_write_1h",
            TokenClass::AudioInput => "audio_input",
            TokenClass::Output => "output",
            TokenClass::Reasoning => "reasoning",
            TokenClass::AudioOutput => "audio_output",
        }
    }

    /// The class of its side's tokens that have no class of their own.
    pub fn plain(self) -> TokenClass {
        match self.side() {
            Side::Input => TokenClass::Input,
            Side::Output => TokenClass::Output,
        }
    }

    /// Whether it is sent to the model or comes from it.
    pub fn side(self) -> Side {
        if self < TokenClass::Output { Side::Input } else { Side::Output }
    }
}

/// The two directions of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Sent to the model.
    Input,
    /// Answered by it.
    Output,
}

/// So many of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens([u64; TokenClass::ALL.len()]);

/// Counts that are each of one class alone; those of the same class are summed.
impl FromIterator<(TokenClass, u64)> for Tokens {
    fn from_iter<I: IntoIterator<Item = (TokenClass, u64)>>(counts: I) -> Tokens {
        let mut tokens = Tokens::default();
        counts.into_iter().for_each(|(class, count)| tokens.count(class, count));
        tokens
    }
}

impl Tokens {
    /// Of `total` tokens of one side, the parts that have a class of their own; what is left is plain. Parts that exceed
    /// the total together are cut, so that the classes always sum up to it.
    pub fn add(&mut self, side: Side, total: u64, parts: &[(TokenClass, u64)]) {
        let mut left = total;
        for (class, count) in parts {
            let count = (*count).min(left);
            left -= count;
            self.count(*class, count);
        }
        let plain = match side {
            Side::Input => TokenClass::Input,
            Side::Output => TokenClass::Output,
        };
        self.count(plain, left);
    }

    /// Tokens of no special class.
    pub fn plain(input: u64, output: u64) -> Tokens {
        let mut tokens = Tokens::default();
        tokens.add(Side::Input, input, &[]);
        tokens.add(Side::Output, output, &[]);
        tokens
    }

    fn count(&mut self, class: TokenClass, count: u64) {
        let sum = &mut self.0[class as usize];
        *sum = plus(*sum, count);
    }

    /// How many of each class.
    pub fn by_class(&self) -> impl Iterator<Item = (TokenClass, u64)> {
        TokenClass::ALL.into_iter().zip(self.0)
    }

    /// All of one side.
    pub fn of(&self, side: Side) -> u64 {
        self.by_class().filter(|(class, _)| class.side() == side).fold(0, |sum, (_, count)| plus(sum, count))
    }
}

/// What a call asks for or has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantities {
    /// Calls.
    pub requests: u64,
    /// Calls that are going on at once.
    pub slots: u64,
    /// Tokens.
    pub tokens: Tokens,
    /// What they cost, in 1e-9 US dollars.
    pub cost_nanousd: u64,
}

impl Quantities {
    /// Whether nothing was generated and nothing is to be paid.
    pub fn is_void(&self) -> bool {
        self.tokens == Tokens::default() && self.cost_nanousd == 0
    }
}

/// What counts how often, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(u32);

impl Weight {
    /// Counts as it is.
    pub const ONE: Weight = Weight(1000);
    /// The heaviest.
    pub const MAX: Weight = Weight(1_000_000);

    /// From thousandths; `None` above [`Weight::MAX`].
    pub fn from_thousandths(thousandths: u32) -> Option<Weight> {
        (thousandths <= Weight::MAX.0).then_some(Weight(thousandths))
    }

    /// In thousandths.
    pub fn thousandths(self) -> u32 {
        self.0
    }
}

/// How much each class of token counts, and each model's calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Weights {
    classes: Vec<(TokenClass, Weight)>,
    models: Vec<(Pattern, Weight)>,
}

impl Weights {
    /// What is not named counts as it is; the first pattern that a model matches holds.
    pub fn new(classes: Vec<(TokenClass, Weight)>, models: Vec<(Pattern, Weight)>) -> Weights {
        Weights { classes, models }
    }

    /// Whether everything counts as it is.
    pub fn is_plain(&self) -> bool {
        self.classes.is_empty() && self.models.is_empty()
    }

    /// The classes that have a weight.
    pub fn classes(&self) -> impl Iterator<Item = TokenClass> {
        self.classes.iter().map(|(class, _)| *class)
    }

    /// Whether every model's calls count whole times.
    pub(crate) fn has_whole_models(&self) -> bool {
        self.models.iter().all(|(_, weight)| weight.0.is_multiple_of(Weight::ONE.0))
    }

    /// Calls of `model`, weighed; rounded up.
    pub(crate) fn requests(&self, model: Option<&str>, requests: u64) -> u64 {
        rounded_up(u128::from(requests) * 1000 * self.of_model(model))
    }

    /// Tokens of `model` in the classes that `counts` chooses, weighed; rounded up once.
    pub(crate) fn tokens(&self, model: Option<&str>, tokens: &Tokens, counts: impl Fn(Side) -> bool) -> u64 {
        let weighed = tokens.by_class().filter(|(class, _)| counts(class.side())).map(|(class, count)| {
            let weight = self.classes.iter().find(|(of, _)| *of == class).map_or(Weight::ONE, |(_, weight)| *weight);
            u128::from(count) * u128::from(weight.0)
        });
        rounded_up(weighed.sum::<u128>() * self.of_model(model))
    }

    fn of_model(&self, model: Option<&str>) -> u128 {
        let matching = |(pattern, _): &&(Pattern, Weight)| model.is_some_and(|model| pattern.matches(model));
        self.models.iter().find(matching).map_or(Weight::ONE, |(_, weight)| *weight).0.into()
    }
}

/// Millionths to whole amounts.
fn rounded_up(millionths: u128) -> u64 {
    u64::try_from(millionths.div_ceil(1_000_000)).unwrap_or(MAX_AMOUNT).min(MAX_AMOUNT)
}

/// A name, or names with `*` for any characters.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(wildmatch::WildMatchPattern<'*', '\0'>);

impl Eq for Pattern {}

impl Pattern {
    /// The pattern that is written so.
    pub fn new(text: &str) -> Pattern {
        Pattern(wildmatch::WildMatchPattern::new(text))
    }

    /// The one name that it matches; `None` where it has a `*`.
    pub fn name(&self) -> Option<String> {
        let text = self.0.pattern();
        (!text.contains('*')).then_some(text)
    }

    /// Whether it matches the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_sum_up_to_the_total() {
        let mut tokens = Tokens::default();
        tokens.add(Side::Input, 100, &[(TokenClass::CacheRead, 70), (TokenClass::AudioInput, 50)]);
        tokens.add(Side::Output, 10, &[(TokenClass::Reasoning, 4)]);
        let counts: Vec<u64> = tokens.by_class().map(|(_, count)| count).collect();
        assert_eq!(counts, [0, 70, 0, 0, 30, 6, 4, 0]);
        assert_eq!((tokens.of(Side::Input), tokens.of(Side::Output)), (100, 10));
    }

    #[test]
    fn weights_round_up_once() {
        let weight = |thousandths| Weight::from_thousandths(thousandths).unwrap();
        let classes = vec![(TokenClass::CacheRead, weight(100)), (TokenClass::Output, weight(3000))];
        let weights = Weights::new(classes, vec![(Pattern::new("gpt-4*"), weight(2500))]);
        let mut tokens = Tokens::plain(0, 2);
        tokens.add(Side::Input, 11, &[(TokenClass::CacheRead, 8)]);
        assert_eq!(weights.tokens(Some("o1"), &tokens, |_| true), 10, "3 + 0.8 + 6");
        assert_eq!(weights.tokens(Some("gpt-4o"), &tokens, |_| true), 25, "24.5");
        assert_eq!(weights.tokens(None, &tokens, |side| side == Side::Input), 4);
        assert_eq!(weights.requests(Some("gpt-4"), 1), 3);
        assert_eq!(weights.tokens(Some("gpt-4"), &Tokens::plain(u64::MAX, 1), |_| true), MAX_AMOUNT);
    }
}
