//! A ledger, and entries for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tollgate::entry::{Batch, Entry, TrackedEvent};
use tollgate::ledger::{
    ClickHouseLedger, ClickHouseSettings, Grain, Ledger, MAX_RETENTION_MONTHS, Page, Series, Usage,
};
use tollgate::metrics::Metrics;
use tollgate::secret::Secret;
use tollgate_e2e::harness::clickhouse::ClickHouse;
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

pub(crate) const DAY_MS: u64 = 86_400_000;
/// 2026-01-15T00:00:00Z
pub(crate) const START_MS: u64 = 1_768_435_200_000;
pub(crate) const TENANTS: [&str; 3] = ["acme", "globex", "it's \\ odd?"];

/// ClickHouse, and the folder of one service.
pub(crate) struct Setup {
    pub(crate) clickhouse: ClickHouse,
    folder: TempDir,
}

impl Setup {
    pub(crate) async fn new() -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let clickhouse = ClickHouse::start(folder.path()).await.unwrap();
        Setup { clickhouse, folder }
    }

    /// Whose server can be killed.
    pub(crate) async fn of_bridge() -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let clickhouse = ClickHouse::bridge(folder.path()).await.unwrap();
        Setup { clickhouse, folder }
    }

    pub(crate) fn settings(&self) -> ClickHouseSettings {
        ClickHouseSettings {
            url: self.clickhouse.url(),
            database: self.clickhouse.database().to_owned(),
            user: self.clickhouse.user().to_owned(),
            password: Secret::new(self.clickhouse.password()),
            retention_months: MAX_RETENTION_MONTHS,
            sums_retention_months: MAX_RETENTION_MONTHS,
            // A busy machine answers late, and only a test that sets its own timeout is about that.
            timeout: Duration::from_secs(300),
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn intent(&self) -> PathBuf {
        self.state().join("clickhouse-intent")
    }

    pub(crate) async fn open(&self) -> ClickHouseLedger {
        self.open_with(&self.settings()).await
    }

    pub(crate) async fn open_with(&self, settings: &ClickHouseSettings) -> ClickHouseLedger {
        ClickHouseLedger::open(settings, &self.state(), &Metrics::new().0).await.unwrap()
    }

    /// Why it does not open.
    pub(crate) async fn refusal(&self, settings: &ClickHouseSettings) -> String {
        let opened = ClickHouseLedger::open(settings, &self.state(), &Metrics::new().0).await;
        opened.err().map(|error| format!("{error:#}")).unwrap()
    }
}

/// Calls of three tenants in three months.
pub(crate) fn real(number: u64) -> UsageEvent {
    UsageEvent {
        event_id: format!("call-{number}"),
        reservation_id: Some(format!("call-{number}")),
        tenant: TENANTS[number as usize % TENANTS.len()].to_owned(),
        tier: "pro".to_owned(),
        started_at_ms: START_MS + number * 119_000_000 % (60 * DAY_MS),
        duration_ms: number * 31 % 20_000,
        time_to_first_token_ms: (!number.is_multiple_of(3)).then_some(number % 700),
        api: Some("openai-chat".to_owned()),
        request_model: Some(format!("model-{}", number % 4)),
        status: 200,
        tokens: TokenCounts {
            input: number % 1000,
            output: number % 300,
            images: number % 3,
            ..TokenCounts::default()
        },
        cost_nanousd: (!number.is_multiple_of(5)).then_some(number * 1000),
        usage_source: UsageSource::Reported,
        ..UsageEvent::default()
    }
}

/// What its reservation was.
pub(crate) fn unsettled(number: u64) -> UsageEvent {
    UsageEvent {
        usage_source: UsageSource::Unsettled,
        finish: Finish::Unknown,
        started_at_ms: real(number).started_at_ms - 40,
        tokens: TokenCounts { input: 700, output: 70, images: 5, ..TokenCounts::default() },
        ..real(number)
    }
}

pub(crate) fn tracked(number: u64) -> TrackedEvent {
    TrackedEvent {
        id: format!("event-{number}"),
        tenant: TENANTS[number as usize % TENANTS.len()].to_owned(),
        event_type: "page".to_owned(),
        at_ms: START_MS + number * 97_000_000 % (60 * DAY_MS),
        quantity_micros: number * 500_000,
        metadata: "{}".to_owned(),
    }
}

/// Events of all kinds by these numbers, some of which correct what [`estimates`] has of them.
pub(crate) fn entries(numbers: std::ops::Range<u64>) -> Vec<Entry> {
    let tracked = numbers.clone().filter(|number| number % 4 == 0).map(|number| Entry::Tracked(tracked(number)));
    numbers.map(|number| Entry::Usage(real(number))).chain(tracked).collect()
}

/// What expired before the real events came.
pub(crate) fn estimates(numbers: std::ops::Range<u64>) -> Vec<Entry> {
    numbers.filter(|number| number % 3 == 1).map(|number| Entry::Usage(unsettled(number))).collect()
}

/// Looks whether what the ledger holds is [`entries`] of these numbers, each once, in the tables and in the sums.
pub(crate) async fn assert_holds(ledger: &ClickHouseLedger, numbers: std::ops::Range<u64>) {
    let (from_ms, to_ms) = (0, START_MS + 400 * DAY_MS);
    let mut expected: BTreeMap<&str, (Vec<UsageEvent>, Usage, u64)> = BTreeMap::new();
    for entry in entries(numbers) {
        let tenant = TENANTS.iter().find(|tenant| **tenant == entry.tenant()).unwrap();
        let (events, usage, tracked) = expected.entry(tenant).or_default();
        match entry {
            Entry::Usage(event) => {
                usage.add(&Usage::of(&event));
                events.push(event);
            }
            Entry::Tracked(_) => *tracked += 1,
        }
    }
    for tenant in TENANTS {
        let (mut calls, usage, tracked) = expected.remove(tenant).unwrap_or_default();
        calls.sort_by_key(|event| (event.started_at_ms, event.event_id.clone()));
        let page = Page { tenant, from_ms, to_ms, after: None, limit: 1_000_000 };
        let events = ledger.events(&page).await.unwrap();
        assert_eq!(events.len(), calls.len(), "{tenant}");
        assert!(events == calls, "{tenant}");
        for grain in [Grain::Hour, Grain::Day, Grain::Month] {
            let series = ledger.series(&Series { tenant, grain, from_ms, to_ms, by: None }).await.unwrap();
            let sum: Usage = series.iter().map(|point| &point.usage).sum();
            assert_eq!(sum, usage, "{tenant} by {grain:?}");
        }
        assert_eq!(ledger.tracked_events(&page).await.unwrap().len() as u64, tracked, "{tenant}");
        let sums = ledger.tracked(tenant, from_ms, to_ms).await.unwrap();
        assert_eq!(sums.iter().map(|sum| sum.events).sum::<u64>(), tracked, "{tenant}");
    }
    assert_eq!(ledger.differences(from_ms, to_ms).await.unwrap(), []);
}

pub(crate) async fn append(ledger: &ClickHouseLedger, entries: Vec<Entry>) -> Vec<bool> {
    ledger.append(Batch::from(entries)).await.unwrap()
}
