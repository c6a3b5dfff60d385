//! What a call comes to by its price.

use super::{Layer, Price};
use crate::amount::{MAX_AMOUNT, Side, TokenClass, Tokens};

/// What a plan makes of list prices, in parts per million of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkUp(u32);

impl MarkUp {
    /// As listed.
    pub const NONE: MarkUp = MarkUp(1_000_000);

    /// So many parts per million of the list price: less than 1,000,000 is a rebate.
    pub fn from_ppm(ppm: u32) -> MarkUp {
        MarkUp(ppm)
    }

    /// In parts per million.
    pub fn ppm(self) -> u32 {
        self.0
    }

    /// A unit price with it, rounded up to a whole 1e-12 US dollar. It is the unit price that is rounded and not a sum:
    /// so what an invoice shows is exact, a quantity times a unit price, and costs at most a millionth of a dollar a
    /// million tokens more.
    fn of(self, unit_picousd: u64) -> u64 {
        let marked_up = (u128::from(unit_picousd) * u128::from(self.0)).div_ceil(1_000_000);
        u64::try_from(marked_up).unwrap_or(u64::MAX)
    }
}

impl Default for MarkUp {
    fn default() -> MarkUp {
        MarkUp::NONE
    }
}

/// Calls, and what they use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// How many calls.
    pub requests: u64,
    /// Images that are made.
    pub images: u64,
    /// Tokens.
    pub tokens: Tokens,
}

impl Calls {
    /// One call that uses tokens alone.
    pub fn one(tokens: Tokens) -> Calls {
        Calls { requests: 1, images: 0, tokens }
    }
}

/// So many at a unit price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Tokens, images or calls.
    pub quantity: u64,
    /// Of each, in 1e-12 US dollars.
    pub unit_picousd: u64,
}

impl Part {
    /// What it comes to, exactly.
    pub fn picousd(self) -> u128 {
        u128::from(self.quantity) * u128::from(self.unit_picousd)
    }
}

/// The price that holds for a call, and what is put on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote<'p> {
    price: &'p Price,
    layer: Layer,
    mark_up: MarkUp,
}

impl<'p> Quote<'p> {
    pub(super) fn new(price: &'p Price, layer: Layer) -> Quote<'p> {
        Quote { price, layer, mark_up: MarkUp::NONE }
    }

    /// With a plan's mark-up, unless the price is the tenant's own.
    pub fn with_mark_up(self, mark_up: MarkUp) -> Quote<'p> {
        match self.layer {
            Layer::Tenant => self,
            Layer::Operator | Layer::Shipped => Quote { mark_up, ..self },
        }
    }

    /// The version that holds.
    pub fn price(&self) -> &'p Price {
        self.price
    }

    /// Who set it.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// What calls come to, part by part.
    ///
    /// Whether a prompt is long can be told of one call; several together are taken to be alike.
    pub fn rate(&self, calls: &Calls) -> Rated {
        Rated {
            version: self.price.version(),
            tokens: self.tokens(calls).collect(),
            images: self.each(calls.images, self.price.per_image_nanousd),
            requests: self.each(calls.requests, self.price.per_request_nanousd),
        }
    }

    /// As [`Quote::rate`], in 1e-12 US dollars and exact; saturates.
    pub fn cost_picousd(&self, calls: &Calls) -> u128 {
        let images = self.each(calls.images, self.price.per_image_nanousd);
        let requests = self.each(calls.requests, self.price.per_request_nanousd);
        sum(self.tokens(calls).map(|(_, part)| part).chain([images, requests]))
    }

    /// As [`Quote::rate`], in 1e-9 US dollars, rounded up once; at most [`MAX_AMOUNT`].
    pub fn cost_nanousd(&self, calls: &Calls) -> u64 {
        nanousd(self.cost_picousd(calls))
    }

    fn tokens(&self, calls: &Calls) -> impl Iterator<Item = (TokenClass, Part)> {
        let prompt_tokens = calls.tokens.of(Side::Input) / calls.requests.max(1);
        calls.tokens.by_class().filter(|(_, quantity)| *quantity > 0).map(move |(class, quantity)| {
            let unit_picousd = self.mark_up.of(self.price.unit_picousd(class, prompt_tokens));
            (class, Part { quantity, unit_picousd })
        })
    }

    fn each(&self, quantity: u64, unit_nanousd: u64) -> Part {
        Part { quantity, unit_picousd: self.mark_up.of(unit_nanousd.saturating_mul(1000)) }
    }
}

/// What calls come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rated {
    /// The name of the price's version: see [`Price::version`].
    pub version: String,
    /// By class, of those that have any, each at its unit price.
    pub tokens: Vec<(TokenClass, Part)>,
    /// The images. Most prices have nothing for these.
    pub images: Part,
    /// The calls themselves. Most prices have nothing for these.
    pub requests: Part,
}

impl Rated {
    /// The sum in 1e-12 US dollars, exact; saturates.
    pub fn picousd(&self) -> u128 {
        sum(self.tokens.iter().map(|(_, part)| *part).chain([self.images, self.requests]))
    }

    /// The sum in 1e-9 US dollars, rounded up once; at most [`MAX_AMOUNT`].
    pub fn nanousd(&self) -> u64 {
        nanousd(self.picousd())
    }
}

fn sum(parts: impl Iterator<Item = Part>) -> u128 {
    parts.fold(0, |sum, part| sum.saturating_add(part.picousd()))
}

fn nanousd(picousd: u128) -> u64 {
    u64::try_from(picousd.div_ceil(1000)).unwrap_or(MAX_AMOUNT).min(MAX_AMOUNT)
}
