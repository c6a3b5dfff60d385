//! One request's state machine.
//!
//! ```text
//! request headers ─► unmetered ───────────────────────────────► nothing is recorded
//!        │
//!        ├─► no usable tenant ─► reply 401 / 400
//!        ▼
//!      asking ─► denied ─► reply 429       (no event: nothing was used)
//!        │   └─► no answer, on_failure: deny ─► reply 503
//!        ▼
//!     let through ─► response read as it passes ─► end ─► one usage event
//! ```
//!
//! A client that leaves while the limiter is being asked gives an event too: its reservation may stand.

use std::rc::Rc;

use tollgate_usage::{End, Hints, Reader};
use tollgate_wire::admission::{AdmissionRequest, AdmissionResponse, Decision, LimitStatus};
use tollgate_wire::usage_event::{Finish, MAX_NAME_BYTES, TokenCounts, UsageEvent, UsageSource};

use crate::config::{Config, FailurePolicy};
use crate::limit_headers;
use crate::metric::{Counter, Histogram, Recorder};
use crate::reply::Reply;
use crate::to_u64;

/// How much too early a timeout may come: Envoy's timers count from the beginning of its loop's turn.
const TIMER_SLACK_MS: u64 = 5;
/// What is kept of a client's `x-request-id`, in bytes; a longer one is left out.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Headers of a request or a response, pseudo headers included, names in lower case.
pub trait Headers {
    /// The value of the header `name`, as it was sent.
    fn get(&self, name: &str) -> Option<&[u8]>;
}

/// What becomes of a request once its headers are there.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestAction {
    /// It goes on, and is nothing to us.
    Pass,
    /// It waits until the limiter has been asked.
    Ask(Ask),
    /// It is answered here.
    Reply(Reply),
}

/// A question to the limiter.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// The encoded `RateLimitRequest`.
    pub message: Vec<u8>,
    /// The reservation's id, for the gRPC metadata.
    pub reservation_id: String,
}

/// What becomes of a request that waited for the limiter.
#[derive(Debug, PartialEq, Eq)]
pub enum AnswerAction {
    /// It goes on.
    Forward,
    /// It is answered here.
    Reply(Reply),
    /// Nothing: it did not wait.
    Ignore,
}

/// One request and its response.
#[derive(Debug)]
pub struct Call {
    config: Rc<Config>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Not metered, or answered by us.
    Aside,
    /// The limiter is being asked.
    Asking(Box<Metered>),
    /// It was let through.
    Passing(Box<Metered>),
}

/// What is known of a metered call so far.
#[derive(Debug)]
struct Metered {
    /// The event, as far as it can be told.
    event: UsageEvent,
    /// As they stood at `answered_at_ms`.
    limits: Vec<LimitStatus>,
    answered_at_ms: u64,
    reader: Option<Reader>,
}

impl Call {
    /// A call of which nothing has been seen.
    pub fn new(config: Rc<Config>) -> Call {
        Call { config, stage: Stage::Aside }
    }

    /// The request's headers are there. `new_id` gives a unique id, and is asked only for a metered call.
    pub fn on_request_headers(
        &mut self,
        headers: &impl Headers,
        now_ms: u64,
        new_id: impl FnOnce() -> String,
        recorder: &impl Recorder,
    ) -> RequestAction {
        let method = headers.get(":method").unwrap_or_default();
        let path = headers.get(":path").unwrap_or_default();
        if !self.config.meters(method, path) {
            recorder.add(Counter::CallsUnmetered, 1);
            return RequestAction::Pass;
        }
        let (tenant, tier) = match self.identify(headers) {
            Ok(identity) => identity,
            Err(reply) => {
                recorder.add(Counter::CallsUnidentified, 1);
                return RequestAction::Reply(reply);
            }
        };
        let id = new_id();
        let event = UsageEvent {
            event_id: id.clone(),
            reservation_id: Some(id.clone()),
            request_id: text(headers, "x-request-id").filter(|id| id.len() <= MAX_REQUEST_ID_BYTES).map(str::to_owned),
            tenant,
            tier,
            started_at_ms: now_ms,
            ..UsageEvent::default()
        };
        let ask = Ask {
            message: AdmissionRequest {
                domain: &self.config.admission.domain,
                tenant: &event.tenant,
                tier: &event.tier,
                model: None,
                api: None,
                input_tokens: 0,
                output_tokens: 0,
            }
            .encode(),
            reservation_id: id,
        };
        self.stage = Stage::Asking(Box::new(Metered { event, limits: Vec::new(), answered_at_ms: 0, reader: None }));
        RequestAction::Ask(ask)
    }

    /// The tenant and the tier, or the answer to a request without them.
    fn identify(&self, headers: &impl Headers) -> Result<(String, String), Reply> {
        let identity = &self.config.identity;
        let read = |header: &str| match headers.get(header).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => name(value).map(Some).ok_or_else(|| Reply::identity_invalid(header)),
        };
        let tenant = read(&identity.tenant_header)?.or_else(|| identity.default_tenant.clone());
        let tenant = tenant.ok_or_else(|| Reply::tenant_missing(&identity.tenant_header))?;
        let tier = read(&identity.tier_header)?.unwrap_or_else(|| identity.default_tier.clone());
        Ok((tenant, tier))
    }

    /// The limiter answered with an encoded `RateLimitResponse`; `None` when it failed or took too long.
    pub fn on_answer(&mut self, answer: Option<&[u8]>, now_ms: u64, recorder: &impl Recorder) -> AnswerAction {
        let Stage::Asking(mut call) = std::mem::replace(&mut self.stage, Stage::Aside) else {
            return AnswerAction::Ignore;
        };
        let waited_ms = now_ms.saturating_sub(call.event.started_at_ms);
        recorder.observe(Histogram::AdmissionMs, waited_ms);
        match answer.and_then(|bytes| AdmissionResponse::decode(bytes).ok()) {
            Some(answer) if answer.decision == Decision::Denied => {
                recorder.add(Counter::CallsDenied, 1);
                return AnswerAction::Reply(Reply::denied(&answer, now_ms));
            }
            Some(answer) => {
                recorder.add(Counter::CallsAdmitted, 1);
                call.limits = answer.limits;
                call.answered_at_ms = now_ms;
            }
            None => {
                // Envoy gives its own timeout out as UNAVAILABLE: only the time tells the two apart.
                let timed_out = waited_ms.saturating_add(TIMER_SLACK_MS) >= self.config.admission.timeout_ms;
                recorder.add(if timed_out { Counter::AdmissionTimeouts } else { Counter::AdmissionErrors }, 1);
                if self.config.admission.on_failure == FailurePolicy::Deny {
                    recorder.add(Counter::CallsFailedClosed, 1);
                    return AnswerAction::Reply(Reply::limiter_unavailable());
                }
                recorder.add(Counter::CallsFailedOpen, 1);
            }
        }
        self.stage = Stage::Passing(call);
        AnswerAction::Forward
    }

    /// The limiter could not even be asked, so that nothing is reserved.
    pub fn on_unasked(&mut self, now_ms: u64, recorder: &impl Recorder) -> AnswerAction {
        if let Stage::Asking(call) = &mut self.stage {
            call.event.reservation_id = None;
        }
        self.on_answer(None, now_ms, recorder)
    }

    /// Some of the request's body passed.
    pub fn on_request_body(&mut self, bytes: usize) {
        if let Stage::Asking(call) | Stage::Passing(call) = &mut self.stage {
            call.event.request_bytes = call.event.request_bytes.saturating_add(to_u64(bytes));
        }
    }

    /// The response's headers are there. Gives what is to be set on them, and with `None` what is to be taken off.
    pub fn on_response_headers(&mut self, headers: &impl Headers) -> Vec<(&'static str, Option<String>)> {
        let Stage::Passing(call) = &mut self.stage else { return Vec::new() };
        call.event.status = text(headers, ":status").and_then(|status| status.parse().ok()).unwrap_or(0);
        let content_type = text(headers, "content-type");
        call.event.streaming = content_type.is_some_and(|value| value.starts_with("text/event-stream"));
        call.reader = Some(Reader::new(Hints { content_type, ..Hints::default() }));
        let ours = limit_headers::headers(&call.limits, call.answered_at_ms);
        let theirs = limit_headers::NAMES.into_iter().filter(|name| ours.iter().all(|(set, _)| set != name));
        let taken_off: Vec<_> = theirs.map(|name| (name, None)).collect();
        ours.into_iter().map(|(name, value)| (name, Some(value))).chain(taken_off).collect()
    }

    /// Whether [`Call::on_response_body`] wants this response's bytes.
    pub fn reads_response(&self) -> bool {
        matches!(&self.stage, Stage::Passing(call) if call.reader.is_some())
    }

    /// The response's next bytes passed.
    pub fn on_response_body(&mut self, bytes: &[u8], now_ms: impl FnOnce() -> u64, recorder: &impl Recorder) {
        let Stage::Passing(call) = &mut self.stage else { return };
        let event = &mut call.event;
        if event.time_to_first_token_ms.is_none() && !bytes.is_empty() {
            let elapsed_ms = now_ms().saturating_sub(event.started_at_ms);
            event.time_to_first_token_ms = Some(elapsed_ms);
            recorder.observe(Histogram::TimeToFirstTokenMs, elapsed_ms);
        }
        event.response_bytes = event.response_bytes.saturating_add(to_u64(bytes.len()));
        if let Some(reader) = &mut call.reader {
            reader.feed(bytes);
        }
    }

    /// The call is over; `details` is Envoy's `response.code_details`. Gives the event to be sent, once.
    pub fn on_end(&mut self, details: &str, now_ms: u64, recorder: &impl Recorder) -> Option<UsageEvent> {
        let stage = std::mem::replace(&mut self.stage, Stage::Aside);
        let (Stage::Asking(call) | Stage::Passing(call)) = stage else { return None };
        let Metered { mut event, reader, .. } = *call;
        event.duration_ms = now_ms.saturating_sub(event.started_at_ms);
        event.finish = finish(details);
        recorder.observe(Histogram::CallMs, event.duration_ms);
        if let Some(reader) = reader {
            read_usage(&mut event, reader, recorder);
        }
        Some(event)
    }
}

/// Completes the event with what the response told.
fn read_usage(event: &mut UsageEvent, reader: Reader, recorder: &impl Recorder) {
    let report = reader.finish();
    event.api = report.format.map(|format| format.as_str().to_owned());
    event.operation = report.format.map(|format| format.operation().to_owned());
    event.response_model = report.model;
    event.response_id = report.response_id;
    event.finish_reasons = report.finish_reasons;
    match report.usage {
        Some(usage) => {
            event.usage_source = match report.end {
                End::Complete => UsageSource::Reported,
                End::Cut => UsageSource::Partial,
            };
            event.tokens = TokenCounts {
                input: usage.input,
                output: usage.output,
                cache_read: usage.cache_read,
                cache_creation: usage.cache_creation,
                reasoning: usage.reasoning,
                ..TokenCounts::default()
            };
            recorder.add(Counter::UsageReported, 1);
            recorder.add(Counter::InputTokens, usage.input);
            recorder.add(Counter::OutputTokens, usage.output);
        }
        None if (200..300).contains(&event.status) => recorder.add(Counter::UsageMissing, 1),
        None => {}
    }
}

/// How a call ended, by Envoy's response code details
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details>).
fn finish(details: &str) -> Finish {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| details.starts_with(prefix));
    if details == "via_upstream" {
        Finish::Complete
    } else if details.contains("timeout") || details.contains("max_stream_duration") {
        Finish::UpstreamTimeout
    } else if begins(&["downstream_", "http1.", "http2.", "http3."]) || details.is_empty() {
        Finish::ClientGone
    } else if begins(&["upstream_reset"]) {
        Finish::UpstreamReset
    } else {
        Finish::LocalReply
    }
}

/// The header's value where it is text.
fn text<'a>(headers: &'a impl Headers, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?).ok()
}

/// A tenant's or tier's name: printable UTF-8 of a bounded length.
fn name(value: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(value).ok()?;
    let printable = !name.chars().any(char::is_control);
    (printable && name.len() <= MAX_NAME_BYTES).then(|| name.to_owned())
}
