//! The service: replicas of its own RLS over the same counters, and a ledger that knows each id once.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use prost::Message;
use tollgate::config::Config;
use tollgate::counters::{Counters, MAX_TENANTS, MemoryCounters};
use tollgate::limiter::{Limiter, Policy};
use tollgate::metrics::Metrics;
use tollgate::rls::Rls;
use tollgate_domain::{Given, Limit, Plan, Plans, Prices, Settled, Settles, Unit, UnknownTier, Window};
use tollgate_wire::admission::{LEASE_METADATA, Lease, RESERVATION_ID_METADATA};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use tollgate_wire::proto::opentelemetry::proto::logs::v1::LogRecord;
use tollgate_wire::usage_event::{Finish, LeaseReturned, UsageEvent, UsageSource};
use tonic::Request;

use crate::world::Setting;

pub(crate) const TENANT: &str = "acme";

/// Far more than is asked for.
const ROOMY: u64 = 1 << 40;

pub(crate) struct Service {
    now_ms: Arc<AtomicU64>,
    replicas: Vec<(Rls, Arc<Limiter>)>,
    /// All that was ever reserved for.
    pub(crate) reserved: BTreeSet<String>,
    pub(crate) given_back: BTreeSet<String>,
    /// Calls by id, the real ones instead of the estimates.
    pub(crate) ledger: BTreeMap<String, UsageEvent>,
}

/// A question, as it goes over the wire.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) message: Vec<u8>,
    pub(crate) reservation_id: Option<String>,
    pub(crate) lease: Option<String>,
}

fn limit(unit: Unit, window: Option<Window>, capacity: u64) -> Limit {
    Limit::new(unit, window, NonZeroU64::new(capacity).unwrap()).unwrap()
}

impl Service {
    pub(crate) fn new(setting: &Setting, now_ms: u64) -> Service {
        let hot = limit(Unit::Requests, Some(setting.window), setting.capacity);
        let mut limits = vec![
            hot.with_burst(NonZeroU64::new(setting.burst).unwrap()).unwrap(),
            limit(Unit::Requests, Some(Window::Day), ROOMY),
            limit(Unit::Tokens, Some(Window::Day), ROOMY),
        ];
        limits.extend(setting.slots.map(|slots| limit(Unit::Concurrency, None, slots)));
        let plans = vec![Plan::new("free".into(), 1 << 20, limits)];
        let plans =
            Plans::new(Given { plans, ..Given::default() }, "free", UnknownTier::Default, Prices::default()).unwrap();
        let policy = Policy { plans, ..Config::parse("", "defaults").unwrap().policy };
        let now_ms = Arc::new(AtomicU64::new(now_ms));
        let clock = Arc::clone(&now_ms);
        let (metrics, _) = Metrics::new();
        let counters = MemoryCounters::new(MAX_TENANTS, Arc::new(move || clock.load(Ordering::Relaxed)), metrics);
        let counters: Arc<dyn Counters> = Arc::new(counters);
        let replica = || {
            let (metrics, _) = Metrics::new();
            let limiter = Arc::new(Limiter::new(policy.clone(), Arc::clone(&counters), metrics.clone()));
            (Rls::new("tollgate".into(), Arc::clone(&limiter), metrics), limiter)
        };
        Service {
            replicas: (0..setting.replicas).map(|_| replica()).collect(),
            now_ms,
            reserved: BTreeSet::new(),
            given_back: BTreeSet::new(),
            ledger: BTreeMap::new(),
        }
    }

    pub(crate) fn at(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn ask(&mut self, replica: u64, question: &Question) -> Vec<u8> {
        let mut request = Request::new(RateLimitRequest::decode(question.message.as_slice()).unwrap());
        let metadata = [(RESERVATION_ID_METADATA, &question.reservation_id), (LEASE_METADATA, &question.lease)];
        for (name, value) in metadata {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.parse().unwrap());
            }
        }
        let rls = &self.replicas[replica as usize].0;
        let answer = rls.should_rate_limit(request).now_or_never().unwrap().unwrap().into_inner();
        // A call that is over before its question comes is not reserved for any more.
        let is_over = |id: &&String| self.ledger.contains_key(*id);
        if answer.overall_code() == Code::Ok {
            self.reserved.extend(question.reservation_id.as_ref().filter(|id| !is_over(id)).cloned());
        }
        if let Some(quota) = answer.statuses[0].quota.as_ref().filter(|quota| quota.requests > 0) {
            self.reserved.extend((0..quota.requests).map(|index| Lease::call_id(&quota.id, index)));
        }
        answer.encode_to_vec()
    }

    /// Takes a worker's records.
    pub(crate) fn take(&mut self, replica: u64, records: &[Vec<u8>]) {
        let limiter = Arc::clone(&self.replicas[replica as usize].1);
        for record in records {
            let record = LogRecord::decode(record.as_slice()).unwrap();
            if let Some(returned) = LeaseReturned::read(&record) {
                let returned = returned.unwrap();
                limiter.take_back(&returned).now_or_never().unwrap().unwrap();
                self.given_back.extend(returned.unused_ids());
                continue;
            }
            let event = UsageEvent::from_log_record(&record).unwrap();
            let settled = limiter.settle(&event, Settles::Known).now_or_never().unwrap().unwrap();
            let is_new = self.ledger.insert(event.event_id.clone(), event.clone()).is_none();
            if is_new && settled == Settled::Unknown {
                limiter.settle(&event, Settles::All).now_or_never().unwrap().unwrap();
            }
        }
    }

    /// Posts what ran out.
    pub(crate) fn post_unsettled(&mut self) {
        let limiter = Arc::clone(&self.replicas[0].1);
        let events = limiter.unposted().now_or_never().unwrap().unwrap();
        limiter.posted(&events).now_or_never().unwrap().unwrap();
        for event in events {
            self.ledger.entry(event.event_id.clone()).or_insert(event);
        }
    }

    /// What the counters have of the day: requests, and tokens; and what is still held.
    pub(crate) fn day(&self) -> (u64, u64, u64) {
        let limiter = &self.replicas[0].1;
        let policy = limiter.policy();
        let plan = policy.plans.plan(TENANT, None).unwrap().plan;
        let standings = limiter.standings(TENANT, plan).now_or_never().unwrap().unwrap();
        let held = standings.iter().map(|standing| standing.held).sum();
        (standings[1].used - standings[1].held, standings[2].used - standings[2].held, held)
    }

    /// Tokens by the ledger.
    pub(crate) fn tokens(&self) -> u64 {
        self.ledger.values().map(|event| event.tokens.total()).sum()
    }

    /// Calls that were never reserved for and cost their request all the same: those that nobody refused.
    pub(crate) fn unreserved(&self) -> u64 {
        let unreserved = self.ledger.values().filter(|event| !self.reserved.contains(&event.event_id));
        unreserved.filter(|event| event.finish != Finish::LocalReply).count() as u64
    }

    /// Ids of the ledger, but for calls that the service never heard of before they were refused.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let is_ours =
            |event: &&UsageEvent| self.reserved.contains(&event.event_id) || event.usage_source != UsageSource::None;
        self.ledger.values().filter(is_ours).map(|event| event.event_id.clone()).collect()
    }
}
