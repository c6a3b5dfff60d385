//! What models' use costs: versions of prices, each from a day on, in layers.
//!
//! - A version never changes: a new price is a new version with a later day. What was rated by one can be rated again.
//! - Of several layers, the first that has a version in force for a call holds: the tenant's own, the operator's, the
//!   shipped table's. See [`Prices`].
//! - Nothing is rounded but a marked-up unit price, and a cost in 1e-9 US dollars, once for each call. See [`Quote`].

mod compare;
mod rate;
mod table;
#[cfg(test)]
mod tests;

use crate::amount::{Pattern, TokenClass};
use crate::calendar::Day;

pub use compare::{Compared, Comparison};
pub use rate::{Calls, MarkUp, Part, Quote, Rated};
pub use table::{Layer, PriceTable, Prices, TenantPrices};

/// Prices of tokens by class, in 1e-12 US dollars for each token. A class without one costs as plain input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerToken([Option<u64>; TokenClass::ALL.len()]);

impl PerToken {
    /// The price that is given for just this class.
    pub fn given(&self, class: TokenClass) -> Option<u64> {
        self.0[class as usize]
    }

    /// Whether no class has a price.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// Of two prices for a class, the later one holds.
impl FromIterator<(TokenClass, u64)> for PerToken {
    fn from_iter<I: IntoIterator<Item = (TokenClass, u64)>>(prices: I) -> PerToken {
        let mut per_token = PerToken::default();
        for (class, picousd) in prices {
            per_token.0[class as usize] = Some(picousd);
        }
        per_token
    }
}

/// Prices for all tokens of a call whose prompt is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongContext {
    /// A prompt of more tokens is long.
    pub above_tokens: u64,
    /// Instead of the price's own for the same classes; those of other classes stay.
    pub per_token: PerToken,
}

/// What some models' use costs from a day on: a version of their price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    model: Pattern,
    provider: Option<String>,
    from: Day,
    per_token: PerToken,
    per_request_nanousd: u64,
    per_image_nanousd: u64,
    long_context: Option<LongContext>,
    source: String,
    seen: Option<Day>,
}

impl Price {
    /// The first day of all: a price from then on holds for every call.
    pub const ALWAYS: Day = Day::EPOCH;

    /// Of `model`, whoever provides it, on every day.
    pub fn new(model: Pattern, per_token: PerToken) -> Price {
        Price {
            model,
            provider: None,
            from: Price::ALWAYS,
            per_token,
            per_request_nanousd: 0,
            per_image_nanousd: 0,
            long_context: None,
            source: String::new(),
            seen: None,
        }
    }

    /// For calls to this provider alone, by OpenTelemetry's name; `None` for all.
    pub fn with_provider(self, provider: Option<String>) -> Price {
        Price { provider, ..self }
    }

    /// From the beginning of this UTC day on.
    pub fn with_from(self, from: Day) -> Price {
        Price { from, ..self }
    }

    /// With so much for each call, in 1e-9 US dollars.
    pub fn with_per_request_nanousd(self, per_request_nanousd: u64) -> Price {
        Price { per_request_nanousd, ..self }
    }

    /// With so much for each image that is made, in 1e-9 US dollars.
    pub fn with_per_image_nanousd(self, per_image_nanousd: u64) -> Price {
        Price { per_image_nanousd, ..self }
    }

    /// With other prices for long prompts.
    pub fn with_long_context(self, long_context: Option<LongContext>) -> Price {
        Price { long_context, ..self }
    }

    /// Where it was read, and when; an empty text where nobody said.
    pub fn with_source(self, source: String, seen: Option<Day>) -> Price {
        Price { source, seen, ..self }
    }

    /// The models.
    pub fn model(&self) -> &Pattern {
        &self.model
    }

    /// Whose calls; `None` for everybody's.
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// The first UTC day on which it holds.
    pub fn from(&self) -> Day {
        self.from
    }

    /// Of tokens, where the prompt is not long.
    pub fn per_token(&self) -> &PerToken {
        &self.per_token
    }

    /// For each call, in 1e-9 US dollars.
    pub fn per_request_nanousd(&self) -> u64 {
        self.per_request_nanousd
    }

    /// For each image that is made, in 1e-9 US dollars.
    pub fn per_image_nanousd(&self) -> u64 {
        self.per_image_nanousd
    }

    /// What is different for long prompts.
    pub fn long_context(&self) -> Option<&LongContext> {
        self.long_context.as_ref()
    }

    /// Where it was read; empty where nobody said.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// When it was read there.
    pub fn seen(&self) -> Option<Day> {
        self.seen
    }

    /// Its name on invoices: `<model pattern>@<first day>`.
    pub fn version(&self) -> String {
        format!("{}@{}", self.model, self.from)
    }

    /// Whether `other` is a version of the same price: of the same models and provider.
    pub fn is_alike(&self, other: &Price) -> bool {
        self.model == other.model && self.provider == other.provider
    }

    /// Whether it is of such calls and in force. One whose provider is not known, as at admission, may be any
    /// provider's.
    fn holds(&self, provider: Option<&str>, model: &str, day: Day) -> bool {
        let is_theirs = self.provider().zip(provider).is_none_or(|(own, called)| own == called);
        self.from <= day && is_theirs && self.model.matches(model)
    }

    /// For a token of `class`, in 1e-12 US dollars, in a call whose prompt has so many tokens. What no price is given
    /// for is free.
    pub fn unit_picousd(&self, class: TokenClass, prompt_tokens: u64) -> u64 {
        let long = self.long_context.filter(|long| prompt_tokens > long.above_tokens);
        let given = |class| long.and_then(|long| long.per_token.given(class)).or(self.per_token.given(class));
        given(class).or(given(class.plain())).unwrap_or(0)
    }
}
