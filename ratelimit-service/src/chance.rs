//! Chance, from the operating system: for ids, and so that many do not do the same at once.

use uuid::Uuid;

/// Any number. Should the system have no randomness, always the same: what it decides is then regular, not wrong.
pub(crate) fn number() -> u64 {
    getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15)
}

/// A UUIDv7: ordered by time, and random.
pub(crate) fn id() -> String {
    Uuid::now_v7().to_string()
}

/// `most` less a part of it that `chance` decides, up to `percent` of it.
pub(crate) fn less_by_chance(most: u64, percent: u64, chance: u64) -> u64 {
    let range = u128::from(most) * u128::from(percent.min(100)) / 100;
    let less = u128::from(chance) * range / u128::from(u64::MAX);
    most - u64::try_from(less).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_takes_away_at_most_its_part() {
        assert_eq!(less_by_chance(1000, 50, 0), 1000);
        assert_eq!(less_by_chance(1000, 50, u64::MAX), 500);
        assert_eq!(less_by_chance(1000, 50, u64::MAX / 2), 751);
        assert_eq!((less_by_chance(0, 50, 7), less_by_chance(u64::MAX, 100, u64::MAX)), (0, 0));
    }
}
