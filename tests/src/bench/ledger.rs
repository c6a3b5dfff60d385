//! How fast usage events are taken over gRPC and stored in SQLite, beside what SQLite itself takes; how long an
//! acknowledgement takes at a steady load; what the service's memory does while the ledger is away; and how long questions
//! take that are answered from a long history.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tollgate::ledger::{Ledger, SqliteLedger};

use super::events::{Collector, Events, TENANTS};
use super::report::Latency;
use crate::harness::http::Request;
use crate::harness::process::{End, Process};
use crate::harness::service::Service;
use crate::harness::wait::eventually;

/// How many events a second have to be stored, with the load generator on the same two cores.
const STORED_BAR: f64 = 50_000.0;
/// And of what SQLite itself takes.
const RATIO_BAR: f64 = 0.5;
/// What all but one in a hundred acknowledgements may take at [`STEADY_EVENTS`] a second.
const ACK_BAR_US: f64 = 50_000.0;
/// What all but one in a hundred questions may take,
const QUESTION_BAR_US: f64 = 10_000.0;
/// and how often that of the shorter history.
const HISTORY_BAR: f64 = 1.5;

/// Events that are taken as fast as they can be.
const FLOOD_EVENTS: usize = 400_000;
/// Events of an export then, as many as the filter sends at most.
const FLOOD_EXPORT: usize = 500;
/// Exports that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 16;
/// Events a second at a steady load,
const STEADY_EVENTS: usize = 5_000;
/// in so many exports.
const STEADY_EXPORTS: usize = 100;
/// Events that come while the ledger is away.
const OUTAGE_EVENTS: usize = 300_000;
/// Rows of a transaction when SQLite is asked alone.
const BARE_ROWS: usize = 5_000;
/// How many events the histories have.
const HISTORIES: [u64; 2] = [1_000_000, 10_000_000];
/// Over how many days they are spread.
const HISTORY_DAYS: u64 = 90;
/// Events that are appended together.
const APPENDED: usize = 8_192;
/// How often each question is asked.
const QUESTIONS: usize = 1_000;
/// How long it may take until the ledger has caught up.
const CATCH_UP: Duration = Duration::from_secs(180);

/// What was seen of events coming in.
#[derive(Debug, Default)]
pub(super) struct Ingest(Option<Seen>);

#[derive(Debug)]
struct Seen {
    acknowledged_per_s: f64,
    stored_per_s: f64,
    bare_per_s: f64,
    bytes_per_event: f64,
    steady: Latency,
    rss_mib: [f64; 2],
}

/// Measures a service that does nothing else.
pub(super) async fn ingest(dir: &Path, time: Duration, config: &Value) -> anyhow::Result<Ingest> {
    let mut service = Service::start(dir, config).await?;
    let collector = Collector::connect(service.grpc()).await?;
    let mut events = Events::new(FLOOD_EXPORT);
    eprintln!("{FLOOD_EVENTS} events as fast as they are taken");
    let begun = Instant::now();
    flood(&collector, &mut events, FLOOD_EVENTS).await?;
    let acknowledged = begun.elapsed();
    drained(&service).await?;
    let stored = begun.elapsed();
    let file = service.ledger_file();
    let bytes_per_event = fs::metadata(&file)?.len() as f64 / FLOOD_EVENTS as f64;

    eprintln!("{STEADY_EVENTS} events a second");
    let steady = steadily(&collector, time).await?;
    drained(&service).await?;

    eprintln!("{OUTAGE_EVENTS} events while the ledger is away");
    let lock = Connection::open(&file)?;
    lock.execute_batch("BEGIN IMMEDIATE")?;
    let before = rss_mib(service.process()?)?;
    flood(&collector, &mut events, OUTAGE_EVENTS).await?;
    let after = rss_mib(service.process()?)?;
    lock.execute_batch("ROLLBACK")?;
    drained(&service).await?;
    service.end(End::Stop).await?;

    eprintln!("SQLite alone");
    let bare_per_s = bare(&file, &dir.join("bare.db"))?;
    Ok(Ingest(Some(Seen {
        acknowledged_per_s: FLOOD_EVENTS as f64 / acknowledged.as_secs_f64(),
        stored_per_s: FLOOD_EVENTS as f64 / stored.as_secs_f64(),
        bare_per_s,
        bytes_per_event,
        steady,
        rss_mib: [before, after],
    })))
}

async fn flood(collector: &Collector, events: &mut Events, count: usize) -> anyhow::Result<()> {
    let mut exports = JoinSet::new();
    for _ in 0..count / FLOOD_EXPORT {
        if exports.len() >= IN_FLIGHT {
            exports.join_next().await.context("no export")???;
        }
        exports.spawn(collector.export(events.export()));
    }
    while let Some(exported) = exports.join_next().await {
        exported??;
    }
    Ok(())
}

async fn steadily(collector: &Collector, time: Duration) -> anyhow::Result<Latency> {
    let mut events = Events::new(STEADY_EVENTS / STEADY_EXPORTS);
    let mut ticks = interval(Duration::from_secs(1) / STEADY_EXPORTS as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut exports = JoinSet::new();
    for _ in 0..STEADY_EXPORTS * time.as_secs() as usize {
        // What is late counts from when it was due.
        let due = ticks.tick().await;
        let export = collector.export(events.export());
        exports.spawn(async move { export.await.map(|()| due.elapsed().as_nanos() as f64 / 1e3) });
    }
    let mut took_us = Vec::new();
    while let Some(took) = exports.join_next().await {
        took_us.push(took??);
    }
    Latency::of(took_us)
}

/// Waits until the ledger has all that was acknowledged.
async fn drained(service: &Service) -> anyhow::Result<()> {
    const PENDING: &str = r#"tollgate_spool_pending_events{consumer="ledger"} "#;
    eventually("the ledger has all events", CATCH_UP, async || {
        let metrics = Request::get(service.rest(), "/metrics").send().await?.text();
        let pending = metrics.lines().find_map(|line| line.strip_prefix(PENDING)).context("no such metric")?;
        ensure!(pending == "0", "{pending} events wait");
        Ok(())
    })
    .await
}

/// The memory of a process that is not shared with a file.
fn rss_mib(process: &Process) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}

/// Rows a second that SQLite takes into a table like the ledger's, bound and prepared as well as can be, with the same
/// durability and nothing else in the transactions.
fn bare(ledger: &Path, file: &Path) -> anyhow::Result<f64> {
    let from = Connection::open(ledger)?;
    let schema = "SELECT sql FROM sqlite_master WHERE tbl_name = 'usage_events' AND type IN ('table', 'index') \
                  AND sql IS NOT NULL ORDER BY type DESC";
    let statements: Vec<String> = from.prepare(schema)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut to = Connection::open(file)?;
    to.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    to.execute_batch(&statements.join(";"))?;

    let mut query = from.prepare("SELECT * FROM usage_events ORDER BY event_id LIMIT ?")?;
    let columns = query.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|index| row.get(index)).collect::<Result<Vec<SqlValue>, _>>();
    let rows: Vec<Vec<SqlValue>> = query.query_map([FLOOD_EVENTS as i64 / 2], row)?.collect::<Result<_, _>>()?;
    let insert = format!("INSERT INTO usage_events VALUES ({})", vec!["?"; columns].join(","));
    let begun = Instant::now();
    for rows in rows.chunks(BARE_ROWS) {
        let transaction = to.transaction()?;
        {
            let mut insert = transaction.prepare_cached(&insert)?;
            for row in rows {
                insert.execute(params_from_iter(row))?;
            }
        }
        transaction.commit()?;
    }
    Ok(rows.len() as f64 / begun.elapsed().as_secs_f64())
}

impl Ingest {
    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        self.0.as_ref().map_or(Value::Null, |seen| {
            json!({
                "acknowledged_per_s": seen.acknowledged_per_s.round(),
                "stored_per_s": seen.stored_per_s.round(),
                "bare_sqlite_per_s": seen.bare_per_s.round(),
                "bytes_per_event": seen.bytes_per_event.round(),
                "steady_ack_p50_us": seen.steady.p50_us.round(),
                "steady_ack_p99_us": seen.steady.p99_us.round(),
                "outage_rss_mib": seen.rss_mib,
            })
        })
    }
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "meets" } else { "MISSES" }
}

impl fmt::Display for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(seen) = &self.0 else { return Ok(()) };
        let ratio = seen.stored_per_s / seen.bare_per_s;
        writeln!(f, "\n{FLOOD_EVENTS} usage events over gRPC into SQLite, {FLOOD_EXPORT} an export")?;
        writeln!(
            f,
            "{:>8.0} acknowledged a second, {:.0} stored ({} the bar of {STORED_BAR})",
            seen.acknowledged_per_s,
            seen.stored_per_s,
            verdict(seen.stored_per_s >= STORED_BAR)
        )?;
        writeln!(
            f,
            "{:>8.0} rows a second into SQLite alone: {ratio:.2} of it ({} the bar of {RATIO_BAR})",
            seen.bare_per_s,
            verdict(ratio >= RATIO_BAR)
        )?;
        writeln!(f, "{:>8.0} bytes an event on disk", seen.bytes_per_event)?;
        writeln!(
            f,
            "{:>8.0} µs until half, {:.0} µs until 99 % of the exports of {STEADY_EVENTS} events/s are acknowledged ({} the bar of {ACK_BAR_US})",
            seen.steady.p50_us,
            seen.steady.p99_us,
            verdict(seen.steady.p99_us < ACK_BAR_US)
        )?;
        let [before, after] = seen.rss_mib;
        writeln!(f, "{before:>8.0} MiB of memory before, {after:.0} MiB after {OUTAGE_EVENTS} events without a ledger")
    }
}

/// How long questions take, by how long the history is.
#[derive(Debug, Default)]
pub(super) struct Questions(Vec<Asked>);

#[derive(Debug)]
struct Asked {
    events: u64,
    appended_per_s: f64,
    month: Latency,
    daily: Latency,
}

/// Fills a ledger for each history, and asks a service about it.
pub(super) async fn questions(dir: &Path, config: &Value) -> anyhow::Result<Questions> {
    let mut asked = Vec::new();
    for events in HISTORIES {
        let dir = dir.join(events.to_string());
        fs::create_dir(&dir)?;
        let mut service = Service::start(&dir, config).await?;
        let file = service.ledger_file();
        service.end(End::Stop).await?;
        eprintln!("a history of {events} events");
        let appended_per_s = fill(&file, events).await?;
        service.start_again().await?;
        let month = ask(&service, "?period=month").await?;
        let daily = ask(&service, "/daily?days=30").await?;
        service.end(End::Stop).await?;
        fs::remove_dir_all(&dir)?;
        asked.push(Asked { events, appended_per_s, month, daily });
    }
    Ok(Questions(asked))
}

async fn fill(file: &Path, events: u64) -> anyhow::Result<f64> {
    let ledger = SqliteLedger::open(file).await?;
    let begun = Instant::now();
    let mut history = super::events::history(events, HISTORY_DAYS).peekable();
    while history.peek().is_some() {
        let batch: Vec<_> = history.by_ref().take(APPENDED).collect();
        ledger.append(batch.into()).await?;
    }
    ledger.close().await;
    Ok(events as f64 / begun.elapsed().as_secs_f64())
}

async fn ask(service: &Service, question: &str) -> anyhow::Result<Latency> {
    let mut took_us = Vec::with_capacity(QUESTIONS);
    for number in 0..QUESTIONS {
        let path = format!("/api/v1/usage/{}{question}", super::events::tenant((number * 7) as u64 % TENANTS));
        let begun = Instant::now();
        let answer = Request::get(service.rest(), &path).send().await?;
        took_us.push(begun.elapsed().as_nanos() as f64 / 1e3);
        ensure!(answer.status == 200, "{path}: {}", answer.text());
    }
    Latency::of(took_us)
}

impl Questions {
    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        let row = |asked: &Asked| {
            json!({
                "events": asked.events,
                "appended_per_s": asked.appended_per_s.round(),
                "month_p99_us": asked.month.p99_us.round(),
                "daily_p99_us": asked.daily.p99_us.round(),
            })
        };
        self.0.iter().map(row).collect()
    }
}

impl fmt::Display for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nquestions about {TENANTS} tenants over {HISTORY_DAYS} days of history")?;
        for Asked { events, appended_per_s, month, daily } in &self.0 {
            let is_met = month.p99_us.max(daily.p99_us) < QUESTION_BAR_US;
            writeln!(
                f,
                "{events:>10} events: month p50 {:.0} µs, p99 {:.0} µs; 30 days p50 {:.0} µs, p99 {:.0} µs ({} the bar of {QUESTION_BAR_US}); {appended_per_s:.0} events/s to fill it",
                month.p50_us,
                month.p99_us,
                daily.p50_us,
                daily.p99_us,
                verdict(is_met)
            )?;
        }
        if let [short, long] = &self.0[..] {
            for (name, ratio) in
                [("month", long.month.p99_us / short.month.p99_us), ("30 days", long.daily.p99_us / short.daily.p99_us)]
            {
                writeln!(
                    f,
                    "{name}: the longer history takes {ratio:.2} of the shorter one's p99 ({} the bar of {HISTORY_BAR})",
                    verdict(ratio <= HISTORY_BAR)
                )?;
            }
        }
        Ok(())
    }
}
