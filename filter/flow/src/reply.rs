//! Answers in the provider's place, in the shape that the provider's own SDK understands.
//!
//! The bodies follow OpenAI's error object: `{"error": {"message", "type", "param", "code"}}`.

use tollgate_wire::admission::{AdmissionResponse, Decision, LimitStatus, Unit, WindowUnit};

use crate::limit_headers;

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

impl Reply {
    fn new(status: u32, kind: &str, code: &str, message: &str) -> Reply {
        let error = serde_json::json!({
            "error": { "message": message, "type": kind, "param": null, "code": code }
        });
        Reply { status, headers: vec![("content-type", "application/json".to_owned())], body: error.to_string() }
    }

    /// No tenant stands in the request.
    pub(crate) fn tenant_missing(header: &str) -> Reply {
        let message = format!("This call names no tenant. Send it in the header `{header}`.");
        Reply::new(401, "authentication_error", "tenant_missing", &message)
    }

    /// A header of the identity holds what no name can be.
    pub(crate) fn identity_invalid(header: &str) -> Reply {
        let message = format!("The header `{header}` holds no valid name: 1 to 256 bytes of printable UTF-8 are.");
        Reply::new(400, "invalid_request_error", "identity_invalid", &message)
    }

    /// The limiter gave no answer, and the operator wants such calls stopped.
    pub(crate) fn limiter_unavailable() -> Reply {
        let message = "The rate limiter can't be reached, and calls are not let through without it. Try again later.";
        Reply::new(503, "server_error", "limiter_unavailable", message)
    }

    /// A limit says no.
    pub(crate) fn denied(answer: &AdmissionResponse, now_ms: u64) -> Reply {
        // Of several that deny, the one that does so longest: with another's wait the client would come back too early.
        let denying = answer.limits.iter().filter(|limit| limit.decision == Decision::Denied);
        let denying = denying.max_by_key(|limit| (is_quota(limit), limit.reset_ms));
        let mut reply = match denying {
            Some(limit) if is_quota(limit) => {
                let message = format!("The quota of {} is used up.", describe(limit));
                Reply::new(429, "insufficient_quota", "insufficient_quota", &message)
            }
            Some(limit) => {
                let wait = limit_headers::duration(limit.reset_ms);
                let message = format!("The limit of {} is reached. Try again in {wait}.", describe(limit));
                Reply::new(429, kind(limit.unit), "rate_limit_exceeded", &message)
            }
            None => Reply::new(429, "requests", "rate_limit_exceeded", "A rate limit is reached. Try again later."),
        };
        if let Some(limit) = denying.filter(|limit| !is_quota(limit)) {
            reply.headers.push(("retry-after", limit.reset_ms.div_ceil(1000).max(1).to_string()));
        }
        reply.headers.extend(limit_headers::headers(&answer.limits, now_ms));
        reply
    }
}

/// Quotas are limits that no client would wait for: those of a day and longer.
fn is_quota(limit: &LimitStatus) -> bool {
    matches!(limit.window, WindowUnit::Day | WindowUnit::Week | WindowUnit::Month | WindowUnit::Year)
}

/// OpenAI's `type` of a rate limit error: what ran out.
fn kind(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::InputTokens | Unit::OutputTokens => "tokens",
    }
}

fn describe(limit: &LimitStatus) -> String {
    match limit_headers::window_name(limit.window) {
        Some(window) => format!("{} {} a {window}", limit.capacity, kind(limit.unit)),
        None => format!("{} {}", limit.capacity, kind(limit.unit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(unit: Unit, window: WindowUnit, reset_ms: u64) -> LimitStatus {
        let (decision, name) = (Decision::Denied, String::new());
        LimitStatus { unit, decision, name, capacity: 60, window, remaining: 0, reset_ms }
    }

    fn denied(unit: Unit, window: WindowUnit) -> Reply {
        denied_by(vec![limit(unit, window, 900)])
    }

    fn denied_by(limits: Vec<LimitStatus>) -> Reply {
        Reply::denied(&AdmissionResponse { decision: Decision::Denied, limits }, 0)
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
    fn a_server_that_gives_no_statuses_still_denies() {
        let reply = Reply::denied(&AdmissionResponse { decision: Decision::Denied, limits: Vec::new() }, 0);
        assert_eq!((reply.status, header(&reply, "retry-after")), (429, None));
    }
}
