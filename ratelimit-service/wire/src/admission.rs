//! Admission over Envoy's rate limit service (RLS) v3.
//!
//! A call asks with one descriptor for each [`Unit`]; all carry the same `tenant`, `tier`, `model`, `api` and `key`
//! entries, so that any RLS server can match on them. Answers come back with one status for each descriptor, in the same order.

use prost::{DecodeError, Message};

use crate::field;
use crate::proto::envoy::config::core::v3::{GrpcService, grpc_service};
use crate::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse, rate_limit_response};
use crate::usage_event::MAX_NAME_BYTES;

pub use added_headers::{MAX_ADDED_HEADER_BYTES, MAX_ADDED_HEADERS};
pub use lease::{Denial, DeniedCalls, LEASE_METADATA, Lease, LeaseRequest, MAX_LEASED_CALLS};
pub use limit_unit::LimitUnit;
pub use rate_limit_response::rate_limit::Unit as WindowUnit;

mod added_headers;
mod lease;
mod limit_unit;
#[cfg(test)]
mod tests;

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
/// The name of the limit by which the status of the requests tells that the tenant may not call at all. Its capacity is 0; it
/// has no window.
pub const SUSPENDED: &str = "suspended";

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
    /// Which of the tenant's keys the caller shows, by its name.
    pub const KEY: &str = "key";
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
    /// Images that the call is to make. Calls that make none do not ask for them.
    Images,
}

impl Unit {
    /// All units, in the order in which a call's descriptors carry them.
    pub const ALL: [Unit; 4] = [Unit::Requests, Unit::InputTokens, Unit::OutputTokens, Unit::Images];

    /// The value of the descriptor's `unit` entry.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::InputTokens => "input_tokens",
            Unit::OutputTokens => "output_tokens",
            Unit::Images => "images",
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
    /// Which of the tenant's keys the caller shows, where keys are told apart.
    pub key: Option<&'a str>,
    /// Estimated tokens of the prompt; 0 when unknown. `None` where a report tells none.
    pub input_tokens: Option<u64>,
    /// The request's cap on output tokens, 0 when it has none; `None` where the answer will have no tokens.
    pub output_tokens: Option<u64>,
    /// How many images are to be made; `None` where none are. Who asks for some asks for output tokens too, so that statuses
    /// stand in the order of [`Unit::ALL`].
    pub images: Option<u64>,
}

impl AdmissionRequest<'_> {
    /// The encoded `RateLimitRequest`: a descriptor for each of [`Unit::ALL`] that is asked for. What asks for one alone has its
    /// amount as the request's too, for servers that read no descriptor's own: Limitador.
    pub fn encode(&self) -> Vec<u8> {
        let amounts = [
            (Unit::Requests, self.requests),
            (Unit::InputTokens, self.input_tokens),
            (Unit::OutputTokens, self.output_tokens),
            (Unit::Images, self.images),
        ];
        const DOMAIN: u32 = 1; // of RateLimitRequest
        const DESCRIPTORS: u32 = 2;
        const HITS_ADDEND: u32 = 3;
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
        let mut asked = amounts.into_iter().filter_map(|(_, amount)| amount);
        if let (Some(amount), None) = (asked.next(), asked.next()) {
            field::append_varint(HITS_ADDEND, amount.min(u32::MAX.into()), &mut request);
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
            (key::KEY, self.key),
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
    /// The caller's key, at most [`MAX_NAME_BYTES`](crate::usage_event::MAX_NAME_BYTES) long: no longer one is known.
    pub key: Option<&'a str>,
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
            key: entry(key::KEY).filter(|key| (1..=MAX_NAME_BYTES).contains(&key.len())),
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
    /// How long others are denied too; beside a lease, once that is used up.
    pub denial: Option<Denial>,
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
        let denial = Denial::read(&response);
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
            denial,
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

    /// Whether the call is denied because its tenant may not call at all: see [`SUSPENDED`]. Likewise.
    pub fn is_suspended(&self) -> bool {
        self.refused_by(Unit::Requests, SUSPENDED).is_some()
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
pub fn duration_ms(duration: &prost_types::Duration) -> u64 {
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
