//! The limiter: plans, and the counters that hold tenants to them.

mod lend;
mod restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{RwLock, RwLockReadGuard};
use tollgate_domain::{
    Access, Call, Calls, Day, Decision, Expired, Extent, HeldCall, Hold, LeaseTerms, Plan, Plans, Quantities, Quote,
    Settled, Settles, Side, Standing, Take, Tier, TokenClass, Tokens, Used,
};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

use crate::answers::Answers;
use crate::budgets::Budgets;
use crate::counters::{Counters, Unavailable};
use crate::metrics::Metrics;

pub use lend::{Lent, MAX_LENDING};
pub use restore::{LimitDifference, MAX_RESTORED};

/// What the limiter goes by; replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// All plans.
    pub plans: Plans,
    /// What alerts look at beside the plans' limits.
    pub budgets: Arc<Budgets>,
    /// After so long without a usage event, a reservation expires.
    pub reservation_timeout_ms: u64,
    /// A call without a cap reserves the length that so many percent of the tenant's recent answers by that model did not
    /// exceed,
    pub answer_percentile: u8,
    /// or so many tokens while little is known.
    pub unknown_answer_tokens: u64,
    /// How calls are lent to proxies' workers; `None` where each is asked about.
    pub leases: Option<LeaseTerms>,
}

/// Decides about calls and settles them.
pub struct Limiter {
    policy: ArcSwap<Policy>,
    counters: Arc<dyn Counters>,
    answers: Answers,
    loans: lend::Loans,
    /// Read while there may be calls in the ledger that are not settled yet.
    posting: RwLock<()>,
    metrics: Metrics,
}

/// A call that asks to be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Admission<'a> {
    /// Who pays.
    pub tenant: &'a str,
    /// The plan's name, where one is given.
    pub tier: Option<&'a str>,
    /// Which limits count it.
    pub call: Call<'a>,
    /// How many calls it is; 0 for a report of tokens that were used.
    pub requests: u64,
    /// Tokens of the prompt, or of both sides where they are not told apart.
    pub input_tokens: u64,
    /// The most tokens of the answer, 0 when no cap is set; `None` where the answer has none, or nobody asks for them.
    pub output_tokens: Option<u64>,
    /// Images that are to be made.
    pub images: u64,
    /// Unique, and the usage event's, where there will be one. Without it, what is asked for is taken for good.
    pub reservation_id: Option<&'a str>,
}

/// Why a call is denied before any limit is asked. Waiting does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The prompt is too long for the plan, which has so many tokens of context.
    ContextExceeded(u64),
    /// The call's tier is not known, and such calls are denied.
    UnknownTier,
    /// The tenant may not call.
    Suspended,
}

/// Why there is no decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecided {
    /// The call is denied as it is.
    Refused(Refusal),
    /// The counters do not answer.
    Unavailable(Unavailable),
}

impl From<Refusal> for Undecided {
    fn from(refusal: Refusal) -> Undecided {
        Undecided::Refused(refusal)
    }
}

impl From<Unavailable> for Undecided {
    fn from(unavailable: Unavailable) -> Undecided {
        Undecided::Unavailable(unavailable)
    }
}

impl Limiter {
    /// A limiter that holds tenants to `policy`.
    pub fn new(policy: Policy, counters: Arc<dyn Counters>, metrics: Metrics) -> Limiter {
        Limiter {
            policy: ArcSwap::from_pointee(policy),
            counters,
            answers: Answers::new(),
            loans: lend::Loans::default(),
            posting: RwLock::default(),
            metrics,
        }
    }

    /// What it goes by now. A decision is made by one policy from its beginning to its end.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Goes by another policy from now on. What is counted stays.
    pub fn replace(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Decides about a call and reserves what it asks for when all limits agree. One that asks for nothing takes nothing.
    ///
    /// # Errors
    /// When the call is refused as it is, or the counters do not answer: then it may have been reserved.
    pub async fn admit<'p>(&self, policy: &'p Policy, asked: &Admission<'_>) -> Result<Decision<'p>, Undecided> {
        self.decide(policy, asked, Intent::Take).await
    }

    /// Decides about a call, and takes nothing.
    ///
    /// # Errors
    /// As [`Limiter::admit`].
    pub async fn check<'p>(&self, policy: &'p Policy, asked: &Admission<'_>) -> Result<Decision<'p>, Undecided> {
        self.decide(policy, asked, Intent::Ask).await
    }

    async fn decide<'p>(
        &self,
        policy: &'p Policy,
        asked: &Admission<'_>,
        intent: Intent,
    ) -> Result<Decision<'p>, Undecided> {
        let plan = self.plan(policy, asked.tenant, asked.tier)?;
        // What is reported has been used.
        if asked.requests > 0 {
            may_call(policy, asked.tenant)?;
            plan.check_context(asked.input_tokens).map_err(|_| Refusal::ContextExceeded(plan.context_tokens))?;
        }
        let now_ms = self.counters.now_ms();
        let quote = limited_quote(policy, plan, asked, now_ms);
        let used = [asked.input_tokens, asked.output_tokens.unwrap_or(0), asked.images];
        let asks_nothing = asked.requests == 0 && used == [0; 3];
        let output_tokens = match asked.output_tokens {
            Some(0) if asked.requests > 0 && asked.reservation_id.is_some() => {
                self.answer_tokens(policy, plan, asked, quote)
            }
            output_tokens => output_tokens.unwrap_or(0),
        };
        let quantities = quantities(quote, asked, output_tokens);
        let hold = asked.reservation_id.filter(|_| asked.requests > 0).map(|id| Hold {
            id: id.to_owned(),
            timeout_ms: policy.reservation_timeout_ms,
            call: held_call(plan, asked, output_tokens),
        });
        let take = match (intent, &hold) {
            (Intent::Ask, _) => Take::Nothing,
            (Intent::Take, _) if asks_nothing => Take::Nothing,
            (Intent::Take, Some(hold)) => Take::Hold(hold),
            (Intent::Take, None) if asked.requests == 0 => Take::Used,
            (Intent::Take, None) => Take::ForGood,
        };
        let asks = plan.asks(&asked.call, &quantities, now_ms);
        let verdict = self.counters.admit(asked.tenant, &asks, take).await?;
        let decision = Decision::new(&asks, &verdict);
        if intent == Intent::Take {
            let is_priced = !plan.limits_cost() || quote.is_some();
            self.metrics.calls_without_price.inc_by(u64::from(!is_priced));
            self.metrics.limits_warned.inc_by(decision.warnings.len() as u64);
            self.metrics.limits_shadowed.inc_by(decision.shadowed.len() as u64);
        }
        Ok(decision)
    }

    /// The plan of a tenant's call; the default one for an unknown tier, unless such calls are denied.
    ///
    /// # Errors
    /// When they are.
    pub fn plan<'p>(&self, policy: &'p Policy, tenant: &str, tier: Option<&str>) -> Result<&'p Plan, Refusal> {
        let found = policy.plans.plan(tenant, tier);
        if !matches!(found, Ok(found) if found.tier == Tier::Known) {
            self.metrics.unknown_tiers.inc();
        }
        found.map(|found| found.plan).map_err(|_| Refusal::UnknownTier)
    }

    /// What a call without a cap reserves for its answer. A guess denies no call for good: where it is more than a limit ever
    /// holds, it is the most that all limits hold.
    fn answer_tokens(&self, policy: &Policy, plan: &Plan, asked: &Admission<'_>, quote: Option<Quote<'_>>) -> u64 {
        let lately = self.answers.percentile(asked.tenant, asked.call.model, policy.answer_percentile);
        let guess = lately.unwrap_or(policy.unknown_answer_tokens);
        plan.most_held(&asked.call, guess, |output_tokens| quantities(quote, asked, output_tokens))
    }

    /// Names the plan that holds now for a call that named none, and works out what the call cost by the prices of the
    /// day on which it began: nothing where it used nothing, and nothing is known of models without a price.
    pub fn rate(&self, event: &mut UsageEvent) {
        let policy = self.policy();
        if event.tier.is_empty()
            && let Ok(found) = policy.plans.plan(&event.tenant, None)
        {
            event.tier.clone_from(&found.plan.tier);
        }
        event.cost_nanousd = match event.usage_source {
            UsageSource::None => Some(0),
            _ => {
                let plan = used_plan(&policy, &event.tenant, &event.tier);
                event_quote(&policy, plan, event).map(|quote| quote.cost_nanousd(&used_by(event)))
            }
        };
    }

    /// Whether what is counted outlives the service.
    pub fn outlives(&self) -> bool {
        self.counters.outlives()
    }

    /// Calls are about to come into the ledger, and are settled before this is dropped.
    pub async fn posting(&self) -> RwLockReadGuard<'_, ()> {
        self.posting.read().await
    }

    /// Settles a call to what it has used.
    ///
    /// # Errors
    /// When the counters do not answer.
    pub async fn settle(&self, event: &UsageEvent, settles: Settles) -> Result<Settled, Unavailable> {
        let policy = self.policy();
        let Some(plan) = used_plan(&policy, &event.tenant, &event.tier) else { return Ok(Settled::Unreserved) };
        let (call, quantities) = used(&policy, plan, event);
        let asks = plan.asks(&call, &quantities, self.counters.now_ms());
        let used = Used {
            asks: &asks,
            // Images are used though no limit counts them.
            extent: match quantities.is_void() && event.tokens.images == 0 {
                true => Extent::Nothing,
                false => Extent::Something,
            },
            started_at_ms: event.started_at_ms,
            ended_at_ms: event.started_at_ms.saturating_add(event.duration_ms),
            settles,
        };
        let id = event.reservation_id.as_ref().unwrap_or(&event.event_id);
        let settled = self.counters.settle(&event.tenant, id, &used).await?;
        let is_first = !matches!(settled, Settled::Unknown | Settled::Repeated);
        if is_first && event.usage_source == UsageSource::Reported && event.tokens.output > 0 {
            self.answers.record(&event.tenant, event.model(), event.tokens.output);
        }
        self.metrics.count_settled(settled);
        Ok(settled)
    }

    /// Calls whose reservation ran out, each at its estimate: [`MAX_UNPOSTED`](crate::counters::MAX_UNPOSTED) at most, and
    /// again after a while until [`Limiter::posted`] is told of them.
    ///
    /// # Errors
    /// When the counters do not answer.
    pub async fn unposted(&self) -> Result<Vec<UsageEvent>, Unavailable> {
        let expired = self.counters.unposted().await?;
        let mut events: Vec<_> = expired.iter().map(|(tenant, expired)| unsettled(tenant, expired)).collect();
        events.iter_mut().for_each(|event| self.rate(event));
        Ok(events)
    }

    /// What ran out is kept.
    ///
    /// # Errors
    /// When the counters do not answer.
    pub async fn posted(&self, events: &[UsageEvent]) -> Result<(), Unavailable> {
        for event in events {
            self.counters.posted(&event.tenant, &event.event_id).await?;
        }
        Ok(())
    }

    /// Where each limit of the plan stands for `tenant`.
    ///
    /// # Errors
    /// When the counters do not answer.
    pub async fn standings<'p>(&self, tenant: &str, plan: &'p Plan) -> Result<Vec<Standing<'p>>, Unavailable> {
        let asks = plan.questions(self.counters.now_ms());
        let verdict = self.counters.admit(tenant, &asks, Take::Nothing).await?;
        let standings = asks.iter().zip(&verdict.counters);
        Ok(standings.map(|(ask, counter)| Standing::of(ask.limit, &ask.rule, counter, verdict.now_ms)).collect())
    }

    /// Forgives what a tenant has spent of all its limits. The audit log has it at that time.
    ///
    /// # Errors
    /// When the counters do not answer.
    pub async fn reset(&self, tenant: &str, at_ms: u64) -> Result<(), Unavailable> {
        self.counters.reset(tenant, at_ms).await
    }
}

/// Whether a decision takes what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    Ask,
    Take,
}

/// Whether the tenant may call at all.
fn may_call(policy: &Policy, tenant: &str) -> Result<(), Refusal> {
    match policy.plans.access(tenant) {
        Access::Open => Ok(()),
        Access::Suspended => Err(Refusal::Suspended),
    }
}

/// The plan of a call that was made: what was used is used, whatever tier it says.
pub(crate) fn used_plan<'p>(policy: &'p Policy, tenant: &str, tier: &str) -> Option<&'p Plan> {
    let found = policy.plans.plan(tenant, Some(tier)).or_else(|_| policy.plans.plan(tenant, None));
    found.ok().map(|found| found.plan)
}

/// Whether we, or the proxy, refused the call before anything was made of it: what it may hold is given back, and it costs no
/// request.
fn is_refused(event: &UsageEvent) -> bool {
    event.usage_source == UsageSource::None && event.finish == Finish::LocalReply
}

/// What a call was, and what it has used. One that used nothing is not paid for.
fn used<'e>(policy: &Policy, plan: &Plan, event: &'e UsageEvent) -> (Call<'e>, Quantities) {
    let call = Call { model: event.model(), api: event.api.as_deref(), key: event.key.as_deref() };
    let used = used_by(event);
    let cost_nanousd = match event.usage_source {
        UsageSource::None => 0,
        _ if plan.limits_cost() => cost_nanousd(event_quote(policy, Some(plan), event), &used),
        _ => 0,
    };
    let tokens = used.tokens;
    (call, Quantities { requests: u64::from(!is_refused(event)), slots: 0, tokens, cost_nanousd })
}

/// What is kept of a call until it is settled, with an answer of so many tokens.
fn held_call(plan: &Plan, asked: &Admission<'_>, output_tokens: u64) -> HeldCall {
    HeldCall {
        tier: plan.tier.clone(),
        model: asked.call.model.map(str::to_owned),
        api: asked.call.api.map(str::to_owned),
        key: asked.call.key.map(str::to_owned),
        input_tokens: asked.input_tokens,
        output_tokens,
        images: asked.images,
    }
}

/// What a call asks for with an answer of so many tokens.
fn quantities(quote: Option<Quote<'_>>, asked: &Admission<'_>, output_tokens: u64) -> Quantities {
    let tokens = Tokens::plain(asked.input_tokens, output_tokens);
    let cost_nanousd = cost_nanousd(quote, &Calls { requests: asked.requests, images: asked.images, tokens });
    Quantities { requests: asked.requests, slots: asked.requests.min(1), tokens, cost_nanousd }
}

/// The price of a call that is to begin, where money is limited. Who will answer it is not known yet.
fn limited_quote<'p>(policy: &'p Policy, plan: &Plan, asked: &Admission<'_>, now_ms: u64) -> Option<Quote<'p>> {
    let quote = || policy.plans.prices(asked.tenant).at(None, asked.call.model, Day::of(now_ms));
    plan.limits_cost().then(quote).flatten().map(|quote| quote.with_mark_up(plan.mark_up))
}

/// The price of a call that was made, on the day on which it began.
pub(crate) fn event_quote<'p>(policy: &'p Policy, plan: Option<&Plan>, event: &UsageEvent) -> Option<Quote<'p>> {
    let prices = policy.plans.prices(&event.tenant);
    let quote = prices.at(event.provider.as_deref(), event.model(), Day::of(event.started_at_ms))?;
    Some(plan.map_or(quote, |plan| quote.with_mark_up(plan.mark_up)))
}

/// What calls cost; nothing without a price.
fn cost_nanousd(quote: Option<Quote<'_>>, calls: &Calls) -> u64 {
    quote.map_or(0, |quote| quote.cost_nanousd(calls))
}

/// What a call used.
pub(crate) fn used_by(event: &UsageEvent) -> Calls {
    Calls { images: event.tokens.images, ..Calls::one(tokens(&event.tokens)) }
}

/// Tokens by class. Passes that the provider's totals leave out count as plain tokens.
fn tokens(counts: &TokenCounts) -> Tokens {
    let mut tokens = Tokens::plain(counts.extra_input, counts.extra_output);
    let cache_write = counts.cache_creation.saturating_sub(counts.cache_creation_1h);
    let input = [
        (TokenClass::CacheRead, counts.cache_read),
        (TokenClass::CacheWrite, cache_write),
        (TokenClass::CacheWrite1h, counts.cache_creation_1h),
        (TokenClass::AudioInput, counts.audio_input),
    ];
    tokens.add(Side::Input, counts.input, &input);
    let output = [(TokenClass::Reasoning, counts.reasoning), (TokenClass::AudioOutput, counts.audio_output)];
    tokens.add(Side::Output, counts.output, &output);
    tokens
}

/// The entry for a call that nobody settled: its estimate.
fn unsettled(tenant: &str, expired: &Expired) -> UsageEvent {
    let call = &expired.call;
    UsageEvent {
        event_id: expired.id.clone(),
        reservation_id: Some(expired.id.clone()),
        tenant: tenant.to_owned(),
        tier: call.tier.clone(),
        started_at_ms: expired.started_at_ms,
        duration_ms: expired.expired_at_ms.saturating_sub(expired.started_at_ms),
        api: call.api.clone(),
        key: call.key.clone(),
        request_model: call.model.clone(),
        input_estimate: Some(call.input_tokens),
        tokens: TokenCounts {
            input: call.input_tokens,
            output: call.output_tokens,
            images: call.images,
            ..TokenCounts::default()
        },
        usage_source: UsageSource::Unsettled,
        finish: Finish::Unknown,
        ..UsageEvent::default()
    }
}
