//! Leases: calls that are reserved for ahead, so that a worker may let them go on without asking.
//!
//! A worker says in gRPC metadata that it would take one, and what for. The server answers by the standard's
//! [`Quota`](DescriptorStatus::quota): that of the requests says for how many calls there are reservations, those of the
//! tokens how many tokens all these calls may ask for, each an equal part. A quota of no requests beside a denial says how
//! long others are denied too, see [`Denial`]; that of a whole answer with a lease, how long they are once the lease is used up.
//!
//! A server that does not know the metadata answers without a quota, and every call is asked about.

use prost_types::Timestamp;

use super::Unit;
use crate::proto::envoy::service::ratelimit::v3::RateLimitResponse;
use crate::proto::envoy::service::ratelimit::v3::rate_limit_response::quota::ExpirationSpecifier;
use crate::proto::envoy::service::ratelimit::v3::rate_limit_response::{DescriptorStatus, Quota};

/// The gRPC metadata key under which a [`LeaseRequest`] travels.
pub const LEASE_METADATA: &str = "x-tollgate-lease";

/// The most calls of a lease: as many as the last part of an id tells apart.
pub const MAX_LEASED_CALLS: u32 = 1 << 16;

/// The ids of quotas that are no leases but denials.
const DENIALS: [(&str, DeniedCalls); 2] = [("denied", DeniedCalls::Alike), ("denied-all", DeniedCalls::All)];

/// Bytes of a lease's id: a UUID without its last two bytes.
const LEASE_ID_BYTES: usize = 32;

/// What a worker would take a lease for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The worker's clock, milliseconds since the Unix epoch: what [`Lease::expires_at_ms`] is told by.
    pub now_ms: u64,
    /// How many such calls there were in the last second.
    pub calls_per_s: u64,
    /// The most input tokens that one of them asked for.
    pub input_tokens: u64,
    /// The highest cap on output tokens that one of them had.
    pub output_tokens: u64,
    /// Whether there were some without a cap.
    pub has_uncapped: bool,
}

impl LeaseRequest {
    /// As metadata.
    pub fn encode(&self) -> String {
        let LeaseRequest { now_ms, calls_per_s, input_tokens, output_tokens, has_uncapped } = self;
        format!("{now_ms},{calls_per_s},{input_tokens},{output_tokens},{}", u8::from(*has_uncapped))
    }

    /// Reads it; `None` when it is none.
    pub fn parse(text: &str) -> Option<LeaseRequest> {
        let mut numbers = text.split(',').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let request = LeaseRequest {
            now_ms: next()?,
            calls_per_s: next()?,
            input_tokens: next()?,
            output_tokens: next()?,
            has_uncapped: next()? != 0,
        };
        numbers.next().is_none().then_some(request)
    }
}

/// Calls that are reserved for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Begins the calls' ids.
    pub id: String,
    /// How many.
    pub calls: u32,
    /// What each may ask for at most.
    pub input_tokens: u64,
    /// Likewise; 0 where answers have no tokens.
    pub output_tokens: u64,
    /// By the clock of the [`LeaseRequest`]. No call goes on by it from then on.
    pub expires_at_ms: u64,
}

impl Lease {
    /// A lease's id, out of a UUID that is unique in what comes before its last two bytes; `None` when it is none.
    pub fn id_of(uuid: &str) -> Option<String> {
        uuid.get(..LEASE_ID_BYTES).filter(|id| is_lease_id(id)).map(str::to_owned)
    }

    /// The reservation's and event's id of the lease's `index`th call, a UUID again.
    pub fn call_id(id: &str, index: u32) -> String {
        format!("{id}{index:04x}")
    }

    /// The quota of the descriptor that counts `unit`.
    pub fn quota(&self, unit: Unit) -> Quota {
        let each = match unit {
            Unit::Requests => 1,
            Unit::InputTokens => self.input_tokens,
            Unit::OutputTokens => self.output_tokens,
            // No lease is for calls that make images.
            Unit::Images => 0,
        };
        let requests = u32::try_from(each.saturating_mul(self.calls.into())).unwrap_or(u32::MAX);
        Quota { requests, id: self.id.clone(), expiration_specifier: until(self.expires_at_ms) }
    }

    /// Reads the quotas of statuses that stand in the order of [`Unit::ALL`].
    pub(super) fn read(statuses: &[DescriptorStatus]) -> Option<Lease> {
        let quota = |unit: Unit| statuses.get(unit as usize)?.quota.as_ref();
        let Quota { requests: calls, id, .. } = quota(Unit::Requests)?;
        if *calls == 0 || *calls > MAX_LEASED_CALLS || !is_lease_id(id) {
            return None;
        }
        let each = |unit| {
            let tokens = quota(unit).filter(|quota| quota.id == *id).map_or(0, |quota| quota.requests);
            u64::from(tokens / calls)
        };
        Some(Lease {
            id: id.clone(),
            calls: *calls,
            input_tokens: each(Unit::InputTokens),
            output_tokens: each(Unit::OutputTokens),
            expires_at_ms: until_ms(quota(Unit::Requests)?)?,
        })
    }
}

/// How long a denial holds, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// By the clock of the [`LeaseRequest`], milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// Which calls are denied until then.
    pub calls: DeniedCalls,
}

/// Whom a denial is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeniedCalls {
    /// Calls of the same tenant, tier, model, API and key that ask for as much.
    Alike,
    /// All calls of the same tenant and tier.
    All,
}

impl Denial {
    /// As a quota.
    pub fn quota(self) -> Quota {
        let id = DENIALS.iter().find(|(_, calls)| *calls == self.calls).map_or("", |(id, _)| id);
        Quota { requests: 0, id: id.to_owned(), expiration_specifier: until(self.until_ms) }
    }

    pub(super) fn read(response: &RateLimitResponse) -> Option<Denial> {
        let quotas = response.statuses.iter().filter_map(|status| status.quota.as_ref()).chain(&response.quota);
        let mut denials = quotas.filter(|quota| quota.requests == 0).filter_map(|quota| {
            let (_, calls) = DENIALS.iter().find(|(id, _)| *id == quota.id)?;
            Some(Denial { until_ms: until_ms(quota)?, calls: *calls })
        });
        denials.next()
    }
}

fn is_lease_id(id: &str) -> bool {
    id.len() == LEASE_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn until(at_ms: u64) -> Option<ExpirationSpecifier> {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(at_ms % 1000 * 1_000_000).unwrap_or(0);
    Some(ExpirationSpecifier::ValidUntil(Timestamp { seconds, nanos }))
}

fn until_ms(quota: &Quota) -> Option<u64> {
    let Some(ExpirationSpecifier::ValidUntil(at)) = &quota.expiration_specifier else { return None };
    let (seconds, nanos) = (u64::try_from(at.seconds).ok()?, u64::try_from(at.nanos).ok()?);
    Some(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "019ac0de-1234-7abc-8def-0123456789ab";

    fn lease() -> Lease {
        let id = Lease::id_of(UUID).unwrap();
        Lease { id, calls: 70, input_tokens: 30, output_tokens: 256, expires_at_ms: 1_795_392_000_123 }
    }

    fn statuses(lease: &Lease) -> Vec<DescriptorStatus> {
        Unit::ALL.map(|unit| DescriptorStatus { quota: Some(lease.quota(unit)), ..Default::default() }).to_vec()
    }

    #[test]
    fn a_lease_reads_back_and_its_calls_have_ids_of_their_own() {
        assert_eq!(Lease::read(&statuses(&lease())), Some(lease()));
        let ids = [0, 1, 0xffff].map(|index| Lease::call_id(&lease().id, index));
        assert_eq!(ids[0], "019ac0de-1234-7abc-8def-012345670000");
        assert_eq!(ids[2].len(), UUID.len());
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn answers_without_output_have_a_lease_without_output() {
        let mut statuses = statuses(&lease());
        statuses.truncate(2);
        assert_eq!(Lease::read(&statuses), Some(Lease { output_tokens: 0, ..lease() }));
    }

    #[test]
    fn the_quota_of_another_server_is_no_lease() {
        let foreign = |id: &str, requests| {
            let quota = Quota { requests, id: id.to_owned(), expiration_specifier: until(1) };
            [DescriptorStatus { quota: Some(quota), ..Default::default() }]
        };
        for (id, calls) in [("theirs", 7), ("", 7), (&lease().id, 0), (&lease().id, MAX_LEASED_CALLS + 1)] {
            assert_eq!(Lease::read(&foreign(id, calls)), None, "{id} {calls}");
            let response = RateLimitResponse { statuses: foreign(id, calls).to_vec(), ..Default::default() };
            assert_eq!(Denial::read(&response), None, "{id} {calls}");
        }
    }

    #[test]
    fn a_denial_tells_until_when_and_for_whom() {
        for calls in [DeniedCalls::Alike, DeniedCalls::All] {
            let denial = Denial { until_ms: 1_234, calls };
            let status = DescriptorStatus { quota: Some(denial.quota()), ..Default::default() };
            let statuses = vec![DescriptorStatus::default(), status.clone()];
            assert_eq!(Denial::read(&RateLimitResponse { statuses, ..Default::default() }), Some(denial));
            let response = RateLimitResponse { quota: Some(denial.quota()), ..Default::default() };
            assert_eq!(Denial::read(&response), Some(denial));
            assert_eq!(Lease::read(&[status]), None);
        }
    }

    #[test]
    fn a_request_reads_back_and_other_text_is_none() {
        for has_uncapped in [false, true] {
            let (now_ms, calls_per_s) = (1_795_392_000_123, 120);
            let request = LeaseRequest { now_ms, calls_per_s, input_tokens: 800, output_tokens: 256, has_uncapped };
            assert_eq!(LeaseRequest::parse(&request.encode()), Some(request));
        }
        for text in ["", "1", "1,2,3,4", "1,2,3,4,0,5", "a,2,3,4,0", "-1,2,3,4,0"] {
            assert_eq!(LeaseRequest::parse(text), None, "{text}");
        }
    }
}
