//! Envoy's rate limit service v3 over the limiter.
//!
//! What it answers:
//! - All descriptors of one tenant and tier are one call, decided together against all limits of the plan. A denial by a
//!   limit that no descriptor asks for is told by the call's first descriptor.
//! - A domain that is not ours limits nothing: OK for each descriptor. So does a descriptor without a tenant or with an
//!   unknown unit, and one with negative hits: nothing is ever given back here.
//! - A call of several tenants is decided for one after the other; what one took stays taken when another is denied.

use std::sync::Arc;

use prost_types::Duration;
use tollgate_domain::{Amounts, Decision, Outcome, Standing, Window};
use tollgate_wire::admission::{Demand, Unit, WindowUnit};
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

    fn decide(&self, request: &RateLimitRequest, now_ms: u64) -> Result<RateLimitResponse, Status> {
        let descriptors = request.descriptors.len();
        if descriptors > MAX_DESCRIPTORS {
            let message = format!("{descriptors} descriptors; at most {MAX_DESCRIPTORS} are taken");
            return Err(Status::invalid_argument(message));
        }
        let mut statuses = vec![DescriptorStatus { code: Code::Ok.into(), ..Default::default() }; descriptors];
        if request.domain != self.domain {
            self.metrics.calls_of_unknown_domain.inc();
            return Ok(RateLimitResponse { overall_code: Code::Ok.into(), statuses, ..Default::default() });
        }
        let demands = demands(request)?;
        let mut overall = Code::Ok;
        for (first, lead) in demands.iter().enumerate() {
            let Some(lead) = lead else { continue };
            if demands[..first].iter().flatten().any(|demand| same_call(demand, lead)) {
                continue;
            }
            let call = demands.iter().enumerate().filter_map(|(at, demand)| Some((at, demand.as_ref()?)));
            let call = call.filter(|(_, demand)| same_call(demand, lead));
            let plan = self.limiter.plan(lead.tier);
            let decision = self.limiter.take(lead.tenant, plan, amounts(call.clone()), now_ms);
            for (at, demand) in call {
                statuses[at] = status(told(&decision, demand.unit));
            }
            match decision.outcome {
                Outcome::Admitted => {
                    self.metrics.calls_admitted.inc();
                }
                Outcome::Denied => {
                    self.metrics.calls_denied.inc();
                    overall = Code::OverLimit;
                    if statuses.iter().all(|status| status.code() == Code::Ok) {
                        statuses[first] = status(decision.denied_by());
                    }
                }
            }
        }
        Ok(RateLimitResponse { overall_code: overall.into(), statuses, ..Default::default() })
    }
}

#[tonic::async_trait]
impl RateLimitService for Rls {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        self.decide(request.get_ref(), clock::now_ms()).map(Response::new)
    }
}

/// What each descriptor asks for, `None` where it limits nothing.
fn demands(request: &RateLimitRequest) -> Result<Vec<Option<Demand<'_>>>, Status> {
    let demand = |(at, descriptor): (usize, &_)| {
        let descriptor: &tollgate_wire::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor =
            descriptor;
        match Demand::read(request, at) {
            Some(demand) if demand.tenant.len() > MAX_NAME_BYTES => Err(Status::invalid_argument(format!(
                "descriptor {at}: a tenant is at most {MAX_NAME_BYTES} bytes long"
            ))),
            demand => Ok(demand.filter(|_| !descriptor.is_negative_hits)),
        }
    };
    request.descriptors.iter().enumerate().map(demand).collect()
}

fn same_call(one: &Demand<'_>, other: &Demand<'_>) -> bool {
    one.tenant == other.tenant && one.tier == other.tier
}

fn amounts<'a>(call: impl Iterator<Item = (usize, &'a Demand<'a>)>) -> Amounts {
    let mut amounts = Amounts::default();
    for (_, demand) in call {
        let amount = match demand.unit {
            Unit::Requests => &mut amounts.requests,
            Unit::InputTokens => &mut amounts.input_tokens,
            Unit::OutputTokens => &mut amounts.output_tokens,
        };
        *amount = amount.saturating_add(demand.amount);
    }
    amounts
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
    let saturated = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
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
    // A u64 of milliseconds is fewer seconds than fit into an i64.
    Duration { seconds: (ms / 1000) as i64, nanos: (ms % 1000) as i32 * 1_000_000 }
}
