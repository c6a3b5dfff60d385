//! A request's context.

use std::rc::Rc;

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};
use tollgate_flow::{Ask, Call, Next, Reply, Step};
use tollgate_wire::admission::{LEASE_METADATA, RESERVATION_ID_METADATA};

use crate::header_map::{HeaderMap, edit};
use crate::host;
use crate::root::Worker;

/// A request's context: one [`Call`].
#[derive(Debug)]
pub(crate) struct Http {
    worker: Rc<Worker>,
    call: Call,
}

impl Http {
    pub(crate) fn new(worker: Rc<Worker>) -> Http {
        Http { call: Call::new(Rc::clone(&worker.shared)), worker }
    }

    /// Does what the call says. Of the `buffered` bytes of the body, the call has just seen all but the first `seen`.
    fn step(&mut self, step: Step, seen: usize, buffered: usize) -> Action {
        edit(MapType::HttpRequestHeaders, &step.headers);
        if let Some(body) = step.body {
            // Envoy replaces a buffer as a whole only.
            let before = read(BufferType::HttpRequestBody, 0, seen);
            replace(BufferType::HttpRequestBody, buffered, &[before, body].concat());
        }
        match step.next {
            Next::Continue => Action::Continue,
            Next::Wait => Action::Pause,
            Next::Ask(ask) => self.ask(&ask),
            Next::AskAndContinue(ask) => match self.ask(&ask) {
                Action::Pause if self.call.reads_request() => Action::Continue,
                action => action,
            },
            Next::Reply(reply) => self.reply(&reply),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Action {
        let mut metadata = Vec::with_capacity(2);
        metadata.extend(ask.reservation_id.as_ref().map(|id| (RESERVATION_ID_METADATA, id.as_bytes())));
        metadata.extend(ask.lease.as_ref().map(|lease| (LEASE_METADATA, lease.as_bytes())));
        match self.worker.limiter.call(metadata, &ask.message) {
            Ok(_) => Action::Pause,
            Err(()) => {
                let step = self.call.on_unasked(host::now_ms(), &self.worker.metrics);
                self.step(step, 0, 0)
            }
        }
    }

    fn reply(&self, reply: &Reply) -> Action {
        let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.send_http_response(reply.status, headers, Some(reply.body.as_bytes()));
        Action::Pause
    }
}

/// `size` bytes of a buffer from `start` on; none where there is none.
fn read(buffer: BufferType, start: usize, size: usize) -> Vec<u8> {
    if size == 0 {
        return Vec::new();
    }
    hostcalls::get_buffer(buffer, start, size).ok().flatten().unwrap_or_default()
}

fn replace(buffer: BufferType, size: usize, bytes: &[u8]) {
    if let Err(status) = hostcalls::set_buffer(buffer, 0, size, bytes) {
        error!("{buffer:?}: Envoy takes no other bytes: {status:?}");
    }
}

impl Context for Http {
    fn on_grpc_call_response(&mut self, _token: u32, status: u32, size: usize) {
        let message = read(BufferType::GrpcReceiveBuffer, 0, size);
        let answer = (status == 0).then_some(message.as_slice());
        let step = self.call.on_answer(answer, host::now_ms(), &self.worker.metrics);
        if self.step(step, 0, 0) == Action::Continue {
            self.resume_http_request();
        }
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let now_ms = host::now_ms();
        let headers = HeaderMap::read(MapType::HttpRequestHeaders);
        let id = || self.worker.ids.next(now_ms);
        let step = self.call.on_request_headers(&headers, !end_of_stream, now_ms, id, &self.worker.metrics);
        self.step(step, 0, 0)
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if !self.call.reads_request() {
            return Action::Continue;
        }
        let seen = self.call.held_bytes();
        let bytes = read(BufferType::HttpRequestBody, seen, size.saturating_sub(seen));
        let step = self.call.on_request_body(&bytes, end_of_stream, host::now_ms, &self.worker.metrics);
        self.step(step, seen, size)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        let step = self.call.on_request_body(&[], true, host::now_ms, &self.worker.metrics);
        self.step(step, 0, 0)
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if self.call.reads_response_headers() {
            let headers = HeaderMap::read(MapType::HttpResponseHeaders);
            let edits = self.call.on_response_headers(&headers);
            headers.edit(MapType::HttpResponseHeaders, &edits);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.call.reads_response() {
            let bytes = read(BufferType::HttpResponseBody, 0, size);
            let metrics = &self.worker.metrics;
            if let Some(kept) = self.call.on_response_body(&bytes, end_of_stream, host::now_ms, metrics) {
                replace(BufferType::HttpResponseBody, size, &kept);
            }
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let details = || {
            let details = hostcalls::get_property(vec!["response", "code_details"]).ok().flatten();
            String::from_utf8_lossy(&details.unwrap_or_default()).into_owned()
        };
        if let Some((event, haste)) = self.call.on_end(details, host::now_ms, &self.worker.metrics) {
            let ended_at_ms = event.started_at_ms.saturating_add(event.duration_ms);
            self.worker.outbox.borrow_mut().push(event.encode(), haste, ended_at_ms, &self.worker.metrics);
        }
    }
}
