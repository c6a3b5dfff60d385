//! When a delivery is tried again.

use crate::chance::less_by_chance;

const SECOND_MS: u64 = 1000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// How long to wait after each failure: the schedule that Standard Webhooks proposes.
const WAITS_MS: [u64; 9] = [
    5 * SECOND_MS,
    5 * MINUTE_MS,
    30 * MINUTE_MS,
    2 * HOUR_MS,
    5 * HOUR_MS,
    10 * HOUR_MS,
    14 * HOUR_MS,
    20 * HOUR_MS,
    24 * HOUR_MS,
];

/// How often a delivery is tried at most.
pub const MAX_ATTEMPTS: u32 = WAITS_MS.len() as u32 + 1;

/// How much of a wait is left to chance, in percent.
const JITTER_PERCENT: u64 = 20;

/// How long to wait after so many attempts, all of which failed; `None` when there is no further one. A receiver that asks to be
/// left alone longer is, for `asked_ms`.
pub(super) fn wait_ms(attempts: u32, asked_ms: Option<u64>, chance: u64) -> Option<u64> {
    let wait_ms = usize::try_from(attempts).ok()?.checked_sub(1).and_then(|failure| WAITS_MS.get(failure))?;
    Some(less_by_chance(*wait_ms, JITTER_PERCENT, chance).max(asked_ms.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_are_spread_over_days() {
        let waits: Vec<_> = (1..).map_while(|attempts| wait_ms(attempts, None, 0)).map(|ms| ms / 1000).collect();
        assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert_eq!((wait_ms(MAX_ATTEMPTS - 1, None, 0).is_some(), wait_ms(MAX_ATTEMPTS, None, 0)), (true, None));
    }

    #[test]
    fn chance_shortens_a_wait_and_a_receiver_lengthens_it() {
        assert_eq!(wait_ms(1, None, u64::MAX), Some(4000));
        assert_eq!(wait_ms(1, Some(60_000), u64::MAX), Some(60_000));
        assert_eq!(wait_ms(MAX_ATTEMPTS, Some(1), 0), None);
    }
}
