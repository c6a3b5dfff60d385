//! Reading frames from files.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::folder::Place;
use super::frame::{self, Found};
use super::state::Shared;
use crate::entry::Entry;

/// Bytes that are read at once; a longer frame is read whole.
const READ_BYTES: usize = 4 << 20;

/// What was read, and where it ends.
pub(super) struct Stored {
    pub(super) parts: Vec<(Place, Arc<[Entry]>)>,
    pub(super) to: Place,
}

impl Shared {
    /// The frames from a place in a segment on: with `most` entries at most, but one frame at least. What cannot be read is put
    /// aside, and passed over.
    pub(super) fn read(&self, from: Place, end: u64, most: usize) -> io::Result<Stored> {
        let bytes = self.folder.read(from, end, READ_BYTES)?;
        let (mut parts, mut entries, mut at) = (Vec::<(Place, Arc<[Entry]>)>::new(), 0, 0);
        while entries < most
            && let Ok(Found::Frame(found, length)) = frame::read(&bytes[at..])
            && (parts.is_empty() || entries + found.len() <= most)
        {
            entries += found.len();
            parts.push((Place { offset: from.offset + at as u64, ..from }, found.into()));
            at += length;
        }
        if !parts.is_empty() {
            return Ok(Stored { parts, to: Place { offset: from.offset + at as u64, ..from } });
        }
        self.pass_over(from, end)
    }

    /// Puts aside what is before the next frame.
    fn pass_over(&self, from: Place, end: u64) -> io::Result<Stored> {
        let bytes = self.folder.read(from, end, usize::MAX)?;
        let reason = frame::read(&bytes).err();
        let skipped = bytes.get(1..).and_then(frame::find).map_or(bytes.len(), |found| found + 1);
        let is_torn = reason.is_none() && skipped == bytes.len() && is_torn(&bytes);
        if is_torn {
            tracing::warn!(bytes = skipped, "a record that was being written when the service died was passed over");
            self.metrics.spool_torn.inc();
        } else {
            let file = self.folder.set_aside(from, &bytes[..skipped])?;
            let reason = reason.map_or_else(|| "its checksum is wrong".to_owned(), |reason| reason.to_string());
            tracing::error!(bytes = skipped, file = %file.display(), reason, "a record of the spool was put aside: it cannot be read");
            self.metrics.spool_corrupt.inc();
        }
        Ok(Stored { parts: Vec::new(), to: Place { offset: from.offset + skipped as u64, ..from } })
    }
}

/// Whether these are the beginning of a frame whose rest was never written; a file system may leave zeros there.
fn is_torn(bytes: &[u8]) -> bool {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match frame::Header::read(bytes) {
        Some(header) => header.frame_bytes() > bytes.len() || header.frame_bytes() > written,
        None => written < frame::HEADER_BYTES,
    }
}

/// Whether a file begins as a segment does.
///
/// # Errors
/// When it cannot be read.
pub fn is_segment(file: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    fs::File::open(file)?.take(frame::HEADER_BYTES as u64).read_to_end(&mut start)?;
    Ok(frame::Header::read(&start).is_some())
}

/// All entries of a segment's file, and how many bytes of it could not be read.
///
/// # Errors
/// When the file cannot be read.
pub fn read_file(file: &Path) -> io::Result<(Vec<Entry>, usize)> {
    let bytes = fs::read(file)?;
    let (mut entries, mut at, mut unread) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        match frame::read(&bytes[at..]) {
            Ok(Found::Frame(found, length)) => {
                entries.extend(found);
                at += length;
            }
            Ok(Found::Broken) | Err(_) => {
                let skipped = bytes.get(at + 1..).and_then(frame::find).map_or(bytes.len() - at, |found| found + 1);
                unread += skipped;
                at += skipped;
            }
        }
    }
    Ok((entries, unread))
}
