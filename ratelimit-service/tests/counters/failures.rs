//! What happens to Redis: the policy answers, is counted, and Redis decides again when it can, without a restart.

use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tollgate::counters::{ClientCertificate, Counters, OnFailure, Tls};
use tollgate_domain::{Outcome, Settled, Take};
use tollgate_e2e::harness::process::End;
use tollgate_e2e::harness::redis::{MASTER_NAME, Redis, Sentinel};
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

use crate::calls::Caller;
use crate::engines::{Hand, redis};
use crate::guarded::{Replica, local};

#[tokio::test]
async fn while_redis_stands_still_the_policy_decides_and_afterwards_redis() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    for (name, on_failure) in [("allow", OnFailure::Allow), ("deny", OnFailure::Deny), ("local", local(2))] {
        let replica = Replica::new(&redis.url(), on_failure);
        // An even share: two calls of four.
        let caller = Caller::new(name, 40, 100);
        replica.connected(&caller).await;
        redis.process().unwrap().freeze().unwrap();
        let before = replica.failures(name);
        let mut outcomes = Vec::new();
        for id in 0..5 {
            // A server that stands still never answers: the deadline and the breaker do.
            let answer = timeout(PATIENCE, caller.hold(&replica.counters, &id.to_string())).await;
            outcomes.push(answer.unwrap().unwrap().outcome == Outcome::Admitted);
        }
        let expected = match name {
            "allow" => [true; 5],
            "deny" => [false; 5],
            _ => [true, true, false, false, false],
        };
        // A question is answered by what knows the answer, and is no decision.
        assert_eq!(caller.standing(&replica.counters).await.is_ok(), name == "local");
        assert_eq!((outcomes.as_slice(), replica.failures(name) - before), (expected.as_slice(), 5), "{name}");
        assert_eq!(replica.metric("tollgate_counters_up"), 0);
        redis.process().unwrap().thaw().unwrap();
        replica.connected(&caller).await;
        let settled = replica.failures(name);
        assert_eq!(caller.hold(&replica.counters, "again").await.unwrap().counters.len(), 2);
        assert_eq!(replica.failures(name), settled, "{name}");
    }
}

#[tokio::test]
async fn what_was_denied_without_redis_holds_nothing_there() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), OnFailure::Deny), Caller::new("acme", 1000, 100));
    replica.connected(&caller).await;
    redis.process().unwrap().freeze().unwrap();
    assert_eq!(caller.hold(&replica.counters, "id").await.unwrap().outcome, Outcome::Denied);
    // Now it reads what it was asked.
    redis.process().unwrap().thaw().unwrap();
    replica.connected(&caller).await;
    replica.stands(&caller, &[(0, 0), (0, 0)]).await;
    eventually("the release", PATIENCE, async || {
        ensure!(replica.metric("tollgate_counters_settlements_waiting") == 0);
        ensure!(replica.metric("tollgate_counters_settlements_retried_total") == 1);
        Ok(())
    })
    .await
    .unwrap();
    replica.stands(&caller, &[(0, 0), (0, 0)]).await;
}

#[tokio::test]
async fn counters_are_brought_up_to_a_ledger_once_no_settlement_waits() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), OnFailure::Allow), Caller::new("acme", 10_000, 100));
    replica.connected(&caller).await;
    redis.process().unwrap().freeze().unwrap();
    for id in 0..20 {
        caller.settle(&replica.counters, &id.to_string()).await.unwrap_err();
    }
    assert!(replica.metric("tollgate_counters_settlements_waiting") > 0);
    redis.process().unwrap().thaw().unwrap();
    // The ledger has all of them.
    eventually("the ledger's sum", PATIENCE, async || Ok(caller.restore(&replica.counters, 200).await?)).await.unwrap();
    assert_eq!(replica.metric("tollgate_counters_settlements_waiting"), 0);
    replica.stands(&caller, &[(200, 0), (0, 0)]).await;
}

#[tokio::test]
async fn a_settlement_waits_for_redis_and_counts_once() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::builder().append_only().start(dir.path()).await.unwrap();
    redis.set_config("appendfsync", "always").await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), OnFailure::Allow), Caller::new("acme", 1_000, 100));
    replica.connected(&caller).await;
    assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().outcome, Outcome::Admitted);
    assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().outcome, Outcome::Admitted);
    replica.stands(&caller, &[(0, 10), (0, 1)]).await;
    redis.end(End::Kill).await.unwrap();
    caller.settle(&replica.counters, "a").await.unwrap_err();
    caller.settle(&replica.counters, "a").await.unwrap_err();
    redis.start_again().await.unwrap();
    replica.stands(&caller, &[(10, 0), (0, 0)]).await;
    assert_eq!(caller.settle(&replica.counters, "a").await.unwrap(), Settled::Repeated);
    eventually("nothing to wait", PATIENCE, async || {
        ensure!(replica.metric("tollgate_counters_settlements_waiting") == 0);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(replica.metric("tollgate_counters_settlements_dropped_total"), 0);
}

#[tokio::test]
async fn what_was_reserved_locally_is_settled_there_and_counts_in_redis() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), local(1)), Caller::new("acme", 1_000, 1));
    replica.connected(&caller).await;
    redis.end(End::Kill).await.unwrap();
    let outcome = async |id| caller.hold(&replica.counters, id).await.unwrap().outcome;
    assert_eq!((outcome("a").await, outcome("b").await), (Outcome::Admitted, Outcome::Denied));
    caller.settle(&replica.counters, "a").await.unwrap_err();
    assert_eq!(outcome("c").await, Outcome::Admitted, "the slot is free");
    redis.start_again().await.unwrap();
    replica.stands(&caller, &[(10, 0), (0, 0)]).await;
}

#[tokio::test]
async fn lost_scripts_and_lost_connections_are_not_noticed() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), OnFailure::Deny), Caller::new("acme", 1_000, 100));
    replica.connected(&caller).await;
    let before = replica.failures("deny");
    redis.flush_scripts().await.unwrap();
    for _ in 0..2 {
        assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().outcome, Outcome::Admitted);
    }
    replica.stands(&caller, &[(0, 10), (0, 1)]).await;
    assert_eq!(replica.failures("deny"), before);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    replica.connected(&caller).await;
    assert_eq!(caller.hold(&replica.counters, "b").await.unwrap().counters.len(), 2);
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_to_the_policy_until_it_is_none() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), OnFailure::Deny), Caller::new("acme", 1_000, 100));
    replica.connected(&caller).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().outcome, Outcome::Denied);
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    eventually("Redis's word", PATIENCE, async || {
        let verdict = caller.hold(&replica.counters, "b").await?;
        ensure!(verdict.outcome == Outcome::Admitted, "the policy decides");
        Ok(())
    })
    .await
    .unwrap();
}

/// What a client needs to speak TLS with it.
fn tls(redis: &Redis) -> Tls {
    let read = |file: &Path| std::fs::read(file).unwrap();
    let client = redis.client_certificate();
    let client = client.map(|(certificate, key)| ClientCertificate { certificate: read(certificate), key: read(key) });
    Tls { ca: redis.authority().map(read), client }
}

#[tokio::test]
async fn redis_may_come_later_and_asks_for_a_password_over_tls() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::builder().user("limiter", "s3cret").tls().start(dir.path()).await.unwrap();
    let (url, tls) = (redis.url(), tls(&redis));
    redis.end(End::Kill).await.unwrap();
    let replica = Replica::over_tls(&url, &tls, OnFailure::Allow);
    let caller = Caller::new("acme", 1_000, 100);
    assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().counters, []);
    redis.start_again().await.unwrap();
    replica.connected(&caller).await;
    let stranger = Replica::over_tls(&url.replace("s3cret", "guess"), &tls, OnFailure::Deny);
    assert_eq!(caller.hold(&stranger.counters, "b").await.unwrap().outcome, Outcome::Denied);
    let distrustful = Replica::new(&url, OnFailure::Deny);
    assert_eq!(caller.hold(&distrustful.counters, "b").await.unwrap().outcome, Outcome::Denied);
}

#[tokio::test]
async fn redis_may_ask_for_a_certificate() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::builder().mutual_tls().start(dir.path()).await.unwrap();
    let (tls, caller) = (tls(&redis), Caller::new("acme", 1_000, 100));
    let replica = Replica::over_tls(&redis.url(), &tls, OnFailure::Deny);
    replica.connected(&caller).await;
    let stranger = Replica::over_tls(&redis.url(), &Tls { client: None, ..tls }, OnFailure::Deny);
    assert_eq!(caller.hold(&stranger.counters, "a").await.unwrap().outcome, Outcome::Denied);
}

#[tokio::test]
async fn a_sentinel_may_know_another_user_than_redis() {
    let dir = RunDir::create().unwrap();
    let group = Sentinel::start_for_user(dir.path(), "watcher", "s3cret").await.unwrap();
    let url = format!("redis+sentinel://{}/{MASTER_NAME}", group.sentinel.addr());
    let (stranger, caller) = (Replica::new(&url, OnFailure::Deny), Caller::new("acme", 1_000, 100));
    let known = format!("{url}?sentinel_user=watcher&sentinel_password=s3cret");
    Replica::new(&known, OnFailure::Deny).connected(&caller).await;
    assert_eq!(caller.hold(&stranger.counters, "a").await.unwrap().outcome, Outcome::Denied);
}

#[tokio::test]
async fn the_master_is_the_one_that_the_sentinel_names() {
    let dir = RunDir::create().unwrap();
    let mut group = Sentinel::start(dir.path()).await.unwrap();
    let url = format!("redis+sentinel://{}/{MASTER_NAME}", group.sentinel.addr());
    let (replica, caller) = (Replica::new(&url, OnFailure::Deny), Caller::new("acme", 1_000, 100));
    replica.connected(&caller).await;
    caller.take(&replica.counters, 10, Take::ForGood).await.unwrap();
    group.master.end(End::Kill).await.unwrap();
    assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().outcome, Outcome::Denied);
    group.wait_for_failover().await.unwrap();
    replica.connected(&caller).await;
    eventually("Redis's word", PATIENCE, async || {
        let verdict = caller.hold(&replica.counters, "b").await?;
        ensure!(verdict.outcome == Outcome::Admitted, "the policy decides");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_redis_refuses_for_good_does_not_wait() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), OnFailure::Deny), Caller::new("acme", 1_000, 100));
    replica.connected(&caller).await;
    redis.cli(&["SET", "tollgate:{acme}:counters", "no hash"]).await.unwrap();
    let error = caller.settle(&replica.counters, "a").await.unwrap_err().to_string();
    assert!(error.contains("given up"), "{error}");
    let metric = |name: &str| replica.metric(&format!("tollgate_counters_settlements_{name}"));
    assert_eq!((metric("dropped_total"), metric("waiting")), (1, 0));
}

#[tokio::test]
async fn what_ran_out_is_found_past_what_fails_and_once_the_index_takes_it() {
    let dir = RunDir::create().unwrap();
    let server = Redis::start(dir.path()).await.unwrap();
    let hand = Hand::new();
    let counters = redis(&server.url(), "tollgate", &hand);
    let callers = ["a", "b", "c"].map(|tenant| Caller::new(tenant, 1_000, 100));
    callers[0].hold(&counters, "id").await.unwrap();
    // All that is indexed by now, then none any more, as if a part of a cluster was lost.
    let shards: Vec<_> = server.cli(&["KEYS", "tollgate:due:*"]).await.unwrap().lines().map(str::to_owned).collect();
    let indexed = |shard: usize| format!("tollgate:due:{{{shard}}}");
    let lost: Vec<_> = (0..16).map(indexed).filter(|shard| !shards.contains(shard)).collect();
    for shard in &lost {
        server.cli(&["SET", shard, "no sorted set"]).await.unwrap();
    }
    for caller in &callers[1..] {
        assert_eq!(caller.hold(&counters, "id").await.unwrap().outcome, Outcome::Admitted);
    }
    hand.step(600_001);
    let tenants = async || {
        let found = counters.unposted().await.unwrap();
        found.into_iter().map(|(tenant, _)| tenant).collect::<Vec<_>>()
    };
    assert_eq!(tenants().await, ["a"]);
    for shard in &lost {
        server.cli(&["DEL", shard]).await.unwrap();
    }
    let mut found = tenants().await;
    found.sort();
    assert_eq!(found, ["b", "c"]);
}

#[tokio::test]
async fn a_redis_that_is_slow_but_answers_in_time_decides() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), OnFailure::Deny), Caller::new("acme", 1_000, 100));
    replica.connected(&caller).await;
    let before = replica.failures("deny");
    for id in 0..10 {
        let id = id.to_string();
        // While it sleeps it reads nothing.
        let (slept, verdict) =
            tokio::join!(redis.cli(&["DEBUG", "SLEEP", "0.05"]), caller.hold(&replica.counters, &id));
        assert_eq!((slept.unwrap().as_str(), verdict.unwrap().outcome), ("OK", Outcome::Admitted));
    }
    assert_eq!(replica.failures("deny"), before);
    replica.stands(&caller, &[(0, 100), (0, 10)]).await;
}

#[tokio::test]
async fn a_call_whose_connection_dies_takes_at_most_once() {
    const CALLS: u64 = 60;
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::builder().append_only().start(dir.path()).await.unwrap();
    redis.set_config("appendfsync", "always").await.unwrap();
    let replica = Arc::new(Replica::new(&redis.url(), OnFailure::Allow));
    let spending = Arc::new(Caller::new("spending", 1_000_000, 1_000));
    let holding = Arc::new(Caller::new("holding", 1_000_000, 1_000));
    replica.connected(&spending).await;
    let calls = || {
        let mut calls = JoinSet::new();
        for id in 0..CALLS {
            let (replica, spending, holding) = (replica.clone(), spending.clone(), holding.clone());
            calls.spawn(async move {
                let spent = spending.take(&replica.counters, 10, Take::ForGood).await.unwrap();
                let held = holding.hold(&replica.counters, &id.to_string()).await.unwrap();
                // The policy says nothing of the counters.
                [spent, held].map(|verdict| u64::from(!verdict.counters.is_empty()))
            });
        }
        calls
    };
    let sum = |known: Vec<[u64; 2]>| known.iter().fold([0; 2], |sum, call| [sum[0] + call[0], sum[1] + call[1]]);
    // Once while it runs, and once it is killed with calls in its buffers.
    let cut_off = calls();
    for _ in 0..10 {
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    }
    let first = sum(cut_off.join_all().await);
    replica.connected(&spending).await;
    let mut killed = calls();
    killed.join_next().await.unwrap().unwrap();
    redis.process().unwrap().freeze().unwrap();
    redis.end(End::Kill).await.unwrap();
    let second = sum(killed.join_all().await);
    redis.start_again().await.unwrap();
    replica.connected(&spending).await;
    let standing = async |caller: &Caller| caller.standing(&replica.counters).await.unwrap()[0];
    let (spent, held) = (standing(&spending).await.0, standing(&holding).await.1);
    // Each id is asked for twice, and holds once.
    for (taken, at_least, at_most) in [(spent, first[0] + second[0], 2 * CALLS), (held, first[1].max(second[1]), CALLS)]
    {
        assert!((at_least..=at_most).contains(&(taken / 10)), "{taken} taken, {at_least} to {at_most} times ten");
    }
}
