//! Calls that expired, and the events that came after all.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sqlx::{Executor, SqliteConnection};
use tokio::sync::oneshot;

use super::super::writer::Write;
use super::*;

/// How many rows the tables hold, events that are not counted any more included.
async fn rows(database: &mut SqliteConnection) -> (i64, i64, i64) {
    let counts = "SELECT (SELECT count(*) FROM usage_events), (SELECT count(*) FROM unsettled_events), \
                  (SELECT count(*) FROM corrections)";
    sqlx::query_as(counts).fetch_one(database).await.unwrap()
}

#[tokio::test]
async fn an_unsettled_call_counts_once_as_what_was_reserved() {
    let opened = Opened::new().await;
    assert_eq!(opened.append(&[unsettled("e1"), unsettled("e1")]).await, [unsettled("e1")]);
    assert_eq!(opened.append(&[unsettled("e1")]).await, []);
    assert_eq!(opened.days("acme").await, [(1, unsettled_sum())]);
    assert_eq!(rows(&mut opened.database().await).await, (0, 1, 0));
}

#[tokio::test]
async fn an_unsettled_call_that_has_its_event_already_is_a_duplicate() {
    let opened = Opened::new().await;
    assert_eq!(opened.append(&[real("e1")]).await, [real("e1")]);
    assert_eq!(opened.append(&[unsettled("e1")]).await, []);
    assert_eq!(opened.append(&[unsettled("e2"), real("e2")]).await, [real("e2")], "in one export as well");
    assert_eq!(opened.days("acme").await, [(1, [real_sum(), real_sum()].into_iter().sum())]);
    assert_eq!(rows(&mut opened.database().await).await, (2, 0, 0));
}

#[tokio::test]
async fn the_event_takes_the_place_of_the_unsettled_call_and_both_stay_readable() {
    let opened = Opened::new().await;
    opened.append(&[unsettled("e1"), unsettled("e2")]).await;
    assert_eq!(opened.append(&[real("e1"), real("e1")]).await, [real("e1")]);
    assert_eq!(opened.append(&[unsettled("e1"), real("e1")]).await, []);
    assert_eq!(opened.days("acme").await, [(1, [real_sum(), unsettled_sum()].into_iter().sum())]);
    let mut database = opened.database().await;
    assert_eq!(rows(&mut database).await, (1, 2, 1));
    let kept = "SELECT json_array(event_id, tenant, tier, started_at_ms, api, request_model, input_tokens, \
                output_tokens) FROM unsettled_events WHERE event_id = 'e1'";
    let kept: String = sqlx::query_scalar(kept).fetch_one(&mut database).await.unwrap();
    assert_eq!(kept, r#"["e1","acme","pro",86400000,"openai-chat","gpt-4o",12,100]"#);
    let corrected = "SELECT json_array(event_id, tenant, day, input_tokens, output_tokens) FROM corrections";
    let corrected: String = sqlx::query_scalar(corrected).fetch_one(&mut database).await.unwrap();
    assert_eq!(corrected, r#"["e1","acme",1,12,100]"#);
}

#[tokio::test]
async fn no_count_is_so_large_that_sums_of_it_fail() {
    let opened = Opened::new().await;
    let tokens = TokenCounts { input: u64::MAX, output: u64::MAX, ..TokenCounts::default() };
    let huge = |event: UsageEvent| UsageEvent { tokens, duration_ms: u64::MAX, ..event };
    for id in ["e1", "e2", "e3"] {
        assert_eq!(opened.append(&[huge(unsettled(id))]).await.len(), 1);
    }
    assert_eq!(opened.append(&[huge(real("e1")), huge(real("e4"))]).await.len(), 2);
    let [(_, usage)] = opened.days("acme").await[..] else { panic!("one day") };
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, usage.duration_ms),
        (4 * MAX_COUNT, 4 * MAX_COUNT, 2 * MAX_COUNT)
    );
    assert_eq!(opened.spent_since(0, None).await[0].usage, usage);
}

#[tokio::test]
async fn each_is_counted_in_its_own_day() {
    let opened = Opened::new().await;
    let late = UsageEvent { started_at_ms: 3 * DAY_MS, ..unsettled("e1") };
    opened.append(&[late]).await;
    assert_eq!(opened.days("acme").await, [(3, unsettled_sum())]);
    opened.append(&[real("e1")]).await;
    assert_eq!(opened.days("acme").await, [(1, real_sum())]);
}

#[tokio::test]
async fn an_unsettled_calls_tier_is_the_last_one_until_it_is_corrected() {
    let opened = Opened::new().await;
    let reserved =
        |id: &str, tier: &str, at_ms: u64| UsageEvent { tier: tier.to_owned(), started_at_ms: at_ms, ..unsettled(id) };
    opened.append(&[reserved("e1", "small", 5)]).await;
    assert_eq!(opened.last_tier("acme").await.as_deref(), Some("small"));
    opened.append(&[real("e2")]).await;
    assert_eq!(opened.last_tier("acme").await.as_deref(), Some("pro"));
    opened.append(&[reserved("e3", "large", 9 * DAY_MS), reserved("e4", "huge", 9 * DAY_MS + 1)]).await;
    assert_eq!(opened.last_tier("acme").await.as_deref(), Some("huge"));
    opened.append(&[UsageEvent { started_at_ms: DAY_MS - 1, ..real("e4") }]).await;
    assert_eq!(opened.last_tier("acme").await.as_deref(), Some("large"));
    opened.append(&[real("e3")]).await;
    assert_eq!(opened.last_tier("acme").await.as_deref(), Some("pro"));
    assert_eq!(opened.last_tier("other").await, None);
}

#[tokio::test]
async fn nothing_that_happened_is_changed_or_deleted() {
    let opened = Opened::new().await;
    opened.append(&[unsettled("e1")]).await;
    opened.append(&[real("e1")]).await;
    let mut database = opened.database().await;
    for table in ["usage_events", "unsettled_events", "corrections"] {
        for statement in [format!("UPDATE {table} SET input_tokens = 0"), format!("DELETE FROM {table}")] {
            let refused = database.execute(sqlx::AssertSqlSafe(statement)).await.unwrap_err();
            assert!(refused.to_string().contains(&format!("{table} is append-only")), "{refused}");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Real,
    Unsettled,
}

/// Some call's event or its expired reservation, by numbers.
type Sent = (usize, Kind);

/// Transactions of exports of events.
type Sending = Vec<Vec<Vec<Sent>>>;

fn sending() -> impl Strategy<Value = Sending> {
    let sent = (0..4usize, prop_oneof![Just(Kind::Real), Just(Kind::Unsettled)]);
    vec(vec(vec(sent, 0..5), 1..4), 1..6)
}

/// The same for the same numbers; no two calls begin at the same moment, and a call's two entries differ in all they can.
fn entry(tenant: &str, (call, kind): Sent) -> UsageEvent {
    let (made, days) = match kind {
        Kind::Real => (real(&format!("{tenant}-{call}")), [1, 4, 2, 2]),
        Kind::Unsettled => (unsettled(&format!("{tenant}-{call}")), [3, 4, 1, 2]),
    };
    let at = call as u64 * 2 + u64::from(kind == Kind::Unsettled);
    UsageEvent {
        tenant: tenant.to_owned(),
        tier: format!("tier-{call}-{kind:?}"),
        started_at_ms: days[call] * DAY_MS + at,
        request_model: (call > 0).then(|| format!("model-{}", call % 2)),
        tokens: TokenCounts { input: 7 * (at + 1), output: 1000 * (at + 1), ..TokenCounts::default() },
        ..made
    }
}

fn sum(event: &UsageEvent) -> Usage {
    let made = if event.usage_source == UsageSource::Unsettled { unsettled_sum() } else { real_sum() };
    let tokens = &event.tokens;
    Usage { input_tokens: tokens.input, output_tokens: tokens.output, cache_read_tokens: tokens.cache_read, ..made }
}

/// What a ledger is, told naively: which entries it has.
#[derive(Default)]
struct Model {
    real: BTreeSet<usize>,
    unsettled: BTreeSet<usize>,
}

impl Model {
    /// Stores an export, its real events first; gives what was new, in the export's order.
    fn append(&mut self, export: &[Sent]) -> Vec<Sent> {
        let mut new = BTreeMap::new();
        for (at, (call, _)) in export.iter().enumerate().filter(|(_, (_, kind))| *kind == Kind::Real) {
            if self.real.insert(*call) {
                new.insert(at, (*call, Kind::Real));
            }
        }
        for (at, (call, _)) in export.iter().enumerate().filter(|(_, (_, kind))| *kind == Kind::Unsettled) {
            if !self.real.contains(call) && self.unsettled.insert(*call) {
                new.insert(at, (*call, Kind::Unsettled));
            }
        }
        new.into_values().collect()
    }

    /// What counts: of each call its event, or else its reservation.
    fn counted(&self, tenant: &str) -> Vec<UsageEvent> {
        let real = self.real.iter().map(|call| (*call, Kind::Real));
        let unsettled = self.unsettled.difference(&self.real).map(|call| (*call, Kind::Unsettled));
        real.chain(unsettled).map(|sent| entry(tenant, sent)).collect()
    }

    fn days(&self, tenant: &str) -> Vec<(i32, Usage)> {
        let mut days = BTreeMap::<i32, Vec<Usage>>::new();
        for event in self.counted(tenant) {
            days.entry(Day::of(event.started_at_ms).number()).or_default().push(sum(&event));
        }
        days.into_iter().map(|(day, usages)| (day, usages.into_iter().sum())).collect()
    }

    fn spent_since(&self, tenant: &str, from_ms: u64) -> Vec<Spent> {
        let mut groups = BTreeMap::<_, Vec<Usage>>::new();
        for event in self.counted(tenant).into_iter().filter(|event| event.started_at_ms >= from_ms) {
            let usage = sum(&event);
            groups.entry((event.tier, event.request_model, event.api)).or_default().push(usage);
        }
        let spent = |((tier, model, api), usages): (_, Vec<Usage>)| {
            let usage = usages.into_iter().sum();
            Spent { tenant: tenant.to_owned(), tier, model, api, usage, refused: 0 }
        };
        groups.into_iter().map(spent).collect()
    }

    fn last_tier(&self, tenant: &str) -> Option<String> {
        self.counted(tenant).into_iter().max_by_key(|event| event.started_at_ms).map(|event| event.tier)
    }
}

impl Opened {
    /// Stores exports in one transaction: this test has one thread, so all of them wait before the writer goes on.
    async fn append_at_once(&self, exports: Vec<Vec<UsageEvent>>) -> Vec<Vec<UsageEvent>> {
        let mut answers = Vec::new();
        for events in exports {
            let (reply, answer) = oneshot::channel();
            self.ledger.enqueue(Write::events(events, reply)).unwrap();
            answers.push(answer);
        }
        let mut new = Vec::new();
        for answer in answers {
            new.push(answer.await.unwrap().unwrap());
        }
        new
    }
}

/// Sends what was generated, and holds the ledger against the model after each transaction.
async fn holds(opened: &Opened, database: &mut SqliteConnection, tenant: &str, sending: &Sending) {
    let mut model = Model::default();
    let events = |sent: &[Sent]| sent.iter().map(|sent| entry(tenant, *sent)).collect::<Vec<_>>();
    for transaction in sending {
        let new = opened.append_at_once(transaction.iter().map(|export| events(export)).collect()).await;
        let expected: Vec<_> = transaction.iter().map(|export| events(&model.append(export))).collect();
        assert_eq!(new, expected);
        assert_eq!(opened.days(tenant).await, model.days(tenant));
        for from_ms in [0, DAY_MS + 3, 4 * DAY_MS + 2] {
            assert_eq!(opened.spent_since(from_ms, Some(tenant)).await, model.spent_since(tenant, from_ms));
        }
        assert_eq!(opened.last_tier(tenant).await, model.last_tier(tenant));
    }
    // Reading takes the sign away.
    let columns = Usage::COLUMNS.join(", ");
    let negative = format!("SELECT count(*) FROM usage_days WHERE min({columns}) < 0");
    let negative: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(negative)).fetch_one(database).await.unwrap();
    assert_eq!(negative, 0);
}

#[test]
fn whatever_comes_in_whatever_order_each_call_counts_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let opened = runtime.block_on(Opened::new());
    let database = Cell::new(Some(runtime.block_on(opened.database())));
    let case = Cell::new(0);
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    let held = TestRunner::new(config).run(&sending(), |sending| {
        // Each case has a tenant of its own, so that one file does for all; a failed one starts from nothing as well.
        case.set(case.get() + 1);
        let mut connection = database.take().unwrap_or_else(|| runtime.block_on(opened.database()));
        runtime.block_on(holds(&opened, &mut connection, &format!("tenant-{}", case.get()), &sending));
        database.set(Some(connection));
        Ok(())
    });
    held.unwrap_or_else(|failure| panic!("{failure}"));
}
