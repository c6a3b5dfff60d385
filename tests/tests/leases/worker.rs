//! A proxy's worker: calls of the filter's own state machine, and what Envoy does for them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tollgate_flow::{
    Call, Config, Counter, Gauge, Headers, Histogram, LeaseAsk, Next, Recorder, Request, Shared, Step,
};

use crate::chance::Chance;
use crate::service::{Question, TENANT};

/// How long a call waits for the limiter.
pub(crate) const TIMEOUT_MS: u64 = 100;

pub(crate) struct Worker {
    pub(crate) shared: Rc<Shared>,
    pub(crate) counts: Counts,
    /// How far its clock is ahead.
    pub(crate) ahead_ms: u64,
    calls: BTreeMap<u64, Call>,
    /// Records that were not acknowledged yet.
    pub(crate) outbox: Vec<Vec<u8>>,
}

#[derive(Default)]
pub(crate) struct Counts(RefCell<BTreeMap<&'static str, u64>>);

impl Recorder for Counts {
    fn add(&self, counter: Counter, amount: u64) {
        *self.0.borrow_mut().entry(counter.name()).or_default() += amount;
    }
    fn observe(&self, _: Histogram, _: u64) {}
    fn shift(&self, _: Gauge, _: i64) {}
}

impl Counts {
    pub(crate) fn of(&self, counter: Counter) -> u64 {
        self.0.borrow().get(counter.name()).copied().unwrap_or(0)
    }
}

struct Map(Vec<(&'static str, Vec<u8>)>);

impl Headers for Map {
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (*name, value.as_slice()))
    }
}

impl Request for Map {
    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }
}

/// What a call does next.
pub(crate) enum Went {
    Through,
    Asks(Question),
    Refused,
}

impl Worker {
    pub(crate) fn new(ahead_ms: u64) -> Worker {
        let config = format!(
            r#"{{"request_body": {{"read": "always"}},
                "admission": {{"on_failure": "deny", "timeout_ms": {TIMEOUT_MS}}}}}"#
        );
        let shared = Rc::new(Shared::new(Config::parse(config.as_bytes()).unwrap()));
        Worker { shared, counts: Counts::default(), ahead_ms, calls: BTreeMap::new(), outbox: Vec::new() }
    }

    fn clock(&self, now_ms: u64) -> u64 {
        now_ms + self.ahead_ms
    }

    /// A call begins; its body is there at once.
    pub(crate) fn begin(&mut self, number: u64, chance: &mut Chance, now_ms: u64) -> Went {
        let mut call = Call::new(Rc::clone(&self.shared));
        let cap = chance.below(4) * 100;
        let cap = if cap > 0 { format!(r#","max_tokens":{cap}"#) } else { String::new() };
        let words = "word ".repeat(chance.between(1, 40) as usize);
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{words}"}}]{cap}}}"#);
        let headers = Map(vec![
            (":method", b"POST".to_vec()),
            (":path", b"/v1/chat/completions".to_vec()),
            ("x-tenant-id", TENANT.into()),
            ("content-type", b"application/json".to_vec()),
            ("content-length", body.len().to_string().into()),
        ]);
        let clock = self.clock(now_ms);
        let id =
            || format!("{:08x}-{:04x}-7000-8000-ca11{:08x}", clock as u32, number & 0xffff, chance.number() as u32);
        call.on_request_headers(&headers, true, clock, id, &self.counts);
        let step = call.on_request_body(body.as_bytes(), true, || clock, &self.counts);
        self.went(number, call, step, now_ms)
    }

    fn went(&mut self, number: u64, mut call: Call, step: Step, now_ms: u64) -> Went {
        match step.next {
            Next::Continue => {
                self.calls.insert(number, call);
                Went::Through
            }
            Next::Ask(ask) => {
                self.calls.insert(number, call);
                let (reservation_id, lease) = (ask.reservation_id, ask.lease);
                Went::Asks(Question { message: ask.message, reservation_id, lease })
            }
            Next::Reply(reply) => {
                let status = reply.status.to_string();
                call.on_response_headers(&Map(vec![(":status", status.into())]));
                self.end(call, "", now_ms);
                Went::Refused
            }
            next => panic!("{next:?}"),
        }
    }

    /// The limiter has answered, or will not.
    pub(crate) fn hear(&mut self, number: u64, answer: Option<&[u8]>, now_ms: u64) -> Option<Went> {
        let mut call = self.calls.remove(&number)?;
        let step = call.on_answer(answer, self.clock(now_ms), &self.counts);
        if step.next == Next::Wait {
            // It had an answer before.
            self.calls.insert(number, call);
            return None;
        }
        Some(self.went(number, call, step, now_ms))
    }

    /// The upstream has answered in full.
    pub(crate) fn respond(&mut self, number: u64, chance: &mut Chance, now_ms: u64) -> Option<String> {
        let mut call = self.calls.remove(&number)?;
        let (input, output) = (chance.between(1, 40), chance.between(1, 90));
        let usage = format!(r#"{{"prompt_tokens":{input},"completion_tokens":{output}}}"#);
        let body = format!(
            r#"{{"object":"chat.completion","model":"m","choices":[{{"index":0,"message":{{"content":"x"}},"finish_reason":"stop"}}],"usage":{usage}}}"#
        );
        call.on_response_headers(&Map(vec![
            (":status", b"200".to_vec()),
            ("content-type", b"application/json".to_vec()),
        ]));
        let clock = self.clock(now_ms);
        call.on_response_body(body.as_bytes(), true, || clock, &self.counts);
        self.end(call, "via_upstream", now_ms)
    }

    fn end(&mut self, mut call: Call, details: &str, now_ms: u64) -> Option<String> {
        let clock = self.clock(now_ms);
        let (event, _) = call.on_end(|| details.to_owned(), || clock, &self.counts)?;
        self.outbox.push(event.encode());
        Some(event.event_id)
    }

    /// The client has gone while the limiter was asked.
    pub(crate) fn leave(&mut self, number: u64, now_ms: u64) {
        if let Some(call) = self.calls.remove(&number) {
            self.end(call, "downstream_remote_disconnect", now_ms);
        }
    }

    pub(crate) fn tick(&mut self, now_ms: u64) -> Vec<LeaseAsk> {
        let clock = self.clock(now_ms);
        let asks = self.shared.lease_asks(clock);
        self.outbox.extend(self.shared.returned_leases(clock, &self.counts));
        asks
    }
}
