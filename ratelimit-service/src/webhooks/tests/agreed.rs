//! Endpoints that the accounts have: who is told what, and that changes hold.

use super::*;
use crate::accounts::{Record, WebhookEndpoint};

/// One of the accounts, changed at this time.
fn agreed(id: &str, tenant: Option<&str>, kinds: &[&str], url: &str, changed_at_ms: u64) -> Recipient {
    let value = WebhookEndpoint {
        tenant: tenant.map(str::to_owned),
        event_kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        url: Secret::new("https://hooks.example"),
        secret: Secret::new(SECRET),
        allow_private_addresses: false,
    };
    let record = Record { id: id.to_owned(), version: 1, created_at_ms: 0, updated_at_ms: changed_at_ms, value };
    let mut recipient = Recipient::agreed(&record).unwrap();
    // The receivers are on this machine, where no tenant's may be.
    recipient.settings = EndpointSettings::new(url, Secret::new(SECRET), Reach::Any).unwrap();
    recipient
}

async fn tell(webhooks: &Arc<Webhooks>, event: Event, tenant: &str) {
    let message = Message::new(event, Some(tenant), (webhooks.clock)(), &json!({ "tenant_id": tenant }));
    let putting = webhooks.clone();
    webhooks.database.write(move |transaction| putting.put(transaction, &message)).await.unwrap();
    webhooks.wake();
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect(what);
}

/// What came, by type and tenant, sorted.
fn told(receiver: &Receiver) -> Vec<String> {
    let of = |body: &Value| {
        format!("{} {}", body["type"].as_str().unwrap(), body["data"]["tenant_id"].as_str().unwrap_or_default())
    };
    let mut told: Vec<_> = receiver.got().iter().map(|got| of(&got.body)).collect();
    told.sort_unstable();
    told
}

#[tokio::test]
async fn each_is_told_what_it_may_know_and_asks_for() {
    let receivers = futures_util::future::join_all((0..5).map(|_| Receiver::start(&[]))).await;
    let url = |at: usize| receivers[at].1.as_str();
    let world = World::new();
    let webhooks = world.start(&[url(0)]).await;
    webhooks.agree(&[
        agreed("wh_all", None, &[], url(1), 1),
        agreed("wh_paid", None, &["invoice.paid"], url(2), 1),
        agreed("wh_acme", Some("acme"), &[], url(3), 1),
        agreed("wh_bolt", Some("bolt"), &["budget.threshold_reached", "invoice.paid"], url(4), 1),
    ]);
    assert_eq!(webhooks.agreed(), 4);
    let running = tokio::spawn(webhooks.clone().run());
    for event in [Event::BudgetThreshold, Event::LimitThreshold, Event::InvoiceCreated, Event::InvoicePaid] {
        for tenant in ["acme", "bolt"] {
            tell(&webhooks, event, tenant).await;
        }
    }
    let all = [
        "budget.threshold_reached acme",
        "budget.threshold_reached bolt",
        "invoice.created acme",
        "invoice.created bolt",
        "invoice.paid acme",
        "invoice.paid bolt",
        "limit.threshold_reached acme",
        "limit.threshold_reached bolt",
    ];
    let expected =
        [all.to_vec(), all.to_vec(), vec![all[4], all[5]], vec![all[0], all[4], all[6]], vec![all[1], all[5]]];
    let number: usize = expected.iter().map(Vec::len).sum();
    until("all arrive", || webhooks.metrics.delivered.get() == number as u64).await;
    for (at, expected) in expected.into_iter().enumerate() {
        assert_eq!(told(&receivers[at].0), expected, "receiver {at}");
    }
    running.abort();
}

#[tokio::test]
async fn a_change_holds_at_once_and_what_waits_for_one_that_is_gone_goes() {
    let (first, first_url) = Receiver::start(&[Act::Answer(500)]).await;
    let (second, second_url) = Receiver::start(&[]).await;
    let world = World::new();
    let webhooks = world.start(&[]).await;
    let running = tokio::spawn(webhooks.clone().run());
    tell(&webhooks, Event::InvoicePaid, "acme").await;
    webhooks.agree(&[agreed("wh_1", None, &[], &first_url, 1)]);
    tell(&webhooks, Event::InvoicePaid, "acme").await;
    until("it is tried, and waits", || webhooks.metrics.failed.get() == 1 && webhooks.metrics.waiting.get() == 1).await;
    webhooks.agree(&[agreed("wh_2", None, &[], &second_url, 1)]);
    until("what waits is void", || webhooks.metrics.void.get() == 1 && webhooks.metrics.waiting.get() == 0).await;
    tell(&webhooks, Event::InvoiceVoided, "acme").await;
    until("the second is told", || !second.got().is_empty()).await;
    world.later(3_600_000);
    webhooks.wake();
    // The same one at another place, and told less.
    webhooks.agree(&[agreed("wh_2", None, &["invoice.paid"], &first_url, 2)]);
    tell(&webhooks, Event::InvoiceVoided, "acme").await;
    tell(&webhooks, Event::InvoicePaid, "acme").await;
    until("it is told there", || webhooks.metrics.delivered.get() == 2).await;
    assert_eq!(told(&second), ["invoice.voided acme"]);
    assert_eq!(told(&first), ["invoice.paid acme", "invoice.paid acme"], "once in vain");
    running.abort();
}

#[tokio::test]
async fn one_that_is_disabled_is_called_again_once_its_record_has_changed() {
    let (receiver, url) = Receiver::start(&[Act::Answer(410)]).await;
    let world = World::new();
    let webhooks = world.start(&[]).await;
    let of = |changed_at_ms| [agreed("wh_1", None, &[], &url, changed_at_ms)];
    webhooks.agree(&of(BEGIN_MS));
    let running = tokio::spawn(webhooks.clone().run());
    tell(&webhooks, Event::InvoicePaid, "acme").await;
    until("it is disabled", || webhooks.metrics.disabled.get() == 1).await;
    assert_eq!(webhooks.try_out("wh_1").await.unwrap(), Tried::Disabled);
    running.abort();
    // A restart changes nothing.
    let webhooks = world.open(&[]).await;
    webhooks.agree(&of(BEGIN_MS));
    let running = tokio::spawn(webhooks.clone().run());
    until("it is known to be disabled", || webhooks.metrics.disabled.get() == 1).await;
    webhooks.agree(&of(BEGIN_MS + 1));
    until("it is enabled", || webhooks.metrics.disabled.get() == 0).await;
    assert!(matches!(webhooks.try_out("wh_1").await.unwrap(), Tried::Put(_)));
    until("it is told", || receiver.got().len() == 2).await;
    running.abort();
}

#[tokio::test]
async fn a_test_goes_to_one_endpoint_whatever_that_is_told_else() {
    let (receiver, url) = Receiver::start(&[]).await;
    let (other, other_url) = Receiver::start(&[]).await;
    let world = World::new();
    let webhooks = world.start(&[&other_url]).await;
    // It is made while somebody tries it out already.
    let trying = tokio::spawn({
        let webhooks = webhooks.clone();
        async move { webhooks.try_out("wh_1").await.unwrap() }
    });
    webhooks.agree(&[agreed("wh_1", Some("acme"), &["invoice.paid"], &url, 1)]);
    let Tried::Put(id) = trying.await.unwrap() else { panic!("it is known") };
    let running = tokio::spawn(webhooks.clone().run());
    until("it arrives", || webhooks.metrics.delivered.get() == 1).await;
    let got = receiver.got();
    assert_eq!((got[0].id.clone(), got[0].body["type"].as_str()), (id, Some("webhook.test")));
    assert_eq!((&got[0].body["data"], other.got().len()), (&json!({ "webhook_id": "wh_1" }), 0));
    assert_eq!(webhooks.try_out("wh_2").await.unwrap(), Tried::Unknown);
    running.abort();
}

#[tokio::test]
async fn tenants_that_hang_take_no_more_than_their_turns_and_hold_up_no_operator() {
    let (hanging, hanging_url) = Receiver::start(&[Act::Hang; MAX_TURNS + 1]).await;
    let (receiver, url) = Receiver::start(&[]).await;
    let world = World::new();
    let webhooks = world.start(&[&url]).await;
    let of = |number| agreed(&format!("wh_{number}"), Some("acme"), &[], &hanging_url, 1);
    webhooks.agree(&(0..=MAX_TURNS).map(of).collect::<Vec<_>>());
    let running = tokio::spawn(webhooks.clone().run());
    tell(&webhooks, Event::InvoicePaid, "acme").await;
    until("all turns are taken", || hanging.got().len() == MAX_TURNS && webhooks.turns.available_permits() == 0).await;
    tell(&webhooks, Event::InvoicePaid, "bolt").await;
    until("the operator's is told", || receiver.got().len() == 2).await;
    running.abort();
}
