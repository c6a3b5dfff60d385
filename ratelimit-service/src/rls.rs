//! Envoy's rate limit service v3 over the limiter.
//!
//! What it answers:
//! - All descriptors of one tenant, tier, model, api and key are one call, decided together against all limits of the plan. A
//!   denial by a limit that no descriptor asks for is told by the call's first descriptor.
//! - A call with a reservation id (gRPC metadata) is held until its usage event comes or it expires. Without one, what is
//!   asked for is taken for good.
//! - Descriptors of tokens without one of requests are a report: the tokens were used, and are taken into debt if need be.
//! - A prompt that is too long for its plan denies the call before any limit is asked. The descriptors of input tokens
//!   tell it, by the name [`CONTEXT_LIMIT`]; the others are OK. So does an unknown tier where such are denied, by the
//!   name [`UNKNOWN_TIER`], and a tenant that is suspended, by [`SUSPENDED`]: told by the first descriptor.
//! - A domain that is not ours limits nothing: OK for each descriptor. So does a descriptor without a tenant or with an
//!   unknown unit, and one with negative hits: nothing is ever given back here. Both are counted.
//! - A call of several tenants is decided for one after the other; what one took stays taken when another is denied.
//! - A proxy's worker that would take a lease says so ([`LEASE_METADATA`]). It gets one beside the answer to a question that
//!   itself asks for nothing, where calls may be lent; and beside any denial, how long it may deny such calls by itself.
//! - When the counters do not answer, and no policy decides for them, so does the service: `UNAVAILABLE`.

use std::sync::Arc;

use prost_types::Duration;
use tollgate_domain::{Beyond, Call as Counted, Decision, Outcome, Standing, Unit as LimitUnit, Window};
use tollgate_wire::admission::{
    CONTEXT_LIMIT, Demand, Denial, DeniedCalls, LEASE_METADATA, Lease, LeaseRequest, RESERVATION_ID_METADATA,
    SUSPENDED, UNKNOWN_TIER, Unit, WindowUnit, duration_ms,
};
use tollgate_wire::proto::envoy::config::core::v3::HeaderValue;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, Quota, RateLimit,
};
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use tollgate_wire::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tollgate_wire::usage_event::MAX_NAME_BYTES;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::limiter::{Admission, Lent, Limiter, Policy, Refusal, Undecided};
use crate::metrics::Metrics;

/// The most descriptors in a call.
pub const MAX_DESCRIPTORS: usize = 32;

/// The response header by which an admitted call hears of limits that only warn.
pub const WARNING_HEADER: &str = "x-tollgate-warning";

/// What protobuf's `Duration` allows: some 10000 years.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;

/// The gRPC service.
pub struct Rls {
    domain: String,
    limiter: Arc<Limiter>,
    metrics: Metrics,
}

impl Rls {
    /// Answers for `domain`.
    pub fn new(domain: String, limiter: Arc<Limiter>, metrics: Metrics) -> Rls {
        Rls { domain, limiter, metrics }
    }

    async fn answer(
        &self,
        request: &RateLimitRequest,
        id: Option<&str>,
        wanted: Option<&LeaseRequest>,
    ) -> Result<RateLimitResponse, Status> {
        let descriptors = request.descriptors.len();
        if descriptors > MAX_DESCRIPTORS {
            let message = format!("{descriptors} descriptors; at most {MAX_DESCRIPTORS} are taken");
            return Err(Status::invalid_argument(message));
        }
        let mut answer = Answer::new(descriptors);
        if request.domain == self.domain {
            let policy = self.limiter.policy();
            let demands = demands(request)?;
            self.metrics.descriptors_ignored.inc_by((descriptors - demands.len()) as u64);
            for call in calls(demands, id) {
                self.decide(&policy, &call, &mut answer).await?;
                if let Some(wanted) = wanted {
                    self.lend(&policy, &call, wanted, &mut answer).await;
                }
            }
        } else {
            self.metrics.calls_of_unknown_domain.inc();
        }
        Ok(answer.into())
    }

    /// Decides about one call and sets its descriptors' statuses.
    async fn decide(&self, policy: &Policy, call: &Call<'_>, answer: &mut Answer) -> Result<(), Status> {
        match self.limiter.admit(policy, &call.asked).await {
            Ok(decision) => {
                match decision.outcome {
                    Outcome::Admitted => self.metrics.calls_admitted.inc(),
                    Outcome::Denied => self.metrics.calls_denied.inc(),
                };
                answer.tell(call, &decision);
            }
            Err(Undecided::Refused(Refusal::ContextExceeded(context_tokens))) => {
                self.metrics.calls_too_long.inc();
                answer.refuse(call, CONTEXT_LIMIT, context_tokens, |unit| unit == Unit::InputTokens);
            }
            Err(Undecided::Refused(Refusal::UnknownTier)) => {
                self.metrics.calls_of_unknown_tier.inc();
                answer.refuse(call, UNKNOWN_TIER, 0, |unit| unit == Unit::Requests);
            }
            Err(Undecided::Refused(Refusal::Suspended)) => {
                self.metrics.calls_of_suspended.inc();
                answer.denied = DeniedCalls::All;
                answer.refuse(call, SUSPENDED, 0, |unit| unit == Unit::Requests);
            }
            Err(Undecided::Unavailable(error)) => {
                self.metrics.calls_undecided.inc();
                return Err(Status::unavailable(error.to_string()));
            }
        }
        Ok(())
    }
}

impl Rls {
    /// Lends calls like this one, or tells for how long they are denied.
    async fn lend(&self, policy: &Policy, call: &Call<'_>, wanted: &LeaseRequest, answer: &mut Answer) {
        if answer.overall == Code::Ok {
            // A call's client may leave before the answer comes, and nobody would have the lease.
            if call.asked.requests == 0
                && let Some(Lent { lease, beyond }) = self.limiter.lend(policy, &call.asked, wanted).await
            {
                answer.lend(call, &lease);
                let denied = match beyond {
                    Beyond::Something => None,
                    Beyond::NothingAlike => Some(DeniedCalls::Alike),
                    Beyond::Nothing => Some(DeniedCalls::All),
                };
                let until_ms = lease.expires_at_ms;
                answer.quota = denied.map(|calls| Denial { until_ms, calls }.quota());
            }
        } else if let Some(denied_ms) = self.limiter.denied_ms(policy, wanted, answer.reset_ms(call)) {
            let until_ms = wanted.now_ms.saturating_add(denied_ms);
            let denial = Denial { until_ms, calls: answer.denied };
            answer.statuses[call.descriptors[0].0].quota = Some(denial.quota());
        }
    }
}

#[tonic::async_trait]
impl RateLimitService for Rls {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let id = reservation_id(request.metadata())?;
        let wanted = request.metadata().get(LEASE_METADATA).and_then(|text| LeaseRequest::parse(text.to_str().ok()?));
        self.answer(request.get_ref(), id, wanted.as_ref()).await.map(Response::new)
    }
}

fn reservation_id(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let Some(id) = metadata.get(RESERVATION_ID_METADATA) else { return Ok(None) };
    let id = id.to_str().ok().filter(|id| !id.is_empty() && id.len() <= MAX_NAME_BYTES);
    let message = || format!("{RESERVATION_ID_METADATA}: 1 to {MAX_NAME_BYTES} visible ASCII characters are taken");
    id.map(Some).ok_or_else(|| Status::invalid_argument(message()))
}

/// What the descriptors of one tenant, tier, model, api and key ask for together.
struct Call<'a> {
    asked: Admission<'a>,
    /// Their places in the request, at least one, and what each counts.
    descriptors: Vec<(usize, Unit)>,
}

/// What each descriptor asks for, with its place; those that limit nothing are left out.
fn demands(request: &RateLimitRequest) -> Result<Vec<(usize, Demand<'_>)>, Status> {
    let mut demands = Vec::with_capacity(request.descriptors.len());
    for (place, descriptor) in request.descriptors.iter().enumerate() {
        let Some(demand) = Demand::read(request, place).filter(|_| !descriptor.is_negative_hits) else { continue };
        if demand.tenant.len() > MAX_NAME_BYTES {
            let message = format!("descriptor {place}: a tenant is at most {MAX_NAME_BYTES} bytes long");
            return Err(Status::invalid_argument(message));
        }
        demands.push((place, demand));
    }
    Ok(demands)
}

/// The id is the first call's: the filter's requests have one.
fn calls<'a>(demands: Vec<(usize, Demand<'a>)>, mut id: Option<&'a str>) -> Vec<Call<'a>> {
    let mut calls: Vec<Call<'a>> = Vec::with_capacity(1);
    for (place, Demand { tenant, tier, model, api, key, unit, amount }) in demands {
        let counted = Counted { model, api, key };
        let is_same = |asked: &Admission<'_>| (asked.tenant, asked.tier, asked.call) == (tenant, tier, counted);
        let at = calls.iter().position(|call| is_same(&call.asked)).unwrap_or_else(|| {
            let asked = Admission { tenant, tier, call: counted, reservation_id: id.take(), ..Admission::default() };
            calls.push(Call { asked, descriptors: Vec::with_capacity(3) });
            calls.len() - 1
        });
        let Call { asked, descriptors } = &mut calls[at];
        let sum = match unit {
            Unit::Requests => &mut asked.requests,
            Unit::InputTokens => &mut asked.input_tokens,
            Unit::OutputTokens => asked.output_tokens.get_or_insert(0),
            Unit::Images => &mut asked.images,
        };
        *sum = sum.saturating_add(amount);
        descriptors.push((place, unit));
    }
    calls
}

/// The answer as it grows.
struct Answer {
    overall: Code,
    statuses: Vec<DescriptorStatus>,
    warnings: Vec<String>,
    /// Who is denied, where the call is.
    denied: DeniedCalls,
    /// Where no more than what is lent is to be had.
    quota: Option<Quota>,
}

impl Answer {
    fn new(descriptors: usize) -> Answer {
        Answer {
            overall: Code::Ok,
            statuses: vec![status(None); descriptors],
            warnings: Vec::new(),
            denied: DeniedCalls::Alike,
            quota: None,
        }
    }

    fn tell(&mut self, call: &Call<'_>, decision: &Decision<'_>) {
        for (place, unit) in &call.descriptors {
            self.statuses[*place] = status(match unit {
                Unit::Requests => decision.requests,
                Unit::InputTokens => decision.input_tokens,
                Unit::OutputTokens => decision.output_tokens,
                // They are in the cost.
                Unit::Images => None,
            });
        }
        self.warnings.extend(decision.warnings.iter().map(|limit| limit.name().to_owned()));
        if decision.outcome == Outcome::Denied {
            self.overall = Code::OverLimit;
            let is_for_all = |standing: Standing<'_>| standing.remaining == 0 && standing.limit.counts_every_call();
            if decision.requests.is_some_and(|standing| standing.outcome == Outcome::Denied && is_for_all(standing)) {
                self.denied = DeniedCalls::All;
            }
            if call.descriptors.iter().all(|(place, _)| self.statuses[*place].code() == Code::Ok) {
                self.statuses[call.descriptors[0].0] = status(decision.denied_by());
            }
        }
    }

    fn lend(&mut self, call: &Call<'_>, lease: &Lease) {
        for (place, unit) in &call.descriptors {
            self.statuses[*place].quota = Some(lease.quota(*unit));
        }
    }

    /// When a call that was denied would be admitted; `None` where that is not known.
    fn reset_ms(&self, call: &Call<'_>) -> Option<u64> {
        let denied = call.descriptors.iter().map(|(place, _)| &self.statuses[*place]);
        let denied = denied.filter(|status| status.code() == Code::OverLimit);
        let until = |status: &DescriptorStatus| status.duration_until_reset.as_ref().map(duration_ms);
        denied.map(until).max().flatten()
    }

    /// Denies a call by something that no waiting helps against; told by the descriptors of `telling` units, or else by
    /// the first one.
    fn refuse(&mut self, call: &Call<'_>, name: &str, capacity: u64, telling: impl Fn(Unit) -> bool) {
        self.overall = Code::OverLimit;
        let mut places: Vec<_> =
            call.descriptors.iter().filter(|(_, unit)| telling(*unit)).map(|(place, _)| *place).collect();
        if places.is_empty() {
            places.push(call.descriptors[0].0);
        }
        for place in places {
            self.statuses[place] = DescriptorStatus {
                code: Code::OverLimit.into(),
                current_limit: Some(RateLimit {
                    requests_per_unit: saturated(capacity),
                    unit: WindowUnit::Unknown.into(),
                    name: name.to_owned(),
                }),
                ..Default::default()
            };
        }
    }
}

impl From<Answer> for RateLimitResponse {
    fn from(Answer { overall, statuses, warnings, quota, .. }: Answer) -> RateLimitResponse {
        let header = || HeaderValue { key: WARNING_HEADER.to_owned(), value: warnings.join(", ") };
        let response_headers_to_add = if warnings.is_empty() { Vec::new() } else { vec![header()] };
        RateLimitResponse {
            overall_code: overall.into(),
            statuses,
            response_headers_to_add,
            quota,
            ..Default::default()
        }
    }
}

/// Where a limit stands, in RLS's words: its counts are `u32`, and larger ones are told as the largest.
fn status(standing: Option<Standing<'_>>) -> DescriptorStatus {
    let Some(standing) = standing else { return DescriptorStatus { code: Code::Ok.into(), ..Default::default() } };
    let code = match standing.outcome {
        Outcome::Admitted => Code::Ok,
        Outcome::Denied => Code::OverLimit,
    };
    DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit {
            requests_per_unit: told(standing.limit.unit, standing.limit.capacity.get()),
            unit: standing.limit.window.map_or(WindowUnit::Unknown, window_unit).into(),
            name: standing.limit.name().to_owned(),
        }),
        limit_remaining: told(standing.limit.unit, standing.remaining),
        duration_until_reset: standing.reset_ms.map(duration),
        quota: None,
    }
}

/// Money is told in 1e-6 dollars.
fn told(unit: LimitUnit, amount: u64) -> u32 {
    saturated(if unit == LimitUnit::Cost { amount / 1000 } else { amount })
}

fn saturated(amount: u64) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}

fn window_unit(window: Window) -> WindowUnit {
    match window {
        Window::Second => WindowUnit::Second,
        Window::Minute => WindowUnit::Minute,
        Window::Hour => WindowUnit::Hour,
        Window::Day => WindowUnit::Day,
        Window::Month => WindowUnit::Month,
    }
}

fn duration(ms: u64) -> Duration {
    let seconds = i64::try_from(ms / 1000).unwrap_or(MAX_DURATION_SECONDS).min(MAX_DURATION_SECONDS);
    Duration { seconds, nanos: (ms % 1000) as i32 * 1_000_000 }
}
