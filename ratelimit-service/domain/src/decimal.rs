//! Numbers of decimal parts, as they are written.

/// So many parts of which `10^places` are one: `1500000` with 6 places is `1.5`. Exact, and without what says nothing. At most
/// 38 places, for `u128` holds no more.
pub fn written(parts: u128, places: u32) -> String {
    let one = 10_u128.pow(places);
    let text = format!("{}.{:0places$}", parts / one, parts % one, places = places as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The number that is written in `text` in parts of which `10^places` are one; `None` when it is none from 0 up, is
/// finer, or is too large. `_` may stand between the digits before the point.
pub fn read(text: &str, places: u32) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !whole.split('_').all(are_digits) || !are_digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let places = usize::try_from(places).ok().filter(|places| fraction.len() <= *places)?;
    format!("{}{fraction:0<places$}", whole.replace('_', "")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_not_written() {
        let millionths = [0, 1, 1_500_000, 20_000_000].map(|micros| written(micros, 6));
        assert_eq!(millionths, ["0", "0.000001", "1.5", "20"]);
        assert_eq!(written(99_000_000_099, 9), "99.000000099");
    }

    #[test]
    fn decimals_are_exact() {
        // As doubles, 0.1 + 0.2 is not 0.3, and 9007199.254740993 is not itself.
        let nano = |text| read(text, 9);
        assert_eq!(nano("0.1").unwrap() + nano("0.2").unwrap(), nano("0.3").unwrap());
        assert_eq!(nano("9007199.254740993"), Some(9_007_199_254_740_993));
        assert_eq!(nano("0.000000001"), Some(1));
        assert_eq!(nano("10.50"), Some(10_500_000_000));
        assert_eq!(nano("1.0000000000000000"), Some(1_000_000_000), "zeros at the end say nothing");
        assert_eq!((read("0.075", 6), read("3", 3), read("1_000", 0)), (Some(75_000), Some(3000), Some(1000)));
    }

    #[test]
    fn what_is_no_decimal_or_too_fine_is_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0x10", "_1", "1__0", "1.0_0", "١", "NaN", "1.0.0"]
        {
            assert_eq!(read(text, 9), None, "{text}");
        }
        assert_eq!((read("0.0001", 3), read("0.1", 0)), (None, None));
        assert_eq!(read(&"9".repeat(40), 9), None);
    }
}
