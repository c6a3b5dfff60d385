//! Records that are not taken: why, by class.

use tollgate_wire::usage_event::{InvalidEvent, Problem, UsageEvent, UsageSource};

use crate::ledger::MAX_COUNT;

/// How far ahead of our clock something may have happened, in milliseconds: clocks differ, and time zones are got wrong.
pub(crate) const MAX_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// Why a record is not taken, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It tells of something else than a call.
    Foreign,
    /// The id, the tenant or the time is missing.
    Missing,
    /// A name is too long.
    TooLong,
    /// An attribute has no value of its kind.
    Invalid,
    /// A count is larger than is summed.
    TooLarge,
    /// It claims to be the limiter's word.
    Unsettled,
    /// It tells of the future.
    Future,
}

impl Class {
    /// Their names, by which metrics and dead letters tell them apart; in the order of the variants.
    pub const NAMES: [&str; 7] = ["foreign", "missing", "too_long", "invalid", "too_large", "unsettled", "future"];

    /// Its name.
    pub fn name(self) -> &'static str {
        Class::NAMES[self as usize]
    }
}

/// Why a record is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) class: Class,
    /// For people: names the attribute.
    pub(super) reason: String,
}

impl From<InvalidEvent> for Rejection {
    fn from(error: InvalidEvent) -> Rejection {
        let class = match error.problem {
            Problem::Foreign => Class::Foreign,
            Problem::Missing => Class::Missing,
            Problem::TooLong => Class::TooLong,
            Problem::Invalid => Class::Invalid,
        };
        Rejection { class, reason: error.to_string() }
    }
}

/// Refuses what no sender may say.
pub(super) fn check(event: &UsageEvent, now_ms: u64) -> Result<(), Rejection> {
    let counts = [event.tokens.largest(), event.duration_ms, event.time_to_first_token_ms.unwrap_or(0)];
    let (class, reason) = if counts.into_iter().any(|count| count > MAX_COUNT) {
        (Class::TooLarge, format!("a count is larger than {MAX_COUNT}"))
    } else if event.usage_source == UsageSource::Unsettled {
        (Class::Unsettled, "tollgate.usage_source: only the limiter tells what is unsettled".to_owned())
    } else if event.started_at_ms > now_ms.saturating_add(MAX_AHEAD_MS) {
        (Class::Future, "time_unix_nano is more than a day ahead of the clock here".to_owned())
    } else {
        return Ok(());
    };
    Err(Rejection { class, reason })
}
