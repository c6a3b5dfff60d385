//! Limits: so much of a unit in a window, for all calls or some.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::amount::{MAX_AMOUNT, Pattern, Quantities, Side, Weights};

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Calls.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Tokens sent to the model.
    InputTokens,
    /// Tokens that the model answered with.
    OutputTokens,
    /// Money, in 1e-9 US dollars.
    Cost,
    /// Calls that are going on at once: open reservations.
    Concurrency,
}

impl Unit {
    /// As it is written in configs and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::Tokens => "tokens",
            Unit::InputTokens => "input_tokens",
            Unit::OutputTokens => "output_tokens",
            Unit::Cost => "cost",
            Unit::Concurrency => "concurrency",
        }
    }
}

/// The time in which a limit's capacity may be spent.
///
/// Up to an hour it is refilled continuously. A day and a month are those of the calendar, from the tenant's billing
/// anchor on or else in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Window {
    Second,
    Minute,
    Hour,
    Day,
    Month,
}

impl Window {
    /// As it is written in configs and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Window::Second => "second",
            Window::Minute => "minute",
            Window::Hour => "hour",
            Window::Day => "day",
            Window::Month => "month",
        }
    }

    /// The length of a window that is refilled continuously; `None` for a calendar one.
    pub fn refilled_in_ms(self) -> Option<u64> {
        match self {
            Window::Second => Some(1_000),
            Window::Minute => Some(60_000),
            Window::Hour => Some(3_600_000),
            Window::Day | Window::Month => None,
        }
    }
}

/// What a limit does to a call that it has no room for; what binds more comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Denies it.
    #[default]
    Enforce,
    /// Admits it, and the answer says so.
    Warn,
    /// Admits it; only metrics tell.
    Shadow,
}

/// The calls that a limit counts. An empty list takes all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Models asked for; a call that names none is of no model.
    pub models: Vec<Pattern>,
    /// APIs called.
    pub apis: Vec<Pattern>,
    /// Keys that the tenant's callers show, each by its name; a call without one is of no key.
    pub keys: Vec<String>,
}

impl Scope {
    fn has(&self, call: &Call<'_>) -> bool {
        let any = |patterns: &[Pattern], name: Option<&str>| {
            patterns.is_empty() || name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
        };
        let is_of_key = |key: &str| self.keys.iter().any(|name| name == key);
        any(&self.models, call.model)
            && any(&self.apis, call.api)
            && (self.keys.is_empty() || call.key.is_some_and(is_of_key))
    }
}

/// What of a call decides which limits count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Call<'a> {
    /// The model asked for.
    pub model: Option<&'a str>,
    /// The API called.
    pub api: Option<&'a str>,
    /// Which of the tenant's keys the caller shows.
    pub key: Option<&'a str>,
}

/// Names what a limit counts: the same in all plans and replicas, whatever the capacity. A hash of the limit's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterId(pub u64);

impl CounterId {
    /// FNV-1a.
    fn of(name: &str) -> CounterId {
        CounterId(
            name.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)),
        )
    }
}

/// So much of a unit in a window.
///
/// A tenant has one count for each unit, window and scope, also when its tier changes: the new capacity then holds
/// against what is already spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub unit: Unit,
    /// In which time; `None` for concurrency alone.
    pub window: Option<Window>,
    /// How much may be spent in a window, or be going on at once.
    pub capacity: NonZeroU64,
    /// How much may be spent at once where the window is refilled continuously, so that no interval as long as the window
    /// has more than `capacity` and `burst` together; elsewhere the capacity.
    pub burst: NonZeroU64,
    /// What it does when there is no room.
    pub action: Action,
    /// The calls that it counts.
    pub scope: Scope,
    /// How much what counts.
    pub weights: Weights,
    name: String,
    counter: CounterId,
}

/// Why a limit is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitError {
    /// Every unit but concurrency has a window.
    WindowMissing,
    /// Concurrency has none.
    WindowOfConcurrency,
    /// Only windows that are refilled continuously have one.
    BurstNotRefilled,
    /// The capacity or the burst is more than [`MAX_AMOUNT`].
    TooLarge,
    /// Cost and concurrency are not weighed.
    NotWeighed,
    /// A request counts whole times: its part could not be told from the next one's.
    PartOfRequest,
}

impl std::fmt::Display for LimitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LimitError::WindowMissing => "window: is missing; give second, minute, hour, day or month",
            LimitError::WindowOfConcurrency => "window: concurrency counts what is going on now; leave it out",
            LimitError::BurstNotRefilled => "burst: only a second, minute or hour is refilled; leave it out here",
            LimitError::TooLarge => "capacity, burst: at most 9007199254740991 can be counted, or $9007199 of cost",
            LimitError::NotWeighed => "weights: cost and concurrency count as they are; leave them out",
            LimitError::PartOfRequest => {
                "weights.models: a request counts whole times; give whole numbers, and multiply the capacity instead"
            }
        })
    }
}

impl std::error::Error for LimitError {}

impl Limit {
    /// A limit of all calls that enforces; its burst is its capacity.
    ///
    /// # Errors
    /// When the unit and the window do not belong together, or the capacity is more than [`MAX_AMOUNT`].
    pub fn new(unit: Unit, window: Option<Window>, capacity: NonZeroU64) -> Result<Limit, LimitError> {
        match (unit, window) {
            (Unit::Concurrency, Some(_)) => return Err(LimitError::WindowOfConcurrency),
            (Unit::Concurrency, None) | (_, Some(_)) => {}
            (_, None) => return Err(LimitError::WindowMissing),
        }
        if capacity.get() > MAX_AMOUNT {
            return Err(LimitError::TooLarge);
        }
        let (action, scope, weights) = (Action::Enforce, Scope::default(), Weights::default());
        let limit = Limit {
            unit,
            window,
            capacity,
            burst: capacity,
            action,
            scope,
            weights,
            name: String::new(),
            counter: CounterId(0),
        };
        Ok(limit.named())
    }

    /// The same with another burst.
    ///
    /// # Errors
    /// When its window is not refilled continuously, or the burst is more than [`MAX_AMOUNT`].
    pub fn with_burst(self, burst: NonZeroU64) -> Result<Limit, LimitError> {
        if self.window.and_then(Window::refilled_in_ms).is_none() {
            return Err(LimitError::BurstNotRefilled);
        }
        if burst.get() > MAX_AMOUNT {
            return Err(LimitError::TooLarge);
        }
        Ok(Limit { burst, ..self })
    }

    /// The same with another action.
    pub fn with_action(self, action: Action) -> Limit {
        Limit { action, ..self }
    }

    /// The same for some calls only.
    pub fn with_scope(self, scope: Scope) -> Limit {
        Limit { scope, ..self }.named()
    }

    /// The same, counting otherwise.
    ///
    /// # Errors
    /// When its unit is not weighed, or requests are by parts.
    pub fn with_weights(self, weights: Weights) -> Result<Limit, LimitError> {
        match self.unit {
            Unit::Cost | Unit::Concurrency if !weights.is_plain() => return Err(LimitError::NotWeighed),
            Unit::Requests if !weights.has_whole_models() => return Err(LimitError::PartOfRequest),
            _ => {}
        }
        Ok(Limit { weights, ..self })
    }

    fn named(mut self) -> Limit {
        let mut name = self.unit.as_str().to_owned();
        if let Some(window) = self.window {
            name.push_str("_per_");
            name.push_str(window.as_str());
        }
        let list = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join(",");
        let Scope { models, apis, keys } = &self.scope;
        let keys: Vec<_> = keys.iter().map(|key| escaped(key)).collect();
        let scopes = [("model", list(models)), ("api", list(apis)), ("key", keys.join(","))];
        let scopes = scopes.into_iter().filter(|(_, list)| !list.is_empty());
        let scopes: Vec<_> = scopes.map(|(what, list)| format!("{what}={list}")).collect();
        if !scopes.is_empty() {
            name.push_str(&format!("{{{}}}", scopes.join(";")));
        }
        self.counter = CounterId::of(&name);
        self.name = name;
        self
    }

    /// Such as `requests_per_minute`, `concurrency` or `tokens_per_day{model=gpt-4*}`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How little it binds, beside another that counts the same: what denies binds more than what does not, and then the smaller
    /// one does.
    pub(crate) fn looseness(&self) -> (Action, u64) {
        (self.action, self.capacity.get())
    }

    /// What it counts. Limits that count the same share it, whatever their capacities.
    pub fn counter(&self) -> CounterId {
        self.counter
    }

    /// Whether it is a day's or month's.
    pub fn is_calendar(&self) -> bool {
        matches!(self.window, Some(Window::Day | Window::Month))
    }

    /// Whether every call takes the same of it, so that what it has no room for once it has none for.
    pub fn counts_every_call(&self) -> bool {
        self.unit == Unit::Requests && self.scope == Scope::default()
    }

    /// Whether it counts `call`.
    pub(crate) fn counts(&self, call: &Call<'_>) -> bool {
        self.scope.has(call)
    }

    /// How much of its unit these quantities are.
    pub(crate) fn amount(&self, call: &Call<'_>, quantities: &Quantities) -> u64 {
        let tokens = |counts: fn(Side) -> bool| self.weights.tokens(call.model, &quantities.tokens, counts);
        match self.unit {
            Unit::Requests => self.weights.requests(call.model, quantities.requests),
            Unit::Tokens => tokens(|_| true),
            Unit::InputTokens => tokens(|side| side == Side::Input),
            Unit::OutputTokens => tokens(|side| side == Side::Output),
            Unit::Cost => quantities.cost_nanousd.min(MAX_AMOUNT),
            Unit::Concurrency => quantities.slots.min(MAX_AMOUNT),
        }
    }
}

/// A key may have any characters; those that end it in a limit's name are told apart.
fn escaped(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for character in key.chars() {
        if matches!(character, '\\' | ',' | ';' | '}') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Prints its name.
impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_unit_window_and_scope() {
        let limit = |unit, window| Limit::new(unit, window, NonZeroU64::MIN);
        let plain = limit(Unit::Tokens, Some(Window::Day)).unwrap();
        let scope = Scope {
            models: vec![Pattern::new("gpt-4*"), Pattern::new("o1")],
            apis: vec![Pattern::new("*chat")],
            keys: Vec::new(),
        };
        let scoped = plain.clone().with_scope(scope);
        assert_eq!((plain.name(), scoped.name()), ("tokens_per_day", "tokens_per_day{model=gpt-4*,o1;api=*chat}"));
        assert_ne!(plain.counter(), scoped.counter());
        let call = |model, api| Call { model: Some(model), api: Some(api), key: None };
        assert!(scoped.counts(&call("gpt-4o", "openai.chat")) && scoped.counts(&call("o1", "chat")));
        assert!(!scoped.counts(&call("o1-mini", "chat")) && !scoped.counts(&call("o1", "responses")));
        assert!(!scoped.counts(&Call::default()) && plain.counts(&Call::default()));
    }

    #[test]
    fn a_key_is_counted_by_its_whole_name() {
        let of = |keys: &[&str]| {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            let limit = Limit::new(Unit::Cost, Some(Window::Month), NonZeroU64::MIN).unwrap();
            limit.with_scope(Scope { keys, ..Scope::default() })
        };
        let call = |key| Call { key: Some(key), ..Call::default() };
        let limit = of(&["ci", "a,b"]);
        assert_eq!(limit.name(), "cost_per_month{key=ci,a\\,b}");
        assert!(limit.counts(&call("ci")) && limit.counts(&call("a,b")));
        assert!(!limit.counts(&call("c*")) && !limit.counts(&call("a")) && !limit.counts(&Call::default()));
        assert_ne!(of(&["a,b"]).counter(), of(&["a", "b"]).counter());
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let limit = |unit, window| Limit::new(unit, window, NonZeroU64::MIN);
        assert_eq!(limit(Unit::Concurrency, None).unwrap().name(), "concurrency");
        assert_eq!(limit(Unit::Concurrency, Some(Window::Day)), Err(LimitError::WindowOfConcurrency));
        assert_eq!(limit(Unit::Cost, None), Err(LimitError::WindowMissing));
        let day = limit(Unit::Cost, Some(Window::Day)).unwrap();
        assert_eq!(day.clone().with_burst(NonZeroU64::MIN), Err(LimitError::BurstNotRefilled));
        let weights = Weights::new(Vec::new(), vec![(Pattern::new("*"), crate::Weight::ONE)]);
        assert_eq!(day.with_weights(weights), Err(LimitError::NotWeighed));
        assert_eq!(Limit::new(Unit::Tokens, Some(Window::Hour), NonZeroU64::MAX), Err(LimitError::TooLarge));
        let weighed = |unit, thousandths| {
            let weight = crate::Weight::from_thousandths(thousandths).unwrap();
            let weights = Weights::new(Vec::new(), vec![(Pattern::new("*"), weight)]);
            limit(unit, Some(Window::Day)).unwrap().with_weights(weights)
        };
        assert!(weighed(Unit::Requests, 0).is_ok() && weighed(Unit::Requests, 7_000).is_ok());
        assert!(weighed(Unit::Tokens, 100).is_ok());
        for thousandths in [1, 100, 999, 1_500] {
            assert_eq!(weighed(Unit::Requests, thousandths), Err(LimitError::PartOfRequest));
        }
    }
}
