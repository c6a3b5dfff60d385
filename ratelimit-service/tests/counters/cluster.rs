//! What happens to a cluster of Redis: its parts are lost alone, and calls follow what is moved.

use anyhow::ensure;
use tollgate::counters::OnFailure;
use tollgate_domain::{Outcome, Take};
use tollgate_e2e::harness::process::End;
use tollgate_e2e::harness::redis::Cluster;
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

use crate::calls::Caller;
use crate::guarded::Replica;

/// One whose parts serve what they have when others are lost.
async fn start(dir: &RunDir) -> Cluster {
    let cluster = Cluster::start(dir.path()).await.unwrap();
    for node in &cluster.nodes {
        node.set_config("cluster-require-full-coverage", "no").await.unwrap();
    }
    cluster
}

fn url(cluster: &Cluster) -> String {
    let hosts: Vec<_> = cluster.nodes.iter().map(|node| node.addr().to_string()).collect();
    format!("redis+cluster://{}", hosts.join(","))
}

fn key(caller: &Caller) -> String {
    format!("tollgate:{{{}}}:counters", caller.tenant)
}

/// Tenants by the node that has their keys, so many of each.
async fn callers(cluster: &Cluster, of_each: usize) -> Vec<Vec<Caller>> {
    let mut callers: Vec<Vec<_>> = cluster.nodes.iter().map(|_| Vec::new()).collect();
    for number in 0.. {
        if callers.iter().all(|callers| callers.len() >= of_each) {
            break;
        }
        let caller = Caller::new(&format!("tenant-{number}"), 100_000, 1_000);
        callers[cluster.owner(&key(&caller)).await.unwrap()].push(caller);
    }
    callers
}

#[tokio::test]
async fn a_part_that_is_lost_is_lost_alone() {
    let dir = RunDir::create().unwrap();
    let mut cluster = start(&dir).await;
    let replica = Replica::new(&url(&cluster), OnFailure::Allow);
    let callers = callers(&cluster, 3).await;
    for caller in callers.iter().flatten() {
        replica.connected(caller).await;
        caller.hold(&replica.counters, "a").await.unwrap();
    }
    cluster.nodes[0].end(End::Kill).await.unwrap();
    for caller in &callers[0] {
        caller.standing(&replica.counters).await.unwrap_err();
    }
    for caller in callers[1..].iter().flatten() {
        replica.stands(caller, &[(0, 10), (0, 1)]).await;
    }
    cluster.nodes[0].start_again().await.unwrap();
    for caller in &callers[0] {
        replica.connected(caller).await;
    }
}

#[tokio::test]
async fn a_node_that_stands_still_from_the_start_on_holds_up_no_other() {
    let dir = RunDir::create().unwrap();
    let cluster = start(&dir).await;
    let callers = callers(&cluster, 2).await;
    cluster.nodes[0].process().unwrap().freeze().unwrap();
    let replica = Replica::new(&url(&cluster), OnFailure::Deny);
    for caller in callers[1..].iter().flatten() {
        replica.connected(caller).await;
        assert_eq!(caller.hold(&replica.counters, "a").await.unwrap().outcome, Outcome::Admitted);
    }
    caller_is_denied(&replica, &callers[0][0]).await;
    cluster.nodes[0].process().unwrap().thaw().unwrap();
    replica.connected(&callers[0][0]).await;
}

async fn caller_is_denied(replica: &Replica, caller: &Caller) {
    assert_eq!(caller.hold(&replica.counters, "denied").await.unwrap().outcome, Outcome::Denied, "{}", caller.tenant);
}

#[tokio::test]
async fn a_node_that_stands_still_while_slots_move_elsewhere_holds_up_no_other() {
    let dir = RunDir::create().unwrap();
    let cluster = start(&dir).await;
    let callers = callers(&cluster, 12).await;
    let replica = Replica::new(&url(&cluster), OnFailure::Deny);
    for callers in &callers {
        replica.connected(&callers[0]).await;
    }
    cluster.nodes[0].process().unwrap().freeze().unwrap();
    let (resting, moving) = callers[1].split_at(2);
    let before = replica.failures("deny");
    for (number, moved) in moving.iter().enumerate() {
        caller_is_denied(&replica, &callers[0][0]).await;
        cluster.move_slot(&key(moved), 2, false).await.unwrap();
        for caller in resting.iter().chain(&callers[2]).chain([moved]) {
            let verdict = caller.hold(&replica.counters, &number.to_string()).await.unwrap();
            assert_eq!(verdict.outcome, Outcome::Admitted, "{}", caller.tenant);
        }
    }
    assert_eq!(replica.failures("deny") - before, moving.len() as u64);
}

#[tokio::test]
async fn a_call_that_counts_follows_its_keys_and_counts_once() {
    let dir = RunDir::create().unwrap();
    let cluster = start(&dir).await;
    let callers = callers(&cluster, 2).await;
    let replica = Replica::new(&url(&cluster), OnFailure::Deny);
    let take = async |caller: &Caller| {
        let verdict = caller.take(&replica.counters, 10, Take::ForGood).await.unwrap();
        assert_eq!(verdict.outcome, Outcome::Admitted);
    };
    let [moved, moving, ..] = callers[1].as_slice() else { panic!("there are two") };
    replica.connected(moved).await;
    cluster.move_slot(&key(moved), 2, false).await.unwrap();
    take(moved).await;
    // Sent to and fro until the other node has the slot.
    let slot_of = key(moving);
    cluster.move_slot(&slot_of, 2, true).await.unwrap();
    let ((), moves) = tokio::join!(take(moving), cluster.move_slot(&slot_of, 2, false));
    moves.unwrap();
    for caller in [moved, moving] {
        replica.stands(caller, &[(10, 0), (0, 0)]).await;
    }
    assert_eq!(replica.failures("deny"), 0);
}

#[tokio::test]
async fn settlements_for_a_part_that_answers_do_not_wait_for_one_that_does_not() {
    let dir = RunDir::create().unwrap();
    let mut cluster = start(&dir).await;
    let callers = callers(&cluster, 1).await;
    let replica = Replica::new(&url(&cluster), OnFailure::Allow);
    for callers in &callers {
        replica.connected(&callers[0]).await;
    }
    cluster.nodes[0].end(End::Kill).await.unwrap();
    cluster.nodes[1].process().unwrap().freeze().unwrap();
    caller_settles(&replica, &callers[1][0], 0).await;
    for id in 0..1_000 {
        caller_settles(&replica, &callers[0][0], id).await;
    }
    cluster.nodes[1].process().unwrap().thaw().unwrap();
    eventually("the settlement", PATIENCE, async || {
        ensure!(replica.metric("tollgate_counters_settlements_retried_total") >= 1);
        Ok(())
    })
    .await
    .unwrap();
    // One of them may be on its way.
    assert!(replica.metric("tollgate_counters_settlements_waiting") >= 999);
    replica.stands(&callers[1][0], &[(10, 0), (0, 0)]).await;
}

async fn caller_settles(replica: &Replica, caller: &Caller, id: usize) {
    let error = caller.settle(&replica.counters, &id.to_string()).await.unwrap_err().to_string();
    assert!(error.contains("waits"), "{error}");
}
