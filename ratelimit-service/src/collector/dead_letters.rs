//! Records that were not taken, kept for whoever looks after their sender: a file of JSON lines, off every request's path.
//!
//! Invariants:
//! - A letter has attributes of [`tollgate_wire::usage_event::attribute`] and no others: not the body, and no content.
//! - The file and the one before it together have at most [`DeadLetterSettings::max_bytes`].
//! - No request waits for the file: what comes while [`MAX_WAITING`] letters wait is dropped, and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tollgate_wire::proto::opentelemetry::proto::common::v1::{AnyValue, any_value};
use tollgate_wire::proto::opentelemetry::proto::logs::v1::LogRecord;
use tollgate_wire::usage_event::{MAX_FINISH_REASONS, MAX_NAME_BYTES, known_attributes};

use super::rejected::Rejection;
use crate::clock::rfc3339;
use crate::metrics::Metrics;

/// The most letters that wait to be written.
const MAX_WAITING: usize = 1024;

/// The most bytes that are written at once, beside the last letter.
const MAX_WRITE_BYTES: usize = 1 << 20;

/// Where rejected records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterSettings {
    /// The file; the one before it has `.1` behind its name.
    pub file: PathBuf,
    /// The most bytes of both.
    pub max_bytes: u64,
}

/// A record that was not taken.
#[derive(Debug, Serialize)]
pub(super) struct Letter {
    at: String,
    class: &'static str,
    reason: String,
    peer: Option<SocketAddr>,
    event_name: String,
    time_unix_nano: String,
    trace_id: String,
    span_id: String,
    attributes: Map<String, Value>,
}

impl Letter {
    pub(super) fn new(record: &LogRecord, rejection: &Rejection, peer: Option<SocketAddr>, now_ms: u64) -> Letter {
        let attributes = known_attributes(record).filter_map(|(name, value)| Some((name.to_owned(), shown(value)?)));
        Letter {
            at: rfc3339(now_ms),
            class: rejection.class.name(),
            reason: rejection.reason.clone(),
            peer,
            event_name: cut(&record.event_name).to_owned(),
            time_unix_nano: record.time_unix_nano.to_string(),
            trace_id: hex(&record.trace_id),
            span_id: hex(&record.span_id),
            attributes: attributes.collect(),
        }
    }
}

/// A value, if it is of a kind that some attribute in the table has.
fn shown(value: &any_value::Value) -> Option<Value> {
    let text = |value: &AnyValue| match &value.value {
        Some(any_value::Value::StringValue(text)) => Some(json!(cut(text))),
        _ => None,
    };
    match value {
        any_value::Value::StringValue(text) => Some(json!(cut(text))),
        any_value::Value::BoolValue(flag) => Some(json!(flag)),
        any_value::Value::IntValue(count) => Some(json!(count)),
        any_value::Value::DoubleValue(number) => Some(json!(number)),
        any_value::Value::ArrayValue(array) => {
            Some(array.values.iter().take(MAX_FINISH_REASONS).filter_map(text).collect())
        }
        any_value::Value::KvlistValue(_) | any_value::Value::BytesValue(_) => None,
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_NAME_BYTES)]
}

/// Of ids that have at most 16 bytes, unless they are wrong.
fn hex(id: &[u8]) -> String {
    id.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps letters, or only counts what would be one.
#[derive(Debug, Default)]
pub(super) struct DeadLetters(Option<Post>);

#[derive(Debug)]
struct Post {
    queue: Option<mpsc::Sender<Letter>>,
    writer: Option<JoinHandle<()>>,
    metrics: Metrics,
}

impl DeadLetters {
    /// Opens the file, or makes it with its folder.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(settings: DeadLetterSettings, metrics: &Metrics) -> anyhow::Result<DeadLetters> {
        let shown = settings.file.display().to_string();
        let writer = Writer::open(settings, metrics.clone()).with_context(|| format!("cannot open {shown}"))?;
        let (queue, letters) = mpsc::channel(MAX_WAITING);
        let writer = std::thread::Builder::new().name("dead-letters".to_owned()).spawn(|| writer.run(letters))?;
        Ok(DeadLetters(Some(Post { queue: Some(queue), writer: Some(writer), metrics: metrics.clone() })))
    }

    /// Keeps a letter, which is made only if there is room for it.
    pub(super) fn keep(&self, letter: impl FnOnce() -> Letter) {
        let Some(Post { queue: Some(queue), metrics, .. }) = &self.0 else { return };
        match queue.try_reserve() {
            Ok(room) => room.send(letter()),
            Err(_) => drop(metrics.dead_letters_dropped.inc()),
        }
    }
}

impl Drop for Post {
    /// Waits until what was kept is written.
    fn drop(&mut self) {
        self.queue.take();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// The file's only writer.
struct Writer {
    settings: DeadLetterSettings,
    file: File,
    bytes: u64,
    metrics: Metrics,
    /// Whether the last write failed: an outage is logged once.
    fails: bool,
}

impl Writer {
    fn open(settings: DeadLetterSettings, metrics: Metrics) -> io::Result<Writer> {
        if let Some(folder) = settings.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = open(&settings.file)?;
        let bytes = file.metadata()?.len();
        Ok(Writer { settings, file, bytes, metrics, fails: false })
    }

    fn run(mut self, mut letters: mpsc::Receiver<Letter>) {
        let (mut lines, mut count) = (Vec::new(), 0);
        while let Some(letter) = letters.blocking_recv() {
            let mut next = Some(letter);
            while let Some(letter) = next {
                // Writing into memory fails on nothing that a letter has.
                if serde_json::to_writer(&mut lines, &letter).is_ok() {
                    lines.push(b'\n');
                    count += 1;
                }
                next = if lines.len() < MAX_WRITE_BYTES { letters.try_recv().ok() } else { None };
            }
            self.write(&lines, count);
            (lines, count) = (Vec::new(), 0);
        }
    }

    fn write(&mut self, lines: &[u8], count: u64) {
        match self.try_write(lines) {
            Ok(()) => {
                self.metrics.dead_letters_written.inc_by(count);
                self.fails = false;
            }
            Err(error) => {
                self.metrics.dead_letters_dropped.inc_by(count);
                if !self.fails {
                    tracing::warn!(%error, file = %self.settings.file.display(), "rejected records are not kept");
                }
                self.fails = true;
            }
        }
    }

    fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        let bytes = lines.len() as u64;
        if self.bytes > 0 && self.bytes + bytes > self.settings.max_bytes / 2 {
            fs::rename(&self.settings.file, before(&self.settings.file))?;
            self.file = open(&self.settings.file)?;
            self.bytes = 0;
        }
        self.file.write_all(lines)?;
        self.bytes += bytes;
        Ok(())
    }
}

fn open(file: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(file)
}

fn before(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use tollgate_wire::proto::opentelemetry::proto::common::v1::{KeyValue, KeyValueList};

    use super::super::rejected::Class;
    use super::*;

    fn letter(reason: &str) -> Letter {
        let text = |text: &str| any_value::Value::StringValue(text.to_owned());
        let nested = any_value::Value::KvlistValue(KeyValueList {
            values: vec![KeyValue { key: "content".into(), value: Some(AnyValue { value: Some(text("a secret")) }) }],
        });
        let pairs = [
            ("tollgate.tenant", text("acme")),
            ("gen_ai.system", text("openai")),
            ("gen_ai.usage.input_tokens", any_value::Value::IntValue(-1)),
            ("gen_ai.input.messages", text("a secret")),
            ("gen_ai.request.model", nested),
            ("gen_ai.response.id", text(&"x".repeat(1000))),
        ];
        let pair = |(key, value): (&str, any_value::Value)| KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(value) }),
        };
        let record = LogRecord {
            event_name: "tollgate.usage".into(),
            body: Some(AnyValue { value: Some(text("a secret")) }),
            trace_id: vec![0xab; 16],
            attributes: pairs.into_iter().map(pair).collect(),
            ..LogRecord::default()
        };
        let rejection = Rejection { class: Class::Invalid, reason: reason.to_owned() };
        Letter::new(&record, &rejection, "127.0.0.1:9".parse().ok(), 1_700_000_000_123)
    }

    fn settings(folder: &tempfile::TempDir, max_bytes: u64) -> DeadLetterSettings {
        DeadLetterSettings { file: folder.path().join("made").join("rejected.jsonl"), max_bytes }
    }

    fn lines(file: &Path) -> Vec<Value> {
        fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_letter_has_what_the_table_has_and_no_content() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder, 1 << 20);
        let metrics = Metrics::new().0;
        let letters = DeadLetters::open(settings.clone(), &metrics).unwrap();
        letters.keep(|| letter("why"));
        drop(letters);
        let expected = json!({
            "at": "2023-11-14T22:13:20.123Z",
            "class": "invalid",
            "reason": "why",
            "peer": "127.0.0.1:9",
            "event_name": "tollgate.usage",
            "time_unix_nano": "0",
            "trace_id": "ab".repeat(16),
            "span_id": "",
            "attributes": {
                "tollgate.tenant": "acme",
                "gen_ai.provider.name": "openai",
                "gen_ai.usage.input_tokens": -1,
                "gen_ai.response.id": "x".repeat(256),
            },
        });
        assert_eq!(lines(&settings.file), [expected]);
        assert_eq!(metrics.dead_letters_written.get(), 1);
    }

    #[test]
    fn the_files_are_bounded_and_the_newest_letters_stay() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder, 8000);
        let metrics = Metrics::new().0;
        for run in 0..10 {
            // Each run finds what is there.
            let letters = DeadLetters::open(settings.clone(), &metrics).unwrap();
            for at in 0..3 {
                letters.keep(|| letter(&format!("{run}.{at}")));
            }
        }
        let before = before(&settings.file);
        let bytes = [&settings.file, &before].map(|file| fs::metadata(file).unwrap().len());
        assert!(bytes.iter().all(|bytes| *bytes <= 4000), "{bytes:?}");
        let kept: Vec<_> = lines(&before).into_iter().chain(lines(&settings.file)).collect();
        let reasons: Vec<_> = kept.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
        let all: Vec<_> = (0..10).flat_map(|run| (0..3).map(move |at| format!("{run}.{at}"))).collect();
        assert_eq!(reasons, all[all.len() - reasons.len()..]);
        assert_eq!((metrics.dead_letters_written.get(), metrics.dead_letters_dropped.get()), (30, 0));
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_what_comes_later_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder, 600);
        let metrics = Metrics::new().0;
        let mut writer = Writer::open(settings.clone(), metrics.clone()).unwrap();
        let line = vec![b'x'; 250];
        writer.write(&line, 1);
        fs::create_dir_all(before(&settings.file).join("in the way")).unwrap();
        writer.write(&line, 1);
        assert_eq!((metrics.dead_letters_written.get(), metrics.dead_letters_dropped.get()), (1, 1));
        fs::remove_dir_all(before(&settings.file)).unwrap();
        writer.write(&line, 1);
        assert_eq!((metrics.dead_letters_written.get(), metrics.dead_letters_dropped.get()), (2, 1));
    }

    #[test]
    fn without_a_file_nothing_is_made() {
        DeadLetters::default().keep(|| panic!("nobody keeps it"));
    }
}
