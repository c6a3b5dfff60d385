//! What one worker's calls have in common.

use std::cell::{Cell, RefCell, RefMut};

use tollgate_usage::Endpoint;
use tollgate_wire::admission::{AdmissionRequest, AdmissionResponse};
use tollgate_wire::usage_event::UsageEvent;

use crate::config::{Config, ReadBody, Settle};
use crate::lease::{Kind, Leases, OwnedKind};
use crate::metric::{Counter, Recorder};
use crate::report::{Report, Reports};
use crate::request::RequestBody;

/// What the calls of one worker share.
#[derive(Debug)]
pub struct Shared {
    config: Config,
    /// Whether a body has ever come while its headers were held.
    bodies: Cell<Bodies>,
    leases: RefCell<Leases>,
    reports: RefCell<Reports>,
    /// What the last call's path and authority told: mostly the next one has the same.
    last_endpoint: RefCell<Option<Known>>,
}

/// What a path and an authority told.
#[derive(Debug)]
struct Known {
    path: String,
    authority: Option<String>,
    endpoint: Option<Endpoint>,
}

/// The longest path and authority that are remembered, in bytes together.
const MAX_REMEMBERED_BYTES: usize = 512;

/// A question to the limiter for a lease. It is asked aside from all calls.
#[derive(Debug)]
pub struct LeaseAsk {
    /// What its answer is for.
    pub kind: OwnedKind,
    /// The encoded `RateLimitRequest`.
    pub message: Vec<u8>,
    /// For the gRPC metadata, under [`tollgate_wire::admission::LEASE_METADATA`].
    pub lease: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bodies {
    /// Not yet: they may wait for the headers to go on.
    Unproven,
    /// Yes, so calls may wait for them.
    Come,
}

impl Shared {
    /// Of a worker that has seen no call yet.
    pub fn new(config: Config) -> Shared {
        let leases = RefCell::new(Leases::new(config.admission.leases, config.admission.lease_timeout_ms()));
        Shared {
            config,
            bodies: Cell::new(Bodies::Unproven),
            leases,
            reports: RefCell::default(),
            last_endpoint: RefCell::default(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The endpoint that a call has, by its path and authority.
    pub(crate) fn endpoint(&self, path: &str, authority: Option<&str>) -> Option<Endpoint> {
        let mut last = self.last_endpoint.borrow_mut();
        if let Some(last) = last.as_ref().filter(|last| last.path == path && last.authority.as_deref() == authority) {
            return last.endpoint.clone();
        }
        let endpoint = Endpoint::of(path, authority);
        if path.len().saturating_add(authority.map_or(0, str::len)) <= MAX_REMEMBERED_BYTES {
            let (path, authority) = (path.to_owned(), authority.map(str::to_owned));
            *last = Some(Known { path, authority, endpoint: endpoint.clone() });
        }
        endpoint
    }

    /// The leases of this worker's calls.
    pub(crate) fn leases(&self) -> RefMut<'_, Leases> {
        self.leases.borrow_mut()
    }

    /// Looks after the leases, every [`LOOK_MS`](crate::LOOK_MS) or so: what is to be asked for now.
    pub fn lease_asks(&self, now_ms: u64) -> Vec<LeaseAsk> {
        let asks = self.leases().look(now_ms).into_iter().map(|ask| {
            let Kind { tenant, tier, model, api, key } = ask.kind.borrowed();
            let output_tokens = ask.has_output.then_some(0);
            let domain = &self.config.admission.domain;
            let request = AdmissionRequest {
                requests: Some(0),
                domain,
                tenant,
                tier,
                model,
                api,
                key,
                input_tokens: Some(0),
                output_tokens,
                images: None,
            };
            LeaseAsk { message: request.encode(), kind: ask.kind, lease: ask.metadata }
        });
        asks.collect()
    }

    /// The limiter answered a [`LeaseAsk`] with an encoded `RateLimitResponse`; `None` when it failed or took too long.
    pub fn on_lease_answer(&self, kind: &OwnedKind, answer: Option<&[u8]>, now_ms: u64, recorder: &impl Recorder) {
        let answer = answer.and_then(|bytes| AdmissionResponse::decode(bytes).ok());
        self.leases().hear_ahead(kind, answer, now_ms, recorder);
    }

    /// The encoded log records by which leases are given back, of all that are done with since the last time.
    pub fn returned_leases(&self, now_ms: u64, recorder: &impl Recorder) -> Vec<Vec<u8>> {
        self.leases().take_returned(recorder).iter().map(|returned| returned.encode(now_ms)).collect()
    }

    /// A call is over: where the rate limit service reads no events, it is to be told what the call used.
    pub(crate) fn report(&self, event: &UsageEvent, recorder: &impl Recorder) {
        if self.config.admission.enabled
            && self.config.admission.settle == Settle::Rls
            && let Some(report) = Report::of(event)
        {
            self.reports.borrow_mut().add(report, recorder);
        }
    }

    /// What is to be told now: each with its encoded `RateLimitRequest`.
    pub fn reports(&self) -> Vec<(Report, Vec<u8>)> {
        let with_message = |report: Report| {
            let message = report.encode(&self.config.admission.domain);
            (report, message)
        };
        self.reports.borrow_mut().take().map(with_message).collect()
    }

    /// It was not taken: it is told again.
    pub fn on_report_failed(&self, report: Report, recorder: &impl Recorder) {
        recorder.add(Counter::ReportFailures, 1);
        self.reports.borrow_mut().add(report, recorder);
    }

    /// Whether a call waits for its body before it is decided on.
    pub(crate) fn waits_for(&self, body: &RequestBody) -> bool {
        let settings = &self.config.request_body;
        let may_wait = match settings.read {
            ReadBody::Always => true,
            ReadBody::Auto => self.bodies.get() == Bodies::Come,
            ReadBody::Never => false,
        };
        may_wait && body.is_worth_holding(*settings)
    }

    /// Proof that Envoy hands bodies over while their headers are held.
    pub(crate) fn body_came_while_headers_were_held(&self) {
        self.bodies.set(Bodies::Come);
    }
}
