//! A file with a JSON object a line, each an [`EntryRecord`].
//!
//! Invariants:
//! - What is told to be taken is on disk, whole lines and in order.
//! - A line that a crash has torn is cut off before anything follows it. Its entry, and whole lines that were not told of
//!   yet, are written again: copies have the same ids.
//! - Of full files the latest are kept: `usage.jsonl.1` is the latest of them, and what is older than the last is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Sink, SinkError, Taken};
use crate::entry::{Entry, EntryRecord};

/// The longest line that is taken for a torn one of ours. A file that ends with a longer one is left alone.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Where the file is, and how long it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonlSettings {
    /// Created when missing, with its folder.
    pub path: PathBuf,
    /// It is put aside once it has so many bytes.
    pub max_bytes: u64,
    /// How many that were put aside are kept.
    pub keep: u32,
}

impl JsonlSettings {
    /// The usual ones.
    pub fn new(path: impl Into<PathBuf>) -> JsonlSettings {
        JsonlSettings { path: path.into(), max_bytes: 256 * 1024 * 1024, keep: 16 }
    }

    fn put_aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// The sink.
pub struct Jsonl {
    settings: JsonlSettings,
    /// `None` before the first writing and after one that failed.
    open: Option<Open>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl Jsonl {
    /// A sink that opens its file once it has something to write.
    pub fn new(settings: JsonlSettings) -> Jsonl {
        Jsonl { settings, open: None }
    }
}

impl Sink for Jsonl {
    async fn send(&mut self, entries: &[&Entry]) -> Result<Taken, SinkError> {
        let mut lines = Vec::new();
        for entry in entries {
            // Texts and numbers, to memory: it cannot fail.
            serde_json::to_writer(&mut lines, &EntryRecord::from(*entry))
                .map_err(|error| SinkError::retry(error.to_string()))?;
            lines.push(b'\n');
        }
        let (settings, open) = (self.settings.clone(), self.open.take());
        let written = tokio::task::spawn_blocking(move || append(&settings, open, &lines)).await;
        let path = self.settings.path.display();
        let open = written.map_err(|error| SinkError::retry(error.to_string()))?;
        self.open = Some(open.map_err(|error| SinkError::retry(format!("{path} cannot be written: {error}")))?);
        Ok(Taken { entries: entries.len(), rejected: 0 })
    }
}

/// Appends whole lines, and gives the file once they are on disk. After a failure what was written of them is cut off again,
/// if that is possible.
fn append(settings: &JsonlSettings, open: Option<Open>, lines: &[u8]) -> io::Result<Open> {
    let mut open = match open {
        Some(open) => open,
        None => Open::at(&settings.path)?,
    };
    if open.bytes >= settings.max_bytes {
        drop(open);
        rotate(settings)?;
        open = Open::at(&settings.path)?;
    }
    let written = open.file.write_all(lines).and_then(|()| open.file.sync_data());
    if let Err(error) = written {
        let _ = open.file.set_len(open.bytes);
        return Err(error);
    }
    open.bytes += lines.len() as u64;
    Ok(open)
}

impl Open {
    fn at(path: &Path) -> io::Result<Open> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let is_new = !path.try_exists()?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.try_lock().map_err(|error| io::Error::other(format!("another process may write to it: {error}")))?;
        let bytes = whole_lines(&mut file)?;
        if is_new {
            sync_folder(path)?;
        }
        Ok(Open { file, bytes })
    }
}

/// Cuts off the line that has no end, and gives the length of the rest.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let bytes = file.metadata()?.len();
    let begin = bytes.saturating_sub(MAX_LINE_BYTES);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.take(MAX_LINE_BYTES).read_to_end(&mut end)?;
    let whole = match end.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => begin + at as u64 + 1,
        None if begin == 0 && end.first().is_none_or(|byte| *byte == b'{') => 0,
        None => return Err(io::Error::other("it has no lines of JSON; name another file")),
    };
    if whole < bytes {
        tracing::warn!(bytes = bytes - whole, "a torn line was cut off a sink's file; its entry is written again");
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(whole)
}

/// Puts the file aside. Cut short, it leaves a number free, which the next one fills.
fn rotate(settings: &JsonlSettings) -> io::Result<()> {
    let existing = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    if settings.keep == 0 {
        existing(fs::remove_file(&settings.path))?;
        return sync_folder(&settings.path);
    }
    for number in (1..settings.keep).rev() {
        existing(fs::rename(settings.put_aside(number), settings.put_aside(number + 1)))?;
    }
    fs::rename(&settings.path, settings.put_aside(1))?;
    sync_folder(&settings.path)
}

/// Makes names durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::TrackedEvent;

    fn entry(id: &str) -> Entry {
        Entry::Tracked(TrackedEvent {
            id: id.to_owned(),
            tenant: "acme".into(),
            event_type: "image".into(),
            ..TrackedEvent::default()
        })
    }

    async fn write(sink: &mut Jsonl, ids: &[&str]) -> Result<Taken, SinkError> {
        let entries: Vec<_> = ids.iter().map(|id| entry(id)).collect();
        sink.send(&entries.iter().collect::<Vec<_>>()).await
    }

    fn ids(path: &Path) -> Vec<String> {
        let id =
            |line: &str| Entry::try_from(serde_json::from_str::<EntryRecord>(line).unwrap()).unwrap().id().to_owned();
        fs::read_to_string(path).unwrap().lines().map(id).collect()
    }

    #[tokio::test]
    async fn entries_are_lines_and_a_torn_one_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("usage.jsonl");
        let sink = || Jsonl::new(JsonlSettings::new(&path));
        write(&mut sink(), &["1", "2"]).await.unwrap();
        let whole = fs::read(&path).unwrap();
        // As a crash leaves it, at every place of the next line.
        let torn = serde_json::to_vec(&EntryRecord::from(&entry("3"))).unwrap();
        for length in 0..=torn.len() {
            fs::write(&path, [&whole[..], &torn[..length]].concat()).unwrap();
            write(&mut sink(), &["3", "4"]).await.unwrap();
            assert_eq!(ids(&path), ["1", "2", "3", "4"], "torn after {length} bytes");
        }
        fs::write(&path, &torn[..5]).unwrap();
        write(&mut sink(), &["3"]).await.unwrap();
        assert_eq!(ids(&path), ["3"]);
    }

    #[tokio::test]
    async fn full_files_are_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let settings = JsonlSettings { max_bytes: 1, keep: 2, ..JsonlSettings::new(folder.path().join("usage.jsonl")) };
        let mut sink = Jsonl::new(settings.clone());
        for id in ["1", "2", "3", "4"] {
            write(&mut sink, &[id]).await.unwrap();
        }
        let kept =
            [settings.put_aside(2), settings.put_aside(1), settings.path.clone()].map(|path| ids(&path).concat());
        assert_eq!(kept, ["2", "3", "4"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        // A number that is free, as after a crash between two renames, is filled.
        fs::remove_file(settings.put_aside(1)).unwrap();
        write(&mut sink, &["5"]).await.unwrap();
        let kept =
            [settings.put_aside(2), settings.put_aside(1)].map(|path| path.exists().then(|| ids(&path).concat()));
        assert_eq!(kept, [Some("2".to_owned()), Some("4".to_owned())]);
    }

    #[tokio::test]
    async fn what_is_no_file_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other");
        fs::write(&path, "what else there is").unwrap();
        let error = write(&mut Jsonl::new(JsonlSettings::new(&path)), &["1"]).await.unwrap_err();
        assert!(error.to_string().contains("name another file"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "what else there is");
    }

    #[tokio::test]
    async fn two_do_not_write_to_one_file_and_a_failure_passes() {
        let folder = tempfile::tempdir().unwrap();
        let settings = JsonlSettings::new(folder.path().join("a").join("usage.jsonl"));
        fs::write(folder.path().join("a"), "").unwrap();
        let (mut first, mut second) = (Jsonl::new(settings.clone()), Jsonl::new(settings.clone()));
        assert!(matches!(write(&mut first, &["1"]).await, Err(SinkError::Retry { .. })), "its folder is a file");
        fs::remove_file(folder.path().join("a")).unwrap();
        write(&mut first, &["1"]).await.unwrap();
        let error = write(&mut second, &["2"]).await.unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(first);
        write(&mut second, &["2"]).await.unwrap();
        assert_eq!(ids(&settings.path), ["1", "2"]);
    }
}
