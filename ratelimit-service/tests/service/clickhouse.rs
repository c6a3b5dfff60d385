//! The service with its ledger in ClickHouse.

use serde_json::Value;
use tollgate_e2e::harness::clickhouse::ClickHouse;

use crate::harness::{Folder, Service, event, export_request, now_ms, tollgate};

fn config(clickhouse: &ClickHouse, folder: &Folder) -> String {
    let (url, database, user) = (clickhouse.url(), clickhouse.database(), clickhouse.user());
    let sqlite = folder.ledger().display().to_string();
    let password = folder.write("password", clickhouse.password()).display().to_string();
    format!(
        "grpc: {{ listen: 127.0.0.1:0 }}\nrest: {{ listen: 127.0.0.1:0 }}\nlog: {{ format: json }}\n\
         ledger:\n  sqlite: {sqlite}\n  \
         clickhouse: {{ url: '{url}', database: {database}, user: '{user}', password_file: {password} }}\n"
    )
}

async fn requests(service: &Service) -> Value {
    service.get("/api/v1/usage/acme").await.1["requests"].clone()
}

#[tokio::test]
async fn events_wait_while_clickhouse_is_away_and_each_counts_once() {
    let folder = Folder::new();
    let mut clickhouse = ClickHouse::bridge(&folder.path("clickhouse")).await.unwrap();
    let file = folder.write("config.yaml", &config(&clickhouse, &folder));
    let service = Service::start_with(&file);
    service.export(&[event("e1", "acme", 1, 2), event("e2", "acme", 3, 4), event("e1", "acme", 1, 2)]).await;
    assert_eq!(requests(&service).await, 2);

    clickhouse.kill().await.unwrap();
    let mut collector = service.collector().await;
    for id in ["e2", "e3", "e4"] {
        let request = export_request(vec![event(id, "acme", 1, 1).to_log_record()]);
        collector.export(request).await.unwrap();
    }
    assert_eq!(service.get("/api/v1/usage/acme").await.0, 503);
    assert_eq!(service.get("/health").await.0, 200);
    clickhouse.restart().await.unwrap();
    service.drained().await;
    assert_eq!(requests(&service).await, 4);

    // A restart counts the month from there, and the books agree.
    assert!(service.terminate().await.success());
    let service = Service::start_with(&file);
    let (_, books) = service.get("/api/v1/admin/reconcile").await;
    assert_eq!(books["differences"], serde_json::json!([]), "{books}");
    let output = tollgate(&["export", "--format", "jsonl", "--period"])
        .arg(tollgate_domain::Day::of(now_ms()).to_string())
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 4);
}
