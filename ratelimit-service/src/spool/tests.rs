//! The spool against real files.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::entry::{Batch, TrackedEvent};

const LARGE: u64 = 1 << 30;

/// A spool in a folder of its own, with a consumer that is waited for and one that is not.
struct Opened {
    spool: Spool,
    ledger: Consumer,
    sink: Consumer,
    metrics: Metrics,
}

fn open(folder: &TempDir, max_bytes: u64) -> Opened {
    let settings = SpoolSettings { folder: folder.path().join("spool"), max_bytes };
    let consumers = [("ledger".to_owned(), Lag::Wait), ("sink".to_owned(), Lag::Drop)];
    let metrics = Metrics::new().0;
    let (spool, consumers) = Spool::open(&settings, &consumers, &metrics).unwrap();
    let [ledger, sink] = consumers.try_into().ok().unwrap();
    Opened { spool, ledger, sink, metrics }
}

impl Opened {
    async fn append(&self, numbers: impl IntoIterator<Item = u64>) -> Result<Place, SpoolError> {
        self.spool.append(numbers.into_iter().map(entry).collect()).await
    }

    fn waiting(&self) -> [i64; 2] {
        ["ledger", "sink"].map(|name| self.metrics.spool_pending(name).get())
    }

    /// As at the end of the service.
    async fn close(self) {
        self.spool.close().await;
    }
}

fn entry(number: u64) -> Entry {
    let name = || number.to_string();
    Entry::Tracked(TrackedEvent {
        id: name(),
        tenant: "acme".to_owned(),
        event_type: "page".to_owned(),
        at_ms: number,
        quantity_micros: number,
        metadata: "{}".to_owned(),
    })
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.iter().map(|entry| entry.id().parse().unwrap()).collect()
}

/// All that is there for a consumer, committed.
async fn take_all(consumer: &mut Consumer) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(batch) = consumer.ready(3).await {
        all.extend(numbers(&batch));
        consumer.commit();
    }
    all
}

fn segments(folder: &TempDir) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.path().join("spool")).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<_> = files.filter(|file| file.extension().is_some_and(|is| is == "spool")).collect();
    segments.sort();
    segments
}

#[tokio::test]
async fn everyone_gets_everything_in_order_and_again_what_was_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(&folder, LARGE);
    opened.append(0..2).await.unwrap();
    opened.append(2..5).await.unwrap();
    opened.append(5..6).await.unwrap();
    assert_eq!(opened.waiting(), [6, 6]);
    assert_eq!(numbers(&opened.ledger.next(3).await.unwrap()), [0, 1]);
    assert_eq!(numbers(&opened.ledger.next(5).await.unwrap()), [0, 1, 2, 3, 4]);
    opened.ledger.commit();
    assert_eq!(numbers(&opened.ledger.next(1).await.unwrap()), [5]);
    assert_eq!(opened.waiting(), [1, 6]);
    drop(opened);

    let mut opened = open(&folder, LARGE);
    assert_eq!(opened.waiting(), [1, 6]);
    opened.append(6..7).await.unwrap();
    assert_eq!(take_all(&mut opened.ledger).await, [5, 6]);
    assert_eq!(take_all(&mut opened.sink).await, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(opened.waiting(), [0, 0]);
    let places = opened.append(7..9).await.unwrap();
    assert!(opened.ledger.ready(9).await.is_some());
    assert_eq!(opened.ledger.places(), [places]);
}

#[tokio::test]
async fn who_waits_is_woken_and_told_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(&folder, LARGE);
    let waiting = async {
        let first = numbers(&opened.ledger.next(9).await.unwrap());
        opened.ledger.commit();
        (first, opened.ledger.next(9).await.is_none())
    };
    let appending = async {
        opened.spool.append([entry(1)].into()).await.unwrap();
        opened.spool.close().await;
    };
    let ((first, has_ended), ()) = tokio::join!(waiting, appending);
    assert_eq!((first, has_ended), (vec![1], true));
    assert_eq!(opened.append([2]).await, Err(SpoolError::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_at_once_are_all_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(&folder, LARGE);
    let spool = Arc::new(std::mem::replace(&mut opened.spool, open(&tempfile::tempdir().unwrap(), LARGE).spool));
    let appends = (0..500).map(|number| {
        let spool = Arc::clone(&spool);
        tokio::spawn(async move { spool.append([entry(number)].into()).await })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.unwrap().unwrap();
    }
    let mut taken = take_all(&mut opened.ledger).await;
    taken.sort_unstable();
    assert_eq!(taken, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_that_was_being_written_is_passed_over() {
    for torn in [1, 10, 20] {
        let folder = tempfile::tempdir().unwrap();
        let opened = open(&folder, LARGE);
        opened.append(0..2).await.unwrap();
        opened.append(2..3).await.unwrap();
        opened.close().await;
        let segment = segments(&folder).remove(0);
        let length = segment.metadata().unwrap().len();
        fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(length - torn).unwrap();

        let mut opened = open(&folder, LARGE);
        opened.append(3..4).await.unwrap();
        assert_eq!(take_all(&mut opened.ledger).await, [0, 1, 3]);
        assert_eq!((opened.metrics.spool_torn.get(), opened.metrics.spool_corrupt.get()), (1, 0));
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_put_aside_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(&folder, LARGE);
    for number in 1..4 {
        opened.append([number]).await.unwrap();
    }
    opened.close().await;
    let segment = segments(&folder).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let frame = bytes.len() / 3;
    bytes[frame + frame::HEADER_BYTES + 3] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let (readable, unread) = read_file(&segment).unwrap();
    assert_eq!((numbers(&readable.into()), unread), (vec![1, 3], frame));

    let mut opened = open(&folder, LARGE);
    assert_eq!(take_all(&mut opened.ledger).await, [1, 3]);
    assert_eq!((opened.metrics.spool_torn.get(), opened.metrics.spool_corrupt.get()), (0, 1));
    let aside: Vec<_> = fs::read_dir(folder.path().join("spool/corrupt")).unwrap().collect();
    let [file] = &aside[..] else { panic!("{aside:?}") };
    assert_eq!(fs::read(file.as_ref().unwrap().path()).unwrap(), &bytes[frame..2 * frame]);
}

#[tokio::test]
async fn when_it_is_full_no_more_is_taken_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(&folder, 20_000);
    let (mut taken, mut refused) = (Vec::new(), 0);
    for number in 0..2000 {
        match opened.append([number]).await {
            Ok(_) => taken.push(number),
            Err(error) => {
                assert_eq!(error, SpoolError::Full);
                refused += 1;
            }
        }
        if number == 1000 {
            assert!(refused > 0, "{refused}");
            assert!(opened.metrics.spool_bytes.get() <= 20_000);
            assert_eq!(take_all(&mut opened.ledger).await, taken);
            taken.clear();
        }
    }
    assert!(taken.first().is_some_and(|first| *first == 1001), "{taken:?}");
    assert_eq!(take_all(&mut opened.ledger).await, taken);
}

#[tokio::test]
async fn who_lags_holds_up_nobody_and_what_is_dropped_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(&folder, 20_000);
    let mut ledger = Vec::new();
    for number in 0..2000 {
        opened.append([number]).await.unwrap();
        ledger.extend(take_all(&mut opened.ledger).await);
    }
    assert_eq!(ledger, (0..2000).collect::<Vec<_>>());
    let waiting = opened.waiting()[1];
    let sink = take_all(&mut opened.sink).await;
    let dropped = opened.metrics.spool_dropped("sink").get();
    assert!(dropped > 0 && waiting == sink.len() as i64);
    assert_eq!(sink, (dropped..2000).collect::<Vec<_>>());
    assert_eq!(opened.waiting(), [0, 0]);
}

#[tokio::test]
async fn a_disk_that_fails_is_told_and_taken_again_when_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(&folder, LARGE);
    let (here, gone) = (folder.path().join("spool"), folder.path().join("gone"));
    fs::rename(&here, &gone).unwrap();
    let refused = opened.append([0]).await;
    assert!(matches!(&refused, Err(SpoolError::Failed(why)) if why.contains("No such file")), "{refused:?}");
    fs::rename(&gone, &here).unwrap();
    opened.append([1]).await.unwrap();
    assert_eq!(take_all(&mut opened.ledger).await, [1]);
}

#[tokio::test]
async fn one_process_alone_uses_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _opened = open(&folder, LARGE);
    let settings = SpoolSettings { folder: folder.path().join("spool"), max_bytes: LARGE };
    let Err(error) = Spool::open(&settings, &[], &Metrics::new().0) else { panic!("it was opened twice") };
    assert!(error.to_string().contains("is used by another process"), "{error}");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Append(u64),
    Take { most: usize, is_done: bool },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..30u64).prop_map(Step::Append),
        4 => (1..60usize, prop_oneof![3 => Just(true), 1 => Just(false)])
            .prop_map(|(most, is_done)| Step::Take { most, is_done }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Segments of about four appends, and a consumer that stays behind the cache or not.
    #[test]
    fn nothing_is_lost_or_out_of_order(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        Runtime::new().unwrap().block_on(async {
            let mut opened = open(&folder, SEGMENTS * 4_000);
            let (mut appended, mut taken) = (0, 0);
            for step in steps {
                match step {
                    Step::Append(count) => {
                        match opened.append(appended..appended + count).await {
                            Ok(_) => appended += count,
                            Err(error) => assert_eq!(error, SpoolError::Full),
                        }
                    }
                    Step::Take { most, is_done } => {
                        let batch = opened.ledger.ready(most).await.unwrap_or_default();
                        let found = numbers(&batch);
                        assert_eq!(found, (taken..taken + found.len() as u64).collect::<Vec<_>>());
                        assert_eq!(found.is_empty(), taken == appended);
                        if is_done {
                            opened.ledger.commit();
                            taken += found.len() as u64;
                        }
                    }
                    Step::Reopen => {
                        drop(opened);
                        opened = open(&folder, SEGMENTS * 4_000);
                    }
                }
                assert_eq!(opened.waiting()[0], (appended - taken) as i64);
            }
        });
    }
}
