//! What happens to Redis: the policy answers, is counted, and Redis decides again when it can, without a restart.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::timeout;
use tollgate::clock;
use tollgate::counters::{GuardMetrics, Guarded, MAX_TENANTS, MemoryCounters, OnFailure};
use tollgate::metrics::Metrics;
use tollgate_domain::{Outcome, Settled, Take};
use tollgate_e2e::harness::process::End;
use tollgate_e2e::harness::redis::{Cluster, MASTER_NAME, Redis, Sentinel};
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

use crate::calls::Caller;
use crate::engines::replica;

/// The deadline: long enough for Redis on a busy machine.
const TIMEOUT_MS: u64 = 500;

struct Replica {
    counters: Guarded,
    registry: Registry,
}

impl Replica {
    fn new(url: &str, authority: Option<&Path>, on_failure: OnFailure) -> Replica {
        let mut registry = Registry::with_prefix("tollgate");
        let metrics = GuardMetrics::new(&mut registry);
        Replica { counters: Guarded::new(replica(url, authority, TIMEOUT_MS), on_failure, metrics), registry }
    }

    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// Waits until Redis decides.
    async fn connected(&self, caller: &Caller) {
        eventually("Redis's word", PATIENCE, async || {
            caller.standing(&self.counters).await?;
            ensure!(self.metric("tollgate_counters_up") == 1, "the policy decides");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Waits until the tenant stands so, in Redis.
    async fn stands(&self, caller: &Caller, expected: &[(u64, u64)]) {
        eventually("the tenant's standing", PATIENCE, async || {
            let standing = caller.standing(&self.counters).await?;
            ensure!(self.metric("tollgate_counters_up") == 1, "the policy decides");
            ensure!(standing == expected, "{standing:?} instead of {expected:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

fn local(replicas: u64) -> OnFailure {
    let memory = MemoryCounters::new(MAX_TENANTS, clock::system(), Metrics::new().0);
    OnFailure::Local { memory: Box::new(memory), replicas }
}

#[tokio::test]
async fn while_redis_stands_still_the_policy_decides_and_afterwards_redis() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    for (name, on_failure) in [("allow", OnFailure::Allow), ("deny", OnFailure::Deny), ("local", local(2))] {
        let replica = Replica::new(&redis.url(), None, on_failure);
        // An even share: two calls of four.
        let caller = Caller::new(name, 40, 100);
        replica.connected(&caller).await;
        redis.process().unwrap().freeze().unwrap();
        let failures = format!("tollgate_counters_failures_total{{policy=\"{name}\"}}");
        let before = replica.metric(&failures);
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
        assert_eq!((outcomes.as_slice(), replica.metric(&failures) - before), (expected.as_slice(), 5), "{name}");
        assert_eq!(replica.metric("tollgate_counters_up"), 0);
        redis.process().unwrap().thaw().unwrap();
        replica.connected(&caller).await;
        let settled = replica.metric(&failures);
        assert_eq!(caller.hold(&replica.counters, "again").await.unwrap().counters.len(), 2);
        assert_eq!(replica.metric(&failures), settled, "{name}");
    }
}

#[tokio::test]
async fn what_was_denied_without_redis_holds_nothing_there() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), None, OnFailure::Deny), Caller::new("acme", 1000, 100));
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
async fn a_settlement_waits_for_redis_and_counts_once() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::builder().append_only().start(dir.path()).await.unwrap();
    redis.set_config("appendfsync", "always").await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), None, OnFailure::Allow), Caller::new("acme", 1_000, 100));
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
    let (replica, caller) = (Replica::new(&redis.url(), None, local(1)), Caller::new("acme", 1_000, 1));
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
    let (replica, caller) = (Replica::new(&redis.url(), None, OnFailure::Deny), Caller::new("acme", 1_000, 100));
    replica.connected(&caller).await;
    let before = replica.metric("tollgate_counters_failures_total{policy=\"deny\"}");
    redis.flush_scripts().await.unwrap();
    for _ in 0..2 {
        assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().outcome, Outcome::Admitted);
    }
    replica.stands(&caller, &[(0, 10), (0, 1)]).await;
    assert_eq!(replica.metric("tollgate_counters_failures_total{policy=\"deny\"}"), before);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    replica.connected(&caller).await;
    assert_eq!(caller.hold(&replica.counters, "b").await.unwrap().counters.len(), 2);
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_to_the_policy_until_it_is_none() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let (replica, caller) = (Replica::new(&redis.url(), None, OnFailure::Deny), Caller::new("acme", 1_000, 100));
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

#[tokio::test]
async fn redis_may_come_later_and_asks_for_a_password_over_tls() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::builder().user("limiter", "s3cret").tls().start(dir.path()).await.unwrap();
    let (url, authority) = (redis.url(), redis.authority().map(Path::to_path_buf));
    redis.end(End::Kill).await.unwrap();
    let replica = Replica::new(&url, authority.as_deref(), OnFailure::Allow);
    let caller = Caller::new("acme", 1_000, 100);
    assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().counters, []);
    redis.start_again().await.unwrap();
    replica.connected(&caller).await;
    let stranger = Replica::new(&url.replace("s3cret", "guess"), authority.as_deref(), OnFailure::Deny);
    assert_eq!(caller.hold(&stranger.counters, "b").await.unwrap().outcome, Outcome::Denied);
    let distrustful = Replica::new(&url, None, OnFailure::Deny);
    assert_eq!(caller.hold(&distrustful.counters, "b").await.unwrap().outcome, Outcome::Denied);
}

#[tokio::test]
async fn a_part_of_a_cluster_that_is_lost_is_lost_alone() {
    let dir = RunDir::create().unwrap();
    let mut cluster = Cluster::start(dir.path()).await.unwrap();
    for node in &cluster.nodes {
        node.set_config("cluster-require-full-coverage", "no").await.unwrap();
    }
    let hosts: Vec<_> = cluster.nodes.iter().map(|node| node.addr().to_string()).collect();
    let replica = Replica::new(&format!("redis+cluster://{}", hosts.join(",")), None, OnFailure::Allow);
    let mut callers: Vec<Vec<Arc<Caller>>> = vec![Vec::new(); cluster.nodes.len()];
    for number in 0..30 {
        let caller = Arc::new(Caller::new(&format!("tenant-{number}"), 1_000, 100));
        replica.connected(&caller).await;
        caller.hold(&replica.counters, "a").await.unwrap();
        callers[owner(&cluster, &caller.tenant).await.unwrap()].push(caller);
    }
    assert!(callers.iter().all(|callers| !callers.is_empty()));
    cluster.nodes[0].end(End::Kill).await.unwrap();
    for caller in &callers[0] {
        assert_eq!(caller.standing(&replica.counters).await.unwrap(), [], "{}", caller.tenant);
    }
    for caller in callers[1..].iter().flatten() {
        replica.stands(caller, &[(0, 10), (0, 1)]).await;
    }
    cluster.nodes[0].start_again().await.unwrap();
    for caller in &callers[0] {
        replica.connected(caller).await;
    }
}

/// Which node has a tenant's keys.
async fn owner(cluster: &Cluster, tenant: &str) -> anyhow::Result<usize> {
    let key = format!("tollgate:{{{tenant}}}:counters");
    for (place, node) in cluster.nodes.iter().enumerate() {
        if node.cli(&["EXISTS", &key]).await.is_ok_and(|answer| answer == "1") {
            return Ok(place);
        }
    }
    None.context("no node has it")
}

#[tokio::test]
async fn the_master_is_the_one_that_the_sentinel_names() {
    let dir = RunDir::create().unwrap();
    let mut group = Sentinel::start(dir.path()).await.unwrap();
    let url = format!("redis+sentinel://{}/{MASTER_NAME}", group.sentinel.addr());
    let (replica, caller) = (Replica::new(&url, None, OnFailure::Deny), Caller::new("acme", 1_000, 100));
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
