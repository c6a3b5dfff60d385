//! Billing with a real ledger, real accounts, and a clock of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use tollgate_domain::invoice::{Cents, Item, Quantity};
use tollgate_wire::usage_event::{TokenCounts, UsageEvent, UsageSource};

use super::*;
use crate::accounts::{AccountsSettings, InvoiceStatus, Json, Plan, Tenant, TenantStatus};
use crate::config::Config;
use crate::counters::MemoryCounters;
use crate::entry::{Batch, Entry, TrackedEvent};
use crate::http::Reach;
use crate::ledger::SqliteLedger;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::webhooks::{EndpointSettings, WebhookMetrics};

/// 2026-11-01T00:00:00Z
const NOVEMBER_MS: u64 = 1_793_491_200_000;
const DECEMBER_MS: u64 = NOVEMBER_MS + 30 * DAY_MS;
const JANUARY_MS: u64 = DECEMBER_MS + 31 * DAY_MS;
const FEBRUARY_MS: u64 = JANUARY_MS + 31 * DAY_MS;
const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;

/// A dollar for a thousand input tokens.
const PRICES: &str = "
limiter: { default_tier: free }
tiers: { free: { context_tokens: 1000000, limits: [] } }
prices: [{ model: 'priced*', input: 1000, per_image: 0.05 }]
billing: { grace_h: 24, seller: { name: Us } }
";

struct World {
    _folder: TempDir,
    now_ms: Arc<AtomicU64>,
    billing: Arc<Billing>,
}

impl World {
    async fn new() -> World {
        World::with_closing(Closing::ByHand).await
    }

    async fn with_closing(closing: Closing) -> World {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicU64::new(NOVEMBER_MS));
        let time = now_ms.clone();
        let clock: Clock = Arc::new(move || time.load(Ordering::SeqCst));
        let (metrics, mut registry) = Metrics::new();
        let config = Config::parse(PRICES, "test").unwrap();
        let counters = MemoryCounters::new(1000, clock.clone(), metrics.clone());
        let limiter = Arc::new(Limiter::new(config.policy, Arc::new(counters), metrics));
        let database = Arc::new(Database::open(&folder.path().join("tollgate.db")).await.unwrap());
        let accounts = Accounts::open(&AccountsSettings::Sqlite(folder.path().join("accounts.db"))).await.unwrap();
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let endpoint = EndpointSettings::new("http://127.0.0.1:9/hook", secret, Reach::Any).unwrap();
        let metrics = WebhookMetrics::new(&mut registry);
        let webhooks = Arc::new(Webhooks::new(&[endpoint], database.clone(), clock.clone(), metrics).unwrap());
        let ledger = Arc::new(SqliteLedger::new(database.clone()));
        let sources = Sources { accounts, ledger, limiter, database, webhooks };
        let settings = BillingSettings { closing, ..config.billing };
        let billing = Arc::new(Billing::new(settings, sources, clock, BillingMetrics::new(&mut registry)));
        World { _folder: folder, now_ms, billing }
    }

    fn at(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    /// Has input tokens in the ledger, of a call that began then.
    async fn used(&self, id: &str, at_ms: u64, model: &str, input: u64, usage_source: UsageSource) {
        let tokens = TokenCounts { input, ..TokenCounts::default() };
        self.counted(id, at_ms, model, tokens, usage_source).await;
    }

    async fn counted(&self, id: &str, at_ms: u64, model: &str, tokens: TokenCounts, usage_source: UsageSource) {
        let event = UsageEvent {
            event_id: id.to_owned(),
            tenant: "acme".to_owned(),
            started_at_ms: at_ms,
            request_model: Some(model.to_owned()),
            tokens,
            usage_source,
            ..UsageEvent::default()
        };
        self.billing.ledger.append(Batch::from(vec![event])).await.unwrap();
    }

    async fn reported(&self, id: &str, at_ms: u64, input: u64) {
        self.used(id, at_ms, "priced", input, UsageSource::Reported).await;
    }

    async fn tracked(&self, id: &str, at_ms: u64, event_type: &str, quantity_micros: u64) {
        let event = TrackedEvent {
            id: id.to_owned(),
            tenant: "acme".to_owned(),
            event_type: event_type.to_owned(),
            at_ms,
            quantity_micros,
            metadata: "{}".to_owned(),
        };
        self.billing.ledger.append(Batch::from(vec![Entry::Tracked(event)])).await.unwrap();
    }

    async fn plan(&self, billing: &str) {
        let plan = Plan {
            context_tokens: 1000,
            limits: Json::parse("[]".to_owned()).unwrap(),
            markup_ppm: 1_000_000,
            billing: Json::parse(billing.to_owned()).unwrap(),
        };
        let (accounts, by) = (&self.billing.accounts, By { actor: "test", at_ms: 0 });
        match accounts.get::<Plan>("free").await.unwrap() {
            Some(known) => drop(accounts.update(&by, "free", known.version, plan).await.unwrap()),
            None => drop(accounts.create(&by, "free", plan).await.unwrap()),
        }
    }

    async fn draft(&self, year: i16, month: i8) -> Kept {
        self.billing.draft("test", "acme", (year, month)).await.unwrap()
    }

    async fn finalised(&self, year: i16, month: i8) -> Kept {
        let draft = self.draft(year, month).await;
        self.billing.step("test", &draft.id, Step::Finalise).await.unwrap()
    }

    async fn statuses(&self) -> Vec<(String, InvoiceStatus)> {
        let all = self.billing.accounts.all::<accounts::Invoice>().await.unwrap();
        all.into_iter().map(|record| (record.id, record.value.status)).collect()
    }

    /// The types of what webhooks are told, in order.
    async fn told(&self) -> Vec<String> {
        let read = |transaction: &rusqlite::Transaction<'_>| {
            let mut select = transaction.prepare("SELECT body FROM webhook_deliveries ORDER BY id")?;
            let bodies = select.query_map([], |row| row.get::<_, String>(0))?;
            bodies.collect::<rusqlite::Result<Vec<_>>>()
        };
        let bodies = self.billing.database.read(read).await.unwrap();
        let of = |body: String| {
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            format!("{} {}", body["type"].as_str().unwrap(), body["data"]["invoice_id"].as_str().unwrap())
        };
        bodies.into_iter().map(of).collect()
    }
}

fn total(kept: &Kept) -> String {
    kept.bill().totals.total.to_string()
}

fn adjusted(kept: &Kept) -> String {
    kept.bill().totals.adjustments.to_string()
}

#[tokio::test]
async fn a_month_is_what_its_entries_come_to() {
    let world = World::new().await;
    world.plan(r#"{"events": {"image": "0.04"}, "tax_ppm": 100000}"#).await;
    world.reported("a", NOVEMBER_MS, 1000).await;
    world.reported("b", DECEMBER_MS - 1, 500).await;
    world.reported("of october", NOVEMBER_MS - 1, 7).await;
    world.reported("of december", DECEMBER_MS, 7).await;
    world.used("c", NOVEMBER_MS + 1, "priced-too", 2000, UsageSource::Partial).await;
    world.used("d", NOVEMBER_MS + 2, "priced", 9000, UsageSource::None).await;
    world.used("e", NOVEMBER_MS + 3, "unknown", 5, UsageSource::Reported).await;
    world.tracked("a", NOVEMBER_MS + 4, "image", 2_500_000).await;
    world.tracked("b", NOVEMBER_MS + 5, "unknown", 1).await;
    world.at(DECEMBER_MS);
    let kept = world.draft(2026, 11).await;
    let totals = &kept.bill().totals;
    assert_eq!((&*kept.id, totals.usage.to_string(), total(&kept)), ("acme-2026-11", "3.60".into(), "3.96".into()));
    assert_eq!((totals.estimated.to_string(), totals.unpriced_lines, kept.calls_without_price), ("2".into(), 2, 1));
    assert_eq!(kept.parties.seller.name, "Us");
    let image = kept.bill().lines.iter().find_map(|line| match &line.item {
        Item::Usage(rated) if rated.meter.to_string() == "event.image" => Some((rated, line.sums.quantity)),
        _ => None,
    });
    let (rated, quantity) = image.unwrap();
    assert_eq!((&*rated.price.version, quantity), ("free:image", Quantity::from_parts(2_500_000)));

    let again = world.draft(2026, 11).await;
    assert_eq!((again.version, again.updated_at_ms), (1, kept.updated_at_ms), "nothing has changed");
    world.reported("late", NOVEMBER_MS + 6, 1000).await;
    let again = world.draft(2026, 11).await;
    assert_eq!((again.version, total(&again)), (2, "5.06".into()));
}

#[tokio::test]
async fn images_are_lines_of_their_own() {
    let world = World::new().await;
    let drawn = |images, input| TokenCounts { images, input, ..TokenCounts::default() };
    world.counted("a", NOVEMBER_MS, "priced", drawn(3, 10), UsageSource::Reported).await;
    world.counted("b", NOVEMBER_MS + 1, "priced", drawn(2, 0), UsageSource::Partial).await;
    world.counted("c", NOVEMBER_MS + 2, "unknown", drawn(4, 0), UsageSource::Reported).await;
    world.at(DECEMBER_MS);
    let kept = world.draft(2026, 11).await;
    let lines: Vec<_> = kept
        .bill()
        .lines
        .iter()
        .map(|line| {
            let meter = match &line.item {
                Item::Usage(rated) => rated.meter.to_string(),
                Item::Unpriced { meter, .. } => format!("{meter} without a price"),
                Item::Minimum => "minimum".to_owned(),
            };
            let sums =
                [line.sums.quantity.to_string(), line.sums.estimated_quantity.to_string(), line.sums.cents.to_string()];
            (meter, sums.join(" "))
        })
        .collect();
    let expected = [("tokens.input", "10 0 0.01"), ("images", "5 2 0.25"), ("images without a price", "4 0 0.00")];
    assert_eq!(lines, expected.map(|(meter, sums)| (meter.to_owned(), sums.to_owned())));
    assert_eq!((kept.calls_without_price, total(&kept)), (1, "0.26".to_owned()));
}

#[tokio::test]
async fn what_comes_late_is_on_one_later_invoice() {
    let world = World::new().await;
    world.reported("a", NOVEMBER_MS, 1000).await;
    world.at(DECEMBER_MS);
    let november = world.finalised(2026, 11).await;
    let billed = world.billing.draft("test", "acme", (2026, 11)).await;
    assert!(matches!(billed, Err(BillingError::Billed(id)) if id == november.id));
    assert!(world.billing.differences(NOVEMBER_MS, JANUARY_MS).await.unwrap().is_empty());

    world.reported("late", DECEMBER_MS - 1, 250).await;
    let difference = world.billing.differences(NOVEMBER_MS, DECEMBER_MS).await.unwrap().remove(0);
    assert_eq!((difference.entries, difference.invoiced), (1_250_000_000, 1_000_000_000), "{difference:?}");
    world.at(JANUARY_MS);
    // The later draft is made first.
    assert_eq!(adjusted(&world.draft(2027, 1).await), "0.25");
    assert_eq!(adjusted(&world.draft(2026, 12).await), "0.25");
    assert!(!world.billing.differences(NOVEMBER_MS, FEBRUARY_MS).await.unwrap().is_empty(), "it is on two drafts");
    assert_eq!(adjusted(&world.draft(2027, 1).await), "0.00");
    assert!(world.billing.differences(NOVEMBER_MS, FEBRUARY_MS).await.unwrap().is_empty());
    let december = world.finalised(2026, 12).await;
    assert_eq!((adjusted(&december), december.bill().adjustments[0].month.start_ms), ("0.25".into(), NOVEMBER_MS));

    // Later still.
    world.reported("later", NOVEMBER_MS + 1, 50).await;
    world.at(FEBRUARY_MS);
    assert_eq!(adjusted(&world.finalised(2027, 1).await), "0.05");
    assert_eq!(adjusted(&world.draft(2027, 2).await), "0.00");
    assert!(world.billing.differences(NOVEMBER_MS, FEBRUARY_MS).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_stands_on_a_draft_stays_there_though_a_later_invoice_was_closed_since() {
    let world = World::new().await;
    world.at(FEBRUARY_MS);
    world.finalised(2026, 11).await;
    world.reported("late", NOVEMBER_MS, 1000).await;
    assert_eq!(adjusted(&world.draft(2026, 12).await), "1.00");
    world.reported("later", NOVEMBER_MS + 1, 500).await;
    assert_eq!(adjusted(&world.finalised(2027, 1).await), "0.50", "beside what stands on the draft");
    assert_eq!(adjusted(&world.draft(2026, 12).await), "1.00");
    assert!(world.billing.differences(NOVEMBER_MS, FEBRUARY_MS).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_agreed_on_since_does_not_change_what_was_billed() {
    let world = World::new().await;
    world.plan(r#"{"events": {"image": "1"}}"#).await;
    world.tracked("a", NOVEMBER_MS, "image", 1_000_000).await;
    world.tracked("b", NOVEMBER_MS, "page", 1_000_000).await;
    world.at(DECEMBER_MS);
    assert_eq!(total(&world.finalised(2026, 11).await), "1.00");
    world.plan(r#"{"events": {"image": "5"}}"#).await;
    world.tracked("late", NOVEMBER_MS, "image", 1_000_000).await;
    assert_eq!(adjusted(&world.draft(2026, 12).await), "1.00", "by the price of then");
    world.plan(r#"{"events": {"image": "5", "page": "3"}}"#).await;
    assert_eq!(adjusted(&world.draft(2026, 12).await), "4.00", "what had no price has one now");
}

#[tokio::test]
async fn what_the_ledger_has_no_longer_is_not_taken_back() {
    let world = World::new().await;
    world.reported("a", NOVEMBER_MS, 1000).await;
    world.at(DECEMBER_MS);
    world.finalised(2026, 11).await;
    world.billing.ledger.purge("acme").await.unwrap();
    world.reported("b", DECEMBER_MS, 100).await;
    assert_eq!(total(&world.draft(2026, 12).await), "0.10");
    world.billing.forget_drafts("test", "acme").await.unwrap();
    assert_eq!(world.statuses().await, [("acme-2026-11".to_owned(), InvoiceStatus::Final)]);
}

#[tokio::test]
async fn steps_are_taken_in_order_and_told_once() {
    let world = World::new().await;
    world.reported("a", NOVEMBER_MS, 1000).await;
    let draft = world.draft(2026, 11).await;
    let step = async |id: &str, step| world.billing.step("test", id, step).await;
    assert!(matches!(step(&draft.id, Step::Finalise).await, Err(BillingError::NotOver(_))));
    assert!(matches!(step(&draft.id, Step::Pay).await, Err(BillingError::Transition(_))));
    assert!(matches!(step("other", Step::Pay).await, Err(BillingError::Accounts(AccountsError::NotFound { .. }))));
    let ahead = world.billing.draft("test", "acme", (2026, 12)).await;
    assert!(matches!(ahead, Err(BillingError::NotBegun)));
    world.at(DECEMBER_MS + 1);
    let final_one = step(&draft.id, Step::Finalise).await.unwrap();
    assert_eq!(final_one.invoice.state(), State::Finalised { finalised_at_ms: DECEMBER_MS + 1 });
    step(&draft.id, Step::Void).await.unwrap();
    let second = world.finalised(2026, 11).await;
    assert_eq!(
        (&*second.id, second.bill().number.as_str(), total(&second)),
        ("acme-2026-11-2", "acme-2026-11-2", "1.00".into())
    );
    step(&second.id, Step::Pay).await.unwrap();
    assert!(matches!(step(&second.id, Step::Void).await, Err(BillingError::Transition(_))));
    let statuses = [("acme-2026-11", InvoiceStatus::Void), ("acme-2026-11-2", InvoiceStatus::Paid)];
    assert_eq!(world.statuses().await, statuses.map(|(id, status)| (id.to_owned(), status)));
    let told = [
        "invoice.created acme-2026-11",
        "invoice.finalized acme-2026-11",
        "invoice.voided acme-2026-11",
        "invoice.created acme-2026-11-2",
        "invoice.finalized acme-2026-11-2",
        "invoice.paid acme-2026-11-2",
    ];
    assert_eq!(world.told().await, told);
    // As after an end of the service before it had told.
    world.billing.tell(&world.billing.kept(&second.id).await.unwrap()).await;
    assert_eq!(world.told().await.len(), told.len());
}

#[tokio::test]
async fn credits_are_used_once() {
    let world = World::new().await;
    world.plan(r#"{"credits": "1.50"}"#).await;
    world.reported("a", NOVEMBER_MS, 1000).await;
    world.reported("b", DECEMBER_MS, 1000).await;
    world.at(JANUARY_MS);
    let november = world.finalised(2026, 11).await;
    assert_eq!(total(&november), "0.00");
    assert_eq!(total(&world.draft(2026, 12).await), "0.50");
    world.billing.step("test", &november.id, Step::Void).await.unwrap();
    assert_eq!(total(&world.draft(2026, 12).await), "0.00", "what a void invoice has used is there again");
    world.finalised(2026, 12).await;
    assert_eq!(total(&world.draft(2026, 11).await), "0.50");
}

#[tokio::test]
async fn only_one_changes_a_tenants_invoices_at_a_time() {
    let world = World::new().await;
    world.reported("a", NOVEMBER_MS, 1000).await;
    let inner = async || world.billing.draft("test", "acme", (2026, 11)).await;
    let mut waiting = Box::pin(inner());
    let is_over = world.billing.alone("acme", async { Ok(tokio::time::timeout(3 * LOOK, &mut waiting).await.is_ok()) });
    assert!(!is_over.await.unwrap(), "it waits for its turn");
    assert!(waiting.await.is_ok(), "and has it then");
    assert!(world.billing.alone("other", inner()).await.is_ok(), "of another tenant");
    assert!(inner().await.is_ok());
}

#[tokio::test]
async fn the_scheduler_drafts_daily_and_closes_after_the_grace() {
    let world = World::with_closing(Closing::Automatic).await;
    world.reported("a", NOVEMBER_MS + 1, 1000).await;
    let mut rounds = Rounds::default();
    world.at(NOVEMBER_MS + DAY_MS);
    world.billing.round(&mut rounds).await;
    assert_eq!(world.statuses().await, [("acme-2026-11".to_owned(), InvoiceStatus::Draft)]);
    world.reported("b", NOVEMBER_MS + DAY_MS + 1, 1000).await;
    world.at(NOVEMBER_MS + DAY_MS + HOUR_MS);
    world.billing.round(&mut rounds).await;
    let november = async || world.billing.kept("acme-2026-11").await.unwrap();
    assert_eq!(november().await.version, 1, "once a day");
    world.at(NOVEMBER_MS + 2 * DAY_MS);
    world.billing.round(&mut rounds).await;
    assert_eq!((november().await.version, total(&november().await)), (2, "2.00".into()));

    world.at(DECEMBER_MS + DAY_MS - 1);
    // As after a restart.
    world.billing.round(&mut Rounds::default()).await;
    assert!(november().await.is_draft(), "the grace is not over");
    world.at(DECEMBER_MS + DAY_MS);
    world.reported("c", DECEMBER_MS - 1, 1000).await;
    world.billing.round(&mut rounds).await;
    assert_eq!((november().await.stands(), total(&november().await)), (true, "3.00".into()));
    assert_eq!(world.statuses().await.len(), 1, "there is none without usage");

    let changes = world.billing.accounts.revision().await.unwrap();
    world.billing.step("test", "acme-2026-11", Step::Void).await.unwrap();
    world.billing.round(&mut Rounds::default()).await;
    assert_eq!(world.statuses().await, [("acme-2026-11".to_owned(), InvoiceStatus::Void)], "a person decides");
    assert_eq!(world.billing.accounts.revision().await.unwrap(), changes + 1);
    assert_eq!(world.billing.metrics.failures.get(), 0);
}

#[tokio::test]
async fn who_cannot_be_billed_is_tried_again() {
    let world = World::new().await;
    world.plan(r#"{"minimun": "1"}"#).await;
    world.reported("a", NOVEMBER_MS + 1, 1000).await;
    world.at(NOVEMBER_MS + 2);
    let mut rounds = Rounds::default();
    world.billing.round(&mut rounds).await;
    assert_eq!((world.billing.metrics.failures.get(), world.statuses().await.len()), (1, 0));
    world.plan(r#"{"minimum": "5"}"#).await;
    world.billing.round(&mut rounds).await;
    assert_eq!(total(&world.billing.kept("acme-2026-11").await.unwrap()), "5.00");
}

#[tokio::test]
async fn a_minimum_is_owed_for_months_without_usage_too() {
    let world = World::with_closing(Closing::Automatic).await;
    world.plan(r#"{"minimum": "5"}"#).await;
    let tenant = |status| Tenant {
        display_name: None,
        tier: Some("free".to_owned()),
        status,
        billing_anchor_ms: None,
        time_zone: "UTC".to_owned(),
        metadata: Default::default(),
    };
    let by = By { actor: "test", at_ms: NOVEMBER_MS };
    for (name, status) in [("acme", TenantStatus::Active), ("gone", TenantStatus::Suspended)] {
        world.billing.accounts.create(&by, name, tenant(status)).await.unwrap();
    }
    let by = By { actor: "test", at_ms: NOVEMBER_MS + 1 };
    world.billing.accounts.create(&by, "later", tenant(TenantStatus::Active)).await.unwrap();
    world.at(DECEMBER_MS + DAY_MS);
    let mut rounds = Rounds::default();
    for _ in 0..2 {
        world.billing.round(&mut rounds).await;
        let expected = [
            ("acme-2026-11", InvoiceStatus::Final),
            ("acme-2026-12", InvoiceStatus::Draft),
            // It came when November had begun.
            ("later-2026-12", InvoiceStatus::Draft),
        ];
        assert_eq!(world.statuses().await, expected.map(|(id, status)| (id.to_owned(), status)));
        rounds = Rounds::default();
    }
    assert_eq!(total(&world.billing.kept("acme-2026-11").await.unwrap()), "5.00");
}

#[derive(Debug, Clone)]
enum Act {
    /// Tokens and images in a month, 0 to 2.
    Use(usize, u64, u64),
    Draft(usize),
    Finalise(usize),
    Void(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let month = || 0..3_usize;
    let act = prop_oneof![
        3 => (month(), 0..5000_u64, 0..4_u64).prop_map(|(month, tokens, images)| Act::Use(month, tokens, images)),
        1 => month().prop_map(Act::Draft),
        2 => month().prop_map(Act::Finalise),
        1 => month().prop_map(Act::Void),
    ];
    prop::collection::vec(act, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever was drafted, finalised and voided in whatever order: once all months are billed again, all that was
    /// used stands on invoices, once.
    #[test]
    fn all_invoices_together_are_all_usage(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            world.at(FEBRUARY_MS);
            const MONTHS: [(u64, (i16, i8)); 3] =
                [(NOVEMBER_MS, (2026, 11)), (DECEMBER_MS, (2026, 12)), (JANUARY_MS, (2027, 1))];
            let mut used = 0;
            for (at, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Use(month, input, images) => {
                        used += u128::from(input + images);
                        let tokens = TokenCounts { input, images, ..TokenCounts::default() };
                        let at_ms = MONTHS[month].0 + at as u64;
                        world.counted(&format!("{at}"), at_ms, "priced", tokens, UsageSource::Reported).await;
                    }
                    Act::Draft(month) => drop(world.billing.draft("test", "acme", MONTHS[month].1).await),
                    Act::Finalise(month) => {
                        if let Ok(draft) = world.billing.draft("test", "acme", MONTHS[month].1).await {
                            world.billing.step("test", &draft.id, Step::Finalise).await.unwrap();
                        }
                    }
                    Act::Void(month) => {
                        let all = kept::of_tenant(&world.billing.accounts, "acme").await.unwrap();
                        let is_it = |kept: &&Kept| kept.stands() && kept.bill().month.start_ms == MONTHS[month].0;
                        if let Some(kept) = all.iter().find(is_it) {
                            world.billing.step("test", &kept.id, Step::Void).await.unwrap();
                        }
                    }
                }
            }
            world.reported("of february", FEBRUARY_MS, 1).await;
            for (_, month) in MONTHS.into_iter().chain([(FEBRUARY_MS, (2027, 2))]) {
                match world.billing.draft("test", "acme", month).await {
                    Ok(_) | Err(BillingError::Billed(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            let all = kept::of_tenant(&world.billing.accounts, "acme").await.unwrap();
            let standing: Vec<_> = all.iter().filter(|kept| kept.stands() || kept.is_draft()).collect();
            let lines = standing.iter().flat_map(|kept| kept.bill().lines.iter());
            let adjustments = kept::adjustments(standing.iter().copied());
            let lines = lines.chain(adjustments.iter().map(|adjustment| &adjustment.line));
            let quantity = lines.map(|line| line.sums.quantity.parts()).sum::<i128>();
            prop_assert_eq!(quantity, (used as i128 + 1) * 1_000_000);
            prop_assert!(world.billing.differences(NOVEMBER_MS, FEBRUARY_MS + DAY_MS).await.unwrap().is_empty());
            let totals = standing.iter().map(|kept| kept.bill().totals.total).collect::<Vec<Cents>>();
            prop_assert!(totals.iter().all(|total| *total >= Cents::ZERO));
            Ok(())
        })?;
    }
}
