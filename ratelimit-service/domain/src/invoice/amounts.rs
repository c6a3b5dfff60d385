//! Exact decimal numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::decimal;

/// A signed number of parts of which `10^PLACES` are one. It is written as a decimal number, in JSON as a string of
/// one, since what reads JSON may make a double of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Decimal<const PLACES: u32>(i128);

/// How much was used: tokens, requests or units of an event, in millionths.
pub type Quantity = Decimal<6>;
/// The price of one, in 1e-12 US dollars.
pub type UnitUsd = Decimal<12>;
/// An amount before it is rounded, in 1e-24 US dollars: millionths of a quantity at a price in 1e-12 dollars, times a
/// factor in millionths, is exact.
pub type ExactUsd = Decimal<24>;
/// An amount that is paid, in cents of a US dollar. It is written with both places.
pub type Cents = Decimal<2>;

impl<const PLACES: u32> Decimal<PLACES> {
    /// Nothing.
    pub const ZERO: Self = Decimal(0);

    /// From a number of its parts.
    pub const fn from_parts(parts: i128) -> Self {
        Decimal(parts)
    }

    /// The number of its parts.
    pub const fn parts(self) -> i128 {
        self.0
    }

    /// The sum; `None` where it is too large.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Decimal)
    }

    /// The sum of all; `None` where it is too large on the way.
    pub(super) fn sum(mut numbers: impl Iterator<Item = Self>) -> Option<Self> {
        numbers.try_fold(Decimal::ZERO, Decimal::plus)
    }

    /// The difference; `None` where it is too large.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Decimal)
    }
}

impl ExactUsd {
    /// The nearest whole cent; of two that are as near the even one.
    pub fn rounded(self) -> Cents {
        Decimal(divided(self.0, PARTS_OF_A_CENT))
    }
}

impl Cents {
    /// So many millionths of it, rounded to the nearest cent; of two that are as near the even one.
    pub(super) fn part(self, millionths: u32) -> Option<Cents> {
        let parts = self.0.checked_mul(millionths.into())?;
        Some(Decimal(divided(parts, 1_000_000)))
    }

    /// The same amount, exactly; `None` where it is too large.
    pub(super) fn exact(self) -> Option<ExactUsd> {
        self.0.checked_mul(PARTS_OF_A_CENT).map(Decimal)
    }
}

const PARTS_OF_A_CENT: i128 = 10_i128.pow(22);

/// `parts / divisor`, rounded half to even.
fn divided(parts: i128, divisor: i128) -> i128 {
    let (whole, rest) = (parts.div_euclid(divisor), parts.rem_euclid(divisor));
    match (rest * 2).cmp(&divisor) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Greater => whole + 1,
        std::cmp::Ordering::Equal => whole + whole.rem_euclid(2),
    }
}

impl<const PLACES: u32> fmt::Display for Decimal<PLACES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = decimal::written(self.0.unsigned_abs(), PLACES);
        let missing = match text.split_once('.') {
            _ if PLACES != 2 => "",
            None => ".00",
            Some((_, places)) if places.len() == 1 => "0",
            Some(_) => "",
        };
        write!(f, "{}{text}{missing}", if self.0 < 0 { "-" } else { "" })
    }
}

impl<const PLACES: u32> From<Decimal<PLACES>> for String {
    fn from(number: Decimal<PLACES>) -> String {
        number.to_string()
    }
}

/// Why a text is no such number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoDecimal {
    places: u32,
}

impl fmt::Display for NoDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is no decimal number of at most {} places, or too large; write it such as -12.5", self.places)
    }
}

impl std::error::Error for NoDecimal {}

impl<const PLACES: u32> FromStr for Decimal<PLACES> {
    type Err = NoDecimal;

    fn from_str(text: &str) -> Result<Self, NoDecimal> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
        let (whole, places) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parts = || {
            let of_whole = whole.parse::<i128>().ok()?.checked_mul(10_i128.pow(PLACES))?;
            let of_places = places.parse::<i128>().ok()? * 10_i128.pow(PLACES.checked_sub(places.len() as u32)?);
            of_whole.checked_add(of_places).map(|parts| Decimal(sign * parts))
        };
        if is_number(whole) && is_number(places) { parts() } else { None }.ok_or(NoDecimal { places: PLACES })
    }
}

impl<const PLACES: u32> TryFrom<String> for Decimal<PLACES> {
    type Error = NoDecimal;

    fn try_from(text: String) -> Result<Self, NoDecimal> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_go_to_the_even_cent() {
        let half = PARTS_OF_A_CENT / 2;
        let cents = [half, half + 1, 3 * half, 5 * half, -half, -half - 1, -3 * half, -5 * half];
        let rounded = cents.map(|parts| ExactUsd::from_parts(parts).rounded().parts());
        assert_eq!(rounded, [0, 1, 2, 2, 0, -1, -2, -2]);
        assert_eq!(Cents::from_parts(50).part(190_000), Some(Cents::from_parts(10)), "9.5");
        assert_eq!(Cents::from_parts(-250).part(190_000), Some(Cents::from_parts(-48)), "-47.5");
    }

    #[test]
    fn cents_have_two_places_and_nothing_else_more_than_it_needs() {
        let written = [0, 5, -50, 1_234].map(|cents| Cents::from_parts(cents).to_string());
        assert_eq!(written, ["0.00", "0.05", "-0.50", "12.34"]);
        assert_eq!(Quantity::from_parts(-1_500_000).to_string(), "-1.5");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".5", "5.", "1.234", "+1", "1e3", "--1", "1.-2", "٣", &"9".repeat(40)] {
            assert!(text.parse::<Cents>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in -i128::MAX..=i128::MAX) {
            prop_assert_eq!(Cents::from_parts(parts).to_string().parse(), Ok(Cents::from_parts(parts)));
            prop_assert_eq!(ExactUsd::from_parts(parts).to_string().parse(), Ok(ExactUsd::from_parts(parts)));
        }

        #[test]
        fn a_rounded_amount_is_at_most_half_a_cent_off(parts in -i128::MAX / 4..i128::MAX / 4) {
            let cents = |parts| ExactUsd::from_parts(parts).rounded().parts();
            prop_assert!((cents(parts) * PARTS_OF_A_CENT - parts).abs() * 2 <= PARTS_OF_A_CENT);
            prop_assert_eq!(cents(-parts), -cents(parts));
        }
    }
}
