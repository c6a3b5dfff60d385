//! An insert that is about to be made, on disk: it can be made again just so, whatever becomes of us or of ClickHouse.
//!
//! At most one is there. It is written before its insert, and goes once the insert is known to have succeeded.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use prost::Message;

use super::rows::{Kind, UsageRow};
use crate::chance;
use crate::entry::{EventRecord, TrackedRecord};

const FILE: &str = "clickhouse-intent";
const LOCK: &str = "clickhouse-lock";
/// What the file begins with: the format, and its version.
const MAGIC: &[u8; 8] = b"tollint1";

/// Rows to be inserted, and the token that lets them in once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Intent {
    token: String,
    /// How often its rows were taken out again, as not all of them were there once.
    attempt: u32,
    pub(super) usage: Vec<UsageRow>,
    pub(super) tracked: Vec<TrackedRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(string, tag = "1")]
    token: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
    #[prost(message, repeated, tag = "3")]
    usage: Vec<StoredUsage>,
    #[prost(message, repeated, tag = "4")]
    tracked: Vec<TrackedRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredUsage {
    #[prost(message, optional, tag = "1")]
    record: Option<EventRecord>,
    #[prost(int32, tag = "2")]
    kind: i32,
}

impl Intent {
    pub(super) fn new(usage: Vec<UsageRow>, tracked: Vec<TrackedRecord>) -> Intent {
        Intent { token: chance::id(), attempt: 0, usage, tracked }
    }

    pub(super) fn token(&self) -> String {
        format!("{}-{}", self.token, self.attempt)
    }

    /// Under another token, for rows that are to go in anew.
    pub(super) fn again(&mut self) {
        self.attempt += 1;
    }

    fn to_bytes(&self) -> Vec<u8> {
        let usage = self
            .usage
            .iter()
            .map(|row| StoredUsage { record: Some(row.record.clone()), kind: row.kind_number().into() });
        let body = Stored {
            token: self.token.clone(),
            attempt: self.attempt,
            usage: usage.collect(),
            tracked: self.tracked.clone(),
        };
        let body = body.encode_to_vec();
        [MAGIC, crc32fast::hash(&body).to_be_bytes().as_slice(), &body].concat()
    }

    fn from_bytes(bytes: &[u8]) -> anyhow::Result<Intent> {
        let body = bytes.strip_prefix(MAGIC).context("it is of another format: it may be a newer version's")?;
        let (sum, body) = body.split_first_chunk::<4>().context("it is too short")?;
        ensure!(u32::from_be_bytes(*sum) == crc32fast::hash(body), "its checksum is wrong");
        let Stored { token, attempt, usage, tracked } = Stored::decode(body)?;
        let usage = usage.into_iter().map(|StoredUsage { record, kind }| {
            let kind = i8::try_from(kind).ok().and_then(Kind::from_number).context("a row is of no known kind")?;
            Ok(UsageRow::new(record.context("a row has no record")?, kind))
        });
        Ok(Intent { token, attempt, usage: usage.collect::<anyhow::Result<_>>()?, tracked })
    }
}

/// The folder that intents lie in, held by one process at a time. Clones hold it together.
#[derive(Debug, Clone)]
pub(super) struct Intents {
    folder: PathBuf,
    _lock: Arc<File>,
}

impl Intents {
    /// Creates the folder where it is missing.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Intents> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let path = folder.join(LOCK);
        let lock = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        lock.try_lock()
            .with_context(|| format!("{} is held: another process appends to this ledger", path.display()))?;
        Ok(Intents { folder: folder.to_owned(), _lock: Arc::new(lock) })
    }

    /// The one that is there.
    pub(super) fn read(&self) -> anyhow::Result<Option<Intent>> {
        let path = self.folder.join(FILE);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let intent = Intent::from_bytes(&bytes);
        match intent {
            Ok(intent) => Ok(Some(intent)),
            Err(error) => bail!(
                "{} holds an insert into ClickHouse that may have been made in part, and cannot be read: {error:#}; put \
                 the file aside, and compare entries and sums (tollgate reconcile)",
                path.display()
            ),
        }
    }

    /// Puts the intent there, in place of the one that is. It is durable when this returns.
    pub(super) fn write(&self, intent: &Intent) -> anyhow::Result<()> {
        let path = self.folder.join(FILE);
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&intent.to_bytes())?;
            file.sync_data()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    /// Takes it away. Should it be there again after a loss of power, it is the latest one: made again, it changes nothing.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        let path = self.folder.join(FILE);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_wire::usage_event::{UsageEvent, UsageSource};

    fn intent() -> Intent {
        let event = UsageEvent {
            event_id: "e-1".to_owned(),
            tenant: "acme".to_owned(),
            started_at_ms: 5,
            time_to_first_token_ms: Some(90),
            ..UsageEvent::default()
        };
        let unsettled = UsageEvent { usage_source: UsageSource::Unsettled, ..event.clone() };
        let correction = UsageRow::new(UsageRow::of(&unsettled).record, Kind::Correction);
        let tracked = TrackedRecord { id: "t-1".to_owned(), tenant: "acme".to_owned(), ..TrackedRecord::default() };
        Intent::new(vec![UsageRow::of(&event), correction], vec![tracked])
    }

    #[test]
    fn one_is_there_as_it_was_written_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let intents = Intents::open(&folder.path().join("state")).unwrap();
        assert_eq!(intents.read().unwrap(), None);
        let mut intent = intent();
        intents.write(&intent).unwrap();
        assert_eq!(intents.read().unwrap().as_ref(), Some(&intent));
        let first = intent.token();
        intent.again();
        assert_ne!(intent.token(), first);
        intents.write(&intent).unwrap();
        assert_eq!(intents.read().unwrap().as_ref(), Some(&intent));
        intents.remove().unwrap();
        assert_eq!(intents.read().unwrap(), None);
    }

    #[test]
    fn what_is_damaged_is_told_and_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let intents = Intents::open(folder.path()).unwrap();
        intents.write(&intent()).unwrap();
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for at in [0, MAGIC.len(), MAGIC.len() + 4, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let error = intents.read().unwrap_err().to_string();
            assert!(error.contains("cannot be read"), "{error}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(intents.read().is_err(), "{at}");
        }
    }
}
