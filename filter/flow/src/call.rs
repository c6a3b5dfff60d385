//! One request's state machine.
//!
//! ```text
//! request headers ─► unmetered ───────────────────────────────► nothing is recorded
//!        │
//!        ├─► no usable tenant, endpoint not allowed ─► reply 401 / 400 / 403
//!        ▼
//!        ├─► all calls of the tenant are denied for a while ─► the body is there ─► reply 429
//!        ▼
//!     reading ─► the body is there, or too long to be held
//!        ├─► a lease has room ─► let through; such a call was denied a moment ago ─► reply 429
//!        ▼
//!      asking ─► denied ─► reply 429           (no event: nothing is reserved, nothing was used)
//!        │   └─► no answer, on_failure: deny ─► reply 503 ─► end ─► one usage event: it may be reserved
//!        ▼
//!     let through ─► response read as it passes ─► end ─► one usage event
//! ```
//!
//! One event for each call that the limiter was asked about and did not deny, and for each that went on. So a client that
//! leaves while the limiter is being asked gives one, for its reservation may stand, and one that leaves before gives none.
//! The event of a call that goes on by a lease has the id that is reserved for there.

use std::borrow::Cow;
use std::rc::Rc;

use tollgate_usage::Endpoint;
use tollgate_wire::admission::AdmissionResponse;
use tollgate_wire::usage_event::{Finish, UsageEvent, UsageSource};

use crate::config::{FailurePolicy, UnclaimedEndpoints};
use crate::headers::{HeaderEdit, Headers, Request, text};
use crate::lease::{Denied, Way};
use crate::metric::{Counter, Histogram, Recorder};
use crate::outbox::Haste;
use crate::reply::{Dialect, Reply};
use crate::request::RequestBody;
use crate::settle::{Known, Unreported, finish, is_success, is_told, settle};
use crate::shared::Shared;
use crate::step::{Next, Step};
use crate::to_u64;
use metered::{Answer, Asked, Metered, Question, Told};

mod metered;

/// How much too early a timeout may come: Envoy's timers count from the beginning of its loop's turn.
const TIMER_SLACK_MS: u64 = 5;
/// What is kept of a client's `x-request-id`, in bytes; a longer one is left out.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// One request and its response.
#[derive(Debug)]
pub struct Call {
    shared: Rc<Shared>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Not metered, or answered by us.
    Aside,
    /// Held until its body is there.
    Reading(Box<Metered>),
    /// Denied by its headers. It is answered when its body is there, which is not read: Envoy would close the connection of a client
    /// that has not said all.
    Denied(Box<Metered>, Rc<Denied>),
    /// The limiter is being asked.
    Asking(Box<Metered>, Hold),
    /// It was let through.
    Passing(Box<Metered>),
    /// It was answered by us after the limiter was to be asked.
    Stopped(Box<Metered>, Due),
}

/// What a call that we answered owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Its event: it had gone on, so that the upstream may have begun, or the limiter may have reserved for it.
    Event,
    /// It has left nothing behind.
    Nothing,
}

/// Where a request is while the limiter is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// With Envoy.
    Held,
    /// On its way up: it was too long to be held.
    Released,
}

impl Call {
    /// A call of which nothing has been seen.
    pub fn new(shared: Rc<Shared>) -> Call {
        Call { shared, stage: Stage::Aside }
    }

    /// The request's headers are there. `has_body`: whether anything follows them. `new_id` gives a unique id, and is asked
    /// only for a metered call.
    pub fn on_request_headers(
        &mut self,
        request: &impl Request,
        has_body: bool,
        now_ms: u64,
        new_id: impl FnOnce() -> String,
        recorder: &impl Recorder,
    ) -> Step {
        let shared = Rc::clone(&self.shared);
        let config = shared.config();
        let mut step = match self.meet(request, has_body, now_ms, new_id, recorder) {
            Ok(Some(call)) => self.begin(call, has_body, now_ms, recorder),
            Ok(None) => Next::Continue.into(),
            Err(reply) => Next::Reply(reply).into(),
        };
        let removed = config.identity.remove_headers.iter().filter(|name| request.get(name).is_some());
        step.headers.extend(removed.map(|name| (Cow::Owned(name.clone()), None)));
        step
    }

    /// Denies a call, waits for its body, or asks.
    fn begin(&mut self, call: Box<Metered>, has_body: bool, now_ms: u64, recorder: &impl Recorder) -> Step {
        let shared = Rc::clone(&self.shared);
        let waits = shared.waits_for(&call.request);
        let (tenant, tier) = (&call.event.tenant, &call.event.tier);
        // A body of unknown length could outgrow Envoy's buffer, which only counts what was read of it.
        if (!has_body || waits && call.request.has_known_length())
            && let Some(denied) = shared.leases().deny_all(tenant, tier, now_ms, recorder)
        {
            if !has_body {
                return self.deny(call, &denied, now_ms, recorder);
            }
            self.stage = Stage::Denied(call, denied);
            return Next::Wait.into();
        }
        if !waits {
            return self.ask(call, Hold::Held, || now_ms, recorder);
        }
        self.stage = Stage::Reading(call);
        Next::Wait.into()
    }

    /// What is to be metered of a request; `None` when it costs nothing.
    fn meet(
        &self,
        request: &impl Request,
        has_body: bool,
        now_ms: u64,
        new_id: impl FnOnce() -> String,
        recorder: &impl Recorder,
    ) -> Result<Option<Box<Metered>>, Reply> {
        let config = self.shared.config();
        let path = request.get(":path").unwrap_or_default();
        if !config.meters(request.get(":method").unwrap_or_default(), path) {
            recorder.add(Counter::CallsUnmetered, 1);
            return Ok(None);
        }
        let path = std::str::from_utf8(path).unwrap_or_default();
        let endpoint = self.shared.endpoint(path, text(request, ":authority"));
        let dialect = Dialect::of(endpoint.as_ref().map(|endpoint| endpoint.format));
        if endpoint.is_none() {
            recorder.add(Counter::CallsUnclaimed, 1);
            if config.unclaimed_endpoints == UnclaimedEndpoints::Deny {
                return Err(Reply::endpoint_unclaimed());
            }
        }
        let (tenant, tier) = config.identity.of(request).map_err(|refusal| {
            recorder.add(Counter::CallsUnidentified, 1);
            Reply::unidentified(dialect, &refusal)
        })?;
        let key = config.identity.key(request).unwrap_or_else(|_| {
            recorder.add(Counter::KeysInvalid, 1);
            None
        });
        let request_id = text(request, "x-request-id").filter(|id| id.len() <= MAX_REQUEST_ID_BYTES);
        let event = UsageEvent {
            event_id: new_id(),
            request_id: request_id.map(str::to_owned),
            tenant,
            tier,
            key,
            started_at_ms: now_ms,
            api: endpoint.as_ref().map(|endpoint| endpoint.format.as_str().to_owned()),
            operation: endpoint.as_ref().map(|endpoint| endpoint.operation.to_owned()),
            provider: config.provider.clone().or(endpoint.as_ref().map(|endpoint| endpoint.provider.to_owned())),
            ..UsageEvent::default()
        };
        Ok(Some(Box::new(Metered {
            event,
            request: RequestBody::new(request, has_body, endpoint.as_ref(), config),
            answer: match endpoint {
                None if Endpoint::is_about_earlier_answer(path) => Answer::Earlier,
                _ => Answer::Own,
            },
            endpoint,
            asked_at_ms: now_ms,
            question: Question::default(),
            told: Told::default(),
            response: None,
        })))
    }

    /// Asks the limiter with what is known by now, if it is to be asked.
    fn ask(
        &mut self,
        mut call: Box<Metered>,
        hold: Hold,
        now_ms: impl FnOnce() -> u64,
        recorder: &impl Recorder,
    ) -> Step {
        let shared = Rc::clone(&self.shared);
        let config = shared.config();
        let asked = call.asked();
        if config.unclaimed_endpoints == UnclaimedEndpoints::Deny && asked.background {
            recorder.add(Counter::CallsUnclaimed, 1);
            return Next::Reply(Reply::endpoint_unclaimed()).into();
        }
        if !config.admission.enabled {
            return self.pass(call);
        }
        let now_ms = now_ms();
        call.settle_question(asked);
        let way = shared.leases().decide(call.kind(), &call.question.amounts, now_ms, recorder);
        match way {
            Way::Lent { id, limits } => {
                call.go_on_by_lease(id, limits);
                self.pass(call)
            }
            Way::Denied(denied) => self.deny(call, &denied, now_ms, recorder),
            Way::Ask(lease) => {
                let ask = call.ask(config, lease, now_ms);
                let (headers, next) = match hold {
                    Hold::Held => (Vec::new(), Next::Ask(ask)),
                    Hold::Released => (call.request.header_edits(config), Next::AskAndContinue(ask)),
                };
                self.stage = Stage::Asking(call, hold);
                Step { headers, body: None, next }
            }
        }
    }

    /// Lets a call through whose headers are held.
    fn pass(&mut self, mut call: Box<Metered>) -> Step {
        let headers = call.request.header_edits(self.shared.config());
        call.request.release();
        self.stage = Stage::Passing(call);
        Step { headers, body: None, next: Next::Continue }
    }

    /// Answers a call as others were a moment ago.
    fn deny(&mut self, mut call: Box<Metered>, denied: &Denied, now_ms: u64, recorder: &impl Recorder) -> Step {
        let reply = call.hear_again(denied, now_ms, &self.shared.config().admission.limit_headers);
        self.stop(call, reply, Counter::CallsDenied, Due::Nothing, recorder)
    }

    /// Answers a call in the provider's place.
    fn stop(
        &mut self,
        mut call: Box<Metered>,
        reply: Reply,
        counter: Counter,
        due: Due,
        recorder: &impl Recorder,
    ) -> Step {
        recorder.add(counter, 1);
        call.event.status = u16::try_from(reply.status).unwrap_or(0);
        self.stage = Stage::Stopped(call, due);
        Next::Reply(reply).into()
    }

    /// The next bytes of the request's body are there; those that [`Call::held_bytes`] counts are not among them. The time is
    /// asked for only where the call is to be decided on with them.
    pub fn on_request_body(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        now_ms: impl FnOnce() -> u64,
        recorder: &impl Recorder,
    ) -> Step {
        if let Stage::Passing(call) | Stage::Asking(call, Hold::Released) = &mut self.stage {
            return Step { body: call.request.take(bytes, is_last), ..Next::Continue.into() };
        }
        let settings = self.shared.config().request_body;
        match std::mem::replace(&mut self.stage, Stage::Aside) {
            Stage::Reading(mut call) => {
                let body = call.request.take(bytes, is_last);
                call.request.hold();
                let step = if is_last {
                    self.ask(call, Hold::Held, now_ms, recorder)
                } else if !call.request.may_be_held(settings) {
                    call.request.release();
                    self.ask(call, Hold::Released, now_ms, recorder)
                } else {
                    self.stage = Stage::Reading(call);
                    Next::Wait.into()
                };
                Step { body, ..step }
            }
            Stage::Denied(call, denied) if is_last => self.deny(call, &denied, now_ms(), recorder),
            Stage::Denied(call, denied) => {
                self.stage = Stage::Denied(call, denied);
                Next::Wait.into()
            }
            Stage::Asking(mut call, Hold::Held) => {
                self.shared.body_came_while_headers_were_held();
                let body = call.request.take(bytes, is_last);
                call.request.hold();
                if is_last || call.request.may_be_held(settings) {
                    self.stage = Stage::Asking(call, Hold::Held);
                    return Step { body, ..Next::Wait.into() };
                }
                call.request.release();
                let headers = call.request.header_edits(self.shared.config());
                self.stage = Stage::Asking(call, Hold::Released);
                Step { headers, body, next: Next::Continue }
            }
            stage => {
                self.stage = stage;
                Next::Continue.into()
            }
        }
    }

    /// How many bytes at the front of Envoy's buffer [`Call::on_request_body`] has had before, or does not want; there may be fewer.
    pub fn held_bytes(&self) -> usize {
        match &self.stage {
            Stage::Denied(..) => usize::MAX,
            _ => self.metered().map_or(0, |call| call.request.held_bytes()),
        }
    }

    /// Whether [`Call::on_request_body`] wants this request's bytes.
    pub fn reads_request(&self) -> bool {
        self.metered().is_some()
    }

    fn metered(&self) -> Option<&Metered> {
        match &self.stage {
            Stage::Aside | Stage::Stopped(..) => None,
            Stage::Reading(call) | Stage::Denied(call, _) | Stage::Asking(call, _) | Stage::Passing(call) => Some(call),
        }
    }

    /// The limiter answered with an encoded `RateLimitResponse`; `None` when it failed or took too long.
    pub fn on_answer(&mut self, answer: Option<&[u8]>, now_ms: u64, recorder: &impl Recorder) -> Step {
        let shared = Rc::clone(&self.shared);
        let config = shared.config();
        let Stage::Asking(mut call, hold) = std::mem::replace(&mut self.stage, Stage::Aside) else {
            return Next::Wait.into();
        };
        let waited_ms = now_ms.saturating_sub(call.asked_at_ms);
        recorder.observe(Histogram::AdmissionMs, waited_ms);
        let refusal = match answer.and_then(|bytes| AdmissionResponse::decode(bytes).ok()) {
            Some(answer) => {
                shared.leases().hear(call.kind(), call.question.amounts, &answer, now_ms);
                let refusal = call.hear(answer, now_ms, &config.admission.limit_headers);
                if refusal.is_none() {
                    recorder.add(Counter::CallsAdmitted, 1);
                }
                refusal.map(|reply| (reply, Counter::CallsDenied))
            }
            None => {
                // Envoy gives its own timeout out as UNAVAILABLE: only the time tells the two apart.
                let timed_out = waited_ms.saturating_add(TIMER_SLACK_MS) >= config.admission.timeout_ms;
                recorder.add(if timed_out { Counter::AdmissionTimeouts } else { Counter::AdmissionErrors }, 1);
                match config.admission.on_failure {
                    FailurePolicy::Deny => {
                        Some((Reply::limiter_unavailable(call.dialect()), Counter::CallsFailedClosed))
                    }
                    FailurePolicy::Allow => {
                        recorder.add(Counter::CallsFailedOpen, 1);
                        None
                    }
                }
            }
        };
        match refusal {
            // What has begun to be answered can't be answered again.
            Some(_) if call.response.is_some() => recorder.add(Counter::DenialsTooLate, 1),
            Some((reply, counter)) => {
                let due = match hold {
                    Hold::Held if call.event.reservation_id.is_none() => Due::Nothing,
                    Hold::Held | Hold::Released => Due::Event,
                };
                return self.stop(call, reply, counter, due, recorder);
            }
            None => {}
        }
        match hold {
            Hold::Held => self.pass(call),
            Hold::Released => {
                call.request.release();
                self.stage = Stage::Passing(call);
                Next::Wait.into()
            }
        }
    }

    /// The limiter could not even be asked, so that nothing is reserved.
    pub fn on_unasked(&mut self, now_ms: u64, recorder: &impl Recorder) -> Step {
        if let Stage::Asking(call, _) = &mut self.stage {
            call.event.reservation_id = None;
        }
        self.on_answer(None, now_ms, recorder)
    }

    /// Whether [`Call::on_response_headers`] wants this response's headers.
    pub fn reads_response_headers(&self) -> bool {
        match &self.stage {
            Stage::Aside | Stage::Reading(_) | Stage::Denied(..) => false,
            Stage::Asking(..) | Stage::Passing(_) => true,
            // Our own reply has all but what the limiter wants set.
            Stage::Stopped(call, _) => call.has_added_headers(),
        }
    }

    /// The response's headers are there. Gives what is to change on them.
    pub fn on_response_headers(&mut self, headers: &impl Headers) -> Vec<HeaderEdit> {
        let is_held = matches!(self.stage, Stage::Asking(_, Hold::Held));
        let call = match &mut self.stage {
            Stage::Passing(call) | Stage::Asking(call, _) => call,
            // Our own reply.
            Stage::Stopped(call, _) => return call.added_headers().collect(),
            Stage::Aside | Stage::Reading(_) | Stage::Denied(..) => return Vec::new(),
        };
        call.event.status = text(headers, ":status").and_then(|status| status.parse().ok()).unwrap_or(0);
        if is_held {
            // Nobody but Envoy can have answered.
            return Vec::new();
        }
        call.on_response_headers(headers, &self.shared.config().admission.limit_headers)
    }

    /// Whether [`Call::on_response_body`] wants this response's bytes.
    pub fn reads_response(&self) -> bool {
        self.metered().is_some_and(|call| call.response.is_some())
    }

    /// The response's next bytes passed. Gives what is to stand in their place, where that differs.
    pub fn on_response_body(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        now_ms: impl FnOnce() -> u64,
        recorder: &impl Recorder,
    ) -> Option<Vec<u8>> {
        let (Stage::Passing(call) | Stage::Asking(call, Hold::Released)) = &mut self.stage else { return None };
        let (event, response) = (&mut call.event, call.response.as_mut()?);
        event.response_bytes = event.response_bytes.saturating_add(to_u64(bytes.len()));
        if event.time_to_first_token_ms.is_none() && !bytes.is_empty() {
            let elapsed_ms = now_ms().saturating_sub(event.started_at_ms);
            event.time_to_first_token_ms = Some(elapsed_ms);
            recorder.observe(Histogram::TimeToFirstTokenMs, elapsed_ms);
            response.first_bytes = event.response_bytes;
        }
        response.has_ended |= is_last;
        response.reader.feed(bytes);
        let strip = response.strip.as_mut()?;
        let mut kept = Vec::with_capacity(bytes.len());
        strip.feed(bytes, &mut kept);
        if is_last {
            strip.finish(&mut kept);
        }
        (kept != bytes).then_some(kept)
    }

    /// The call is over. Gives the event to be sent, once.
    ///
    /// `details`, Envoy's `response.code_details`, and the time are asked for only where nothing else tells how and when it
    /// ended.
    pub fn on_end(
        &mut self,
        details: impl FnOnce() -> String,
        now_ms: impl FnOnce() -> u64,
        recorder: &impl Recorder,
    ) -> Option<(UsageEvent, Haste)> {
        let stage = std::mem::replace(&mut self.stage, Stage::Aside);
        let (call, finish_told) = match stage {
            Stage::Asking(call, _) | Stage::Passing(call) => (call, None),
            // Whatever became of the rest of the request.
            Stage::Stopped(call, Due::Event) => (call, Some(Finish::LocalReply)),
            Stage::Stopped(_, Due::Nothing) | Stage::Aside | Stage::Reading(_) | Stage::Denied(..) => return None,
        };
        let Asked { model, output_cap, images, input_tokens, background, .. } = call.asked();
        if background {
            // Its answer is fetched later, past us.
            recorder.add(Counter::CallsUnclaimed, 1);
        }
        let (haste, ended_at_ms) = (call.haste(), call.ended_at_ms().unwrap_or_else(now_ms));
        let Metered { mut event, endpoint, request, response, .. } = *call;
        event.request_bytes = request.received_bytes();
        (event.request_model, event.output_cap) = (model, output_cap);
        event.duration_ms = ended_at_ms.saturating_sub(event.started_at_ms);
        recorder.observe(Histogram::CallMs, event.duration_ms);
        let answer = response.map(|response| (response.has_ended, response.in_headers, response.reader.finish()));
        event.finish = finish_told.unwrap_or_else(|| match &answer {
            Some((true, _, report)) if is_success(&event) && is_told(report) => Finish::Complete,
            _ => finish(&details()),
        });
        match answer {
            Some((_, in_headers, report)) => {
                let unreported = Unreported::new(endpoint.is_some(), self.shared.config().unclaimed_endpoints);
                let known = Known { input_estimate: input_tokens, images, unreported, in_headers };
                settle(&mut event, report, known, recorder);
            }
            None => event.usage_source = UsageSource::None,
        }
        self.shared.report(&event, recorder);
        Some((event, haste))
    }
}
