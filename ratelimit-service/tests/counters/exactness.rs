//! Replicas on one Redis admit no more than there is, and not less.

use std::num::NonZeroU64;
use std::sync::Arc;

use tokio::task::JoinSet;
use tollgate::counters::{Counters, Tls};
use tollgate_domain::{Limit, Outcome, Take, Unit, Window};
use tollgate_e2e::harness::redis::Redis;
use tollgate_e2e::harness::run_dir::RunDir;

use crate::calls::Caller;
use crate::engines::{Hand, NOW_MS, memory, redis, replica};

const PATIENT_MS: u64 = 20_000;

#[tokio::test]
async fn of_many_calls_at_once_one_gets_what_is_worth_one() {
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let replicas = [(); 2].map(|()| Arc::new(replica(&redis.url(), &Tls::default(), PATIENT_MS)));
    for round in 0..20 {
        let caller = Arc::new(Caller::new(&format!("tenant {round}"), 10, 1));
        let mut calls = JoinSet::new();
        for call in 0..64 {
            let (caller, replica) = (caller.clone(), replicas[call % 2].clone());
            calls.spawn(async move { caller.hold(&*replica, &call.to_string()).await.unwrap().outcome });
        }
        let outcomes = calls.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Admitted).count(), 1);
    }
}

/// Redis's own clock tells how much may be used: no interval admits more than what is refilled in it and one burst.
#[tokio::test]
async fn replicas_together_admit_what_is_refilled_and_one_burst() {
    const CLIENTS: usize = 8;
    const CALLS: usize = 150;
    let (capacity, burst) = (200, 50);
    let dir = RunDir::create().unwrap();
    let redis = Redis::start(dir.path()).await.unwrap();
    let replicas = [(); 2].map(|()| Arc::new(replica(&redis.url(), &Tls::default(), PATIENT_MS)));
    let limit = Limit::new(Unit::Requests, Some(Window::Second), NonZeroU64::new(capacity).unwrap()).unwrap();
    let limit = limit.with_burst(NonZeroU64::new(burst).unwrap()).unwrap();
    let caller = Arc::new(Caller::with("acme", vec![limit]));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (caller, replica) = (caller.clone(), replicas[client % 2].clone());
        clients.spawn(async move {
            let (mut seen, mut admitted) = (Vec::new(), 0);
            while admitted < CALLS {
                let verdict = caller.take(&*replica, 0, Take::ForGood).await.unwrap();
                seen.push((verdict.now_ms, verdict.outcome));
                admitted += usize::from(verdict.outcome == Outcome::Admitted);
            }
            seen
        });
    }
    let seen: Vec<_> = clients.join_all().await.concat();
    let mut admitted: Vec<_> =
        seen.iter().filter(|(_, outcome)| *outcome == Outcome::Admitted).map(|(now_ms, _)| *now_ms).collect();
    admitted.sort_unstable();
    let first_ms = admitted[0];
    for (begin, from_ms) in admitted.iter().enumerate() {
        for (end, to_ms) in admitted.iter().enumerate().skip(begin) {
            let most = burst * 1000 + capacity * (to_ms - from_ms);
            assert!((end - begin + 1) as u64 * 1000 <= most, "{} in {} ms", end - begin + 1, to_ms - from_ms);
        }
    }
    // Until the last client but one had all, somebody asked all the time.
    let denied = seen.iter().filter(|(_, outcome)| *outcome == Outcome::Denied).map(|(now_ms, _)| *now_ms);
    let last_denied_ms = denied.max().unwrap();
    let used = admitted.iter().filter(|now_ms| **now_ms <= last_denied_ms).count() as u64;
    let usable = burst + capacity * (last_denied_ms - first_ms) / 1000;
    assert!(used * 100 >= usable * 99, "{used} of {usable} were used");
}

/// Clients of all replicas that reserve and use all they can, for two minutes about the beginning of a day: in the minute's
/// limit no interval has more than what is refilled in it and one burst, in the day's no day has more than its capacity, and
/// hardly anything is left.
async fn over_the_edge_of_a_day(replicas: Vec<Arc<dyn Counters>>, hand: Hand) {
    const CLIENTS: usize = 4;
    const STEP_MS: i64 = 250;
    const AROUND_MS: u64 = 60_000;
    let limit = |window, capacity| Limit::new(Unit::Tokens, Some(window), NonZeroU64::new(capacity).unwrap()).unwrap();
    let (capacity, burst, day) = (6_000, 1_500, 5_000);
    let a_minutes = limit(Window::Minute, capacity).with_burst(NonZeroU64::new(burst).unwrap()).unwrap();
    let callers = [("minute", a_minutes), ("day", limit(Window::Day, day))];
    let callers = callers.map(|(tenant, limit)| Arc::new(Caller::with(tenant, vec![limit])));
    hand.step(-AROUND_MS.cast_signed());
    let mut used = [Vec::new(), Vec::new()];
    for round in 0.. {
        if hand.now_ms() >= NOW_MS + AROUND_MS {
            break;
        }
        for (caller, used) in callers.iter().zip(&mut used) {
            let mut clients = JoinSet::new();
            for client in 0..CLIENTS * replicas.len() {
                let (caller, replica) = (Arc::clone(caller), Arc::clone(&replicas[client % replicas.len()]));
                clients.spawn(async move {
                    for call in 0.. {
                        let id = format!("{round} {client} {call}");
                        if caller.hold(&*replica, &id).await.unwrap().outcome == Outcome::Denied {
                            return call;
                        }
                        caller.settle(&*replica, &id).await.unwrap();
                    }
                    unreachable!()
                });
            }
            let calls: u64 = clients.join_all().await.iter().sum();
            used.push((hand.now_ms(), calls * 10));
        }
        hand.step(STEP_MS);
    }
    let [by_minute, by_day] = used;
    for (begin, (from_ms, _)) in by_minute.iter().enumerate() {
        let mut sum = 0;
        for (to_ms, used) in &by_minute[begin..] {
            sum += used;
            assert!(sum * 60_000 <= burst * 60_000 + capacity * (to_ms - from_ms), "{sum} from {from_ms} to {to_ms}");
        }
    }
    let sum = |used: &[(u64, u64)]| used.iter().map(|(_, used)| used).sum::<u64>();
    let usable = burst + capacity * 2 * AROUND_MS / 60_000;
    assert!(sum(&by_minute) * 100 >= usable * 99, "{} of {usable} were used", sum(&by_minute));
    let (before, after) = by_day.split_at(by_day.partition_point(|(now_ms, _)| *now_ms < NOW_MS));
    assert_eq!((sum(before), sum(after)), (day, day));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_edge_of_a_day_memory_admits_all_there_is_and_no_more() {
    let hand = Hand::new();
    over_the_edge_of_a_day(vec![Arc::new(memory(&hand))], hand).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_edge_of_a_day_replicas_admit_all_there_is_and_no_more() {
    let dir = RunDir::create().unwrap();
    let server = Redis::start(dir.path()).await.unwrap();
    let hand = Hand::new();
    let replicas = [(); 3].map(|()| Arc::new(redis(&server.url(), "tollgate", &hand)) as Arc<dyn Counters>);
    over_the_edge_of_a_day(replicas.to_vec(), hand).await;
}
