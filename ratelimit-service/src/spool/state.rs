//! What the writer and the consumers share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use super::folder::{Folder, Place};
use super::{Lag, SpoolError};
use crate::entry::Entry;
use crate::metrics::Metrics;

/// Encoded bytes of the latest entries that are kept in memory too, so that consumers who keep up read no file.
const MAX_CACHED_BYTES: u64 = 8 << 20;

pub(super) struct Shared {
    pub(super) folder: Folder,
    pub(super) metrics: Metrics,
    max_bytes: u64,
    state: Mutex<State>,
    /// Changes whenever there is more, or there will be no more.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// Lengths, without what was not written whole.
    segments: BTreeMap<u64, u64>,
    bytes: u64,
    cursors: Vec<Cursor>,
    cache: VecDeque<Cached>,
    cached_bytes: u64,
    /// The segment that is written to.
    writing: Option<u64>,
    is_closed: bool,
}

struct Cursor {
    name: String,
    lag: Lag,
    place: Place,
    pending: Gauge,
    dropped: Counter,
}

struct Cached {
    from: Place,
    to: Place,
    entries: Arc<[Entry]>,
}

/// What a consumer finds at its cursor.
pub(super) enum Next {
    /// Entries in memory.
    Cached { parts: Vec<(Place, Arc<[Entry]>)>, from: Place, to: Place },
    /// Some in a segment, up to its end.
    Stored { from: Place, end: u64 },
    /// Nothing yet.
    Nothing,
    /// And there will be no more.
    Closed,
}

impl Shared {
    pub(super) fn new(
        folder: Folder,
        max_bytes: u64,
        consumers: &[(String, Lag)],
        metrics: &Metrics,
    ) -> anyhow::Result<Shared> {
        let segments = folder.segments()?;
        let first = Place { segment: segments.keys().next().copied().unwrap_or(0), offset: 0 };
        let mut cursors = Vec::with_capacity(consumers.len());
        for (name, lag) in consumers {
            let place = folder.cursor(name).unwrap_or(first).max(first);
            let pending = metrics.spool_pending(name);
            let mut entries = 0;
            for (number, end) in segments.range(place.segment..) {
                let offset = if *number == place.segment { place.offset } else { 0 };
                entries += folder.count(Place { segment: *number, offset }, *end)?;
            }
            pending.set(entries as i64);
            cursors.push(Cursor {
                name: name.clone(),
                lag: *lag,
                place,
                pending,
                dropped: metrics.spool_dropped(name),
            });
        }
        let mut state = State {
            bytes: segments.values().sum(),
            segments,
            cursors,
            cache: VecDeque::new(),
            cached_bytes: 0,
            writing: None,
            is_closed: false,
        };
        let shared = Shared {
            folder,
            metrics: metrics.clone(),
            max_bytes,
            state: Mutex::default(),
            changed: watch::channel(()).0,
        };
        shared.remove_taken(&mut state);
        *shared.state.lock() = state;
        Ok(shared)
    }

    /// The number of the segment after all that are there, or were.
    pub(super) fn next_segment(&self) -> u64 {
        let state = self.state.lock();
        let last = state.segments.keys().next_back().copied();
        let reached = state.cursors.iter().map(|cursor| cursor.place.segment).max();
        last.max(reached).map_or(0, |number| number + 1)
    }

    /// Makes room for so many bytes, at the cost of consumers whose lag may be dropped.
    pub(super) fn make_room(&self, bytes: u64) -> Result<(), SpoolError> {
        let mut state = self.state.lock();
        if state.bytes + bytes > self.max_bytes {
            self.remove_taken(&mut state);
        }
        while state.bytes + bytes > self.max_bytes {
            let oldest = state.segments.keys().next().copied().filter(|oldest| Some(*oldest) != state.writing);
            let Some(oldest) = oldest else { return Err(SpoolError::Full) };
            let needs = |cursor: &Cursor| cursor.lag == Lag::Wait && cursor.place.segment <= oldest;
            if state.cursors.iter().any(needs) {
                return Err(SpoolError::Full);
            }
            self.drop_for_all(&mut state, oldest);
            self.remove_taken(&mut state);
        }
        Ok(())
    }

    /// Moves every cursor past a segment.
    fn drop_for_all(&self, state: &mut State, segment: u64) {
        let end = state.segments.get(&segment).copied().unwrap_or(0);
        for cursor in state.cursors.iter_mut().filter(|cursor| cursor.place.segment <= segment) {
            let offset = if cursor.place.segment == segment { cursor.place.offset } else { 0 };
            let entries = self.folder.count(Place { segment, offset }, end).unwrap_or(0);
            cursor.place = Place { segment: segment + 1, offset: 0 };
            cursor.pending.dec_by(entries as i64);
            cursor.dropped.inc_by(entries);
            tracing::error!(
                consumer = cursor.name,
                entries,
                "the spool is full: entries were dropped for a consumer that lags"
            );
        }
    }

    /// Removes the segments that every consumer has taken.
    fn remove_taken(&self, state: &mut State) {
        let writing = state.writing;
        let needed = state.cursors.iter().map(|cursor| cursor.place).min();
        let is_taken = |number: u64, length: u64| match needed {
            Some(needed) => needed >= Place { segment: number, offset: length },
            None => true,
        };
        let taken = state.segments.iter().filter(|(number, length)| is_taken(**number, **length));
        let taken: Vec<u64> = taken.map(|(number, _)| *number).filter(|number| Some(*number) != writing).collect();
        for number in taken {
            match self.folder.remove(number) {
                Ok(()) => state.bytes -= state.segments.remove(&number).unwrap_or(0),
                Err(error) => {
                    tracing::warn!(%error, number, "a segment of the spool that is done with cannot be removed")
                }
            }
        }
        self.metrics.spool_bytes.set(state.bytes as i64);
    }

    /// From now on another segment is written to, or none.
    pub(super) fn begun(&self, segment: Option<u64>) {
        let mut state = self.state.lock();
        state.writing = segment;
        self.remove_taken(&mut state);
    }

    /// Frames were written, and are durable: from a segment's offset on, each with its length.
    pub(super) fn written(&self, mut from: Place, frames: impl Iterator<Item = (Arc<[Entry]>, u64)>) {
        let mut state = self.state.lock();
        for (entries, length) in frames {
            let to = Place { offset: from.offset + length, ..from };
            for cursor in &state.cursors {
                cursor.pending.inc_by(entries.len() as i64);
            }
            state.cache.push_back(Cached { from, to, entries });
            state.cached_bytes += length;
            state.bytes += length;
            from = to;
        }
        state.segments.insert(from.segment, from.offset);
        while state.cached_bytes > MAX_CACHED_BYTES
            && let Some(oldest) = state.cache.pop_front()
        {
            state.cached_bytes -= oldest.to.offset - oldest.from.offset;
        }
        self.metrics.spool_bytes.set(state.bytes as i64);
        drop(state);
        self.changed.send_replace(());
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What a consumer gets next: `most` entries of the cache at most, but one part at least.
    pub(super) fn next(&self, consumer: usize, most: usize) -> Next {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(cursor) = state.cursors.get_mut(consumer) else { return Next::Closed };
        // Past the end of a segment stands the beginning of the next.
        loop {
            let at = cursor.place;
            let end = state.segments.get(&at.segment).copied();
            if end.is_some_and(|end| at.offset < end) {
                break;
            }
            match state.segments.range(at.segment + 1..).next() {
                Some((number, _)) => cursor.place = Place { segment: *number, offset: 0 },
                None if state.is_closed => return Next::Closed,
                None => return Next::Nothing,
            }
        }
        let from = cursor.place;
        let Ok(first) = state.cache.binary_search_by_key(&from, |cached| cached.from) else {
            let end = state.segments.get(&from.segment).copied().unwrap_or(from.offset);
            return Next::Stored { from, end };
        };
        let (mut parts, mut to, mut entries) = (Vec::new(), from, 0);
        for cached in state.cache.range(first..).take_while(|cached| cached.from.segment == from.segment) {
            entries += cached.entries.len();
            if entries > most && !parts.is_empty() {
                break;
            }
            parts.push((cached.from, Arc::clone(&cached.entries)));
            to = cached.to;
        }
        Next::Cached { parts, from, to }
    }

    /// A consumer is done with everything before `to`, which were so many entries. What was dropped for it meanwhile stays so.
    pub(super) fn commit(&self, consumer: usize, from: Place, to: Place, entries: usize) {
        let mut state = self.state.lock();
        let Some(cursor) = state.cursors.get_mut(consumer) else { return };
        if cursor.place != from {
            return;
        }
        cursor.place = to;
        cursor.pending.dec_by(entries as i64);
    }

    /// Keeps where the consumer is, and removes what nobody needs any more.
    pub(super) fn keep_cursor(&self, consumer: usize) {
        let (name, place) = {
            let mut state = self.state.lock();
            self.remove_taken(&mut state);
            let Some(cursor) = state.cursors.get(consumer) else { return };
            (cursor.name.clone(), cursor.place)
        };
        if let Err(error) = self.folder.keep_cursor(&name, place) {
            tracing::warn!(%error, consumer = name, "the spool cannot keep how far a consumer is; after a crash it gets entries again");
        }
    }

    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.send_replace(());
    }
}
