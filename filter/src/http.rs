//! A request's context.

use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};
use tollgate_flow::{AnswerAction, Ask, Call, Headers, Reply, RequestAction};
use tollgate_wire::admission::RESERVATION_ID_METADATA;

use crate::host;
use crate::root::Worker;

/// A request's context: one [`Call`].
#[derive(Debug)]
pub(crate) struct Http {
    worker: Rc<Worker>,
    call: Call,
}

/// All headers at once: a call into the host costs more than to copy them.
struct HeaderMap(Vec<(String, Vec<u8>)>);

impl HeaderMap {
    fn read(map: MapType) -> HeaderMap {
        HeaderMap(hostcalls::get_map_bytes(map).unwrap_or_default())
    }
}

impl Headers for HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
}

impl Http {
    pub(crate) fn new(worker: Rc<Worker>) -> Http {
        Http { call: Call::new(worker.config.clone()), worker }
    }

    fn ask(&mut self, ask: &Ask) -> Action {
        let metadata = vec![(RESERVATION_ID_METADATA, ask.reservation_id.as_bytes())];
        match self.worker.limiter.call(metadata, &ask.message) {
            Ok(()) => Action::Pause,
            Err(()) => match self.call.on_unasked(host::now_ms(), &self.worker.metrics) {
                AnswerAction::Forward | AnswerAction::Ignore => Action::Continue,
                AnswerAction::Reply(reply) => self.reply(&reply),
            },
        }
    }

    fn reply(&self, reply: &Reply) -> Action {
        let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.send_http_response(reply.status, headers, Some(reply.body.as_bytes()));
        Action::Pause
    }
}

impl Context for Http {
    fn on_grpc_call_response(&mut self, _token: u32, status: u32, size: usize) {
        let message = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size).ok().flatten().unwrap_or_default();
        let answer = (status == 0).then_some(message.as_slice());
        match self.call.on_answer(answer, host::now_ms(), &self.worker.metrics) {
            AnswerAction::Forward => self.resume_http_request(),
            AnswerAction::Reply(reply) => {
                self.reply(&reply);
            }
            AnswerAction::Ignore => {}
        }
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let now_ms = host::now_ms();
        let headers = HeaderMap::read(MapType::HttpRequestHeaders);
        match self.call.on_request_headers(&headers, now_ms, || host::new_id(now_ms), &self.worker.metrics) {
            RequestAction::Pass => Action::Continue,
            RequestAction::Ask(ask) => {
                // So that the answer comes in a shape that can be read.
                if headers.get("accept-encoding").is_some() {
                    self.set_http_request_header("accept-encoding", None);
                }
                self.ask(&ask)
            }
            RequestAction::Reply(reply) => self.reply(&reply),
        }
    }

    fn on_http_request_body(&mut self, size: usize, _end_of_stream: bool) -> Action {
        self.call.on_request_body(size);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let headers = HeaderMap::read(MapType::HttpResponseHeaders);
        for (name, value) in self.call.on_response_headers(&headers) {
            if value.is_some() || headers.get(name).is_some() {
                self.set_http_response_header(name, value.as_deref());
            }
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, _end_of_stream: bool) -> Action {
        if self.call.reads_response()
            && let Ok(Some(bytes)) = hostcalls::get_buffer(BufferType::HttpResponseBody, 0, size)
        {
            self.call.on_response_body(&bytes, host::now_ms, &self.worker.metrics);
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let details = self.get_property(vec!["response", "code_details"]).unwrap_or_default();
        let (details, now_ms) = (String::from_utf8_lossy(&details), host::now_ms());
        if let Some(event) = self.call.on_end(&details, now_ms, &self.worker.metrics) {
            self.worker.outbox.borrow_mut().push(&event, now_ms, &self.worker.metrics);
        }
    }
}
