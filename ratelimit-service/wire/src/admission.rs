//! Admission over Envoy's rate limit service (RLS) v3.
//!
//! A call asks with one descriptor for each [`Unit`]; all carry the same `tenant`, `tier`, `model` and `api` entries, so
//! that any RLS server can match on them. Answers come back with one status for each descriptor, in the same order.

use prost::{DecodeError, Message};

use crate::field;
use crate::proto::envoy::config::core::v3::{GrpcService, grpc_service};
use crate::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse, rate_limit_response};

pub use added_headers::{MAX_ADDED_HEADER_BYTES, MAX_ADDED_HEADERS};
pub use lease::{LEASE_METADATA, Lease, LeaseRequest, MAX_LEASED_CALLS, denied_until};
pub use limit_unit::LimitUnit;
pub use rate_limit_response::rate_limit::Unit as WindowUnit;

mod added_headers;
mod lease;
mod limit_unit;

/// The gRPC service that answers.
pub const SERVICE: &str = "envoy.service.ratelimit.v3.RateLimitService";
/// Its one method.
pub const METHOD: &str = "ShouldRateLimit";
/// The gRPC metadata key under which the reservation's id travels.
pub const RESERVATION_ID_METADATA: &str = "x-tollgate-reservation-id";

/// The name of the limit by which the status of the input tokens tells that the prompt is too long for the plan. Its
/// capacity is the plan's context in tokens; it has no window.
pub const CONTEXT_LIMIT: &str = "context_tokens";
/// The name of the limit by which the status of the requests tells that no plan has the tier's name. Its capacity is 0;
/// it has no window.
pub const UNKNOWN_TIER: &str = "unknown_tier";

/// Room for what a request mostly takes; others grow.
const ENCODED_BYTES: usize = 512;

/// Descriptor entry keys.
pub mod key {
    /// Who pays.
    pub const TENANT: &str = "tenant";
    /// The plan's name.
    pub const TIER: &str = "tier";
    /// The model that the request asks for.
    pub const MODEL: &str = "model";
    /// The API that is called, as `tollgate-usage` names its formats.
    pub const API: &str = "api";
    /// What the descriptor's amount counts: a [`Unit`](super::Unit).
    pub const UNIT: &str = "unit";
}

/// What a descriptor's amount counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Calls.
    Requests,
    /// Tokens sent to the model, as estimated before the call.
    InputTokens,
    /// Tokens that the model may answer with; 0 when the request sets no cap. Calls whose answers have no tokens, such as
    /// embeddings, do not ask for them.
    OutputTokens,
}

impl Unit {
    /// All units, in the order in which a call's descriptors carry them.
    pub const ALL: [Unit; 3] = [Unit::Requests, Unit::InputTokens, Unit::OutputTokens];

    /// The value of the descriptor's `unit` entry.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::InputTokens => "input_tokens",
            Unit::OutputTokens => "output_tokens",
        }
    }

    /// The unit with this name. `tokens`, of a client that does not tell input from output, count as input.
    pub fn parse(name: &str) -> Option<Unit> {
        match name {
            "tokens" => Some(Unit::InputTokens),
            _ => Unit::ALL.into_iter().find(|unit| unit.as_str() == name),
        }
    }
}

/// What one call asks to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionRequest<'a> {
    /// How many calls it is; 0 asks for a lease alone, and `None` reports tokens that were used.
    pub requests: Option<u64>,
    /// Names the set of limits on the server.
    pub domain: &'a str,
    /// Who pays.
    pub tenant: &'a str,
    /// The plan's name; empty where the call names none, and the server's default is meant.
    pub tier: &'a str,
    /// The model asked for, where it is known.
    pub model: Option<&'a str>,
    /// The API called, where it is known.
    pub api: Option<&'a str>,
    /// Estimated tokens of the prompt; 0 when unknown.
    pub input_tokens: u64,
    /// The request's cap on output tokens, 0 when it has none; `None` where the answer will have no tokens.
    pub output_tokens: Option<u64>,
}

impl AdmissionRequest<'_> {
    /// The encoded `RateLimitRequest`: a descriptor for each of [`Unit::ALL`] that is asked for.
    pub fn encode(&self) -> Vec<u8> {
        let amounts = [
            (Unit::Requests, self.requests),
            (Unit::InputTokens, Some(self.input_tokens)),
            (Unit::OutputTokens, self.output_tokens),
        ];
        const DOMAIN: u32 = 1; // of RateLimitRequest
        const DESCRIPTORS: u32 = 2;
        let mut request = Vec::with_capacity(ENCODED_BYTES);
        field::append(DOMAIN, self.domain.as_bytes(), &mut request);
        let mut descriptor = Vec::with_capacity(ENCODED_BYTES / 3);
        for (unit, amount) in amounts {
            if let Some(amount) = amount {
                descriptor.clear();
                self.descriptor(unit, amount, &mut descriptor);
                field::append(DESCRIPTORS, &descriptor, &mut request);
            }
        }
        request
    }

    /// A `RateLimitDescriptor`.
    fn descriptor(&self, unit: Unit, amount: u64, to: &mut Vec<u8>) {
        const ENTRIES: u32 = 1; // of RateLimitDescriptor
        const HITS_ADDEND: u32 = 3;
        const VALUE: u32 = 1; // of UInt64Value
        let entries = [
            (key::TENANT, Some(self.tenant)),
            (key::TIER, Some(self.tier).filter(|tier| !tier.is_empty())),
            (key::MODEL, self.model),
            (key::API, self.api),
            (key::UNIT, Some(unit.as_str())),
        ];
        for (key, value) in entries {
            if let Some(value) = value {
                field::append_pair(ENTRIES, key.as_bytes(), value.as_bytes(), to);
            }
        }
        let mut addend = Vec::with_capacity(11);
        field::append_varint(VALUE, amount, &mut addend);
        field::append(HITS_ADDEND, &addend, to);
    }
}

/// One descriptor as the server reads it: who asks, and for how much of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand<'a> {
    /// Who pays.
    pub tenant: &'a str,
    /// The plan's name, where the client sent one.
    pub tier: Option<&'a str>,
    /// The model asked for.
    pub model: Option<&'a str>,
    /// The API called.
    pub api: Option<&'a str>,
    /// What `amount` counts. A descriptor without a unit, as Envoy's own rate limit filter sends it, counts requests.
    pub unit: Unit,
    /// How much is asked for; 0 asks without taking.
    pub amount: u64,
}

impl<'a> Demand<'a> {
    /// Reads the `index`th descriptor of `request`.
    ///
    /// The amount is the descriptor's own addend, else the request's, else 1, as the RLS definition has it.
    ///
    /// `None` when it names no tenant or an unknown unit, and so no limit of ours: such a descriptor is always under its
    /// limit.
    pub fn read(request: &'a RateLimitRequest, index: usize) -> Option<Demand<'a>> {
        let descriptor = request.descriptors.get(index)?;
        let entry = |key| descriptor.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let unit = match entry(key::UNIT) {
            Some(name) => Unit::parse(name)?,
            None => Unit::Requests,
        };
        Some(Demand {
            tenant: entry(key::TENANT).filter(|tenant| !tenant.is_empty())?,
            tier: entry(key::TIER),
            model: entry(key::MODEL),
            api: entry(key::API),
            unit,
            amount: descriptor.hits_addend.unwrap_or(u64::from(request.hits_addend.max(1))),
        })
    }
}

/// The server's answer to an [`AdmissionRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionResponse {
    /// May the call go on?
    pub decision: Decision,
    /// Where the call's limits stand, at most one for each unit asked for.
    pub limits: Vec<LimitStatus>,
    /// What the server wants set on the response to the client, whatever the decision: names in lower case, each once.
    /// At most [`MAX_ADDED_HEADERS`] of at most [`MAX_ADDED_HEADER_BYTES`] each; what frames a message or belongs to a
    /// connection is not among them.
    pub response_headers: Vec<(String, String)>,
    /// Further calls of the kind that may go on without asking.
    pub lease: Option<Lease>,
    /// Until when calls that ask for as much are denied, by the clock of the [`LeaseRequest`]: where it was admitted, all calls, once
    /// the lease is used up.
    pub denied_until_ms: Option<u64>,
}

/// May a call go on?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// All limits agree.
    Admitted,
    /// At least one limit does not.
    Denied,
}

/// Where one limit stands after the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStatus {
    /// What the descriptor counts that this status answers, by its place. See [`LimitStatus::counts`].
    pub unit: Unit,
    /// Whether this limit denied the call.
    pub decision: Decision,
    /// The server's name for it; may be empty.
    pub name: String,
    /// What may be taken in one window, in the unit of [`LimitStatus::counts`].
    pub capacity: u32,
    /// The window's length.
    pub window: WindowUnit,
    /// What is left now.
    pub remaining: u32,
    /// Milliseconds until the limit stands at its full capacity again, or for one that denied, until it would admit; `None`
    /// where the server does not tell. Ours does not where a call asks for more than the limit ever holds.
    pub reset_ms: Option<u64>,
}

impl LimitStatus {
    /// What the limit counts: as its name tells where it is one of ours, else what its descriptor counts.
    ///
    /// The status of the requests may show a limit on concurrency, that of the output tokens one on cost.
    pub fn counts(&self) -> LimitUnit {
        LimitUnit::parse(&self.name).unwrap_or(self.unit.into())
    }
}

impl AdmissionResponse {
    /// Reads an encoded `RateLimitResponse`.
    ///
    /// Only an overall `OVER_LIMIT` denies: a server that does not know the domain answers `UNKNOWN`.
    /// Statuses without a limit are left out.
    ///
    /// # Errors
    /// When `bytes` are not such a message.
    pub fn decode(bytes: &[u8]) -> Result<AdmissionResponse, DecodeError> {
        let response = RateLimitResponse::decode(bytes)?;
        let denied_until_ms = lease::read_denied_until(&response);
        let limits = Unit::ALL.into_iter().zip(&response.statuses).filter_map(|(unit, status)| {
            let limit = status.current_limit.as_ref()?;
            Some(LimitStatus {
                unit,
                decision: decision(status.code()),
                name: limit.name.clone(),
                capacity: limit.requests_per_unit,
                window: limit.unit(),
                remaining: status.limit_remaining,
                reset_ms: status.duration_until_reset.as_ref().map(duration_ms),
            })
        });
        Ok(AdmissionResponse {
            decision: decision(response.overall_code()),
            limits: limits.collect(),
            lease: Lease::read(&response.statuses),
            denied_until_ms,
            response_headers: added_headers::read(response.response_headers_to_add),
        })
    }

    /// The answer to a call that is denied for `wait_ms` though this one was not: by the limit that is nearest to its end.
    pub fn denied(mut self, wait_ms: u64) -> AdmissionResponse {
        let share =
            |limit: &&mut LimitStatus| u64::from(limit.remaining) * 1_000_000 / u64::from(limit.capacity.max(1));
        if let Some(limit) = self.limits.iter_mut().min_by_key(share) {
            (limit.decision, limit.remaining, limit.reset_ms) = (Decision::Denied, 0, Some(wait_ms));
        }
        AdmissionResponse { decision: Decision::Denied, ..self }
    }

    /// The plan's context in tokens, where the call is denied because its prompt is longer: see [`CONTEXT_LIMIT`].
    ///
    /// Waiting does not help then, and `limits` has nothing that a client should be told as a rate limit.
    pub fn context_exceeded(&self) -> Option<u32> {
        self.refused_by(Unit::InputTokens, CONTEXT_LIMIT).map(|limit| limit.capacity)
    }

    /// Whether the call is denied because no plan has its tier's name: see [`UNKNOWN_TIER`].
    ///
    /// Waiting does not help then, and `limits` has nothing that a client should be told as a rate limit.
    pub fn is_tier_unknown(&self) -> bool {
        self.refused_by(Unit::Requests, UNKNOWN_TIER).is_some()
    }

    /// The status by which a denial tells that it is no matter of limits.
    fn refused_by(&self, unit: Unit, name: &str) -> Option<&LimitStatus> {
        let tells_it = |limit: &&LimitStatus| {
            (limit.unit, limit.decision, limit.window) == (unit, Decision::Denied, WindowUnit::Unknown)
                && limit.name == name
        };
        self.limits.iter().find(tells_it).filter(|_| self.decision == Decision::Denied)
    }
}

fn decision(code: rate_limit_response::Code) -> Decision {
    match code {
        rate_limit_response::Code::OverLimit => Decision::Denied,
        rate_limit_response::Code::Ok | rate_limit_response::Code::Unknown => Decision::Admitted,
    }
}

/// Milliseconds, rounded up so that a client that waits for them has waited long enough. Negative durations count as 0.
fn duration_ms(duration: &prost_types::Duration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    let nanos = u64::try_from(duration.nanos).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanos.div_ceil(1_000_000))
}

/// A window's length in seconds, a month counted as 30 days and a year as 365; `None` when it is unknown.
pub fn window_seconds(window: WindowUnit) -> Option<u64> {
    const DAY: u64 = 86_400;
    Some(match window {
        WindowUnit::Unknown => return None,
        WindowUnit::Second => 1,
        WindowUnit::Minute => 60,
        WindowUnit::Hour => 3600,
        WindowUnit::Day => DAY,
        WindowUnit::Week => 7 * DAY,
        WindowUnit::Month => 30 * DAY,
        WindowUnit::Year => 365 * DAY,
    })
}

/// The encoded `GrpcService` that names an Envoy cluster: what proxy-wasm takes as a gRPC call's upstream.
///
/// A bare cluster name would do for most names; Envoy first tries to read the bytes as this message, though, and some
/// names happen to be one.
pub fn encode_upstream(cluster_name: &str) -> Vec<u8> {
    let target = grpc_service::EnvoyGrpc { cluster_name: cluster_name.to_owned() };
    GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)) }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envoy::config::core::v3::HeaderValue;
    use crate::proto::envoy::extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry};
    use rate_limit_response::{Code, DescriptorStatus, RateLimit};

    fn request() -> AdmissionRequest<'static> {
        AdmissionRequest {
            requests: Some(1),
            domain: "tollgate",
            tenant: "acme",
            tier: "pro",
            model: Some("gpt-4o"),
            api: None,
            input_tokens: 12,
            output_tokens: Some(0),
        }
    }

    #[test]
    fn a_request_reads_back_as_one_demand_for_each_unit() {
        let message = RateLimitRequest::decode(request().encode().as_slice()).unwrap();
        let demands: Vec<_> = (0..3).map(|index| Demand::read(&message, index).unwrap()).collect();
        assert_eq!(
            demands.iter().map(|demand| (demand.unit, demand.amount)).collect::<Vec<_>>(),
            [(Unit::Requests, 1), (Unit::InputTokens, 12), (Unit::OutputTokens, 0)]
        );
        for demand in demands {
            assert_eq!(
                (demand.tenant, demand.tier, demand.model, demand.api),
                ("acme", Some("pro"), Some("gpt-4o"), None)
            );
        }
        assert_eq!(Demand::read(&message, 3), None);
    }

    #[test]
    fn a_descriptor_without_unit_and_addend_asks_for_one_request() {
        let entries = vec![Entry { key: "tenant".into(), value: "acme".into() }];
        let descriptor = RateLimitDescriptor { entries, ..Default::default() };
        let mut message = RateLimitRequest { descriptors: vec![descriptor], ..Default::default() };
        let demand = Demand::read(&message, 0).unwrap();
        assert_eq!((demand.unit, demand.amount, demand.tier), (Unit::Requests, 1, None));
        message.hits_addend = 5;
        assert_eq!(Demand::read(&message, 0).unwrap().amount, 5);
        message.descriptors[0].hits_addend = Some(0);
        assert_eq!(Demand::read(&message, 0).unwrap().amount, 0);
        message.descriptors[0].entries[0].key = "remote_address".into();
        assert_eq!(Demand::read(&message, 0), None);
    }

    #[test]
    fn statuses_take_their_unit_from_their_place() {
        let status = |code: Code, name: &str| DescriptorStatus {
            code: code.into(),
            current_limit: Some(RateLimit {
                requests_per_unit: 60,
                unit: WindowUnit::Minute.into(),
                name: name.into(),
            }),
            limit_remaining: 7,
            duration_until_reset: Some(prost_types::Duration { seconds: 1, nanos: 1 }),
            quota: None,
        };
        let no_limit = DescriptorStatus { code: Code::Ok.into(), ..Default::default() };
        let response = RateLimitResponse {
            overall_code: Code::OverLimit.into(),
            statuses: vec![status(Code::OverLimit, "requests"), no_limit, status(Code::Ok, "tokens")],
            ..Default::default()
        };
        let answer = AdmissionResponse::decode(&response.encode_to_vec()).unwrap();
        assert_eq!(answer.decision, Decision::Denied);
        let seen: Vec<_> = answer.limits.iter().map(|limit| (limit.unit, limit.decision, limit.reset_ms)).collect();
        assert_eq!(
            seen,
            [(Unit::Requests, Decision::Denied, Some(1001)), (Unit::OutputTokens, Decision::Admitted, Some(1001))]
        );
    }

    #[test]
    fn a_limit_counts_what_its_name_says_or_else_its_place() {
        for (unit, name, counts) in [
            (Unit::Requests, "concurrency", LimitUnit::Concurrency),
            (Unit::OutputTokens, "cost_per_day", LimitUnit::Cost),
            (Unit::InputTokens, "tokens_per_minute", LimitUnit::Tokens),
            (Unit::InputTokens, "theirs", LimitUnit::InputTokens),
            (Unit::Requests, "", LimitUnit::Requests),
        ] {
            assert_eq!(LimitStatus { name: name.into(), ..refusing(unit, "") }.counts(), counts, "{name}");
        }
    }

    #[test]
    fn the_headers_to_add_are_read() {
        let header = |key: &str, value: &str| HeaderValue { key: key.into(), value: value.into() };
        let response = RateLimitResponse {
            overall_code: Code::Ok.into(),
            response_headers_to_add: vec![header("x-tollgate-warning", "tokens_per_day"), header("connection", "x")],
            ..Default::default()
        };
        let answer = AdmissionResponse::decode(&response.encode_to_vec()).unwrap();
        assert_eq!(answer.response_headers, [("x-tollgate-warning".to_owned(), "tokens_per_day".to_owned())]);
    }

    fn refusing(unit: Unit, name: &str) -> LimitStatus {
        LimitStatus {
            unit,
            decision: Decision::Denied,
            name: name.into(),
            capacity: 4096,
            window: WindowUnit::Unknown,
            remaining: 0,
            reset_ms: None,
        }
    }

    fn response(decision: Decision, limit: LimitStatus) -> AdmissionResponse {
        AdmissionResponse {
            decision,
            limits: vec![limit],
            response_headers: Vec::new(),
            lease: None,
            denied_until_ms: None,
        }
    }

    #[test]
    fn an_unknown_tier_is_told_from_a_limit() {
        let unknown = refusing(Unit::Requests, UNKNOWN_TIER);
        assert!(response(Decision::Denied, unknown.clone()).is_tier_unknown());
        assert!(!response(Decision::Admitted, unknown.clone()).is_tier_unknown());
        for other in [
            LimitStatus { unit: Unit::InputTokens, ..unknown.clone() },
            LimitStatus { decision: Decision::Admitted, ..unknown.clone() },
            LimitStatus { name: "requests_per_minute".into(), ..unknown.clone() },
            LimitStatus { window: WindowUnit::Minute, ..unknown },
        ] {
            assert!(!response(Decision::Denied, other.clone()).is_tier_unknown(), "{other:?}");
        }
    }

    #[test]
    fn a_denial_by_the_context_is_told_from_one_by_a_limit() {
        let too_long = refusing(Unit::InputTokens, CONTEXT_LIMIT);
        let told = |decision, limit| response(decision, limit).context_exceeded();
        assert_eq!(told(Decision::Denied, too_long.clone()), Some(4096));
        assert_eq!(told(Decision::Admitted, too_long.clone()), None);
        for other in [
            LimitStatus { unit: Unit::OutputTokens, ..too_long.clone() },
            LimitStatus { decision: Decision::Admitted, ..too_long.clone() },
            LimitStatus { name: "tokens_per_minute".into(), ..too_long.clone() },
            LimitStatus { window: WindowUnit::Minute, ..too_long },
        ] {
            assert_eq!(told(Decision::Denied, other.clone()), None, "{other:?}");
        }
    }

    #[test]
    fn the_unknown_code_admits_and_other_bytes_are_an_error() {
        assert_eq!(AdmissionResponse::decode(&[]).unwrap().decision, Decision::Admitted);
        assert!(AdmissionResponse::decode(&[0xff]).is_err());
    }

    #[test]
    fn a_negative_reset_counts_as_now() {
        assert_eq!(duration_ms(&prost_types::Duration { seconds: -1, nanos: -1 }), 0);
    }
}
