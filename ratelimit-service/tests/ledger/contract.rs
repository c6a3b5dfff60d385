//! What every engine does with generated histories.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::runtime::Runtime;
use tollgate::entry::{Batch, Entry, TrackedEvent};
use tollgate::ledger::{Dimension, Grain, Ledger, Page, Series, Spent};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

use crate::engines::Engine;
use crate::model::{Model, plain};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Around which calls begin: ends of hours, days, months and a leap February, all in one year.
const EDGES: [u64; 5] = [
    1_704_067_200_000,           // 2024-01-01T00:00:00Z
    1_709_164_800_000,           // 2024-02-29T00:00:00Z
    1_709_251_200_000,           // 2024-03-01T00:00:00Z
    1_709_251_200_000 + HOUR_MS, // 2024-03-01T01:00:00Z
    1_711_929_600_000,           // 2024-04-01T00:00:00Z
];
const TENANTS: [&str; 3] = ["acme", "globex", "Initech – é'\""];
const IDS: u16 = 60;

fn pick<T: Copy>(from: &[T], by: u16) -> T {
    from[usize::from(by) % from.len()]
}

/// A call, the same each time: what it is follows from its number.
fn real(number: u16) -> UsageEvent {
    let n = u64::from(number);
    let edge = pick(&EDGES, number / 2);
    let named = |from: &[Option<&str>], by: u16| pick(from, by).map(str::to_owned);
    UsageEvent {
        event_id: format!("call-{number:03}"),
        reservation_id: Some(format!("call-{number:03}")).filter(|_| !number.is_multiple_of(7)),
        request_id: named(&[None, Some("trace \u{1F680}")], number),
        tenant: pick(&TENANTS, number / 5).to_owned(),
        tier: pick(&["pro", "free"], number / 11).to_owned(),
        key: named(&[None, Some("ci"), Some("web")], number),
        started_at_ms: if number.is_multiple_of(2) { edge + n } else { edge - 1 - n },
        duration_ms: n * n * 37 % 90_000,
        time_to_first_token_ms: Some(n * 13 % 4_000).filter(|_| !number.is_multiple_of(3)),
        api: named(&[Some("openai-chat"), Some("anthropic-messages"), None], number / 3),
        operation: named(&[Some("chat")], 0),
        provider: named(&[Some("openai"), None], number / 4),
        request_model: named(&[Some("gpt-4o"), None, Some("claude")], number / 2),
        response_model: named(&[Some("gpt-4o-2024-08-06"), None], number),
        finish_reasons: vec!["stop".to_owned(); usize::from(number % 3)],
        streaming: !number.is_multiple_of(4),
        status: pick(&[200, 200, 429, 0], number / 2),
        tokens: TokenCounts {
            input: n * 100,
            output: n * 10,
            cache_read: n,
            cache_creation: n % 5,
            reasoning: n % 9,
            audio_input: n % 2,
            tool_requests: n % 4,
            images: n % 3,
            ..TokenCounts::default()
        },
        cost_nanousd: Some(n * 1_234_567).filter(|_| !number.is_multiple_of(6)),
        usage_source: pick(
            &[UsageSource::Reported, UsageSource::Estimated, UsageSource::Partial, UsageSource::None],
            number / 7,
        ),
        finish: pick(&[Finish::Complete, Finish::ClientGone, Finish::UpstreamReset, Finish::LocalReply], number / 3),
        request_bytes: n,
        response_bytes: n * 2,
        ..UsageEvent::default()
    }
}

/// What its reservation was, when that expired.
fn unsettled(number: u16) -> UsageEvent {
    let n = u64::from(number);
    let real = real(number);
    UsageEvent {
        // When it was admitted.
        started_at_ms: real.started_at_ms - 3 * n % 50,
        request_model: real.model().map(str::to_owned),
        response_model: None,
        duration_ms: 600_000,
        tokens: TokenCounts { input: n * 90, output: 1000, images: n % 4, ..TokenCounts::default() },
        cost_nanousd: Some(n * 5).filter(|_| !number.is_multiple_of(5)),
        usage_source: UsageSource::Unsettled,
        finish: Finish::Unknown,
        ..real
    }
}

/// Its id is also that of another tenant's.
fn tracked(number: u16) -> TrackedEvent {
    TrackedEvent {
        id: format!("event-{}", number / 2),
        tenant: pick(&TENANTS, number).to_owned(),
        event_type: pick(&["page", "image"], number / 3).to_owned(),
        at_ms: pick(&EDGES, number) + u64::from(number),
        quantity_micros: u64::from(number) * 500_000,
        metadata: format!("{{\"n\":{number}}}"),
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Real,
    Unsettled,
    Tracked,
}

#[derive(Debug, Clone)]
enum Step {
    /// Entries by kind and number, that come together.
    Append(Vec<(Kind, u16)>),
    Reopen,
    Purge(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![4 => Just(Kind::Real), 3 => Just(Kind::Unsettled), 1 => Just(Kind::Tracked)];
    let append = proptest::collection::vec((kind, 0..IDS), 1..25).prop_map(Step::Append);
    let step = prop_oneof![10 => append, 1 => Just(Step::Reopen), 1 => (0..TENANTS.len()).prop_map(Step::Purge)];
    proptest::collection::vec(step, 1..8)
}

fn entry((kind, number): &(Kind, u16)) -> Entry {
    match kind {
        Kind::Real => Entry::Usage(real(*number)),
        Kind::Unsettled => Entry::Usage(unsettled(*number)),
        Kind::Tracked => Entry::Tracked(tracked(*number)),
    }
}

/// In several parts, as they come out of the spool.
fn batch(entries: &[Entry]) -> Batch {
    Batch::new(entries.chunks(7).map(Arc::from).collect())
}

async fn compare(ledger: &dyn Ledger, model: &Model) {
    let always = (0, EDGES[4] + 400 * DAY_MS);
    let periods = [always, (EDGES[0], EDGES[2]), (EDGES[2], EDGES[3])];
    for (from_ms, to_ms) in periods {
        assert_eq!(ledger.tenants(from_ms, to_ms).await.unwrap(), model.tenants(from_ms, to_ms));
    }
    for tenant in TENANTS {
        for (from_ms, to_ms) in periods {
            compare_series(ledger, model, tenant, (from_ms, to_ms)).await;
            let of_days = (from_ms / DAY_MS * DAY_MS, to_ms / DAY_MS * DAY_MS);
            let tracked = ledger.tracked(tenant, of_days.0, of_days.1).await.unwrap();
            assert_eq!(tracked, model.tracked(tenant, of_days.0, of_days.1));
            let events = pages(ledger, tenant, (from_ms, to_ms)).await;
            assert_eq!(events, model.events(tenant, from_ms, to_ms));
            compare_unpriced(ledger, &events, (tenant, from_ms, to_ms)).await;
        }
        let (from_ms, to_ms) = always;
        let page = Page { tenant, from_ms, to_ms, after: None, limit: 1000 };
        assert_eq!(ledger.tracked_events(&page).await.unwrap(), model.tracked_events(tenant));
        assert_eq!(ledger.last_tier(tenant).await.unwrap(), model.last_tier(tenant));
    }
    for from_ms in [0, EDGES[1], EDGES[2] + 7, EDGES[3], EDGES[4] + 20, u64::MAX] {
        for tenant in [None, Some(TENANTS[0]), Some(TENANTS[2])] {
            let mut spent = ledger.spent_since(from_ms, tenant).await.unwrap();
            spent.iter_mut().for_each(|spent| spent.usage = plain(std::mem::take(&mut spent.usage)));
            spent.sort_by_key(|spent| {
                let Spent { tenant, tier, model, api, key, .. } = spent.clone();
                (tenant, tier, model, api, key)
            });
            assert_eq!(spent, model.spent_since(from_ms, tenant), "since {from_ms} of {tenant:?}");
        }
        for limit in [2, 1000] {
            let unsettled = ledger.unsettled_since(from_ms, limit).await.unwrap();
            assert_eq!(unsettled, model.unsettled_since(from_ms, limit));
        }
    }
    assert_eq!(ledger.differences(always.0, always.1).await.unwrap(), []);
    for number in [3, 17, 200] {
        let id = real(number).event_id;
        assert_eq!(ledger.real(&id).await.unwrap(), model.real(&id));
    }
    ledger.ping().await.unwrap();
}

async fn compare_series(ledger: &dyn Ledger, model: &Model, tenant: &str, (from_ms, to_ms): (u64, u64)) {
    use Dimension::{Api, Key, Model as ByModel, Provider, Status, Streaming, Tier};
    let dimensions = [ByModel, Provider, Api, Key, Tier, Streaming, Status].map(Some);
    for grain in [Grain::Hour, Grain::Day, Grain::Month] {
        for by in dimensions.into_iter().chain([None]) {
            let series = Series { tenant, grain, from_ms, to_ms, by };
            assert_eq!(ledger.series(&series).await.unwrap(), model.series(&series), "{series:?}");
        }
    }
}

/// The calls without a price are those of all that have none, page by page.
async fn compare_unpriced(ledger: &dyn Ledger, events: &[UsageEvent], (tenant, from_ms, to_ms): (&str, u64, u64)) {
    let is_unpriced = |event: &&UsageEvent| event.cost_nanousd.is_none() && event.usage_source != UsageSource::None;
    let unpriced: Vec<_> = events.iter().filter(is_unpriced).cloned().collect();
    let page = Page { tenant, from_ms, to_ms, after: None, limit: 1000 };
    assert_eq!(ledger.unpriced(&page).await.unwrap(), unpriced);
    if let [first, second, ..] = &unpriced[..] {
        let after = Some((first.started_at_ms, first.event_id.as_str()));
        let next = ledger.unpriced(&Page { after, limit: 1, ..page }).await.unwrap();
        assert_eq!(next, std::slice::from_ref(second));
    }
}

/// All pages together.
async fn pages(ledger: &dyn Ledger, tenant: &str, (from_ms, to_ms): (u64, u64)) -> Vec<UsageEvent> {
    const LIMIT: usize = 4;
    let mut all: Vec<UsageEvent> = Vec::new();
    loop {
        let after = all.last().map(|last| (last.started_at_ms, last.event_id.as_str()));
        let page = Page { tenant, from_ms, to_ms, after, limit: LIMIT };
        let events = ledger.events(&page).await.unwrap();
        let is_last = events.len() < LIMIT;
        all.extend(events);
        if is_last {
            return all;
        }
    }
}

async fn run(engine: &Engine, steps: &[Step]) {
    let (mut ledger, mut model) = (engine.open().await, Model::default());
    for step in steps {
        match step {
            Step::Append(entries) => {
                let entries: Vec<_> = entries.iter().map(entry).collect();
                assert_eq!(ledger.append(batch(&entries)).await.unwrap(), model.append(&entries));
            }
            Step::Reopen => {
                ledger.close().await;
                ledger = engine.open().await;
            }
            Step::Purge(tenant) => {
                assert_eq!(ledger.purge(TENANTS[*tenant]).await.unwrap(), model.purge(TENANTS[*tenant]));
            }
        }
    }
    compare(ledger.as_ref(), &model).await;
    ledger.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_embedded_engine_does_what_the_model_does(steps in steps()) {
        Runtime::new().unwrap().block_on(async { run(&Engine::embedded(), &steps).await });
    }
}

proptest! {
    // A server of its own for each.
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn every_engine_does_what_the_model_does(steps in steps()) {
        Runtime::new().unwrap().block_on(async {
            for engine in Engine::all().await {
                run(&engine, &steps).await;
            }
        });
    }
}

#[tokio::test]
async fn a_batch_counts_once_whole_or_regrouped_and_however_late() {
    for engine in Engine::all().await {
        let (ledger, mut model) = (engine.open().await, Model::default());
        let numbers = || 0..IDS;
        let all: Vec<_> = numbers()
            .map(|number| Entry::Usage(unsettled(number)))
            .chain(numbers().map(|number| Entry::Usage(real(number))))
            .chain(numbers().map(|number| Entry::Tracked(tracked(number))))
            .collect();
        for size in [all.len(), 50, 1, 13] {
            for entries in all.chunks(size) {
                assert_eq!(ledger.append(batch(entries)).await.unwrap(), model.append(entries));
            }
        }
        ledger.close().await;
        let ledger = engine.open().await;
        let backwards: Vec<_> = all.iter().rev().cloned().collect();
        assert!(!ledger.append(batch(&backwards)).await.unwrap().contains(&true));
        compare(ledger.as_ref(), &model).await;
    }
}

#[tokio::test]
async fn who_stops_waiting_takes_nothing_back() {
    for engine in Engine::all().await {
        let (ledger, mut model) = (engine.open().await, Model::default());
        let entries: Vec<_> = (0..IDS).map(|number| Entry::Usage(real(number))).collect();
        let appended = ledger.append(batch(&entries));
        // It has begun, and nobody asks again.
        let _ = tokio::time::timeout(std::time::Duration::ZERO, appended).await;
        ledger.append(batch(&entries)).await.unwrap();
        model.append(&entries);
        compare(ledger.as_ref(), &model).await;
    }
}
