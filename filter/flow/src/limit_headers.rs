//! Where a tenant's limits stand, told in the dialects of [`LimitHeaders`].

use std::cell::OnceCell;

use tollgate_wire::admission::{Decision, LimitStatus, LimitUnit, WindowUnit, window_seconds};
use tollgate_wire::usage_event::{MAX_UPSTREAM_LIMIT_BYTES, MAX_UPSTREAM_LIMITS};

use crate::config::LimitHeaders;
use crate::headers::Headers;

/// Every header that [`headers`] may give. An upstream's own of these names must not reach the client as ours.
pub(crate) const NAMES: [&str; 11] = [
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "ratelimit-policy",
    "ratelimit",
];

/// Whether a header can be one of [`NAMES`], at a glance.
fn may_be_ours(name: &str) -> bool {
    name.starts_with("x-ratelimit-") || name.starts_with("ratelimit")
}

/// Room for the IETF's headers of a requests and a tokens limit, in bytes; more limits make them grow.
const IETF_BYTES: usize = 96;

/// How the names of providers' own limit headers begin.
const UPSTREAM_PREFIXES: [&str; 4] = ["x-ratelimit-", "anthropic-ratelimit-", "ratelimit", "retry-after"];

/// The upstream's own limits.
pub(crate) struct Upstream {
    /// For the record: each header as `name: value`.
    pub(crate) told: Vec<String>,
    /// Whether any of its headers can be one of [`NAMES`].
    pub(crate) may_have_ours: bool,
}

/// The upstream's own limits, by its headers.
pub(crate) fn upstream(headers: &impl Headers) -> Upstream {
    let mut upstream = Upstream { told: Vec::new(), may_have_ours: false };
    for (name, value) in
        headers.iter().filter(|(name, _)| UPSTREAM_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    {
        upstream.may_have_ours |= may_be_ours(name);
        if let Ok(value) = std::str::from_utf8(value)
            && upstream.told.len() < MAX_UPSTREAM_LIMITS
            && name.len() + ": ".len() + value.len() <= MAX_UPSTREAM_LIMIT_BYTES
        {
            upstream.told.push(format!("{name}: {value}"));
        }
    }
    upstream
}

/// Where limits stood at a moment. All calls of a lease share it, and so the headers that tell it.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    statuses: Vec<LimitStatus>,
    at_ms: u64,
    tells_of_slots: bool,
    headers: OnceCell<Vec<(&'static str, String)>>,
}

impl Limits {
    pub(crate) fn new(statuses: Vec<LimitStatus>, at_ms: u64) -> Limits {
        let tells_of_slots = statuses.iter().any(|limit| limit.counts() == LimitUnit::Concurrency);
        Limits { statuses, at_ms, tells_of_slots, headers: OnceCell::new() }
    }

    /// Whether any of them is one of slots.
    pub(crate) fn tell_of_slots(&self) -> bool {
        self.tells_of_slots
    }

    /// What tells a client of them in the worker's `dialects`; none without limits.
    pub(crate) fn headers(&self, dialects: &[LimitHeaders]) -> &[(&'static str, String)] {
        self.headers.get_or_init(|| headers(&self.statuses, self.at_ms, dialects))
    }
}

/// The headers for a call whose limits stand as `limits` say; none without limits.
pub(crate) fn headers(limits: &[LimitStatus], now_ms: u64, dialects: &[LimitHeaders]) -> Vec<(&'static str, String)> {
    let is_told = |dialect| dialects.contains(&dialect);
    // What each counts is looked up once: nearly every answer comes through here.
    let limits: Vec<_> = limits.iter().map(|limit| (Kind::of(limit), limit)).collect();
    let of = |kind| limits.iter().filter(move |limit| limit.0 == kind);
    let requests = of(Kind::Requests).next();
    let tokens = nearest(of(Kind::Tokens));
    let others = limits.iter().filter(|limit| !matches!(limit.0, Kind::Requests | Kind::Tokens));
    let told = || requests.into_iter().chain(tokens).chain(others.clone());
    let Some((_, first)) = nearest(told()) else { return Vec::new() };
    let mut headers = Vec::with_capacity(NAMES.len());
    if is_told(LimitHeaders::XRatelimit) {
        headers.push(("x-ratelimit-limit", first.capacity.to_string()));
        headers.push(("x-ratelimit-remaining", first.remaining.to_string()));
        headers.push(("x-ratelimit-reset", now_ms.saturating_add(reset_ms(first)).div_ceil(1000).to_string()));
    }
    let openai = is_told(LimitHeaders::Openai);
    if let Some((_, limit)) = requests.filter(|_| openai) {
        headers.push(("x-ratelimit-limit-requests", limit.capacity.to_string()));
        headers.push(("x-ratelimit-remaining-requests", limit.remaining.to_string()));
        headers.push(("x-ratelimit-reset-requests", duration(reset_ms(limit))));
    }
    if let Some((_, limit)) = tokens.filter(|_| openai) {
        headers.push(("x-ratelimit-limit-tokens", limit.capacity.to_string()));
        headers.push(("x-ratelimit-remaining-tokens", limit.remaining.to_string()));
        headers.push(("x-ratelimit-reset-tokens", duration(reset_ms(limit))));
    }
    if !is_told(LimitHeaders::Ietf) {
        return headers;
    }
    let (mut policy, mut state) = (String::with_capacity(IETF_BYTES), String::with_capacity(IETF_BYTES));
    for (kind, limit) in told() {
        ietf(*kind, limit, &mut policy, &mut state);
    }
    headers.push(("ratelimit-policy", policy));
    headers.push(("ratelimit", state));
    headers
}

/// What a limit counts, as far as clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Requests,
    Tokens,
    Images,
    Cost,
    Concurrency,
}

impl Kind {
    fn of(limit: &LimitStatus) -> Kind {
        match limit.counts() {
            LimitUnit::Requests => Kind::Requests,
            LimitUnit::Tokens | LimitUnit::InputTokens | LimitUnit::OutputTokens => Kind::Tokens,
            LimitUnit::Images => Kind::Images,
            LimitUnit::Cost => Kind::Cost,
            LimitUnit::Concurrency => Kind::Concurrency,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Kind::Requests => "requests",
            Kind::Tokens => "tokens",
            Kind::Images => "images",
            Kind::Cost => "cost",
            Kind::Concurrency => "concurrency",
        }
    }
}

/// Appends one limit. The draft has no unit for tokens: the policy's name says what is counted.
fn ietf(kind: Kind, limit: &LimitStatus, policy: &mut String, state: &mut String) {
    for header in [&mut *policy, &mut *state] {
        header.push_str(if header.is_empty() { "\"" } else { ", \"" });
        header.push_str(kind.as_str());
        if let Some(window) = window_name(limit.window) {
            header.push_str("-per-");
            header.push_str(window);
        }
        header.push('"');
    }
    // Piece by piece: formatting took nearly half of the time of all these headers.
    let parameter = |header: &mut String, key: &str, value: u64| {
        header.push_str(key);
        header.push_str(&value.to_string());
    };
    parameter(policy, ";q=", limit.capacity.into());
    if let Some(seconds) = window_seconds(limit.window) {
        parameter(policy, ";w=", seconds);
    }
    parameter(state, ";r=", limit.remaining.into());
    parameter(state, ";t=", reset_ms(limit).div_ceil(1000));
}

/// The limit nearest to its end: of those that denied the one that does so longest, else the one with the smallest share
/// left.
fn nearest<'a>(limits: impl Iterator<Item = &'a (Kind, &'a LimitStatus)>) -> Option<&'a (Kind, &'a LimitStatus)> {
    limits.min_by(|(_, a), (_, b)| {
        let share = |x: &LimitStatus, y: &LimitStatus| u64::from(x.remaining) * u64::from(y.capacity);
        let admits = |limit: &LimitStatus| limit.decision == Decision::Admitted;
        admits(a).cmp(&admits(b)).then_with(|| match a.decision {
            // One that does not tell denies for good.
            Decision::Denied => (a.reset_ms.is_some(), b.reset_ms).cmp(&(b.reset_ms.is_some(), a.reset_ms)),
            Decision::Admitted => share(a, b).cmp(&share(b, a)),
        })
    })
}

/// A header has to say something: a limit that does not tell when it stands anew is told as it is.
fn reset_ms(limit: &LimitStatus) -> u64 {
    limit.reset_ms.unwrap_or(0)
}

/// A window's name in English, in the singular.
pub(crate) fn window_name(window: WindowUnit) -> Option<&'static str> {
    Some(match window {
        WindowUnit::Unknown => return None,
        WindowUnit::Second => "second",
        WindowUnit::Minute => "minute",
        WindowUnit::Hour => "hour",
        WindowUnit::Day => "day",
        WindowUnit::Week => "week",
        WindowUnit::Month => "month",
        WindowUnit::Year => "year",
    })
}

/// A duration as OpenAI writes it: `120ms`, `1s`, `6m0s`, `1h0m5s`. Rounded up to whole seconds, except below one.
pub(crate) fn duration(ms: u64) -> String {
    if (1..1000).contains(&ms) {
        return format!("{ms}ms");
    }
    let seconds = ms.div_ceil(1000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use tollgate_wire::admission::Unit;

    use super::*;

    const ALL: [LimitHeaders; 3] = [LimitHeaders::XRatelimit, LimitHeaders::Openai, LimitHeaders::Ietf];

    fn limit(unit: Unit, capacity: u32, remaining: u32, reset_ms: u64) -> LimitStatus {
        let (name, window) = (String::new(), WindowUnit::Minute);
        LimitStatus { unit, decision: Decision::Admitted, name, capacity, window, remaining, reset_ms: Some(reset_ms) }
    }

    #[test]
    fn three_dialects_say_the_same() {
        let limits = [
            limit(Unit::Requests, 60, 59, 1000),
            limit(Unit::InputTokens, 100_000, 80_000, 12_000),
            limit(Unit::OutputTokens, 100_000, 79_000, 360_000),
        ];
        let expected = [
            ("x-ratelimit-limit", "100000"),
            ("x-ratelimit-remaining", "79000"),
            ("x-ratelimit-reset", "1360"),
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-limit-tokens", "100000"),
            ("x-ratelimit-remaining-tokens", "79000"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("ratelimit-policy", "\"requests-per-minute\";q=60;w=60, \"tokens-per-minute\";q=100000;w=60"),
            ("ratelimit", "\"requests-per-minute\";r=59;t=1, \"tokens-per-minute\";r=79000;t=360"),
        ];
        let got = headers(&limits, 1_000_000, &ALL);
        assert_eq!(got.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), expected);
        assert_eq!(expected.map(|(name, _)| name), NAMES);
        let names = |dialect| headers(&limits, 0, &[dialect]).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(ALL.map(names).concat(), NAMES);
        assert_eq!(headers(&limits, 0, &[]), []);
        assert!(NAMES.into_iter().all(may_be_ours) && !may_be_ours("x-request-id"));
    }

    #[test]
    fn a_limit_that_denied_comes_before_one_with_less_left() {
        let denied = LimitStatus { decision: Decision::Denied, ..limit(Unit::InputTokens, 100, 50, 0) };
        let limits = [limit(Unit::Requests, 60, 0, 0), denied];
        assert_eq!(headers(&limits, 0, &ALL).first(), Some(&("x-ratelimit-limit", "100".to_owned())));
    }

    #[test]
    fn cost_and_concurrency_are_neither_requests_nor_tokens() {
        let named = |name: &str, limit: LimitStatus| LimitStatus { name: name.to_owned(), ..limit };
        let slots = named("concurrency", limit(Unit::Requests, 5, 4, 0));
        let slots = LimitStatus { window: WindowUnit::Unknown, ..slots };
        let cost = named("cost_per_minute", limit(Unit::OutputTokens, 10_000_000, 1, 5000));
        let expected = [
            ("x-ratelimit-limit", "10000000"),
            ("x-ratelimit-remaining", "1"),
            ("x-ratelimit-reset", "5"),
            ("ratelimit-policy", "\"concurrency\";q=5, \"cost-per-minute\";q=10000000;w=60"),
            ("ratelimit", "\"concurrency\";r=4;t=0, \"cost-per-minute\";r=1;t=5"),
        ];
        let got = headers(&[slots, cost], 0, &ALL);
        assert_eq!(got.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn without_limits_there_are_no_headers() {
        assert_eq!(headers(&[], 0, &ALL), []);
    }

    #[test]
    fn durations_read_as_openais() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1001, "2s"),
            (360_000, "6m0s"),
            (3_605_000, "1h0m5s"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text);
        }
    }
}
