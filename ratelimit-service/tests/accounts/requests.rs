//! Keys, requests that come again, and who leads: for every engine.

use futures_util::future::join_all;
use tollgate::accounts::{
    AccountsError, Answer, ApiKey, Begun, IDEMPOTENCY_KEPT_MS, KeyRefused, TAKEN_OVER_AFTER_MS, USE_NOTED_EVERY_MS,
};

use crate::engines::Engine;
use crate::records::{by, key, make_tenants, new_key};

#[tokio::test]
async fn a_key_is_known_until_it_is_revoked() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        make_tenants(&accounts, &["acme"]).await;
        let (known, unknown) = (new_key(1), new_key(2));
        let record = accounts.create(&by(1), &known.id, key(Some("acme"), &known)).await.unwrap();
        let text = known.text.expose();
        assert_eq!(accounts.authenticate(text, 5).await, Ok(Ok(record.clone())));
        for (text, refused) in [
            (unknown.text.expose(), KeyRefused::Unknown),
            (&text[..62], KeyRefused::NoKey),
            (&text.replace('B', "C"), KeyRefused::Mistyped),
            ("", KeyRefused::NoKey),
        ] {
            assert_eq!(accounts.authenticate(text, 5).await, Ok(Err(refused)), "{text}");
        }
        let revoked = ApiKey { revoked_at_ms: Some(6), ..record.value.clone() };
        accounts.update(&by(6), &known.id, 1, revoked).await.unwrap();
        assert_eq!(accounts.authenticate(text, 7).await, Ok(Err(KeyRefused::Revoked)));
        let restored = accounts.update(&by(8), &known.id, 2, record.value).await;
        assert!(matches!(restored, Err(AccountsError::Invalid(_))), "{restored:?}");
    }
}

#[tokio::test]
async fn a_keys_use_is_noted_at_most_once_a_minute_and_changes_nothing_else() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        let new_key = new_key(1);
        let record = accounts.create(&by(1), &new_key.id, key(None, &new_key)).await.unwrap();
        let used = async || accounts.last_uses(&new_key.id, &new_key.id).await.unwrap();
        assert_eq!(used().await, []);
        let first = 1_000_000;
        for (now_ms, noted) in [
            (first, first),
            (first + USE_NOTED_EVERY_MS - 1, first),
            (first - 500, first),
            (first + USE_NOTED_EVERY_MS, first + USE_NOTED_EVERY_MS),
        ] {
            accounts.note_use(&new_key.id, now_ms).await.unwrap();
            assert_eq!(used().await, [(new_key.id.clone(), noted)]);
        }
        accounts.note_use("tg_nobody", first).await.unwrap();
        assert_eq!(accounts.last_uses("", "~").await.unwrap().len(), 1);
        assert_eq!(accounts.get(&new_key.id).await.unwrap(), Some(record));
        assert_eq!(accounts.revision().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_request_is_done_once_and_answered_the_same() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        let begin = async |actor, hash, now_ms| accounts.begin_request(actor, "k", hash, now_ms).await.unwrap();
        assert_eq!(begin("alice", "h1", 10).await, Begun::New);
        assert_eq!(begin("alice", "h1", 11).await, Begun::UnderWay);
        assert_eq!(begin("alice", "h2", 11).await, Begun::Other);
        assert_eq!(begin("bob", "h2", 11).await, Begun::New, "keys are their actor's");
        let answer = Answer { status: 201, body: "{\"é\":1}".to_owned() };
        accounts.complete_request("alice", "k", &answer).await.unwrap();
        let later = Answer { status: 500, body: String::new() };
        accounts.complete_request("alice", "k", &later).await.unwrap();
        assert_eq!(begin("alice", "h1", 12).await, Begun::Done(answer.clone()), "the first answer stays");
        assert_eq!(begin("alice", "h2", 12).await, Begun::Other);

        accounts.abandon_request("alice", "k").await.unwrap();
        assert_eq!(begin("alice", "h1", 13).await, Begun::Done(answer), "what is done is not forgotten");
        accounts.abandon_request("bob", "k").await.unwrap();
        assert_eq!(begin("bob", "h3", 13).await, Begun::New);
        // Who began it is gone.
        assert_eq!(begin("bob", "h3", 13 + TAKEN_OVER_AFTER_MS - 1).await, Begun::UnderWay);
        assert_eq!(begin("bob", "h4", 13 + TAKEN_OVER_AFTER_MS).await, Begun::Other);
        assert_eq!(begin("bob", "h3", 13 + TAKEN_OVER_AFTER_MS).await, Begun::New);
        // A day after it was begun, it is.
        assert_eq!(begin("alice", "h2", 9 + IDEMPOTENCY_KEPT_MS).await, Begun::Other);
        assert_eq!(begin("alice", "h2", 10 + IDEMPOTENCY_KEPT_MS).await, Begun::New);
    }
}

#[tokio::test]
async fn of_requests_at_once_one_is_new() {
    for engine in Engine::all().await {
        let (one, other) = (engine.open().await, engine.open().await);
        let all = (0..16).map(|number| {
            let accounts = if number % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move { accounts.begin_request("alice", "k", "h", 10).await.unwrap() })
        });
        let begun: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(begun.iter().filter(|begun| **begun == Begun::New).count(), 1, "{begun:?}");
        assert_eq!(begun.iter().filter(|begun| **begun == Begun::UnderWay).count(), 15, "{begun:?}");
    }
}

#[tokio::test]
async fn one_leads_at_a_time() {
    for engine in Engine::all().await {
        let (one, other) = (engine.open().await, engine.open().await);
        let all = (0..16).map(|number| {
            let accounts = if number % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move { accounts.try_lead("job", &number.to_string(), 100, 50).await.unwrap() })
        });
        let lead: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(lead.iter().filter(|leads| **leads).count(), 1, "{lead:?}");
        let leader = lead.iter().position(|leads| *leads).unwrap().to_string();

        assert!(one.try_lead("other job", "x", 100, 50).await.unwrap());
        assert!(other.try_lead("job", &leader, 140, 50).await.unwrap(), "it goes on");
        assert!(!one.try_lead("job", "x", 189, 50).await.unwrap());
        assert!(one.try_lead("job", "x", 190, u64::MAX).await.unwrap(), "its time is over");
        assert!(!other.try_lead("job", &leader, 1 << 50, 50).await.unwrap());
        other.resign("job", &leader).await.unwrap();
        assert!(!other.try_lead("job", &leader, 1 << 50, 50).await.unwrap(), "only who leads can resign");
        one.resign("job", "x").await.unwrap();
        assert!(other.try_lead("job", &leader, 200, 50).await.unwrap());
    }
}
