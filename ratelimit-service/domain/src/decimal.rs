//! Numbers of decimal parts, as they are written.

/// So many parts of which `10^places` are one: `1500000` with 6 places is `1.5`. Exact, and without what says nothing. At most
/// 38 places, for `u128` holds no more.
pub fn written(parts: u128, places: u32) -> String {
    let one = 10_u128.pow(places);
    let text = format!("{}.{:0places$}", parts / one, parts % one, places = places as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
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
}
