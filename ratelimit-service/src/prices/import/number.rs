//! Amounts as JSON writes them, read from their digits.

/// So many significant digits of a decimal are the same once it was held by a double. What is beyond is the double's
/// noise: a table that was worked out with floats has `2.0000000000000002e-07` for 0.2 dollars a million.
const DOUBLE_DIGITS: usize = 15;

/// The most places that an exponent shifts the point by.
const MAX_SHIFT: i64 = 100;

/// The number that the JSON `text` is, in parts of which `10^places` are one, rounded half up to [`DOUBLE_DIGITS`].
///
/// # Errors
/// When it is no number from 0 up, or is not whole in these parts.
pub(super) fn read(text: &str, places: u32) -> Result<u128, String> {
    let (digits, exponent) = parts(text).ok_or_else(|| format!("{} is no number from 0 up", told(text)))?;
    let (digits, exponent) = rounded(digits, exponent);
    let shift = exponent + i64::from(places);
    let fine = || format!("{} is finer than 1e-{places} US dollars", told(text));
    let large = || format!("{} is too large", told(text));
    match digits.as_str() {
        "" => Ok(0),
        _ if shift < 0 => Err(fine()),
        _ if shift > MAX_SHIFT => Err(large()),
        digits => format!("{digits}{}", "0".repeat(shift.unsigned_abs() as usize)).parse().map_err(|_| large()),
    }
}

/// The beginning of what was written, for an error.
fn told(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Digits, and the power of ten that they are to be multiplied by.
fn parts(text: &str) -> Option<(String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let exponent: i64 = exponent.parse::<i32>().ok()?.into();
    Some((format!("{whole}{fraction}"), exponent - i64::try_from(fraction.len()).ok()?))
}

/// Without zeros around, and rounded; no digits for zero.
fn rounded(digits: String, exponent: i64) -> (String, i64) {
    let digits = digits.trim_start_matches('0');
    let (kept, cut) = digits.split_at(digits.len().min(DOUBLE_DIGITS));
    let exponent = exponent + cut.len() as i64;
    let kept = match (kept.parse::<u64>(), cut.as_bytes().first()) {
        (Ok(number), Some(b'5'..)) => (number + 1).to_string(),
        _ => kept.to_owned(),
    };
    let significant = kept.trim_end_matches('0');
    (significant.to_owned(), exponent + (kept.len() - significant.len()) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_exact_however_they_are_written() {
        for (text, picousd) in [
            ("1.5e-07", 150_000),
            ("1.5E-7", 150_000),
            ("0.00000015", 150_000),
            ("0", 0),
            ("0.0", 0),
            ("0e9", 0),
            ("3", 3_000_000_000_000),
            ("1e+2", 100_000_000_000_000),
            ("8.75e-09", 8750),
            // Of floats that were worked with.
            ("2.0000000000000002e-07", 200_000),
            ("9.499999999999999e-07", 950_000),
            ("1.0000000000000000000000e-12", 1),
        ] {
            assert_eq!(read(text, 12), Ok(picousd), "{text}");
        }
        assert_eq!(read("0.075", 6), Ok(75_000));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "-1", "\"1\"", "null", "1e", "e1", ".5", "1.2.3", "1e999999999999", "NaN", "[1]"] {
            assert!(read(text, 12).unwrap_err().ends_with("is no number from 0 up"), "{text}");
        }
        for text in ["3.59375e-08", "1e-13", "1.5e-300"] {
            assert!(read(text, 12).unwrap_err().ends_with("is finer than 1e-12 US dollars"), "{text}");
        }
        for text in ["1e300", "1e50", &"9".repeat(50)] {
            assert!(read(text, 12).unwrap_err().ends_with("is too large"), "{text}");
        }
    }

    proptest! {
        /// A double's shortest form, as every table's writer has it.
        #[test]
        fn a_decimal_survives_a_double(parts in 0..1_000_000_000_000u64) {
            let double: f64 = format!("{parts}e-12").parse().unwrap();
            prop_assert_eq!(read(&format!("{double:e}"), 12), Ok(parts.into()));
            prop_assert_eq!(read(&format!("{double}"), 12), Ok(parts.into()));
        }

        #[test]
        fn nothing_panics(text in "[0-9.eE+-]{0,60}", places in 0..20u32) {
            let _ = read(&text, places);
        }
    }
}
