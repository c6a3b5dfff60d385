//! The service is killed again and again under load: what was acknowledged is there once, and the books agree.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tollgate_wire::usage_event::UsageEvent;

use crate::harness::{Folder, Service, event, export_request};

/// How often it is killed.
const KILLS: u64 = 200;

/// How many clients send events meanwhile.
const CLIENTS: u64 = 4;

/// A series of numbers that looks like chance and is the same in each run: an LCG with Knuth's constants.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What the clients know.
#[derive(Default)]
struct Sent {
    /// Where the service is now; nowhere while it is not.
    addr: Mutex<Option<std::net::SocketAddr>>,
    acknowledged: Mutex<HashMap<String, u64>>,
    exports: AtomicU64,
    is_over: AtomicBool,
}

/// Sends events of its own, some of them with earlier ones, and each again until it is acknowledged.
async fn client(number: u64, sent: Arc<Sent>) {
    let mut chance = Chance(number);
    let mut earlier: Vec<UsageEvent> = Vec::new();
    for round in 0.. {
        let mut events: Vec<_> = (0..1 + chance.below(20))
            .map(|at| event(&format!("{number}-{round}-{at}"), ["acme", "globex"][at as usize % 2], 1 + at, 2))
            .collect();
        let new = events.clone();
        if !earlier.is_empty() {
            // Of those that were acknowledged long ago, and before the new ones too.
            let again: Vec<_> =
                (0..chance.below(10)).map(|_| earlier[chance.below(earlier.len() as u64) as usize].clone()).collect();
            let at = chance.below(events.len() as u64) as usize;
            events.splice(at..at, again);
        }
        while !export(&events, &sent).await {
            if sent.is_over.load(Ordering::Relaxed) {
                return;
            }
            tokio::task::yield_now().await;
        }
        sent.exports.fetch_add(1, Ordering::Relaxed);
        let mut acknowledged = sent.acknowledged.lock();
        acknowledged.extend(new.iter().map(|event| (event.event_id.clone(), event.tokens.input)));
        earlier.extend(new);
    }
}

async fn export(events: &[UsageEvent], sent: &Sent) -> bool {
    use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
    let Some(addr) = *sent.addr.lock() else {
        tokio::time::sleep(Duration::from_millis(5)).await;
        return false;
    };
    let Ok(mut client) = LogsServiceClient::connect(format!("http://{addr}")).await else { return false };
    let request = export_request(events.iter().map(UsageEvent::to_log_record).collect());
    client.export(request).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_once_however_often_the_service_is_killed() {
    let folder = Folder::new();
    let sent = Arc::new(Sent::default());
    let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(client(number, Arc::clone(&sent)))).collect();
    let mut chance = Chance(2026);
    for _ in 0..KILLS {
        let service = Service::start(&folder);
        *sent.addr.lock() = Some(service.grpc());
        // Somewhere among the next exports.
        let until = sent.exports.load(Ordering::Relaxed) + chance.below(12);
        let bound = tokio::time::Instant::now() + Duration::from_secs(30);
        while sent.exports.load(Ordering::Relaxed) < until {
            assert!(tokio::time::Instant::now() < bound, "no export is acknowledged");
            tokio::time::sleep(Duration::from_micros(500 + chance.below(1_000))).await;
        }
        *sent.addr.lock() = None;
        service.kill();
    }
    sent.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }

    let service = Service::start(&folder);
    service.drained().await;
    let (status, books) = service.get("/api/v1/admin/reconcile").await;
    assert_eq!((status.as_u16(), &books["differences"]), (200, &serde_json::json!([])));
    assert!(service.terminate().await.success());

    let database = Connection::open(folder.ledger()).unwrap();
    let mut query = database.prepare("SELECT event_id, input_tokens FROM usage_events").unwrap();
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs()))).unwrap();
    let rows: Vec<_> = rows.collect::<Result<_, _>>().unwrap();
    let acknowledged = sent.acknowledged.lock();
    let kept: HashMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(kept.len(), rows.len(), "some event is there twice");
    let lost: HashSet<_> = acknowledged.iter().filter(|(id, tokens)| kept.get(*id) != Some(tokens)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    eprintln!("{} events acknowledged, {} there, after {KILLS} kills", acknowledged.len(), kept.len());
}
