//! Public tables of prices, read as price rows.
//!
//! A row that would not be exact, or that these rows have no words for, is left out and told. Kinds of prices that are
//! not charged for here (images in prompts, searches, minutes of sound, other tiers of service) are left out of the rows, and told
//! by name.

mod genai;
mod litellm;
mod number;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use tollgate_domain::{Day, LongContext, Pattern, PerToken, Price, TokenClass};

use crate::config::{MAX_PATTERN_BYTES, MAX_PRICE_USD, MAX_SOURCE_BYTES};

pub use genai::genai_prices;
pub use litellm::litellm;

/// The longest table that is read, in bytes.
pub const MAX_IMPORT_BYTES: usize = 32 << 20;

/// The most that is told of what was skipped; the rest is counted.
pub const MAX_SKIPPED_TOLD: usize = 1000;

/// What holds for all rows of a table.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The first day of prices that have none of their own.
    pub from: Day,
    /// When the table was read.
    pub seen: Day,
    /// Rows of these providers alone, by OpenTelemetry's names; of all where there is none.
    pub providers: &'a [&'a str],
}

impl Terms<'_> {
    fn wants(&self, provider: &str) -> bool {
        self.providers.is_empty() || self.providers.contains(&provider)
    }
}

/// What a table has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// In an order in which a more specific pattern comes first, as far as the table says so.
    pub prices: Vec<Price>,
    /// What is not among them, in the table's order; at most [`MAX_SKIPPED_TOLD`].
    pub skipped: Vec<Skipped>,
    /// How much more.
    pub skipped_beyond: usize,
    /// Kinds of prices that rows are without, as the table calls them.
    pub left_out: BTreeSet<String>,
}

/// A row, or a pattern of one, that is not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// As the table calls it.
    pub name: String,
    /// Why.
    pub why: String,
}

impl Import {
    fn skip(&mut self, name: &str, why: impl Into<String>) {
        if self.skipped.len() < MAX_SKIPPED_TOLD {
            self.skipped.push(Skipped { name: name.to_owned(), why: why.into() });
        } else {
            self.skipped_beyond += 1;
        }
    }

    /// Takes a row, unless the same models have one from that day already: the first holds.
    fn push(&mut self, name: &str, price: Price) {
        let is_known = |known: &Price| known.from() == price.from() && known.is_alike(&price);
        if self.prices.iter().any(is_known) {
            self.skip(name, format!("{} is there already", price.version()));
        } else {
            self.prices.push(price);
        }
    }
}

/// What a row of any table costs, before it is known to be one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Costs {
    per_token: Vec<(TokenClass, u64)>,
    long: Vec<(TokenClass, u64)>,
    /// Where `long` begins.
    above_tokens: Option<u64>,
    per_request_nanousd: u64,
    per_image_nanousd: u64,
    /// Whether something else costs something: a row without other costs is then not free.
    has_other: bool,
}

/// The highest price of a token in 1e-12 US dollars, which is the one of a million tokens in dollars.
const MAX_PICOUSD: u128 = MAX_PRICE_USD as u128 * 1_000_000;

impl Costs {
    /// Adds what a token of a class costs, in a long prompt's call where that is `above` so many tokens.
    ///
    /// # Errors
    /// When long prompts begin at several lengths, or the price is too high.
    fn add(&mut self, class: TokenClass, picousd: u128, above: Option<u64>) -> Result<(), String> {
        let too_high = || format!("{} costs more than {MAX_PRICE_USD} US dollars a million", class.as_str());
        let picousd = u64::try_from(picousd).ok().filter(|_| picousd <= MAX_PICOUSD).ok_or_else(too_high)?;
        match (above, self.above_tokens) {
            (None, _) => self.per_token.push((class, picousd)),
            (Some(above), Some(known)) if above != known => {
                return Err(format!("has prices above {known} and above {above} tokens; a row has one such step"));
            }
            (Some(above), _) => {
                self.above_tokens = Some(above);
                self.long.push((class, picousd));
            }
        }
        Ok(())
    }

    /// Without what costs as plain tokens do: it is to cost as these in long prompts' calls as well.
    fn own(&self) -> impl Iterator<Item = (TokenClass, u64)> {
        let all: PerToken = self.per_token.iter().copied().collect();
        let has_long = |class| self.long.iter().any(|(long, _)| *long == class);
        let is_plain = move |class: TokenClass| all.given(class) == all.given(class.plain()) && !has_long(class);
        self.per_token.iter().copied().filter(move |(class, _)| *class == class.plain() || !is_plain(*class))
    }

    /// The row of `model`.
    ///
    /// # Errors
    /// When nothing costs anything that is charged for here, or its name is no pattern.
    fn price(&self, model: &str, provider: &str, terms: &Terms<'_>) -> Result<Price, String> {
        let is_free = self.per_request_nanousd == 0
            && self.per_image_nanousd == 0
            && self.per_token.iter().all(|(_, picousd)| *picousd == 0);
        if is_free && self.per_token.is_empty() {
            return Err("has no price for tokens, calls or images".to_owned());
        }
        if is_free && self.has_other {
            return Err("is charged for by something else than tokens, calls and images".to_owned());
        }
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b",;{}".contains(&byte);
        if model.is_empty() || model.len() > MAX_PATTERN_BYTES || !model.bytes().all(is_allowed) {
            return Err("its name is no pattern of models".to_owned());
        }
        let per_token = self.own().collect();
        let long = self
            .above_tokens
            .map(|above_tokens| LongContext { above_tokens, per_token: self.long.iter().copied().collect() });
        Ok(Price::new(Pattern::new(model), per_token)
            .with_provider(Some(provider.to_owned()))
            .with_from(terms.from)
            .with_per_request_nanousd(self.per_request_nanousd)
            .with_per_image_nanousd(self.per_image_nanousd)
            .with_long_context(long))
    }
}

/// A source, unless it is longer than one may be.
fn source(text: Option<&str>) -> String {
    text.filter(|text| text.len() <= MAX_SOURCE_BYTES).unwrap_or_default().to_owned()
}

/// Refuses a table that is too long.
fn bounded(text: &str) -> Result<&str, String> {
    let refused = || format!("the table has {} bytes; at most {MAX_IMPORT_BYTES} are read", text.len());
    (text.len() <= MAX_IMPORT_BYTES).then_some(text).ok_or_else(refused)
}
