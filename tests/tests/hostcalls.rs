//! How often the filter calls into its host, by its own wasm module in an interpreter: each call costs Envoy about as much as
//! the filter needs to read a small answer, so that there is a budget of them.

use std::collections::BTreeMap;

use prost::Message;
use tollgate_e2e::harness::artifacts;
use tollgate_wire::admission::{Denial, DeniedCalls, Lease, Unit};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitResponse;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use wasmi::{Caller, Engine, Extern, Func, Instance, Linker, Memory, Module, Store, Val};

const ROOT: i32 = 1;
const NOW_MS: u64 = 1_700_000_000_000;

/// What a call that goes on by a lease may take: the time, the headers and the body of the request, the time again; the headers of
/// the answer, once to read and once to change them; its body and the time.
const LEASED_BUDGET: u32 = 8;
/// One that is asked about: the question, its answer and its time besides, and two to let the request go on.
const ASKED_BUDGET: u32 = LEASED_BUDGET + 5;
/// One that is denied as others were: no answer of an upstream is read, and one is sent.
const DENIED_BUDGET: u32 = 7;

const REQUEST: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"How does a tollgate count?"}]}"#;
const ANSWER: &str = r#"{"object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"One by one."},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11}}"#;

#[derive(Default)]
struct Host {
    counts: BTreeMap<String, u32>,
    config: Vec<u8>,
    request: Vec<u8>,
    response: Vec<u8>,
    /// The body or message that is there now.
    buffer: Vec<u8>,
    tokens: u32,
    metrics: u32,
}

/// Header pairs as proxy-wasm lays them out.
fn pairs(headers: &[(&str, &str)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap().to_le_bytes();
    let mut bytes = u32::try_from(headers.len()).unwrap().to_le_bytes().to_vec();
    for (name, value) in headers {
        bytes.extend(size(name));
        bytes.extend(size(value));
    }
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    bytes
}

fn memory(caller: &Caller<'_, Host>) -> Memory {
    caller.get_export("memory").and_then(Extern::into_memory).unwrap()
}

/// Hands bytes over: in memory that the module allocates, told by their place and size.
fn give(caller: &mut Caller<'_, Host>, bytes: &[u8], place: &Val, size: &Val) {
    let allocate = caller.get_export("proxy_on_memory_allocate").and_then(Extern::into_func).unwrap();
    let mut at = [Val::I32(0)];
    let length = i32::try_from(bytes.len()).unwrap();
    allocate.call(&mut *caller, &[Val::I32(length)], &mut at).unwrap();
    let (memory, at) = (memory(caller), at[0].i32().unwrap());
    memory.write(&mut *caller, at as usize, bytes).unwrap();
    memory.write(&mut *caller, place.i32().unwrap() as usize, &at.to_le_bytes()).unwrap();
    memory.write(&mut *caller, size.i32().unwrap() as usize, &length.to_le_bytes()).unwrap();
}

fn write(caller: &mut Caller<'_, Host>, place: &Val, bytes: &[u8]) {
    memory(caller).write(caller, place.i32().unwrap() as usize, bytes).unwrap();
}

/// What the host does. Whatever is not here does nothing, well.
fn serve(name: &str, caller: &mut Caller<'_, Host>, args: &[Val]) -> i32 {
    const REQUEST_HEADERS: i32 = 0;
    const PLUGIN_CONFIGURATION: i32 = 7;
    const NOT_FOUND: i32 = 1;
    match name {
        "proxy_get_current_time_nanoseconds" => write(caller, &args[0], &(NOW_MS * 1_000_000).to_le_bytes()),
        "proxy_get_header_map_pairs" => {
            let is_request = args[0].i32() == Some(REQUEST_HEADERS);
            let headers = if is_request { caller.data().request.clone() } else { caller.data().response.clone() };
            give(caller, &headers, &args[1], &args[2]);
        }
        "proxy_get_buffer_bytes" => {
            let is_config = args[0].i32() == Some(PLUGIN_CONFIGURATION);
            let bytes = if is_config { caller.data().config.clone() } else { caller.data().buffer.clone() };
            give(caller, &bytes, &args[3], &args[4]);
        }
        "proxy_get_property" => return NOT_FOUND,
        "proxy_define_metric" => {
            caller.data_mut().metrics += 1;
            let id = caller.data().metrics;
            write(caller, &args[3], &id.to_le_bytes());
        }
        "proxy_grpc_call" => {
            caller.data_mut().tokens += 1;
            let token = caller.data().tokens;
            write(caller, args.last().unwrap(), &token.to_le_bytes());
        }
        _ => {}
    }
    0
}

struct Filter {
    store: Store<Host>,
    instance: Instance,
    contexts: i32,
}

impl Filter {
    fn new() -> Filter {
        let engine = Engine::default();
        let module = Module::new(&engine, std::fs::read(artifacts::filter_module().unwrap()).unwrap()).unwrap();
        let request = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "llm"),
            ("x-tenant-id", "acme"),
            ("x-plan-tier", "pro"),
            ("content-type", "application/json"),
            ("content-length", &REQUEST.len().to_string()),
        ];
        let host = Host {
            config: br#"{"request_body": {"read": "always"}}"#.to_vec(),
            request: pairs(&request),
            response: pairs(&[(":status", "200"), ("content-type", "application/json")]),
            ..Host::default()
        };
        let mut store = Store::new(&engine, host);
        let mut linker = Linker::new(&engine);
        for import in module.imports() {
            let (name, ty) = (import.name().to_owned(), import.ty().func().unwrap().clone());
            let function = Func::new(&mut store, ty, move |mut caller: Caller<'_, Host>, args, results| {
                *caller.data_mut().counts.entry(name.clone()).or_default() += 1;
                let status = serve(&name, &mut caller, args);
                if let Some(result) = results.first_mut() {
                    *result = Val::I32(status);
                }
                Ok(())
            });
            linker.define(import.module(), import.name(), function).unwrap();
        }
        let instance = linker.instantiate_and_start(&mut store, &module).unwrap();
        let mut filter = Filter { store, instance, contexts: ROOT };
        if filter.instance.get_func(&filter.store, "_initialize").is_some() {
            filter.call("_initialize", &[]);
        }
        filter.call("proxy_on_context_create", &[ROOT, 0]);
        filter.call("proxy_on_vm_start", &[ROOT, 0]);
        let size = i32::try_from(filter.store.data().config.len()).unwrap();
        assert_eq!(filter.call("proxy_on_configure", &[ROOT, size]), 1);
        filter
    }

    fn call(&mut self, name: &str, args: &[i32]) -> i32 {
        let function = self.instance.get_func(&self.store, name).unwrap_or_else(|| panic!("{name} is not exported"));
        let args: Vec<_> = args.iter().map(|arg| Val::I32(*arg)).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        function.call(&mut self.store, &args, &mut results).unwrap();
        results.first().and_then(Val::i32).unwrap_or(0)
    }

    fn with_buffer(&mut self, bytes: &[u8], name: &str, args: &[i32]) -> i32 {
        self.store.data_mut().buffer = bytes.to_vec();
        let size = i32::try_from(bytes.len()).unwrap();
        self.call(name, &[args, &[size]].concat())
    }

    /// The limiter answers the last question.
    fn answer(&mut self, context: i32, answer: &[u8]) {
        let token = i32::try_from(self.store.data().tokens).unwrap();
        self.with_buffer(answer, "proxy_on_grpc_receive", &[context, token]);
    }

    /// One call from its beginning to its end; the limiter answers `answer` if it is asked. Gives how often the host was called,
    /// by name.
    fn one_call(&mut self, answer: &[u8]) -> BTreeMap<String, u32> {
        self.store.data_mut().counts.clear();
        self.contexts += 1;
        let (context, asked) = (self.contexts, self.store.data().tokens);
        self.call("proxy_on_context_create", &[context, ROOT]);
        self.call("proxy_on_request_headers", &[context, 7, 0]);
        self.store.data_mut().buffer = REQUEST.into();
        self.call("proxy_on_request_body", &[context, i32::try_from(REQUEST.len()).unwrap(), 1]);
        if self.store.data().tokens > asked {
            self.answer(context, answer);
        }
        let is_answered = self.store.data().counts.contains_key("proxy_send_local_response");
        self.call("proxy_on_response_headers", &[context, 2, 0]);
        if !is_answered {
            self.store.data_mut().buffer = ANSWER.into();
            self.call("proxy_on_response_body", &[context, i32::try_from(ANSWER.len()).unwrap(), 1]);
        }
        self.call("proxy_on_done", &[context]);
        self.call("proxy_on_log", &[context]);
        self.call("proxy_on_delete", &[context]);
        self.store.data().counts.clone()
    }
}

/// Where three limits stand, and what is lent beside.
fn answer(code: Code, lease: Option<&Lease>) -> Vec<u8> {
    let status = |unit: Unit| DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit { requests_per_unit: 60, unit: 2, name: unit.as_str().into() }),
        limit_remaining: 7,
        duration_until_reset: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        quota: match code {
            Code::OverLimit => Some(Denial { until_ms: NOW_MS + 500, calls: DeniedCalls::Alike }.quota()),
            _ => lease.map(|lease| lease.quota(unit)),
        },
    };
    let statuses = [Unit::Requests, Unit::InputTokens, Unit::OutputTokens].map(status).to_vec();
    RateLimitResponse { overall_code: code.into(), statuses, ..Default::default() }.encode_to_vec()
}

fn within(budget: u32, counts: &BTreeMap<String, u32>) {
    let sum: u32 = counts.values().sum();
    assert!(sum <= budget, "{sum} calls into the host, {budget} are planned: {counts:?}");
}

#[test]
fn calls_into_the_host_keep_to_their_budget() {
    let mut filter = Filter::new();
    let admitted = answer(Code::Ok, None);
    for _ in 0..20 {
        // Ids and histograms call the host for many calls at once, or for a few of many.
        filter.one_call(&admitted);
    }
    for _ in 0..100 {
        filter.one_call(&admitted);
    }
    let asked = filter.one_call(&admitted);
    assert_eq!(asked.get("proxy_grpc_call"), Some(&1));
    within(ASKED_BUDGET, &asked);

    filter.call("proxy_on_tick", &[ROOT]);
    let id = Lease::id_of("019ac0de-1234-7abc-8def-0123456789ab").unwrap();
    let lease = Lease { id, calls: 100, input_tokens: 1_000, output_tokens: 1_000, expires_at_ms: NOW_MS + 1_000 };
    filter.answer(ROOT, &answer(Code::Ok, Some(&lease)));
    for _ in 0..70 {
        filter.one_call(&admitted);
    }
    let leased = filter.one_call(&admitted);
    assert_eq!(leased.get("proxy_grpc_call"), None, "{leased:?}");
    within(LEASED_BUDGET, &leased);

    let mut filter = Filter::new();
    for _ in 0..70 {
        filter.one_call(&answer(Code::OverLimit, None));
    }
    let denied = filter.one_call(&answer(Code::OverLimit, None));
    assert_eq!(denied.get("proxy_grpc_call"), None, "{denied:?}");
    assert_eq!(denied.get("proxy_send_local_response"), Some(&1));
    within(DENIED_BUDGET, &denied);
}
