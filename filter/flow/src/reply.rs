//! Answers in the provider's place, in the shape that the provider's own SDK understands.

use tollgate_wire::admission::{AdmissionResponse, Decision, LimitStatus, LimitUnit, WindowUnit};

use crate::config::LimitHeaders;
use crate::identity::Refusal;
use crate::limit_headers;

mod dialect;

pub(crate) use dialect::Dialect;

/// A response that the filter gives itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u32,
    /// Headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body.
    pub body: String,
}

/// Why a call is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// No source of the identity has a tenant.
    TenantMissing,
    /// A source of the identity has something that is no name.
    IdentityInvalid,
    /// No format claims the endpoint, and the operator wants such calls stopped.
    EndpointUnclaimed,
    /// The limiter gave no answer, and the operator wants such calls stopped.
    LimiterUnavailable,
    /// A limit on this is reached that passes by itself.
    RateLimited(LimitUnit),
    /// A limit of a day or longer is used up.
    QuotaExceeded,
    /// The prompt is longer than the plan allows.
    ContextLengthExceeded,
    /// No plan has the tier's name.
    UnknownTier,
    /// The tenant may not call at all.
    Suspended,
}

impl Code {
    /// The code's name: OpenAI's where it has one.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Code::TenantMissing => "tenant_missing",
            Code::IdentityInvalid => "identity_invalid",
            Code::EndpointUnclaimed => "endpoint_unclaimed",
            Code::LimiterUnavailable => "limiter_unavailable",
            Code::RateLimited(_) => "rate_limit_exceeded",
            Code::QuotaExceeded => "insufficient_quota",
            Code::ContextLengthExceeded => "context_length_exceeded",
            Code::UnknownTier => "unknown_tier",
            Code::Suspended => "tenant_suspended",
        }
    }

    pub(crate) fn status(self) -> u32 {
        match self {
            Code::TenantMissing => 401,
            Code::IdentityInvalid | Code::ContextLengthExceeded => 400,
            Code::EndpointUnclaimed | Code::UnknownTier | Code::Suspended => 403,
            Code::LimiterUnavailable => 503,
            Code::RateLimited(_) | Code::QuotaExceeded => 429,
        }
    }
}

impl Reply {
    fn new(dialect: Dialect, code: Code, message: &str) -> Reply {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            // The same in all dialects, few of which have room for a code.
            ("x-tollgate-error", code.name().to_owned()),
        ];
        headers.extend(dialect.header(code).map(|(name, value)| (name, value.to_owned())));
        Reply { status: code.status(), headers, body: dialect.body(code, message).to_string() }
    }

    /// The call has no usable identity.
    pub(crate) fn unidentified(dialect: Dialect, refusal: &Refusal) -> Reply {
        match refusal {
            Refusal::Missing(places) => {
                let message = format!("This call names no tenant. It is expected in {places}.");
                Reply::new(dialect, Code::TenantMissing, &message)
            }
            Refusal::Invalid(place) => {
                let message =
                    format!("What {place} has is no valid name: exactly one of 1 to 256 bytes of printable UTF-8 is.");
                Reply::new(dialect, Code::IdentityInvalid, &message)
            }
        }
    }

    /// No format claims the endpoint, and the operator wants such calls stopped.
    pub(crate) fn endpoint_unclaimed() -> Reply {
        let message = "This endpoint is not one whose usage can be metered, and such calls are not let through.";
        Reply::new(Dialect::OpenAi, Code::EndpointUnclaimed, message)
    }

    /// The limiter gave no answer, and the operator wants such calls stopped.
    pub(crate) fn limiter_unavailable(dialect: Dialect) -> Reply {
        let message = "The rate limiter can't be reached, and calls are not let through without it. Try again later.";
        Reply::new(dialect, Code::LimiterUnavailable, message)
    }

    /// A limit says no, or the plan's context does, or there is no plan of the call's `tier`, or its tenant is suspended.
    /// Where it stands is told by headers in the `told` dialects.
    pub(crate) fn denied(
        dialect: Dialect,
        tier: &str,
        answer: &AdmissionResponse,
        now_ms: u64,
        told: &[LimitHeaders],
    ) -> Reply {
        if answer.is_tier_unknown() {
            return Reply::new(dialect, Code::UnknownTier, &format!("The plan `{tier}` is not known."));
        }
        if answer.is_suspended() {
            return Reply::new(
                dialect,
                Code::Suspended,
                "This tenant is suspended, and its calls are not let through.",
            );
        }
        if let Some(context_tokens) = answer.context_exceeded() {
            let message = format!("This plan takes prompts of up to {context_tokens} tokens. This one is longer.");
            return Reply::new(dialect, Code::ContextLengthExceeded, &message);
        }
        // Of several that deny, the one that does so longest: with another's wait the client would come back too early.
        let denying = answer.limits.iter().filter(|limit| limit.decision == Decision::Denied);
        let denying = denying.max_by_key(|limit| (limit.reset_ms.is_none(), is_quota(limit), limit.reset_ms));
        let mut reply = match denying.map(|limit| (limit, limit.reset_ms)) {
            Some((limit, None)) => {
                let message = format!("The limit of {} has no room for this call.", describe(limit));
                Reply::new(dialect, Code::RateLimited(limit.counts()), &message)
            }
            Some((limit, Some(_))) if is_quota(limit) => {
                let message = match limit.counts() {
                    LimitUnit::Cost => format!("The limit of {} is reached.", describe(limit)),
                    _ => format!("The quota of {} is used up.", describe(limit)),
                };
                Reply::new(dialect, Code::QuotaExceeded, &message)
            }
            Some((limit, Some(wait_ms))) => {
                let wait = limit_headers::duration(wait_ms);
                let message = format!("The limit of {} is reached. Try again in {wait}.", describe(limit));
                let mut reply = Reply::new(dialect, Code::RateLimited(limit.counts()), &message);
                reply.headers.push(("retry-after", wait_ms.div_ceil(1000).max(1).to_string()));
                reply
            }
            None => {
                let message = "A rate limit is reached. Try again later.";
                Reply::new(dialect, Code::RateLimited(LimitUnit::Requests), message)
            }
        };
        reply.headers.extend(limit_headers::headers(&answer.limits, now_ms, told));
        reply
    }
}

/// Quotas are limits that no client would wait for: those of a day and longer.
fn is_quota(limit: &LimitStatus) -> bool {
    matches!(limit.window, WindowUnit::Day | WindowUnit::Week | WindowUnit::Month | WindowUnit::Year)
}

/// A limit in English: `60 requests a minute`, `5 concurrent requests`, `$10.00 a day`.
fn describe(limit: &LimitStatus) -> String {
    let amount = match limit.counts() {
        LimitUnit::Requests => format!("{} requests", limit.capacity),
        LimitUnit::Tokens => format!("{} tokens", limit.capacity),
        LimitUnit::InputTokens => format!("{} input tokens", limit.capacity),
        LimitUnit::OutputTokens => format!("{} output tokens", limit.capacity),
        LimitUnit::Images => format!("{} images", limit.capacity),
        LimitUnit::Concurrency => format!("{} concurrent requests", limit.capacity),
        LimitUnit::Cost if limit.capacity == u32::MAX => format!("more than {}", dollars(limit.capacity)),
        LimitUnit::Cost => dollars(limit.capacity),
    };
    match limit_headers::window_name(limit.window) {
        Some("hour") => format!("{amount} an hour"),
        Some(window) => format!("{amount} a {window}"),
        None => amount,
    }
}

/// Micro-dollars as dollars: to the cent, and further only where there is something: `$10.00`, `$0.0015`.
fn dollars(micros: u32) -> String {
    let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
    if fraction % 10_000 == 0 {
        return format!("${whole}.{:02}", fraction / 10_000);
    }
    format!("${whole}.{fraction:06}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use tollgate_wire::admission::{CONTEXT_LIMIT, SUSPENDED, UNKNOWN_TIER, Unit};

    use super::*;

    fn limit(unit: Unit, window: WindowUnit, reset_ms: u64) -> LimitStatus {
        let (decision, name) = (Decision::Denied, String::new());
        LimitStatus { unit, decision, name, capacity: 60, window, remaining: 0, reset_ms: Some(reset_ms) }
    }

    fn denied(unit: Unit, window: WindowUnit) -> Reply {
        denied_by(vec![limit(unit, window, 900)])
    }

    fn denied_by(limits: Vec<LimitStatus>) -> Reply {
        let answer = AdmissionResponse {
            decision: Decision::Denied,
            limits,
            response_headers: Vec::new(),
            lease: None,
            denial: None,
        };
        Reply::denied(Dialect::OpenAi, "gold \"x\"", &answer, 0, &[LimitHeaders::XRatelimit])
    }

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_minutes_limit_says_when_to_come_back() {
        let reply = denied(Unit::Requests, WindowUnit::Minute);
        assert_eq!(reply.status, 429);
        assert_eq!(header(&reply, "retry-after"), Some("1"));
        assert_eq!(header(&reply, "x-ratelimit-remaining"), Some("0"));
        assert_eq!(
            reply.body,
            r#"{"error":{"code":"rate_limit_exceeded","message":"The limit of 60 requests a minute is reached. Try again in 900ms.","param":null,"type":"requests"}}"#
        );
    }

    #[test]
    fn a_spent_month_does_not() {
        let reply = denied(Unit::OutputTokens, WindowUnit::Month);
        assert_eq!(header(&reply, "retry-after"), None);
        assert!(reply.body.contains(r#""code":"insufficient_quota""#), "{}", reply.body);
    }

    #[test]
    fn of_several_that_deny_the_longest_is_told() {
        let minute = |unit, reset_ms| limit(unit, WindowUnit::Minute, reset_ms);
        let reply = denied_by(vec![minute(Unit::Requests, 900), minute(Unit::InputTokens, 120_000)]);
        assert_eq!(header(&reply, "retry-after"), Some("120"));
        assert_eq!(header(&reply, "x-ratelimit-reset"), Some("120"));
        let month = limit(Unit::InputTokens, WindowUnit::Month, 1);
        let reply = denied_by(vec![minute(Unit::Requests, 900), month]);
        assert_eq!(header(&reply, "retry-after"), None);
        assert!(reply.body.contains("insufficient_quota"), "{}", reply.body);
    }

    #[test]
    fn what_never_fits_is_not_to_be_tried_again() {
        let never = |window| LimitStatus { reset_ms: None, ..limit(Unit::OutputTokens, window, 0) };
        let minute = limit(Unit::Requests, WindowUnit::Minute, 900);
        for (limits, told) in [
            (
                vec![never(WindowUnit::Minute), minute],
                "The limit of 60 output tokens a minute has no room for this call.",
            ),
            (vec![never(WindowUnit::Day)], "The limit of 60 output tokens a day has no room for this call."),
        ] {
            let reply = denied_by(limits);
            assert_eq!((reply.status, header(&reply, "retry-after")), (429, None));
            assert!(reply.body.contains(told), "{}", reply.body);
        }
    }

    fn named(name: &str, capacity: u32, limit: LimitStatus) -> LimitStatus {
        LimitStatus { name: name.to_owned(), capacity, ..limit }
    }

    #[test]
    fn a_limit_of_concurrency_is_one_to_wait_for() {
        let slots = named("concurrency", 5, limit(Unit::Requests, WindowUnit::Unknown, 1000));
        let reply = denied_by(vec![slots]);
        assert_eq!((reply.status, header(&reply, "retry-after")), (429, Some("1")));
        assert_eq!(header(&reply, "x-ratelimit-limit-requests"), None, "it is none of requests in a time");
        assert_eq!(
            reply.body,
            r#"{"error":{"code":"rate_limit_exceeded","message":"The limit of 5 concurrent requests is reached. Try again in 1s.","param":null,"type":"requests"}}"#
        );
    }

    #[test]
    fn a_limit_of_cost_is_told_in_dollars() {
        let cost = |window, capacity| named("cost_per_day", capacity, limit(Unit::OutputTokens, window, 1000));
        let reply = denied_by(vec![cost(WindowUnit::Day, 10_000_000)]);
        assert_eq!((reply.status, header(&reply, "retry-after")), (429, None));
        assert_eq!(header(&reply, "x-ratelimit-limit-tokens"), None, "dollars are no tokens");
        assert!(reply.body.contains("The limit of $10.00 a day is reached.\""), "{}", reply.body);
        assert!(reply.body.contains(r#""type":"insufficient_quota""#), "{}", reply.body);
        let reply = denied_by(vec![cost(WindowUnit::Hour, 1_500_000)]);
        assert_eq!(header(&reply, "retry-after"), Some("1"));
        assert!(reply.body.contains("The limit of $1.50 an hour is reached. Try again in 1s."), "{}", reply.body);
        assert!(reply.body.contains(r#""type":"cost""#), "{}", reply.body);
    }

    #[test]
    fn dollars_are_as_exact_as_they_have_to_be() {
        let cases = [(0, "$0.00"), (1, "$0.000001"), (1500, "$0.0015"), (10_000, "$0.01"), (2_250_000, "$2.25")];
        for (micros, text) in cases {
            assert_eq!(dollars(micros), text);
        }
        let beyond = named("cost_per_month", u32::MAX, limit(Unit::OutputTokens, WindowUnit::Month, 1));
        assert_eq!(describe(&beyond), "more than $4294.967295 a month");
    }

    #[test]
    fn an_unknown_plan_is_no_limit() {
        let unknown = named(UNKNOWN_TIER, 0, limit(Unit::Requests, WindowUnit::Unknown, 0));
        let reply = denied_by(vec![unknown]);
        assert_eq!((reply.status, header(&reply, "x-tollgate-error")), (403, Some("unknown_tier")));
        assert_eq!((header(&reply, "retry-after"), header(&reply, "x-ratelimit-limit")), (None, None));
        assert_eq!(
            reply.body,
            r#"{"error":{"code":"unknown_tier","message":"The plan `gold \"x\"` is not known.","param":null,"type":"permission_error"}}"#
        );
    }

    #[test]
    fn who_is_suspended_is_told_so() {
        let reply = denied_by(vec![named(SUSPENDED, 0, limit(Unit::Requests, WindowUnit::Unknown, 0))]);
        assert_eq!((reply.status, header(&reply, "x-tollgate-error")), (403, Some("tenant_suspended")));
        assert_eq!((header(&reply, "retry-after"), header(&reply, "x-ratelimit-limit")), (None, None));
    }

    #[test]
    fn a_prompt_that_is_too_long_is_no_limit_to_wait_for() {
        let name = CONTEXT_LIMIT.to_owned();
        let context =
            LimitStatus { name, window: WindowUnit::Unknown, ..limit(Unit::InputTokens, WindowUnit::Unknown, 0) };
        let reply = denied_by(vec![context]);
        assert_eq!((reply.status, header(&reply, "x-tollgate-error")), (400, Some("context_length_exceeded")));
        assert_eq!((header(&reply, "retry-after"), header(&reply, "x-ratelimit-limit")), (None, None));
        assert!(reply.body.contains(r#""type":"invalid_request_error""#), "{}", reply.body);
    }

    #[test]
    fn a_server_that_gives_no_statuses_still_denies() {
        let reply = denied_by(Vec::new());
        assert_eq!((reply.status, header(&reply, "retry-after")), (429, None));
    }
}
