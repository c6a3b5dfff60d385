//! The Redis servers of the harness do what tests of the counters rest on.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::ensure;
use tollgate_e2e::harness::process::End;
use tollgate_e2e::harness::redis::{Cluster, MASTER_NAME, Redis, Sentinel};
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

#[tokio::test]
async fn a_server_that_is_killed_comes_back_empty_on_its_port() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::start(dir.path()).await.unwrap();
    assert_eq!(redis.url(), format!("redis://{}", redis.addr()));
    redis.cli(&["SET", "k", "1"]).await.unwrap();
    let addr = redis.addr();
    redis.end(End::Kill).await.unwrap();
    assert!(redis.cli(&["PING"]).await.is_err());
    redis.start_again().await.unwrap();
    assert_eq!((redis.addr(), redis.cli(&["GET", "k"]).await.unwrap()), (addr, String::new()));
    redis.end(End::Stop).await.unwrap();
}

#[tokio::test]
async fn what_is_appended_outlives_a_kill() {
    let dir = RunDir::create().unwrap();
    let mut redis = Redis::builder().append_only().start(dir.path()).await.unwrap();
    redis.cli(&["SET", "k", "1"]).await.unwrap();
    redis.end(End::Kill).await.unwrap();
    redis.start_again().await.unwrap();
    assert_eq!(redis.cli(&["GET", "k"]).await.unwrap(), "1");
}

#[tokio::test]
async fn scripts_are_forgotten_settings_change_and_errors_are_told() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let hash = redis.cli(&["SCRIPT", "LOAD", "return 7"]).await.unwrap();
    assert_eq!(redis.cli(&["EVALSHA", &hash, "0"]).await.unwrap(), "7");
    redis.flush_scripts().await.unwrap();
    let error = redis.cli(&["EVALSHA", &hash, "0"]).await.unwrap_err().to_string();
    assert!(error.contains("NOSCRIPT"), "{error}");
    redis.set_config("maxmemory", "1048576").await.unwrap();
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]).await.unwrap(), "maxmemory\n1048576");
    redis.cli(&["DEBUG", "SLEEP", "0"]).await.unwrap();
}

#[tokio::test]
async fn a_frozen_server_answers_once_it_goes_on() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    redis.process().unwrap().freeze().unwrap();
    let status = format!("/proc/{}/status", redis.process().unwrap().id());
    eventually("the stop", PATIENCE, async || {
        let status = fs::read_to_string(&status)?;
        ensure!(status.contains("State:\tT"), "{status}");
        Ok(())
    })
    .await
    .unwrap();
    redis.process().unwrap().thaw().unwrap();
    assert_eq!(redis.cli(&["PING"]).await.unwrap(), "PONG");
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let dir = RunDir::create().unwrap();
    let password = Redis::builder().password("s3cret").start(dir.path()).await.unwrap();
    let user = Redis::builder().user("limiter", "s3cret").start(dir.path()).await.unwrap();
    assert_eq!(password.url(), format!("redis://:s3cret@{}", password.addr()));
    assert_eq!(user.url(), format!("redis://limiter:s3cret@{}", user.addr()));
    assert_eq!(user.cli(&["ACL", "WHOAMI"]).await.unwrap(), "limiter");
    for guarded in [password, user] {
        assert_eq!(guarded.cli(&["PING"]).await.unwrap(), "PONG");
        let mut stranger = TcpStream::connect(guarded.addr()).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        stranger.write_all(b"PING\r\n").unwrap();
        let mut answer = [0; 7];
        stranger.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"-NOAUTH");
    }
}

#[tokio::test]
async fn a_replica_copies_its_master_over_tls_and_with_its_password() {
    let dir = RunDir::create().unwrap();
    let master = Redis::builder().user("limiter", "s3cret").tls().start(dir.path()).await.unwrap();
    assert_eq!(master.url(), format!("rediss://limiter:s3cret@{}", master.addr()));
    assert!(master.authority().unwrap().exists());
    master.cli(&["SET", "k", "1"]).await.unwrap();
    let replica = Redis::builder().replica_of(&master).start(dir.path()).await.unwrap();
    eventually("the copy", PATIENCE, async || {
        let value = replica.cli(&["GET", "k"]).await?;
        ensure!(value == "1", "{value}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(replica.cli(&["SET", "k", "2"]).await.unwrap_err().to_string().contains("READONLY"));
}

#[tokio::test]
async fn a_cluster_serves_every_slot_by_one_of_its_nodes() {
    let dir = RunDir::create().unwrap();
    let mut cluster = Cluster::start(dir.path()).await.unwrap();
    assert_eq!(cluster.urls().len(), 3);
    let error = cluster.nodes[0].cli(&["SET", "{a}", "1"]).await.unwrap_err().to_string();
    let owner = cluster.nodes.iter().position(|node| error.contains(&format!("MOVED 15495 {}", node.addr()))).unwrap();
    assert_eq!(cluster.nodes[owner].cli(&["SET", "{a}", "1"]).await.unwrap(), "OK");
    cluster.nodes[owner].end(End::Kill).await.unwrap();
    cluster.nodes[owner].start_again().await.unwrap();
    cluster.wait_until_complete().await.unwrap();
}

#[tokio::test]
async fn a_sentinel_makes_the_replica_the_master_when_that_is_lost() {
    let dir = RunDir::create().unwrap();
    let mut group = Sentinel::start(dir.path()).await.unwrap();
    assert_eq!(group.current_master().await.unwrap(), group.master.addr());
    group.sentinel.cli(&["SENTINEL", "CKQUORUM", MASTER_NAME]).await.unwrap();
    group.master.end(End::Kill).await.unwrap();
    group.wait_for_failover().await.unwrap();
    assert_eq!(group.replica.cli(&["SET", "k", "1"]).await.unwrap(), "OK");
}
