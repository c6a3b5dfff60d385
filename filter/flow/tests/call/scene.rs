//! A call, played as Envoy would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use prost::Message;
use tollgate_flow::{
    Ask, Call, Config, Counter, Gauge, Haste, HeaderEdit, Headers, Histogram, Next, Recorder, Request, Shared, Step,
};
use tollgate_wire::proto::envoy::config::core::v3::HeaderValue;
use tollgate_wire::proto::envoy::service::ratelimit::v3::{RateLimitResponse, rate_limit_response};
use tollgate_wire::usage_event::UsageEvent;

pub(crate) use rate_limit_response::{Code, RateLimit};
use rate_limit_response::{DescriptorStatus, rate_limit::Unit};

pub(crate) const START_MS: u64 = 1_700_000_000_000;

pub(crate) type Pairs<'a> = &'a [(&'static str, &'static [u8])];

pub(crate) struct Map(pub(crate) Vec<(&'static str, &'static [u8])>);

impl Headers for Map {
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().copied()
    }
}

impl Request for Map {
    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }
}

#[derive(Default)]
pub(crate) struct Counts(RefCell<BTreeMap<&'static str, u64>>);

impl Recorder for Counts {
    fn add(&self, counter: Counter, amount: u64) {
        *self.0.borrow_mut().entry(counter.name()).or_default() += amount;
    }
    fn observe(&self, histogram: Histogram, value: u64) {
        self.0.borrow_mut().insert(histogram.name(), value);
    }
    fn shift(&self, gauge: Gauge, by: i64) {
        let mut counts = self.0.borrow_mut();
        let value = counts.entry(gauge.name()).or_default();
        *value = value.checked_add_signed(by).unwrap();
    }
}

impl Counts {
    pub(crate) fn of(&self, counter: Counter) -> u64 {
        self.named(counter.name())
    }

    pub(crate) fn of_gauge(&self, gauge: Gauge) -> u64 {
        self.named(gauge.name())
    }

    fn named(&self, name: &str) -> u64 {
        self.0.borrow().get(name).copied().unwrap_or(0)
    }
}

pub(crate) struct Scene {
    pub(crate) shared: Rc<Shared>,
    pub(crate) call: Call,
    pub(crate) counts: Counts,
    pub(crate) path: &'static [u8],
}

impl Scene {
    pub(crate) fn new(config: &str) -> Scene {
        let shared = Rc::new(Shared::new(Config::parse(config.as_bytes()).unwrap()));
        Scene { call: Call::new(shared.clone()), shared, counts: Counts::default(), path: b"/v1/chat/completions" }
    }

    /// The same worker's next call.
    pub(crate) fn next_call(&mut self) {
        self.call = Call::new(self.shared.clone());
    }

    pub(crate) fn request(&mut self, headers: Pairs<'_>, has_body: bool) -> Step {
        self.request_at(START_MS, headers, has_body)
    }

    pub(crate) fn request_at(&mut self, now_ms: u64, headers: Pairs<'_>, has_body: bool) -> Step {
        let mut all = vec![(":method", b"POST".as_slice()), (":path", self.path)];
        all.extend_from_slice(headers);
        self.call.on_request_headers(&Map(all), has_body, now_ms, || "id-1".to_owned(), &self.counts)
    }

    /// The request's next bytes come.
    pub(crate) fn send(&mut self, bytes: &[u8], is_last: bool) -> Step {
        self.call.on_request_body(bytes, is_last, || START_MS, &self.counts)
    }

    /// A request without a body, up to the question.
    pub(crate) fn ask(&mut self) -> Ask {
        let headers: Pairs<'_> = &[("x-tenant-id", b"acme"), ("x-plan-tier", b"pro"), ("x-request-id", b"r1")];
        asks(self.request(headers, false))
    }

    pub(crate) fn answer(&mut self, answer: Option<&[u8]>) -> Step {
        self.answer_after(5, answer)
    }

    pub(crate) fn answer_after(&mut self, ms: u64, answer: Option<&[u8]>) -> Step {
        self.call.on_answer(answer, START_MS + ms, &self.counts)
    }

    /// An admitted request without a body.
    pub(crate) fn admit(&mut self) {
        self.ask();
        assert_eq!(self.answer(Some(&answer(Code::Ok, 59))).next, Next::Continue);
    }

    pub(crate) fn respond(
        &mut self,
        status: &'static [u8],
        content_type: &'static [u8],
        body: &[u8],
    ) -> Vec<HeaderEdit> {
        self.respond_until(status, content_type, body, true)
    }

    pub(crate) fn respond_until(
        &mut self,
        status: &'static [u8],
        content_type: &'static [u8],
        body: &[u8],
        is_last: bool,
    ) -> Vec<HeaderEdit> {
        let set = self.call.on_response_headers(&Map(vec![(":status", status), ("content-type", content_type)]));
        self.receive(body, is_last);
        set
    }

    /// Gives what the client gets for these bytes of the response.
    pub(crate) fn receive(&mut self, bytes: &[u8], is_last: bool) -> Vec<u8> {
        let kept = self.call.on_response_body(bytes, is_last, || START_MS + 10, &self.counts);
        kept.unwrap_or(bytes.to_vec())
    }

    pub(crate) fn end(&mut self, details: &str) -> Option<UsageEvent> {
        self.end_in_haste(details).map(|(event, _)| event)
    }

    /// The same, and how soon the event is to be sent.
    pub(crate) fn end_in_haste(&mut self, details: &str) -> Option<(UsageEvent, Haste)> {
        self.call.on_end(|| details.to_owned(), || START_MS + 20, &self.counts)
    }
}

pub(crate) fn asks(step: Step) -> Ask {
    match step.next {
        Next::Ask(ask) => ask,
        next => panic!("asks nothing: {next:?}"),
    }
}

/// An answer by a limit of 60 requests a minute.
pub(crate) fn answer(code: Code, remaining: u32) -> Vec<u8> {
    answer_with(code, remaining, &[])
}

/// The same, with headers for the client.
pub(crate) fn answer_with(code: Code, remaining: u32, headers: &[(&str, &str)]) -> Vec<u8> {
    let limit = RateLimit { requests_per_unit: 60, unit: Unit::Minute.into(), name: "requests".into() };
    answer_by(code, limit, remaining, headers)
}

/// An answer by this limit, in the status of the requests.
pub(crate) fn answer_by(code: Code, limit: RateLimit, remaining: u32, headers: &[(&str, &str)]) -> Vec<u8> {
    let status = DescriptorStatus {
        code: code.into(),
        current_limit: Some(limit),
        limit_remaining: remaining,
        duration_until_reset: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        quota: None,
    };
    let header = |(key, value): &(&str, &str)| HeaderValue { key: (*key).into(), value: (*value).into() };
    RateLimitResponse {
        overall_code: code.into(),
        statuses: vec![status],
        response_headers_to_add: headers.iter().map(header).collect(),
        ..Default::default()
    }
    .encode_to_vec()
}
