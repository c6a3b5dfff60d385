//! ClickHouse is killed, stands still, or is not there.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use tollgate::entry::Batch;
use tollgate::ledger::{Grain, Ledger, LedgerError, Series};
use tollgate_e2e::harness::wait::{PATIENCE, eventually};

use crate::setup::{Setup, append, assert_holds, entries, estimates};

const ROUNDS: u64 = 12;
const NUMBERS_OF_ROUND: u64 = 400;

/// Numbers that look random, the same for the same seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_lose_nothing_and_double_nothing() {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let mut setup = Setup::of_bridge().await;
    let mut ledger = setup.open().await;
    let numbers = |round: u64| -> Range<u64> { round * NUMBERS_OF_ROUND..(round + 1) * NUMBERS_OF_ROUND };
    for round in 0..ROUNDS {
        append(&ledger, estimates(numbers(round))).await;
        let batch = Batch::from(entries(numbers(round)));
        let appending = ledger.append(batch.clone());
        let killing = async {
            tokio::time::sleep(Duration::from_micros(chance.below(250_000))).await;
            setup.clickhouse.kill().await.unwrap();
        };
        let (appended, ()) = tokio::join!(appending, killing);
        setup.clickhouse.restart().await.unwrap();
        if chance.below(3) == 0 {
            // We died with it.
            drop(ledger);
            ledger = setup.open().await;
        }
        let again = append(&ledger, entries(numbers(round))).await;
        // What was told of as failed is told of as new, and nothing twice while we live.
        assert!(again.iter().all(|is_new| *is_new == appended.is_err()), "round {round} of seed {seed}: {appended:?}");
    }
    assert_holds(&ledger, 0..ROUNDS * NUMBERS_OF_ROUND).await;
}

#[tokio::test]
async fn while_it_is_away_all_fails_with_a_clear_text_and_nothing_is_lost() {
    let mut setup = Setup::of_bridge().await;
    let ledger = setup.open().await;
    append(&ledger, entries(0..20)).await;
    setup.clickhouse.kill().await.unwrap();
    let series = Series { tenant: "acme", grain: Grain::Day, from_ms: 0, to_ms: u64::MAX, by: None };
    for error in [
        ledger.append(Batch::from(entries(20..40))).await.unwrap_err(),
        ledger.series(&series).await.unwrap_err(),
        ledger.ping().await.unwrap_err(),
        ledger.purge("acme").await.unwrap_err(),
    ] {
        let LedgerError::Database(text) = error else { panic!("{error}") };
        assert!(text.contains("ClickHouse: network error") && text.contains("onnect"), "{text}");
    }
    let refusal = setup.refusal(&setup.settings()).await;
    assert!(refusal.contains("another process appends to this ledger"), "{refusal}");
    setup.clickhouse.restart().await.unwrap();
    assert!(!append(&ledger, entries(20..40)).await.contains(&false));
    assert_holds(&ledger, 0..40).await;
    ledger.close().await;
    assert!(matches!(ledger.append(Batch::from(entries(0..1))).await, Err(LedgerError::Closed)));
    assert!(matches!(ledger.ping().await, Err(LedgerError::Closed)));
    setup.clickhouse.kill().await.unwrap();
    let refusal = setup.refusal(&setup.settings()).await;
    assert!(refusal.contains("ClickHouse: network error"), "{refusal}");
}

#[tokio::test]
async fn one_that_stands_still_is_given_up_in_time_and_what_it_does_late_counts_once() {
    let setup = Setup::of_bridge().await;
    let ledger = setup.open().await;
    append(&ledger, estimates(0..50)).await;
    ledger.close().await;
    let mut settings = setup.settings();
    settings.timeout = Duration::from_secs(2);
    let ledger = setup.open_with(&settings).await;
    setup.clickhouse.process().unwrap().freeze().unwrap();
    let error = ledger.append(Batch::from(entries(0..50))).await.unwrap_err();
    assert!(error.to_string().contains("ClickHouse did not answer within 2s"), "{error}");
    setup.clickhouse.process().unwrap().thaw().unwrap();
    let again = eventually("an append", PATIENCE, async || Ok(ledger.append(Batch::from(entries(0..50))).await?)).await;
    assert!(!again.unwrap().contains(&false));
    ledger.close().await;
    assert_holds(&setup.open().await, 0..50).await;
}
