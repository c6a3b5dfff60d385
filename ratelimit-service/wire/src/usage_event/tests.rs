//! Events survive the wire, whoever has sent them.

use super::*;
use crate::proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use proptest::prelude::*;
use prost::Message;

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 é_-]{1,40}"
}

fn maybe() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(name())
}

prop_compose! {
    fn event()(
        ids in (name(), maybe(), maybe(), name(), name(), maybe()),
        times in (1..u64::from(u32::MAX), 0..1_000_000u64, proptest::option::of(0..1_000_000u64)),
        names in (maybe(), maybe(), maybe(), maybe(), maybe(), maybe(), maybe(), maybe()),
        bounds in proptest::array::uniform3(proptest::option::of(0..1_000_000u64)),
        lists in (proptest::collection::vec(name(), 0..3), proptest::collection::vec(name(), 0..3)),
        streaming: bool,
        status in 0..600u16,
        counts in proptest::array::uniform15(0..i64::MAX as u64),
        source in proptest::sample::select(UsageSource::ALL),
        finish in proptest::sample::select(Finish::ALL),
        bytes in (0..u64::from(u32::MAX), 0..u64::from(u32::MAX)),
    ) -> UsageEvent {
        let (event_id, reservation_id, request_id, tenant, tier, key) = ids;
        let (api, operation, provider, request_model, response_model, response_id, error_type, unreadable) = names;
        let ([output_cap, input_estimate, cost_nanousd], (finish_reasons, upstream_limits)) = (bounds, lists);
        let [input, output, cache_read, cache_creation, cache_creation_5m, cache_creation_1h, reasoning, ..] = counts;
        let [.., audio_input, audio_output, extra_input, extra_output, billed_input, billed_output, tool_requests, images] =
            counts;
        UsageEvent {
            event_id, reservation_id, request_id, tenant, tier, key,
            started_at_ms: times.0, duration_ms: times.1, time_to_first_token_ms: times.2,
            api, operation, provider, request_model, output_cap, input_estimate, response_model, response_id,
            finish_reasons, streaming, status, error_type, unreadable, upstream_limits,
            tokens: TokenCounts {
                input, output, cache_read, cache_creation, cache_creation_5m, cache_creation_1h, reasoning,
                audio_input, audio_output, extra_input, extra_output, billed_input, billed_output, tool_requests, images,
            },
            cost_nanousd, usage_source: source, finish,
            request_bytes: bytes.0, response_bytes: bytes.1,
        }
    }
}

proptest! {
    #[test]
    fn an_event_survives_the_wire(event in event()) {
        let bytes = encode_export("envoy", &[event.encode(), event.encode()]);
        let request = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
        let [resource] = &request.resource_logs[..] else { panic!("one resource: {request:?}") };
        prop_assert_eq!(&resource.resource.as_ref().unwrap().attributes[0].key, attribute::SERVICE_NAME.name);
        prop_assert_eq!(&resource.scope_logs[0].scope.as_ref().unwrap().name, "tollgate");
        prop_assert_eq!(resource.scope_logs[0].log_records.len(), 2);
        for record in &resource.scope_logs[0].log_records {
            prop_assert_eq!(&UsageEvent::from_log_record(record).unwrap(), &event);
            prop_assert_eq!(record, &event.to_log_record());
        }
    }
}

fn record() -> LogRecord {
    let event = UsageEvent {
        event_id: "e1".into(),
        tenant: "acme".into(),
        tier: "pro".into(),
        started_at_ms: 1,
        ..UsageEvent::default()
    };
    event.to_log_record()
}

#[test]
fn the_upstreams_headers_are_bounded() {
    let headers: Vec<_> = (0..20).map(|at| format!("x-ratelimit-{at}: 1")).collect();
    let too_long = "x".repeat(MAX_UPSTREAM_LIMIT_BYTES + 1);
    let upstream_limits = std::iter::once(too_long.clone()).chain(headers.clone()).collect();
    let event = UsageEvent { upstream_limits, ..UsageEvent::from_log_record(&record()).unwrap() };
    let sent = UsageEvent::from_log_record(&event.to_log_record()).unwrap();
    assert_eq!(sent.upstream_limits, headers[..MAX_UPSTREAM_LIMITS]);
    // Another sender's bounds may be wider.
    let text = |value: String| AnyValue { value: Some(any_value::Value::StringValue(value)) };
    let values = [too_long].into_iter().chain(headers.clone()).map(text).collect();
    let record = with(attribute::UPSTREAM_LIMITS, any_value::Value::ArrayValue(ArrayValue { values }));
    assert_eq!(UsageEvent::from_log_record(&record).unwrap().upstream_limits, headers[..MAX_UPSTREAM_LIMITS]);
}

#[test]
fn what_was_not_counted_is_not_sent() {
    let sent: Vec<_> = record().attributes.into_iter().map(|pair| pair.key).collect();
    assert!(sent.iter().all(|key| !key.contains(".usage.")), "{sent:?}");
}

fn with(attribute: attribute::Attribute, value: any_value::Value) -> LogRecord {
    let mut record = record();
    record.attributes.retain(|pair| pair.key != attribute.name);
    record.attributes.insert(0, pair(attribute.name, value));
    record
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) }
}

#[test]
fn what_is_wrong_is_named() {
    use any_value::Value::{IntValue, StringValue};
    let cases = [
        (with(attribute::TENANT, StringValue(String::new())), "tollgate.tenant is missing or empty"),
        (with(attribute::TENANT, StringValue("x".repeat(257))), "tollgate.tenant is longer than 256 bytes"),
        (
            with(attribute::INPUT_TOKENS, IntValue(-1)),
            "gen_ai.usage.input_tokens has the wrong type or a value out of range",
        ),
        (
            with(attribute::FINISH, StringValue("?".into())),
            "tollgate.finish has the wrong type or a value out of range",
        ),
        (LogRecord { time_unix_nano: 0, ..record() }, "time_unix_nano is missing or empty"),
        (LogRecord { event_name: "gen_ai.choice".into(), ..record() }, "event_name is not that of a usage event"),
    ];
    for (record, message) in cases {
        assert_eq!(UsageEvent::from_log_record(&record).unwrap_err().to_string(), message);
    }
}

/// A record as instrumentations make it.
fn foreign(event_name: &str, attributes: &[(&str, any_value::Value)]) -> LogRecord {
    LogRecord {
        observed_time_unix_nano: 1_700_000_000_123_456_789,
        event_name: event_name.into(),
        trace_id: vec![0xab; 16],
        span_id: vec![0x01; 8],
        attributes: attributes.iter().map(|(key, value)| pair(key, value.clone())).collect(),
        ..LogRecord::default()
    }
}

fn text(text: &str) -> any_value::Value {
    any_value::Value::StringValue(text.to_owned())
}

#[test]
fn the_conventions_event_is_understood() {
    use any_value::Value::{ArrayValue as Array, BoolValue, DoubleValue, IntValue};
    let record = foreign(
        INFERENCE_EVENT_NAME,
        &[
            ("tollgate.tenant", text("acme")),
            ("gen_ai.operation.name", text("chat")),
            ("gen_ai.provider.name", text("anthropic")),
            ("gen_ai.request.model", text("claude-sonnet-4-5")),
            ("gen_ai.request.max_tokens", DoubleValue(1024.0)),
            ("gen_ai.request.stream", BoolValue(true)),
            (
                "gen_ai.response.finish_reasons",
                Array(ArrayValue { values: vec![AnyValue { value: Some(text("stop")) }] }),
            ),
            ("gen_ai.response.time_to_first_chunk", DoubleValue(0.25)),
            ("gen_ai.usage.input_tokens", IntValue(100)),
            ("gen_ai.usage.output_tokens", text("50")),
            ("gen_ai.usage.cache_read.input_tokens", IntValue(60)),
            ("gen_ai.usage.reasoning.output_tokens", IntValue(10)),
            ("gen_ai.usage.audio.input_tokens", IntValue(3)),
            ("gen_ai.input.messages", text("a secret")),
        ],
    );
    let expected = UsageEvent {
        event_id: format!("otel:{}:{}", "ab".repeat(16), "01".repeat(8)),
        tenant: "acme".into(),
        started_at_ms: 1_700_000_000_123,
        time_to_first_token_ms: Some(250),
        operation: Some("chat".into()),
        provider: Some("anthropic".into()),
        request_model: Some("claude-sonnet-4-5".into()),
        output_cap: Some(1024),
        finish_reasons: vec!["stop".into()],
        streaming: true,
        status: 200,
        tokens: TokenCounts {
            input: 100,
            output: 50,
            cache_read: 60,
            reasoning: 10,
            audio_input: 3,
            ..TokenCounts::default()
        },
        usage_source: UsageSource::Reported,
        finish: Finish::Complete,
        ..UsageEvent::default()
    };
    assert_eq!(UsageEvent::from_log_record(&record).unwrap(), expected);
    assert!(known_attributes(&record).all(|(name, _)| name != "gen_ai.input.messages"));
    assert_eq!(known_attributes(&record).count(), record.attributes.len() - 1);
}

#[test]
fn earlier_spellings_are_understood_and_the_present_one_holds() {
    use any_value::Value::IntValue;
    let names = [
        ("tollgate.tenant", text("acme")),
        ("event.name", text(INFERENCE_EVENT_NAME)),
        ("gen_ai.system", text("openai")),
        ("gen_ai.usage.prompt_tokens", IntValue(7)),
        ("gen_ai.usage.completion_tokens", IntValue(3)),
        ("gen_ai.usage.cache_read_input_tokens", IntValue(2)),
        ("gen_ai.usage.output_tokens", IntValue(4)),
    ];
    let event = UsageEvent::from_log_record(&foreign("", &names)).unwrap();
    assert_eq!((event.provider.as_deref(), event.tokens.input, event.tokens.output), (Some("openai"), 7, 4));
    assert_eq!(event.tokens.cache_read, 2);
    // Without any name the tokens tell that it is a call.
    let unnamed: Vec<_> = names.iter().filter(|(key, _)| *key != "event.name").cloned().collect();
    assert_eq!(UsageEvent::from_log_record(&foreign("", &unnamed)).unwrap(), event);
    let content = UsageEvent::from_log_record(&foreign("", &[("gen_ai.prompt", text("hello"))])).unwrap_err();
    assert_eq!((content.attribute, content.problem), ("event_name", Problem::Foreign));
}

#[test]
fn input_told_without_what_a_cache_gave_is_completed() {
    use any_value::Value::IntValue;
    let input = |input, read| {
        let counts = [
            ("tollgate.tenant", text("acme")),
            ("gen_ai.usage.input_tokens", IntValue(input)),
            ("gen_ai.usage.cache_read_input_tokens", IntValue(read)),
        ];
        UsageEvent::from_log_record(&foreign("", &counts)).unwrap().tokens.input
    };
    assert_eq!((input(10, 1000), input(1010, 1000)), (1010, 1010));
}

#[test]
fn an_error_ends_a_call_by_its_name() {
    let of = |error: &str| {
        let attributes = [("tollgate.tenant", text("acme")), ("error.type", text(error))];
        let event = UsageEvent::from_log_record(&foreign(INFERENCE_EVENT_NAME, &attributes)).unwrap();
        assert_eq!((event.usage_source, event.finish), (UsageSource::None, Finish::UpstreamError));
        event.status
    };
    assert_eq!((of("timeout"), of("503"), of("42")), (0, 503, 0));
}

#[test]
fn a_resource_says_who_pays_for_all_its_records() {
    use any_value::Value::IntValue;
    let tokens = ("gen_ai.usage.input_tokens", IntValue(1));
    let names = ["tenant.id".to_owned(), "customer".to_owned()];
    let read = |record: &[(&str, any_value::Value)], resource: &[(&str, any_value::Value)]| {
        let resource: Vec<_> = resource.iter().map(|(key, value)| pair(key, value.clone())).collect();
        let record = foreign("", &[std::slice::from_ref(&tokens), record].concat());
        let event = UsageEvent::read(&record, &Around::new(&resource, &names));
        event.map(|event| (event.tenant, event.tier, event.key)).map_err(|error| error.to_string())
    };
    let told = |tenant: &str, tier: &str, key: Option<&str>| Ok((tenant.into(), tier.into(), key.map(str::to_owned)));
    let ours = ("tollgate.tenant", text("ours"));
    assert_eq!(read(&[], std::slice::from_ref(&ours)), told("ours", "", None));
    assert_eq!(read(&[("customer", IntValue(42))], &[]), told("42", "", None));
    assert_eq!(read(&[("customer", text("c"))], &[("tenant.id", text("t"))]), told("t", "", None));
    assert_eq!(read(&[("tenant.id", text("t"))], std::slice::from_ref(&ours)), told("ours", "", None));
    let all = [ours, ("tollgate.tier", text("pro")), ("tollgate.key", text("k"))];
    assert_eq!(read(&[("tollgate.tier", text("own"))], &all), told("ours", "own", Some("k")));
    assert_eq!(read(&[("service.name", text("s"))], &[]), Err("tollgate.tenant is missing or empty".to_owned()));
    let long = text(&"x".repeat(257));
    assert_eq!(read(&[("customer", long)], &[]), Err("tollgate.tenant is longer than 256 bytes".to_owned()));
}

#[test]
fn a_record_without_an_id_of_any_kind_is_none() {
    let tokens = [("tollgate.tenant", text("acme")), ("gen_ai.usage.input_tokens", any_value::Value::IntValue(1))];
    for (trace_id, span_id) in [(vec![], vec![]), (vec![1; 16], vec![0; 8]), (vec![1; 15], vec![1; 8])] {
        let record = LogRecord { trace_id, span_id, ..foreign("", &tokens) };
        let error = UsageEvent::from_log_record(&record).unwrap_err();
        assert_eq!((error.attribute, error.problem), ("tollgate.event_id", Problem::Missing));
    }
}

#[test]
fn other_texts_are_cut_and_others_ids_left_out() {
    let long = "é".repeat(200);
    let attributes = [
        ("tollgate.tenant", text("acme")),
        ("gen_ai.request.model", text(&long)),
        ("gen_ai.response.id", text(&long)),
        ("gen_ai.response.finish_reasons", text(&long)),
    ];
    let event = UsageEvent::from_log_record(&foreign(INFERENCE_EVENT_NAME, &attributes)).unwrap();
    let cut = "é".repeat(128);
    assert_eq!((event.request_model, event.response_id, event.finish_reasons), (Some(cut.clone()), None, vec![cut]));
}

#[test]
fn numbers_are_whole_and_exact() {
    use any_value::Value::{BoolValue, DoubleValue, IntValue};
    let count = |value| {
        let record = with(attribute::INPUT_TOKENS, value);
        UsageEvent::from_log_record(&record).ok().map(|event| event.tokens.input)
    };
    assert_eq!((count(IntValue(7)), count(text("7")), count(DoubleValue(7.0))), (Some(7), Some(7), Some(7)));
    for value in [IntValue(-1), text("+7"), text(""), text("7.0"), DoubleValue(7.5), DoubleValue(-1.0), BoolValue(true)]
    {
        assert_eq!(count(value.clone()), None, "{value:?}");
    }
    for value in [DoubleValue(f64::NAN), DoubleValue(1e300), text("99999999999999999999")] {
        assert_eq!(count(value.clone()), None, "{value:?}");
    }
}
