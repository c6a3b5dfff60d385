//! What a limit counts, as its name tells.

use super::Unit;

/// What a limit's capacity and remainder count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitUnit {
    /// Calls.
    Requests,
    /// Tokens, input and output together.
    Tokens,
    /// Tokens sent to the model.
    InputTokens,
    /// Tokens that the model answers with.
    OutputTokens,
    /// Images that calls make.
    Images,
    /// Money, in micro-dollars (1e-6 USD). `u32::MAX` stands for anything above it.
    Cost,
    /// Calls that go on at the same time.
    Concurrency,
}

/// The name of limits on calls at the same time, which have no window.
const CONCURRENCY: &str = "concurrency";
/// The windows that a limit's name may have.
const WINDOWS: [&str; 7] = ["second", "minute", "hour", "day", "week", "month", "year"];

impl LimitUnit {
    /// What the limit of this name counts: `<unit>_per_<window>` or `concurrency`, either one optionally followed by the
    /// calls that it is for, in braces: `tokens_per_day{model=gpt-4*}`. `None` for names that are not of this form.
    pub fn parse(limit_name: &str) -> Option<LimitUnit> {
        let base = match limit_name.split_once('{') {
            Some((base, scope)) => scope.ends_with('}').then_some(base)?,
            None => limit_name,
        };
        if base == CONCURRENCY {
            return Some(LimitUnit::Concurrency);
        }
        let (unit, window) = base.split_once("_per_")?;
        if !WINDOWS.contains(&window) {
            return None;
        }
        Some(match unit {
            "requests" => LimitUnit::Requests,
            "tokens" => LimitUnit::Tokens,
            "input_tokens" => LimitUnit::InputTokens,
            "output_tokens" => LimitUnit::OutputTokens,
            "images" => LimitUnit::Images,
            "cost" => LimitUnit::Cost,
            _ => return None,
        })
    }
}

impl From<Unit> for LimitUnit {
    fn from(unit: Unit) -> LimitUnit {
        match unit {
            Unit::Requests => LimitUnit::Requests,
            Unit::InputTokens => LimitUnit::InputTokens,
            Unit::OutputTokens => LimitUnit::OutputTokens,
            Unit::Images => LimitUnit::Images,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_names_tell_what_they_count() {
        let cases = [
            ("requests_per_minute", LimitUnit::Requests),
            ("tokens_per_day", LimitUnit::Tokens),
            ("input_tokens_per_hour", LimitUnit::InputTokens),
            ("output_tokens_per_second", LimitUnit::OutputTokens),
            ("images_per_minute", LimitUnit::Images),
            ("cost_per_month", LimitUnit::Cost),
            ("concurrency", LimitUnit::Concurrency),
            ("tokens_per_day{model=gpt-4*}", LimitUnit::Tokens),
            ("cost_per_day{model=gpt-4*,o1;api=*chat}", LimitUnit::Cost),
            ("concurrency{model={x}}", LimitUnit::Concurrency),
        ];
        for (name, unit) in cases {
            assert_eq!(LimitUnit::parse(name), Some(unit), "{name}");
        }
    }

    #[test]
    fn other_names_tell_nothing() {
        let others = [
            "",
            "requests",
            "tokens_per_user",
            "requests_per_minute{model=x",
            "requests_per_minute}",
            "concurrency_per_day",
            "bytes_per_day",
            "Requests_per_minute",
            "context_tokens",
        ];
        for name in others {
            assert_eq!(LimitUnit::parse(name), None, "{name}");
        }
    }
}
