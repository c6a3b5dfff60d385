//! Frames: entries that were appended together, as bytes that tell whether they are whole.
//!
//! ```text
//! magic "TGF1" | length of the payload, u32 | CRC-32 of entries and payload, u32 | entries, u32 | payload
//! ```
//!
//! Numbers are little endian. The payload is the protobuf message `Entries { repeated Item items = 1 }`, of
//! `Item { oneof entry { EventRecord usage = 1; TrackedRecord tracked = 2 } }`.

use prost::Message;

use crate::entry::{Entry, EntryRecord, InvalidRecord};

/// The longest payload.
pub(super) const MAX_PAYLOAD_BYTES: usize = 64 << 20;

pub(super) const HEADER_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"TGF1";

#[derive(Clone, PartialEq, Message)]
struct Entries {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(oneof = "EntryRecord", tags = "1, 2")]
    entry: Option<EntryRecord>,
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    payload_bytes: u32,
    crc: u32,
    /// How many entries there are.
    pub(super) entries: u32,
}

impl Header {
    /// What the bytes at the beginning of `bytes` say; `None` where no frame begins.
    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let header = Header { payload_bytes: number(4)?, crc: number(8)?, entries: number(12)? };
        let begins = bytes.starts_with(&MAGIC) && header.payload_bytes as usize <= MAX_PAYLOAD_BYTES;
        begins.then_some(header)
    }

    /// How long the whole frame is.
    pub(super) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes as usize
    }
}

/// The frame of `entries`; `None` when they are too many for one.
pub(super) fn encode(entries: &[Entry]) -> Option<Vec<u8>> {
    let items = entries.iter().map(|entry| Item { entry: Some(entry.into()) }).collect();
    let message = Entries { items };
    let length = message.encoded_len();
    if length > MAX_PAYLOAD_BYTES {
        return None;
    }
    let mut frame = Vec::with_capacity(HEADER_BYTES + length);
    frame.extend(MAGIC);
    frame.extend((length as u32).to_le_bytes());
    frame.extend([0; 4]);
    frame.extend(u32::try_from(entries.len()).ok()?.to_le_bytes());
    message.encode_raw(&mut frame);
    let crc = checksum(&frame[12..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
    Some(frame)
}

/// What stands where a frame should begin.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// A frame of so many bytes.
    Frame(Vec<Entry>, usize),
    /// No whole frame.
    Broken,
}

/// Reads the frame that `bytes` begin with.
///
/// # Errors
/// When it is whole, and an entry is none that this version knows.
pub(super) fn read(bytes: &[u8]) -> Result<Found, InvalidFrame> {
    let Some(frame) = whole(bytes) else { return Ok(Found::Broken) };
    let message = Entries::decode(&frame[HEADER_BYTES..]).map_err(|error| InvalidFrame(error.to_string()))?;
    let entry = |item: Item| match item.entry {
        Some(record) => Entry::try_from(record).map_err(|error: InvalidRecord| InvalidFrame(error.to_string())),
        None => Err(InvalidFrame("an entry of an unknown kind".to_owned())),
    };
    let entries = message.items.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(Found::Frame(entries, frame.len()))
}

/// How far into `bytes` the next whole frame begins.
pub(super) fn find(bytes: &[u8]) -> Option<usize> {
    let starts = memchr::memmem::find_iter(bytes, &MAGIC);
    starts.into_iter().find(|start| whole(&bytes[*start..]).is_some())
}

/// A whole frame that holds what this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("written by another version of the service: {0}")]
pub(super) struct InvalidFrame(String);

fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let header = Header::read(bytes)?;
    let frame = bytes.get(..header.frame_bytes())?;
    (checksum(&frame[12..]) == header.crc).then_some(frame)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::TrackedEvent;
    use proptest::prelude::*;
    use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

    fn text() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9 é_-]{1,20}"
    }

    prop_compose! {
        fn usage()(
            names in (text(), text(), proptest::option::of(text())),
            counts in proptest::array::uniform4(any::<u64>()),
            cost_nanousd in proptest::option::of(any::<u64>()),
            finish_reasons in proptest::collection::vec(text(), 0..3),
            source in proptest::sample::select(UsageSource::ALL),
            finish in proptest::sample::select(Finish::ALL),
            (streaming, status) in (any::<bool>(), any::<u16>()),
        ) -> Entry {
            let (event_id, tenant, key) = names;
            Entry::Usage(UsageEvent {
                request_model: key.clone(), event_id, tenant, key, cost_nanousd, finish_reasons, finish, streaming, status,
                usage_source: source, started_at_ms: counts[0], request_bytes: counts[1],
                tokens: TokenCounts { input: counts[2], tool_requests: counts[3], ..TokenCounts::default() },
                ..UsageEvent::default()
            })
        }
    }

    prop_compose! {
        fn tracked()(names in (text(), text(), text()), at_ms: u64, quantity_micros: u64, metadata in text()) -> Entry {
            let (id, tenant, event_type) = names;
            Entry::Tracked(TrackedEvent { id, tenant, event_type, at_ms, quantity_micros, metadata })
        }
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        proptest::collection::vec(prop_oneof![usage(), tracked()], 0..5)
    }

    proptest! {
        #[test]
        fn entries_survive(entries in entries(), after in proptest::collection::vec(any::<u8>(), 0..40)) {
            let frame = encode(&entries).unwrap();
            let header = Header::read(&frame).unwrap();
            prop_assert_eq!((header.entries as usize, header.frame_bytes()), (entries.len(), frame.len()));
            let length = frame.len();
            let bytes = [frame, after].concat();
            prop_assert_eq!(read(&bytes).unwrap(), Found::Frame(entries, length));
        }

        #[test]
        fn a_part_of_a_frame_and_a_changed_one_are_broken(entries in entries(), at: prop::sample::Index, flip in 1..=255u8) {
            let mut frame = encode(&entries).unwrap();
            let at = at.index(frame.len());
            prop_assert_eq!(read(&frame[..at]).unwrap(), Found::Broken);
            frame[at] ^= flip;
            prop_assert_eq!(read(&frame).unwrap(), Found::Broken);
        }

        #[test]
        fn the_next_frame_is_found_behind_anything(entries in entries(), before in proptest::collection::vec(any::<u8>(), 0..100)) {
            let frame = encode(&entries).unwrap();
            let (last, torn) = frame.split_last().unwrap();
            let bytes = [torn, &[!last], &before, &frame].concat();
            prop_assert_eq!(find(&bytes), Some(frame.len() + before.len()));
        }
    }
}
