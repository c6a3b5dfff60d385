//! A file of JSON lines.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tollgate::entry::{Entry, EntryRecord};
use tollgate::sinks::{Jsonl, JsonlSettings};

use crate::source::{Running, entries, eventually, first_of_each, ids};

fn read(path: &Path) -> Vec<Entry> {
    let entry = |line: &str| Entry::try_from(serde_json::from_str::<EntryRecord>(line).unwrap()).unwrap();
    fs::read_to_string(path).unwrap().lines().map(entry).collect()
}

#[tokio::test]
async fn every_entry_is_a_line_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("usage.jsonl");
    let all = entries(500);
    Running::start(&all, 30, Jsonl::new(JsonlSettings::new(&path))).finished().await;
    assert_eq!(read(&path), all.to_vec());
}

#[tokio::test]
async fn crashes_tear_lines_and_lose_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("usage.jsonl");
    let all = entries(3000);
    let mut cursor = Arc::default();
    for (taken, torn) in [(100, 1), (900, 40), (2000, 200)] {
        let running = Running::resume(&all, &cursor, 10, Jsonl::new(JsonlSettings::new(&path)));
        eventually("some are written", || running.committed() >= taken).await;
        cursor = running.kill().await;
        // The lines that were written and not committed, but for the end of the last.
        let lines = fs::read(&path).unwrap();
        let whole: usize =
            lines.split_inclusive(|byte| *byte == b'\n').take(cursor.load(SeqCst)).map(<[u8]>::len).sum();
        let next = serde_json::to_vec(&EntryRecord::from(&all[cursor.load(SeqCst)])).unwrap();
        let lines = [&lines[..whole], &next[..torn]].concat();
        fs::write(&path, lines).unwrap();
    }
    Running::resume(&all, &cursor, 10, Jsonl::new(JsonlSettings::new(&path))).finished().await;
    assert_eq!(first_of_each(&ids(&read(&path))), ids(&all));
}
