//! What operators do from the command line: export, replay, reconcile, purge.

use std::fs::File;
use std::process::{Command, Output};

use hyper::Request;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use rusqlite::Connection;
use serde_json::{Value, json};
use tollgate_wire::usage_event::UsageEvent;

use crate::harness::{Folder, Service, event, tollgate};

/// 2026-02-28T23:59:59.999Z
const FEBRUARY_MS: u64 = 1_772_323_199_999;

fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// One that asks a running service.
async fn ask(service: &Service, args: &[&str]) -> (bool, String, String) {
    let mut command = tollgate(args);
    command.env("TOLLGATE_URL", format!("http://{}", service.rest()));
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

fn export(folder: &Folder, args: &[&str]) -> String {
    let mut command = tollgate(&["export", "--config"]);
    let (is_ok, out, err) = run(command.arg(folder.path("config.yaml")).args(args));
    assert!(is_ok, "{err}");
    out
}

fn february(id: &str, tenant: &str, input: u64) -> UsageEvent {
    UsageEvent { started_at_ms: FEBRUARY_MS, ..event(id, tenant, input, 2) }
}

async fn filled(folder: &Folder) -> Service {
    let service = Service::start(folder);
    let formula = UsageEvent { request_model: Some("=cmd|' /C calc'!A0".into()), ..february("e2", "acme", 5) };
    let march = UsageEvent { started_at_ms: FEBRUARY_MS + 1, ..event("e3", "acme", 7, 0) };
    service.export(&[february("e1", "acme", 3), formula, march, february("e4", "zeta", 9)]).await;
    let track = json!({"tenant_id": "acme", "event_type": "page", "quantity": "2.5", "id": "t1",
        "metadata": {"size": "A4"}, "timestamp": "2026-02-01T00:00:00Z"});
    assert_eq!(service.post("/api/v1/track", track.to_string()).await.status, 202);
    service.drained().await;
    service
}

#[tokio::test]
async fn a_period_is_exported_while_the_service_runs() {
    let folder = Folder::new();
    let service = filled(&folder).await;
    let csv = export(&folder, &["--period", "2026-02", "--format", "csv"]);
    let lines: Vec<_> = csv.split("\r\n").collect();
    assert!(lines[0].starts_with("event_id,reservation_id,request_id,tenant,tier,key,started_at_ms"), "{csv}");
    let ids: Vec<_> = lines[1..].iter().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(ids, ["e1", "e2", "e4", ""]);
    // An apostrophe stands before what a spreadsheet would run.
    assert!(lines[2].contains(",'=cmd|' /C calc'!A0,"), "{csv}");

    let jsonl = export(&folder, &["--period", "2026-02", "--format", "jsonl", "--tenant", "acme"]);
    let lines: Vec<Value> = jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (&line["type"], &line["event_id"], &line["input_tokens"])).collect();
    assert_eq!(told, [(&json!("usage"), &json!("e1"), &json!(3)), (&json!("usage"), &json!("e2"), &json!(5))]);
    assert_eq!(export(&folder, &["--period", "2026-03-01", "--format", "jsonl"]).lines().count(), 1);

    let tracked = export(&folder, &["--period", "2026-02", "--format", "jsonl", "--what", "tracked"]);
    let tracked: Value = serde_json::from_str(&tracked).unwrap();
    assert_eq!((&tracked["id"], &tracked["quantity_micros"]), (&json!("t1"), &json!(2_500_000)));
    drop(service);
}

#[tokio::test]
async fn parquet_has_a_column_for_each_field() {
    let folder = Folder::new();
    filled(&folder).await.kill();
    let file = folder.path("usage.parquet");
    let output = file.display().to_string();
    export(&folder, &["--period", "2026-02", "--format", "parquet", "--output", &output]);
    let reader = SerializedFileReader::new(File::open(&file).unwrap()).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let names: Vec<_> = schema.columns().iter().map(|column| column.name().to_owned()).collect();
    assert_eq!(names, tollgate::entry::EventRecord::FIELDS);
    let at = |name: &str| names.iter().position(|column| column == name).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1].get_string(at("event_id")).unwrap(), "e2");
    assert_eq!(rows[1].get_long(at("input_tokens")).unwrap(), 5);
    assert_eq!(rows[1].get_timestamp_millis(at("started_at_ms")).unwrap(), FEBRUARY_MS as i64);
    assert!(rows[1].get_string(at("key")).is_err(), "it has none");
    assert_eq!(rows[1].get_string(at("finish_reasons")).unwrap(), "[]");
}

#[tokio::test]
async fn what_was_exported_or_spooled_is_replayed_and_counts_once() {
    let folder = Folder::new();
    filled(&folder).await.kill();
    let (lines, tracked) = (folder.path("usage.jsonl"), folder.path("tracked.jsonl"));
    for (what, file) in [("usage", &lines), ("tracked", &tracked)] {
        let output = file.display().to_string();
        export(&folder, &["--period", "2026-02", "--format", "jsonl", "--what", what, "--output", &output]);
    }
    let mut files = std::fs::read_dir(folder.path("data/ledger.spool")).unwrap().map(|file| file.unwrap().path());
    let segment = files.find(|file| file.extension().is_some_and(|is| is == "spool")).unwrap();

    // Into another service, twice.
    let other = Folder::new();
    let service = Service::start(&other);
    for _ in 0..2 {
        let files: Vec<String> = [&lines, &tracked].map(|file| file.display().to_string()).into();
        let (is_ok, out, err) = ask(&service, &["replay", &files[0], &files[1]]).await;
        assert!(is_ok, "{err}");
        assert!(out.contains("usage.jsonl: 3 entries") && out.contains("tracked.jsonl: 1 entries"), "{out}");
    }
    service.drained().await;
    let kept = export(&other, &["--period", "2026-02", "--format", "jsonl"]);
    assert_eq!(kept, std::fs::read_to_string(&lines).unwrap());

    // The segment has March's event too.
    let (is_ok, out, err) = ask(&service, &["replay", &segment.display().to_string()]).await;
    assert!(is_ok, "{err}");
    assert!(out.ends_with(": 5 entries\n"), "{out}");
    service.drained().await;
    assert_eq!(export(&other, &["--period", "2026-03", "--format", "jsonl"]).lines().count(), 1);
    assert_eq!(export(&other, &["--period", "2026-02", "--format", "jsonl"]), kept);
}

#[tokio::test]
async fn a_line_that_is_no_entry_is_named_and_nothing_of_it_is_taken() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    let file =
        folder.write("bad.jsonl", "{\"type\":\"usage\",\"event_id\":\"e1\",\"tenant\":\"acme\",\"imput_tokens\":1}\n");
    let (is_ok, _, err) = ask(&service, &["replay", &file.display().to_string()]).await;
    assert!(!is_ok && err.contains("bad.jsonl: line 1: unknown field `imput_tokens`"), "{err}");
    let (is_ok, _, err) = ask(&service, &["replay", "missing.jsonl"]).await;
    assert!(!is_ok && err.contains("missing.jsonl: No such file"), "{err}");
}

#[tokio::test]
async fn books_that_agree_are_told_so_and_others_where_they_do_not() {
    let folder = Folder::new();
    let service = Service::start(&folder);
    service.export(&[event("e1", "acme", 3, 2), event("e2", "zeta", 1, 1)]).await;
    assert_eq!(ask(&service, &["reconcile"]).await, (true, "the books agree\n".to_owned(), String::new()));

    let database = Connection::open(folder.ledger()).unwrap();
    database.execute("UPDATE usage_sums SET output_tokens = 7 WHERE tenant = 'acme' AND grain = 1", []).unwrap();
    let (is_ok, out, _) = ask(&service, &["reconcile"]).await;
    let words: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(!is_ok, "{out}");
    assert_eq!(words[0], ["tenant", "place", "figure", "entries", "found"]);
    assert!(words.contains(&vec!["acme", "day", "output_tokens", "2", "7"]), "{out}");
    assert!(!out.contains("zeta"), "{out}");

    // What the limiter has forgotten is told too: it takes the month from the sums of days.
    let (is_ok, out, err) = ask(&service, &["reconcile", "--period", "2026-13"]).await;
    assert!(!is_ok && out.is_empty() && err.contains("period: `2026-13` is no month"), "{err}");
}

#[tokio::test]
async fn a_tenant_is_erased_by_name_and_that_is_in_the_audit_log() {
    let folder = Folder::new();
    let service = filled(&folder).await;
    let (is_ok, _, err) = ask(&service, &["purge", "--tenant", "acme"]).await;
    assert!(!is_ok && err.contains("--yes"), "{err}");
    let (is_ok, out, err) =
        ask(&service, &["purge", "--tenant", "acme", "--actor", "alice", "--reason", "asked to", "--yes"]).await;
    assert_eq!((is_ok, out.as_str()), (true, "acme: 4 entries erased\n"), "{err}");
    assert_eq!(export(&folder, &["--period", "2026-02", "--format", "jsonl"]).lines().count(), 1);
    let answer = service.http(Request::get("/api/v1/admin/audit?tenant=acme").body(String::new()).unwrap()).await;
    let entry = &answer.json()["entries"][0];
    assert_eq!((&entry["actor"], &entry["action"]), (&json!("alice"), &json!("purge")));
    assert_eq!(entry["detail"]["reason"], "asked to");
}
