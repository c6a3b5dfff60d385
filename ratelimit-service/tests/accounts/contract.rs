//! What every engine does.

use std::collections::BTreeSet;
use std::fmt::Debug;

use futures_util::future::join_all;
use tollgate::accounts::{
    Accounts, AccountsError, Action, ApiKey, Budget, Invoice, InvoiceStatus, Json, Kind, MAX_PAGE, MAX_WEBHOOKS_OF_ONE,
    Page, Plan, Record, Tenant, WebhookEndpoint,
};

use crate::engines::Engine;
use crate::records::{budget, by, invoice, key, make_tenants, new_key, overrides, plan, price, tenant, webhook};

/// Makes a record, and looks at it again.
async fn made<T: Kind + PartialEq + Debug>(accounts: &Accounts, id: &str, value: T) -> Record<T> {
    let made = accounts.create(&by(5), id, value.clone()).await.unwrap();
    assert_eq!(made, Record { id: id.to_owned(), version: 1, created_at_ms: 5, updated_at_ms: 5, value });
    assert_eq!(accounts.get(id).await.unwrap().as_ref(), Some(&made));
    made
}

#[tokio::test]
async fn records_of_every_kind_come_back_as_they_went_also_after_a_restart() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        let id = "globex – é'\"";
        let tenant = made(&accounts, id, tenant()).await;
        let plan = made(&accounts, "pro", plan()).await;
        let overrides = made(&accounts, id, overrides()).await;
        let budget = made(&accounts, "b1", budget(id)).await;
        let new_key = new_key(1);
        let key = made(&accounts, &new_key.id, key(Some(id), &new_key)).await;
        let webhook = made(&accounts, "w1", webhook(None)).await;
        let price = made(&accounts, "p1", price(Some(id))).await;
        let invoice = made(&accounts, "i1", invoice(id)).await;
        accounts.close().await;
        assert_eq!(accounts.get::<Tenant>(id).await, Err(AccountsError::Closed));
        let accounts = engine.open().await;
        assert_eq!(accounts.get(id).await.unwrap(), Some(tenant));
        assert_eq!(accounts.get("pro").await.unwrap(), Some(plan));
        assert_eq!(accounts.get(id).await.unwrap(), Some(overrides));
        assert_eq!(accounts.get("b1").await.unwrap(), Some(budget));
        assert_eq!(accounts.get(&new_key.id).await.unwrap(), Some(key));
        assert_eq!(accounts.get("w1").await.unwrap(), Some(webhook));
        assert_eq!(accounts.get("p1").await.unwrap(), Some(price));
        assert_eq!(accounts.get("i1").await.unwrap(), Some(invoice));
        assert_eq!(accounts.get::<Tenant>("nobody").await.unwrap(), None);
    }
}

#[tokio::test]
async fn changes_are_audited_in_order_and_without_secrets() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        let new_key = new_key(2);
        make_tenants(&accounts, &["acme"]).await;
        accounts.create(&by(2), &new_key.id, key(None, &new_key)).await.unwrap();
        let made = accounts.create(&by(3), "w", webhook(Some("acme"))).await.unwrap();
        let told_to = |kinds: &[&str]| {
            let event_kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
            WebhookEndpoint { event_kinds, ..made.value.clone() }
        };
        accounts.update(&by(4), "w", 1, told_to(&["alert"])).await.unwrap();
        accounts.delete::<WebhookEndpoint>(&by(5), "w", 2).await.unwrap();
        // What fails leaves nothing.
        accounts.create(&by(6), "acme", tenant()).await.unwrap_err();
        accounts.update(&by(6), "acme", 7, tenant()).await.unwrap_err();
        accounts.delete::<Tenant>(&by(6), "nobody", 1).await.unwrap_err();

        assert_eq!(accounts.revision().await.unwrap(), 5);
        let all = accounts.changes_since(0, 100).await.unwrap();
        let told: Vec<_> = all.iter().map(|change| (change.revision, change.at_ms, change.action)).collect();
        let made_then = [(1, 1, Action::Create), (2, 2, Action::Create), (3, 3, Action::Create)];
        assert_eq!(told, [&made_then[..], &[(4, 4, Action::Update), (5, 5, Action::Delete)]].concat());
        let kinds: Vec<_> = all.iter().map(|change| (change.kind.as_str(), change.tenant.as_deref())).collect();
        assert_eq!(kinds[..2], [("tenant", Some("acme")), ("api_key", None)]);
        assert!(all.iter().all(|change| change.actor == "alice"));
        let update = &all[3];
        let documents = [&update.was, &update.became].map(|document| document.as_ref().unwrap().text());
        assert!(documents[0].contains("budget.spent") && documents[1].contains("alert"), "{documents:?}");
        assert_eq!((&all[2].was, &all[4].was, &all[4].became), (&None, &update.became, &None));
        let everything = format!("{all:?}");
        for secret in ["hidden", new_key.text.expose(), &new_key.text.expose()[20..]] {
            assert!(!everything.contains(secret), "{everything}");
        }

        assert_eq!(accounts.changes_since(3, 1).await.unwrap(), all[3..4]);
        let newest_first: Vec<_> = all.iter().rev().cloned().collect();
        assert_eq!(accounts.changes_before(None, None, 100).await.unwrap(), newest_first);
        assert_eq!(accounts.changes_before(Some(5), None, 2).await.unwrap(), newest_first[1..3]);
        let of_acme = accounts.changes_before(None, Some("acme"), 100).await.unwrap();
        assert_eq!(of_acme.iter().map(|change| change.revision).collect::<Vec<_>>(), [5, 4, 3, 1]);
    }
}

#[tokio::test]
async fn of_changes_to_one_version_at_once_one_is_made() {
    for engine in Engine::all().await {
        let (one, other) = (engine.open().await, engine.open().await);
        make_tenants(&one, &["acme"]).await;
        let changes = (0..20_u64).map(|number| {
            let accounts = if number % 2 == 0 { one.clone() } else { other.clone() };
            let renamed = Tenant { display_name: Some(number.to_string()), ..tenant() };
            tokio::spawn(async move { accounts.update(&by(number), "acme", 1, renamed).await })
        });
        let changed: Vec<_> = join_all(changes).await.into_iter().map(Result::unwrap).collect();
        let (made, refused): (Vec<_>, Vec<_>) = changed.into_iter().partition(Result::is_ok);
        let conflict = AccountsError::Conflict { kind: "tenant", id: "acme".to_owned(), expected: 1, current: 2 };
        assert_eq!(refused, vec![Err(conflict); 19]);
        assert_eq!(one.get("acme").await.unwrap(), Some(made.into_iter().next().unwrap().unwrap()));
        assert_eq!(other.revision().await.unwrap(), 2);
    }
}

#[tokio::test]
async fn revisions_have_no_gaps_and_are_in_the_order_in_which_changes_are_seen() {
    for engine in Engine::all().await {
        let (one, other) = (engine.open().await, engine.open().await);
        let writes = (0..30_u64).map(|number| {
            let accounts = if number % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move { accounts.create(&by(number), &format!("t{number}"), tenant()).await.unwrap() })
        });
        let written = tokio::spawn(join_all(writes));
        // Who follows sees each once.
        let (mut followed, mut revision) = (Vec::new(), 0);
        while followed.len() < 30 {
            for change in other.changes_since(revision, 4).await.unwrap() {
                assert_eq!(change.revision, revision + 1);
                revision = change.revision;
                followed.push(change.id);
            }
        }
        written.await.unwrap();
        assert_eq!(followed.iter().collect::<BTreeSet<_>>().len(), 30);
        assert_eq!(one.revision().await.unwrap(), 30);
    }
}

#[tokio::test]
async fn who_waits_is_told_of_a_change_that_was_or_comes() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        make_tenants(&accounts, &["acme"]).await;
        assert_eq!(accounts.wait_for_change(0).await, 1, "it was made already");
        let waiting = tokio::spawn({
            let accounts = accounts.clone();
            async move { accounts.wait_for_change(1).await }
        });
        make_tenants(&accounts, &["globex"]).await;
        assert_eq!(waiting.await.unwrap(), 2);
        accounts.close().await;
        let again = engine.open().await;
        assert_eq!(again.wait_for_change(1).await, 2, "a restart looks what it is by now");
    }
}

#[tokio::test]
async fn nobody_has_more_webhooks_than_one_may() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        make_tenants(&accounts, &["acme", "globex"]).await;
        let acme = accounts.for_tenant("acme");
        let makes = (0..MAX_WEBHOOKS_OF_ONE + 4).map(|number| {
            let acme = acme.clone();
            async move { acme.create(&by(1), &format!("w{number}"), webhook(Some("acme"))).await }
        });
        let (made, refused): (Vec<_>, Vec<_>) = join_all(makes).await.into_iter().partition(Result::is_ok);
        let too_many = AccountsError::TooMany { kind: "webhook_endpoint", most: MAX_WEBHOOKS_OF_ONE };
        assert_eq!((made.len(), refused), (MAX_WEBHOOKS_OF_ONE, vec![Err(too_many); 4]));
        for (id, tenant) in [("of-globex", Some("globex")), ("of-the-operator", None)] {
            accounts.create(&by(2), id, webhook(tenant)).await.unwrap();
        }
        let one = made.into_iter().next().unwrap().unwrap();
        accounts.delete::<WebhookEndpoint>(&by(3), &one.id, 1).await.unwrap();
        acme.create(&by(4), "again", webhook(Some("acme"))).await.unwrap();
    }
}

#[tokio::test]
async fn a_plan_stays_while_a_tenant_is_on_it() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        accounts.create(&by(1), "gold", plan()).await.unwrap();
        let on = |tier: Option<&str>| Tenant { tier: tier.map(str::to_owned), ..tenant() };
        accounts.create(&by(2), "acme", on(Some("gold"))).await.unwrap();
        let in_use = AccountsError::InUse { kind: "plan", id: "gold".to_owned() };
        assert_eq!(accounts.delete::<Plan>(&by(3), "gold", 1).await, Err(in_use));
        accounts.update(&by(4), "acme", 1, on(Some("other"))).await.unwrap();
        accounts.delete::<Plan>(&by(5), "gold", 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_is_there_before_what_belongs_to_it_and_goes_after_it() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        let no_tenant = Err(AccountsError::NoTenant("acme".to_owned()));
        assert_eq!(accounts.create(&by(1), "b", budget("acme")).await.map(drop), no_tenant);
        let key_of = new_key(3);
        let created = accounts.create(&by(1), &key_of.id, key(Some("acme"), &key_of)).await;
        assert_eq!(created.map(drop), no_tenant);
        make_tenants(&accounts, &["acme"]).await;
        accounts.create(&by(2), &key_of.id, key(Some("acme"), &key_of)).await.unwrap();
        accounts.note_use(&key_of.id, 3).await.unwrap();
        accounts.create(&by(2), "i", invoice("acme")).await.unwrap();
        let in_use = AccountsError::InUse { kind: "tenant", id: "acme".to_owned() };
        assert_eq!(accounts.delete::<Tenant>(&by(3), "acme", 1).await, Err(in_use));
        accounts.delete::<ApiKey>(&by(3), &key_of.id, 1).await.unwrap();
        accounts.delete::<Tenant>(&by(4), "acme", 1).await.unwrap();
        assert!(accounts.get::<Invoice>("i").await.unwrap().is_some(), "bills outlive their tenant");
    }
}

#[tokio::test]
async fn all_are_more_than_a_page() {
    let engine = Engine::sqlite();
    let accounts = engine.open().await;
    let ids: Vec<_> = (0..=MAX_PAGE).map(|number| format!("t{number:05}")).collect();
    for id in &ids {
        make_tenants(&accounts, &[id]).await;
    }
    let found = |records: Vec<Record<Tenant>>| records.into_iter().map(|record| record.id).collect::<Vec<_>>();
    assert_eq!(found(accounts.list(&Page::default()).await.unwrap()), ids[..MAX_PAGE]);
    let beyond = Page { limit: usize::MAX, ..Page::default() };
    assert_eq!(accounts.list::<Tenant>(&beyond).await.unwrap().len(), MAX_PAGE);
    assert_eq!(found(accounts.all().await.unwrap()), ids);
}

#[tokio::test]
async fn nothing_is_called_by_a_text_with_a_nul() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        make_tenants(&accounts, &["a", "b"]).await;
        accounts.create(&by(1), "b1", budget("a")).await.unwrap();
        assert_eq!(accounts.get::<Tenant>("a\0").await, Ok(None));
        let missing = accounts.delete::<Tenant>(&by(2), "a\0", 1).await;
        assert_eq!(missing, Err(AccountsError::NotFound { kind: "tenant", id: "a\0".to_owned() }));
        let of = |tenant, after| Page { tenant, after, limit: 0 };
        assert_eq!(accounts.list::<Budget>(&of(Some("a\0"), None)).await, Ok(Vec::new()));
        let after: Vec<_> = accounts.list::<Tenant>(&of(None, Some("a\0b"))).await.unwrap();
        assert_eq!(after.iter().map(|tenant| tenant.id.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(accounts.changes_before(None, Some("a\0"), 9).await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn what_may_not_be_is_refused_with_its_field() {
    let engine = Engine::sqlite();
    let accounts = engine.open().await;
    make_tenants(&accounts, &["acme"]).await;
    let refused = async |field: &str, created: Result<(), AccountsError>| match created {
        Err(AccountsError::Invalid(invalid)) => assert_eq!(invalid.field, field, "{invalid}"),
        other => panic!("{field}: {other:?}"),
    };
    let long = "x".repeat(257);
    let created = accounts.create(&by(1), &long, tenant()).await.map(drop);
    refused("id", created).await;
    let nul = accounts.create(&by(1), "a\0b", tenant()).await.map(drop);
    refused("id", nul).await;
    let zone = Tenant { time_zone: "Mars; DROP".to_owned(), ..tenant() };
    refused("time_zone", accounts.create(&by(1), "t", zone).await.map(drop)).await;
    let metadata = [("k".to_owned(), Json::of(&"x".repeat(20_000)).unwrap())].into();
    refused("metadata", accounts.create(&by(1), "t", Tenant { metadata, ..tenant() }).await.map(drop)).await;
    for (field, budget) in [
        ("amount_nanousd", Budget { amount_nanousd: 0, ..budget("acme") }),
        ("amount_nanousd", Budget { amount_nanousd: u64::MAX, ..budget("acme") }),
        ("thresholds", Budget { thresholds: vec![100, 50], ..budget("acme") }),
        ("thresholds", Budget { thresholds: vec![0], ..budget("acme") }),
        ("tenant", Budget { tenant: String::new(), ..budget("acme") }),
    ] {
        refused(field, accounts.create(&by(1), "b", budget).await.map(drop)).await;
    }
    let mut moved = accounts.create(&by(1), "b", budget("acme")).await.unwrap().value;
    make_tenants(&accounts, &["globex"]).await;
    moved.tenant = "globex".to_owned();
    refused("tenant", accounts.update(&by(2), "b", 1, moved).await.map(drop)).await;
    let dear = Plan { markup_ppm: u64::MAX, ..plan() };
    refused("markup_ppm", accounts.create(&by(1), "p", dear).await.map(drop)).await;
}

#[tokio::test]
async fn an_invoice_that_is_final_stays_and_there_is_one_a_period() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        let draft = accounts.create(&by(1), "i1", invoice("acme")).await.unwrap().value;
        let exists = accounts.create(&by(1), "i2", invoice("acme")).await.map(drop);
        assert_eq!(exists, Err(AccountsError::Exists { kind: "invoice", id: "i2".to_owned() }));
        accounts.create(&by(1), "i3", Invoice { kind: "credit".to_owned(), ..invoice("acme") }).await.unwrap();
        accounts.create(&by(1), "i4", invoice("globex")).await.unwrap();

        let again = Invoice { content: Json::of(&2).unwrap(), ..draft };
        accounts.update(&by(2), "i1", 1, again.clone()).await.unwrap();
        let owed = Invoice { status: InvoiceStatus::Final, finalised_at_ms: Some(3), ..again.clone() };
        accounts.update(&by(3), "i1", 2, owed.clone()).await.unwrap();
        let paid = Invoice { status: InvoiceStatus::Paid, paid_at_ms: Some(4), ..owed.clone() };
        for refused in [
            again,
            owed.clone(),
            Invoice { content: Json::of(&3).unwrap(), ..paid.clone() },
            Invoice { finalised_at_ms: Some(9), ..paid.clone() },
            Invoice { end_day: "2027-01-01".parse().unwrap(), ..paid.clone() },
            Invoice { paid_at_ms: None, ..paid.clone() },
        ] {
            let updated = accounts.update(&by(4), "i1", 3, refused).await;
            assert!(matches!(updated, Err(AccountsError::Invalid(_))), "{updated:?}");
        }
        let deleted = accounts.delete::<Invoice>(&by(4), "i1", 3).await;
        assert!(matches!(deleted, Err(AccountsError::Invalid(_))), "{deleted:?}");

        let void = Invoice { status: InvoiceStatus::Void, voided_at_ms: Some(5), ..owed };
        accounts.update(&by(5), "i1", 3, void).await.unwrap();
        accounts.create(&by(6), "i2", invoice("acme")).await.unwrap();
        let page = Page { tenant: Some("acme"), ..Page::default() };
        let listed = accounts.list::<Invoice>(&page).await.unwrap();
        assert_eq!(listed.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["i1", "i2", "i3"]);
    }
}
