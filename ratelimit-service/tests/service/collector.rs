//! Usage events over OTLP: acknowledged means kept, and counted once.

use rusqlite::Connection;
use tokio_stream::StreamExt;
use tollgate_wire::admission::SERVICE as RLS;
use tollgate_wire::proto::opentelemetry::proto::logs::v1::LogRecord;
use tollgate_wire::usage_event::{Finish, SERVICE as OTLP, TokenCounts, UsageEvent, UsageSource};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use tollgate_e2e::harness::wait::{PATIENCE, eventually};

use crate::harness::{Folder, Service, event, export_request, now_ms};

/// Another program's connection to the ledger.
fn database(folder: &Folder) -> Connection {
    Connection::open(folder.ledger()).unwrap()
}

async fn month_tokens(service: &Service, tenant: &str) -> u64 {
    let (_, usage) = service.get(&format!("/api/v1/usage/{tenant}")).await;
    usage["total_tokens"].as_u64().unwrap()
}

/// By the limiter's counters: the tier is named, so the ledger is not asked for it.
async fn month_used(service: &Service, tenant: &str) -> u64 {
    let (_, standings) = service.get(&format!("/api/v1/usage/{tenant}/limit?plan_tier=large")).await;
    let limits = standings["limits"].as_array().unwrap();
    let month = limits.iter().find(|limit| limit["name"] == "tokens_per_month").unwrap();
    month["used"].as_u64().unwrap()
}

#[tokio::test]
async fn an_event_counts_once_however_often_it_comes() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let (first, second) = (event("e1", "acme", 100, 20), event("e2", "acme", 3, 4));
    service.export(&[first.clone(), second.clone(), first.clone()]).await;
    service.export(&[second, event("e3", "acme", 1, 0), first]).await;
    assert_eq!(month_tokens(&service, "acme").await, 128);
    assert_eq!(month_used(&service, "acme").await, 128);
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_usage_events_total{result=\"accepted\"} 3"), "{metrics}");
    assert!(metrics.contains("tollgate_usage_events_total{result=\"duplicate\"} 3"), "{metrics}");
}

#[tokio::test]
async fn an_event_is_kept_as_it_came() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let event = UsageEvent {
        event_id: "e1".into(),
        reservation_id: Some("r".into()),
        request_id: Some("q".into()),
        tenant: "acme".into(),
        key: Some("ci".into()),
        // Not believed: by the shipped prices, 25 tokens are 2500 each, 3 are 1250 and 30 are 10,000.
        cost_nanousd: Some(1),
        tier: "small".into(),
        started_at_ms: 1_700_000_000_123,
        duration_ms: 40,
        time_to_first_token_ms: Some(7),
        api: Some("openai-chat".into()),
        operation: Some("chat".into()),
        provider: Some("openai".into()),
        request_model: Some("gpt-4o".into()),
        output_cap: Some(u64::MAX),
        input_estimate: Some(9),
        response_model: Some("gpt-4o-2024-08-06".into()),
        response_id: Some("chatcmpl-1".into()),
        finish_reasons: vec!["stop".into(), "\"length\"".into()],
        streaming: true,
        status: 200,
        error_type: Some("overloaded_error".into()),
        unreadable: Some("compress".into()),
        upstream_limits: vec!["x-ratelimit-remaining-tokens: 5".into()],
        tokens: TokenCounts {
            input: 11,
            output: 12,
            cache_read: 3,
            cache_creation: 4,
            cache_creation_5m: 13,
            cache_creation_1h: 14,
            reasoning: 5,
            audio_input: 15,
            audio_output: 16,
            extra_input: 17,
            extra_output: 18,
            billed_input: 19,
            billed_output: 20,
            tool_requests: 21,
            images: 22,
        },
        usage_source: UsageSource::Partial,
        finish: Finish::ClientGone,
        request_bytes: 100,
        response_bytes: 200,
    };
    service.export(std::slice::from_ref(&event)).await;
    let database = database(&folder);
    let row: String = database
        .query_row(
            "SELECT json_array(event_id, reservation_id, request_id, tenant, tier, key, started_at_ms, duration_ms, \
             time_to_first_token_ms, api, operation, provider, request_model, output_cap, input_estimate, \
             response_model, response_id, json(finish_reasons), streaming, status, error_type, unreadable, \
             json(upstream_limits), input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, \
             cache_creation_5m_tokens, cache_creation_1h_tokens, reasoning_tokens, audio_input_tokens, \
             audio_output_tokens, extra_input_tokens, extra_output_tokens, billed_input_tokens, billed_output_tokens, \
             tool_requests, cost_nanousd, usage_source, finish, request_bytes, response_bytes, \
             images) \
             FROM usage_events",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(
        row,
        "[\"e1\",\"r\",\"q\",\"acme\",\"small\",\"ci\",1700000000123,40,7,\"openai-chat\",\"chat\",\"openai\",\"gpt-4o\",\
         9223372036854775807,9,\"gpt-4o-2024-08-06\",\"chatcmpl-1\",[\"stop\",\"\\\"length\\\"\"],1,200,\
         \"overloaded_error\",\"compress\",[\"x-ratelimit-remaining-tokens: 5\"],11,12,3,4,13,14,5,15,16,17,18,19,20,\
         21,366250,\"partial\",\"client_gone\",100,200,22]"
    );
    for statement in ["UPDATE usage_events SET input_tokens = 0", "DELETE FROM usage_events"] {
        let refused = database.execute(statement, []).unwrap_err();
        assert!(refused.to_string().contains("usage_events is append-only"), "{refused}");
    }
}

#[tokio::test]
async fn invalid_records_are_rejected_one_by_one() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let huge = event("e3", "acme", 1_000_000_000_001, 0);
    let records = vec![
        event("e1", "acme", 1, 0).to_log_record(),
        LogRecord::default(),
        event("", "acme", 2, 0).to_log_record(),
        huge.to_log_record(),
        event("e2", "acme", 4, 0).to_log_record(),
    ];
    let answer = service.collector().await.export(export_request(records)).await.unwrap().into_inner();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 3);
    assert_eq!(
        partial.error_message,
        "record 1: event_name is not that of a usage event; \
         record 2: tollgate.event_id is missing or empty; record 3: a count is larger than 1000000000000"
    );
    service.drained().await;
    assert_eq!(month_tokens(&service, "acme").await, 5);
    assert!(service.metrics().await.contains("tollgate_usage_events_total{result=\"rejected\"} 3"));
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_and_a_restart_counts_on() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    for round in 0..20 {
        let events: Vec<_> = (0..10).map(|at| event(&format!("e{round}-{at}"), "acme", 1, 2)).collect();
        service.export(&events).await;
    }
    service.kill();

    let service = Service::start(&folder);
    assert_eq!(month_tokens(&service, "acme").await, 600);
    assert_eq!(month_used(&service, "acme").await, 600);
    service.export(&[event("e0-0", "acme", 1, 2), event("new", "acme", 5, 0)]).await;
    assert_eq!(month_tokens(&service, "acme").await, 605);
    assert_eq!(month_used(&service, "acme").await, 605);
    assert!(service.terminate().await.success());
}

#[tokio::test]
async fn a_graceful_stop_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let (acknowledged, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for sender in 0..8 {
        let (mut collector, acknowledged) = (service.collector().await, acknowledged.clone());
        tokio::spawn(async move {
            for round in 0.. {
                let id = format!("{sender}-{round}");
                let request = export_request(vec![event(&id, "acme", 1, 0).to_log_record()]);
                if collector.export(request).await.is_err() || acknowledged.send(id).is_err() {
                    break;
                }
            }
        });
    }
    drop(acknowledged);
    let mut ids = Vec::new();
    while ids.len() < 50 {
        ids.push(answers.recv().await.unwrap());
    }
    assert!(service.terminate().await.success());
    while let Some(id) = answers.recv().await {
        ids.push(id);
    }
    let database = database(&folder);
    let mut query = database.prepare("SELECT event_id FROM usage_events").unwrap();
    let kept: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let lost: Vec<_> = ids.iter().filter(|id| !kept.contains(id)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test]
async fn while_the_ledger_fails_events_wait_and_go_in_by_themselves() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let database = database(&folder);
    let fail = "CREATE TRIGGER full BEFORE INSERT ON usage_events BEGIN SELECT raise(ABORT, 'no room'); END";
    database.execute_batch(fail).unwrap();
    let mut collector = service.collector().await;
    for number in 0..100 {
        let event = event(&format!("e{number}"), "acme", 7, 0);
        collector.export(export_request(vec![event.to_log_record()])).await.unwrap();
    }
    eventually("the failure is told", PATIENCE, async || {
        let metrics = service.metrics().await;
        anyhow::ensure!(metrics.contains("tollgate_ledger_up 0"), "{metrics}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((service.waiting().await, month_tokens(&service, "acme").await), (100, 0));

    // They wait on disk.
    service.kill();
    database.execute_batch("DROP TRIGGER full").unwrap();
    let service = Service::start(&folder);
    service.drained().await;
    assert_eq!((month_tokens(&service, "acme").await, month_used(&service, "acme").await), (700, 700));
    assert!(service.metrics().await.contains("tollgate_ledger_up 1"));
}

#[tokio::test]
async fn when_the_spool_is_full_exports_are_refused_and_none_is_lost() {
    let folder = Folder::new();
    let service = Service::start_with_config(&folder, "spool: { max_mib: 1 }\n");
    let database = database(&folder);
    database
        .execute_batch("CREATE TRIGGER full BEFORE INSERT ON usage_events BEGIN SELECT raise(ABORT, ''); END")
        .unwrap();
    let mut collector = service.collector().await;
    let request = |at: u64| {
        let events = (0..100).map(|number| event(&format!("e{at}-{number}"), "acme", 1, 0).to_log_record());
        export_request(events.collect())
    };
    let mut taken = 0;
    let refused = loop {
        match collector.export(request(taken)).await {
            Ok(_) => taken += 1,
            Err(status) => break status,
        }
        assert!(taken < 1000, "1 MiB has room for {taken} exports of 100 events");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_exports_refused_total{reason=\"full\"} 1"), "{metrics}");

    database.execute_batch("DROP TRIGGER full").unwrap();
    service.drained().await;
    collector.export(request(taken)).await.unwrap();
    service.drained().await;
    assert_eq!(month_tokens(&service, "acme").await, 100 * (taken + 1));
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new();
    let service = Service::start_on_full_disk(&folder, 256);
    let mut collector = service.collector().await;
    let mut taken = 0;
    let refused = loop {
        let events: Vec<_> = (0..50).map(|number| event(&format!("e{taken}-{number}"), "acme", 1, 0)).collect();
        let records = events.iter().map(UsageEvent::to_log_record).collect();
        match collector.export(export_request(records)).await {
            Ok(_) => taken += 1,
            Err(status) => break status,
        }
        assert!(taken < 1000, "256 KiB have room for {taken} exports of 50 events");
    };
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(refused.message().contains("the spool cannot be written: File too large"), "{refused}");
    assert!(service.metrics().await.contains("tollgate_exports_refused_total{reason=\"failed\"} 1"));
    service.kill();

    let service = Service::start(&folder);
    service.drained().await;
    assert!(taken > 0);
    assert_eq!(month_tokens(&service, "acme").await, 50 * taken);
    service.export(&[event("one-more", "acme", 1, 0)]).await;
    assert_eq!(month_tokens(&service, "acme").await, 50 * taken + 1);
}

#[tokio::test]
async fn a_spool_that_cannot_be_opened_is_named_with_its_key() {
    let folder = Folder::new();
    Service::start(&folder).kill();
    let spool = folder.path("data/ledger.spool");
    std::fs::remove_dir_all(&spool).unwrap();
    std::fs::write(&spool, "no folder").unwrap();
    let output = crate::harness::tollgate(&["serve", "--config"]).arg(folder.path("config.yaml")).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("spool.folder: cannot create"), "{told}");
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_is_told() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let database = database(&folder);
    let [hide, show] = sums_renamed();
    database.execute_batch(hide).unwrap();
    let (status, health) = service.get("/health").await;
    assert_eq!((status.as_u16(), &health["status"]), (200, &"the ledger does not answer".into()));
    let (status, problem) = service.get("/api/v1/usage/acme").await;
    assert_eq!((status.as_u16(), &problem["detail"]), (503, &"the ledger does not answer; try again later".into()));
    database.execute_batch(show).unwrap();
    let (status, health) = service.get("/health").await;
    assert_eq!((status.as_u16(), &health["status"]), (200, &"ok".into()));
}

#[tokio::test]
async fn a_late_event_belongs_to_the_day_of_its_call() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let late = UsageEvent { started_at_ms: now_ms() - 2 * 86_400_000, ..event("e1", "acme", 5, 0) };
    service.export(&[late, event("e2", "acme", 1, 0)]).await;
    let (_, daily) = service.get("/api/v1/usage/acme/daily?days=3").await;
    let tokens: Vec<_> =
        daily["days"].as_array().unwrap().iter().map(|day| day["total_tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [5, 0, 1]);
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let mut health = HealthClient::new(service.channel().await);
    for name in ["", RLS, OTLP] {
        let answer = health.check(HealthCheckRequest { service: name.to_owned() }).await.unwrap().into_inner();
        assert_eq!(answer.status().as_str_name(), "SERVING", "{name}");
    }
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(service.channel().await);
    let mut answers = reflection.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    assert!([RLS, OTLP, "grpc.health.v1.Health"].iter().all(|name| names.contains(name)), "{names:?}");
}

/// Statements that hide the ledger's sums, and show them again.
fn sums_renamed() -> [&'static str; 2] {
    ["ALTER TABLE usage_sums RENAME TO gone", "ALTER TABLE gone RENAME TO usage_sums"]
}
