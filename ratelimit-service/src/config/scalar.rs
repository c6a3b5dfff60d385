//! Scalars with rules of their own, each refused where it stands.

use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::Deserialize;
use tollgate_domain::{Anchor, Day, MAX_AMOUNT, Unit, Weight};
use tollgate_wire::usage_event::MAX_NAME_BYTES;

use super::FIELD;
use crate::{decimal, period};

/// The highest price, in US dollars: for a million tokens or for a call.
pub const MAX_PRICE_USD: u64 = 1_000_000;

/// The longest pattern of models or APIs, in bytes.
pub const MAX_PATTERN_BYTES: usize = 256;

/// A number from 0 up in units of 10^-`PLACES`, read from its digits: no binary fraction comes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Decimal<const PLACES: u32>(u128);

impl<const PLACES: u32> TryFrom<String> for Decimal<PLACES> {
    type Error = String;

    fn try_from(text: String) -> Result<Decimal<PLACES>, String> {
        decimal::read(&text, PLACES).map(Decimal).ok_or_else(|| {
            format!("`{text}` is no number from 0 up with at most {PLACES} decimals; write it in digits, such as 10.5")
        })
    }
}

/// A limit's capacity or burst: US dollars for cost, and whole amounts for all else.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct Capacity(Decimal<9>);

impl Capacity {
    /// In what `unit` counts; cost is counted in 1e-9 US dollars. `key` is its field, which errors name.
    pub(super) fn in_unit(self, unit: Unit, key: &str) -> Result<NonZeroU64, String> {
        const ONE: u128 = 1_000_000_000;
        let Capacity(Decimal(billionths)) = self;
        let amount = match unit {
            Unit::Cost => billionths,
            _ if billionths % ONE == 0 => billionths / ONE,
            _ => return Err(format!("{FIELD}{key}: only cost has decimals; give a whole number")),
        };
        let amount = u64::try_from(amount).map_err(|_| too_large(key))?;
        NonZeroU64::new(amount).ok_or_else(|| format!("{FIELD}{key}: is zero; give more, or leave the limit out"))
    }
}

/// Why the amount under `key` is none.
pub(super) fn too_large(key: &str) -> String {
    format!("{FIELD}{key}: at most {MAX_AMOUNT} can be counted, or ${} of cost", MAX_AMOUNT / 1_000_000_000)
}

/// What counts how often: at most three decimals.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "Decimal<3>")]
pub(super) struct TokenWeight(pub(super) Weight);

impl TryFrom<Decimal<3>> for TokenWeight {
    type Error = String;

    fn try_from(Decimal(thousandths): Decimal<3>) -> Result<TokenWeight, String> {
        let weight = u32::try_from(thousandths).ok().and_then(Weight::from_thousandths);
        weight.map(TokenWeight).ok_or_else(|| format!("a weight is at most {}", Weight::MAX.thousandths() / 1000))
    }
}

/// US dollars in units of 10^-`PLACES`, at most [`MAX_PRICE_USD`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "Decimal<PLACES>")]
pub(super) struct Usd<const PLACES: u32>(pub(super) u64);

impl<const PLACES: u32> TryFrom<Decimal<PLACES>> for Usd<PLACES> {
    type Error = String;

    fn try_from(Decimal(units): Decimal<PLACES>) -> Result<Usd<PLACES>, String> {
        let most = MAX_PRICE_USD * 10_u64.pow(PLACES);
        let units = u64::try_from(units).ok().filter(|units| *units <= most);
        units.map(Usd).ok_or_else(|| format!("a price is at most {MAX_PRICE_USD} US dollars"))
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub(super) struct Within<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<const MIN: u64, const MAX: u64> Within<MIN, MAX> {
    pub(super) fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Within<MIN, MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Within<MIN, MAX>, String> {
        let is_within = (MIN..=MAX).contains(&number);
        is_within.then_some(Within(number)).ok_or_else(|| format!("{number} is not between {MIN} and {MAX}"))
    }
}

/// The name of a tier or tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Name(pub(super) String);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Name, String> {
        match name.len() {
            1..=MAX_NAME_BYTES => Ok(Name(name)),
            bytes => Err(format!("a name has 1 to {MAX_NAME_BYTES} bytes; this one has {bytes}")),
        }
    }
}

/// Models or APIs, with `*` for any characters. Limits are named by theirs, in answers and headers, so that none may have
/// what separates patterns there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern(String);

impl From<&Pattern> for tollgate_domain::Pattern {
    fn from(pattern: &Pattern) -> tollgate_domain::Pattern {
        tollgate_domain::Pattern::new(&pattern.0)
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Pattern, String> {
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b",;{}".contains(&byte);
        match text.len() {
            0 => Err("the pattern is empty; * stands for all".to_owned()),
            1..=MAX_PATTERN_BYTES if text.bytes().all(is_allowed) => Ok(Pattern(text)),
            1..=MAX_PATTERN_BYTES => {
                Err(format!("`{}` has characters other than visible ASCII without , ; {{ }}", text.escape_default()))
            }
            bytes => Err(format!("a pattern has at most {MAX_PATTERN_BYTES} bytes; this one has {bytes}")),
        }
    }
}

/// A moment at which a day and a month begin.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct BillingAnchor(pub(super) Anchor);

impl TryFrom<String> for BillingAnchor {
    type Error = String;

    fn try_from(text: String) -> Result<BillingAnchor, String> {
        let at_ms = text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
        let refused = || format!("`{text}` is no moment since 1970, such as 2026-01-15T08:00:00Z");
        at_ms.map(|at_ms| BillingAnchor(Anchor::at(at_ms))).ok_or_else(refused)
    }
}

/// The day from which something holds, in UTC.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct FirstDay(pub(super) Day);

impl TryFrom<String> for FirstDay {
    type Error = String;

    fn try_from(text: String) -> Result<FirstDay, String> {
        let refused = || format!("`{text}` is no day of 1970 or later, such as 2026-01-31");
        period::day(&text).map(FirstDay).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_dollars_for_cost_and_whole_for_all_else() {
        let capacity = |text: &str| Capacity(text.to_owned().try_into().unwrap());
        assert_eq!(capacity("10.1").in_unit(Unit::Cost, "capacity").unwrap().get(), 10_100_000_000);
        assert_eq!(capacity("10.0").in_unit(Unit::Tokens, "capacity").unwrap().get(), 10);
        assert!(capacity("10.1").in_unit(Unit::Tokens, "burst").unwrap_err().starts_with(".burst: only cost"));
        assert!(capacity("0").in_unit(Unit::Tokens, "capacity").unwrap_err().starts_with(".capacity: is zero"));
        assert!(capacity("99999999999").in_unit(Unit::Cost, "capacity").is_err());
    }
}
