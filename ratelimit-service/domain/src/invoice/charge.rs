//! What usage comes to, before it is an invoice's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::amounts::{Decimal, Quantity, UnitUsd};
use crate::amount::TokenClass;

/// What is counted. It is written as `tokens.input`, `requests`, `images` or `event.<type>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Meter {
    /// Tokens of a class.
    Tokens(TokenClass),
    /// Calls.
    Requests,
    /// Images that calls made.
    Images,
    /// What tracked events of a type count.
    Event(String),
}

const TOKENS: &str = "tokens.";
const REQUESTS: &str = "requests";
const IMAGES: &str = "images";
const EVENT: &str = "event.";

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meter::Tokens(class) => write!(f, "{TOKENS}{}", class.as_str()),
            Meter::Requests => f.write_str(REQUESTS),
            Meter::Images => f.write_str(IMAGES),
            Meter::Event(of) => write!(f, "{EVENT}{of}"),
        }
    }
}

impl From<Meter> for String {
    fn from(meter: Meter) -> String {
        meter.to_string()
    }
}

/// A text that names no meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownMeter(String);

impl fmt::Display for UnknownMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no meter; write `tokens.<class>`, `requests`, `images` or `event.<type>`", self.0)
    }
}

impl std::error::Error for UnknownMeter {}

impl TryFrom<String> for Meter {
    type Error = UnknownMeter;

    fn try_from(text: String) -> Result<Meter, UnknownMeter> {
        let class = |name: &str| TokenClass::ALL.into_iter().find(|class| class.as_str() == name);
        let meter = if let Some(name) = text.strip_prefix(TOKENS) {
            class(name).map(Meter::Tokens)
        } else if let Some(of) = text.strip_prefix(EVENT) {
            Some(Meter::Event(of.to_owned()))
        } else {
            [(REQUESTS, Meter::Requests), (IMAGES, Meter::Images)]
                .into_iter()
                .find(|(name, _)| *name == text)
                .map(|(_, meter)| meter)
        };
        meter.ok_or(UnknownMeter(text))
    }
}

/// How a quantity is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// The provider told it, or it was counted.
    Reported,
    /// It rests on an estimate.
    Estimated,
}

/// What one costs, and which version of which price says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitPrice {
    /// The version's name, such as `gpt-4o*@2026-11-01`.
    #[serde(rename = "price")]
    pub version: String,
    /// For one token, request, image or unit of an event.
    #[serde(rename = "unit_usd")]
    pub each: UnitUsd,
}

impl UnitPrice {
    /// A version's price of one, in 1e-12 US dollars.
    pub fn picousd(version: String, each: u64) -> UnitPrice {
        UnitPrice { version, each: Decimal::from_parts(each.into()) }
    }
}

/// What some usage comes to. Charges of the same may be given together or one by one, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// What was counted.
    pub meter: Meter,
    /// Of which model.
    pub model: Option<String>,
    /// At which price; `None` where no price is known.
    pub price: Option<UnitPrice>,
    /// How much: tokens, requests and images in ones, events in millionths.
    pub quantity: u128,
    /// How that is known.
    pub basis: Basis,
}

impl Charge {
    /// How much; `None` where it is too large.
    pub(super) fn measured(&self) -> Option<Quantity> {
        let millionths = match self.meter {
            Meter::Tokens(_) | Meter::Requests | Meter::Images => 1_000_000,
            Meter::Event(_) => 1,
        };
        i128::try_from(self.quantity).ok()?.checked_mul(millionths).map(Decimal::from_parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_have_names() {
        let classes = TokenClass::ALL.into_iter().map(Meter::Tokens);
        let others = [Meter::Requests, Meter::Images, Meter::Event("image.made".into()), Meter::Event(String::new())];
        for meter in classes.chain(others) {
            assert_eq!(Meter::try_from(meter.to_string()), Ok(meter));
        }
        for text in ["", "tokens", "tokens.in", "Requests", "requests.", "image"] {
            assert!(Meter::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
