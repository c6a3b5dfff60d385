//! The spool's files: numbered segments, and where consumers are.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::frame::{HEADER_BYTES, Header};

const EXTENSION: &str = "spool";

/// Where bytes that could not be read are put aside.
const CORRUPT: &str = "corrupt";

/// A place between two frames; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Place {
    /// The segment's number.
    pub(super) segment: u64,
    /// How far into it.
    pub(super) offset: u64,
}

impl Place {
    /// Greater than this one, and not greater than any other that is.
    pub(crate) fn after(self) -> Place {
        Place { offset: self.offset + 1, ..self }
    }

    #[cfg(test)]
    pub(crate) fn at(offset: u64) -> Place {
        Place { segment: 0, offset }
    }
}

/// The folder, which this process alone uses while it lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates it where it is missing, and locks it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Folder> {
        use anyhow::Context;
        let creating = || format!("cannot create {}", path.display());
        fs::create_dir_all(path).with_context(creating)?;
        let lock = File::create(path.join("lock")).with_context(creating)?;
        lock.try_lock().with_context(|| format!("{} is used by another process", path.display()))?;
        Ok(Folder { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All segments, with their lengths.
    pub(super) fn segments(&self) -> io::Result<BTreeMap<u64, u64>> {
        let mut segments = BTreeMap::new();
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            if let Some(number) = number(&file.path()) {
                segments.insert(number, file.metadata()?.len());
            }
        }
        Ok(segments)
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:020}.{EXTENSION}"))
    }

    /// A new segment. That it is there is durable.
    pub(super) fn create(&self, number: u64) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create_new(true).open(self.segment(number))?;
        File::open(&self.path)?.sync_all()?;
        Ok(file)
    }

    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.segment(number))
    }

    /// The bytes of a segment from an offset on: all of a frame that begins there, or `most` where that is longer.
    pub(super) fn read(&self, from: Place, end: u64, most: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.segment(from.segment))?;
        let mut header = [0; HEADER_BYTES];
        let is_header =
            end - from.offset >= HEADER_BYTES as u64 && file.read_exact_at(&mut header, from.offset).is_ok();
        let first = Header::read(&header).filter(|_| is_header).map_or(0, |header| header.frame_bytes());
        let wanted = (most.max(first) as u64).min(end - from.offset);
        let mut bytes = Vec::with_capacity(wanted as usize);
        let mut file = file;
        file.seek(SeekFrom::Start(from.offset))?;
        file.take(wanted).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// How many entries the frames of a segment say that they have, from an offset on; those behind a broken one are not known.
    pub(super) fn count(&self, from: Place, end: u64) -> io::Result<u64> {
        let file = File::open(self.segment(from.segment))?;
        let (mut offset, mut entries) = (from.offset, 0);
        let mut bytes = [0; HEADER_BYTES];
        while offset + HEADER_BYTES as u64 <= end {
            file.read_exact_at(&mut bytes, offset)?;
            let Some(header) = Header::read(&bytes) else { break };
            offset += header.frame_bytes() as u64;
            if offset <= end {
                entries += u64::from(header.entries);
            }
        }
        Ok(entries)
    }

    /// Keeps bytes that cannot be read, and tells where.
    pub(super) fn set_aside(&self, at: Place, bytes: &[u8]) -> io::Result<PathBuf> {
        let folder = self.path.join(CORRUPT);
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{:020}-{}.{EXTENSION}", at.segment, at.offset));
        fs::write(&file, bytes)?;
        Ok(file)
    }

    /// Where a consumer was; `None` for a new one, or where that cannot be read.
    pub(super) fn cursor(&self, consumer: &str) -> Option<Place> {
        serde_json::from_slice(&fs::read(self.cursor_file(consumer)).ok()?).ok()
    }

    pub(super) fn keep_cursor(&self, consumer: &str, place: Place) -> io::Result<()> {
        let (file, new) = (self.cursor_file(consumer), self.path.join(format!("{consumer}.cursor.new")));
        let mut written = File::create(&new)?;
        written.write_all(&serde_json::to_vec(&place)?)?;
        written.sync_data()?;
        fs::rename(new, file)
    }

    fn cursor_file(&self, consumer: &str) -> PathBuf {
        self.path.join(format!("{consumer}.cursor"))
    }
}

/// The number of a segment's file.
fn number(file: &Path) -> Option<u64> {
    let stem = file.file_stem()?.to_str()?;
    (file.extension()? == EXTENSION).then(|| stem.parse().ok())?
}
