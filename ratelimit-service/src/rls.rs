//! Envoy's rate limit service v3 over the limiter.
//!
//! What it answers:
//! - All descriptors of one tenant and tier are one call, decided together against all limits of the plan. A denial by a
//!   limit that no descriptor asks for is told by the call's first descriptor.
//! - A prompt that is too long for its plan denies the call before any limit is asked. The descriptors of input tokens
//!   tell it, by the name [`CONTEXT_LIMIT`]; the others are OK.
//! - A domain that is not ours limits nothing: OK for each descriptor. So does a descriptor without a tenant or with an
//!   unknown unit, and one with negative hits: nothing is ever given back here.
//! - A call of several tenants is decided for one after the other; what one took stays taken when another is denied.

use std::sync::Arc;

use prost_types::Duration;
use tollgate_domain::{Amounts, Decision, Outcome, Plan, Standing, Window};
use tollgate_wire::admission::{CONTEXT_LIMIT, Demand, Unit, WindowUnit};
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use tollgate_wire::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tollgate_wire::usage_event::MAX_NAME_BYTES;
use tonic::{Request, Response, Status};

use crate::clock;
use crate::limiter::Limiter;
use crate::metrics::Metrics;

/// The most descriptors in a call.
pub const MAX_DESCRIPTORS: usize = 32;

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

    fn answer(&self, request: &RateLimitRequest, now_ms: u64) -> Result<RateLimitResponse, Status> {
        let descriptors = request.descriptors.len();
        if descriptors > MAX_DESCRIPTORS {
            let message = format!("{descriptors} descriptors; at most {MAX_DESCRIPTORS} are taken");
            return Err(Status::invalid_argument(message));
        }
        let mut statuses = vec![status(None); descriptors];
        let mut overall = Code::Ok;
        if request.domain == self.domain {
            for call in calls(demands(request)?) {
                if let Outcome::Denied = self.decide(&call, &mut statuses, now_ms) {
                    overall = Code::OverLimit;
                }
            }
        } else {
            self.metrics.calls_of_unknown_domain.inc();
        }
        Ok(RateLimitResponse { overall_code: overall.into(), statuses, ..Default::default() })
    }

    /// Decides about one call and sets its descriptors' statuses.
    fn decide(&self, call: &Call<'_>, statuses: &mut [DescriptorStatus], now_ms: u64) -> Outcome {
        let plan = self.limiter.plan(call.tier);
        let Ok(decision) = self.limiter.take(call.tenant, plan, call.amounts, now_ms) else {
            for (place, _) in call.descriptors.iter().filter(|(_, unit)| *unit == Unit::InputTokens) {
                statuses[*place] = context_exceeded(plan);
            }
            self.metrics.calls_too_long.inc();
            return Outcome::Denied;
        };
        for (place, unit) in &call.descriptors {
            statuses[*place] = status(told(&decision, *unit));
        }
        match decision.outcome {
            Outcome::Admitted => self.metrics.calls_admitted.inc(),
            Outcome::Denied => {
                if call.descriptors.iter().all(|(place, _)| statuses[*place].code() == Code::Ok) {
                    statuses[call.descriptors[0].0] = status(decision.denied_by());
                }
                self.metrics.calls_denied.inc()
            }
        };
        decision.outcome
    }
}

#[tonic::async_trait]
impl RateLimitService for Rls {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        self.answer(request.get_ref(), clock::now_ms()).map(Response::new)
    }
}

/// What the descriptors of one tenant and tier ask for together.
struct Call<'a> {
    tenant: &'a str,
    tier: Option<&'a str>,
    amounts: Amounts,
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

fn calls<'a>(demands: Vec<(usize, Demand<'a>)>) -> Vec<Call<'a>> {
    let mut calls: Vec<Call<'a>> = Vec::with_capacity(1);
    for (place, Demand { tenant, tier, unit, amount, .. }) in demands {
        let at = calls.iter().position(|call| call.tenant == tenant && call.tier == tier).unwrap_or_else(|| {
            calls.push(Call { tenant, tier, amounts: Amounts::default(), descriptors: Vec::with_capacity(3) });
            calls.len() - 1
        });
        let Call { amounts, descriptors, .. } = &mut calls[at];
        let sum = match unit {
            Unit::Requests => &mut amounts.requests,
            Unit::InputTokens => &mut amounts.input_tokens,
            Unit::OutputTokens => &mut amounts.output_tokens,
        };
        *sum = sum.saturating_add(amount);
        descriptors.push((place, unit));
    }
    calls
}

fn told(decision: &Decision, unit: Unit) -> Option<Standing> {
    match unit {
        Unit::Requests => decision.requests,
        Unit::InputTokens => decision.input_tokens,
        Unit::OutputTokens => decision.output_tokens,
    }
}

/// Where a limit stands, in RLS's words: its counts are `u32`, and larger ones are told as the largest.
fn status(standing: Option<Standing>) -> DescriptorStatus {
    let Some(standing) = standing else { return DescriptorStatus { code: Code::Ok.into(), ..Default::default() } };
    let code = match standing.outcome {
        Outcome::Admitted => Code::Ok,
        Outcome::Denied => Code::OverLimit,
    };
    DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit {
            requests_per_unit: saturated(standing.limit.capacity.get()),
            unit: window_unit(standing.limit.window).into(),
            name: standing.limit.to_string(),
        }),
        limit_remaining: saturated(standing.remaining),
        duration_until_reset: standing.reset_ms.map(duration),
        quota: None,
    }
}

/// That a prompt is longer than the plan's context: no window, and no time after which it would pass.
fn context_exceeded(plan: &Plan) -> DescriptorStatus {
    DescriptorStatus {
        code: Code::OverLimit.into(),
        current_limit: Some(RateLimit {
            requests_per_unit: saturated(plan.context_tokens),
            unit: WindowUnit::Unknown.into(),
            name: CONTEXT_LIMIT.to_owned(),
        }),
        ..Default::default()
    }
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
