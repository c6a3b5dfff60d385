//! The thread that writes.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::folder::Place;
use super::state::Shared;
use super::{SpoolError, Waiting};
use crate::entry::Entry;

/// Bytes after which a group is synced, though more is waiting.
const MAX_GROUP_BYTES: usize = 8 << 20;

/// Entries to be kept, and who waits for that.
pub(super) struct Append {
    pub(super) frame: Vec<u8>,
    pub(super) entries: Arc<[Entry]>,
    pub(super) reply: oneshot::Sender<Result<Place, SpoolError>>,
    pub(super) _waiting: Waiting,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    segment_bytes: u64,
    /// The segment that is written to, and how much of it is durable.
    current: Option<(File, Place)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, segment_bytes: u64) -> Writer {
        Writer { shared, segment_bytes, current: None }
    }

    /// Writes until nobody can send any more, and all is written.
    pub(super) fn run(mut self, mut queue: mpsc::UnboundedReceiver<Append>) {
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.frame.len();
            let mut group = vec![first];
            while bytes < MAX_GROUP_BYTES
                && let Ok(append) = queue.try_recv()
            {
                bytes += append.frame.len();
                group.push(append);
            }
            let written = self.write(&group);
            if let Err(error @ SpoolError::Failed(_)) = &written {
                tracing::error!(%error, folder = %self.shared.folder.path().display(), "nothing was taken");
            }
            let mut place = written;
            for append in group {
                let next =
                    place.clone().map(|place| Place { offset: place.offset + append.frame.len() as u64, ..place });
                // Nobody listens when the client has gone; it will send the entries again.
                let _ = append.reply.send(std::mem::replace(&mut place, next));
            }
        }
    }

    /// Writes the frames, one after the other, and gives where the first is.
    fn write(&mut self, group: &[Append]) -> Result<Place, SpoolError> {
        let bytes: usize = group.iter().map(|append| append.frame.len()).sum();
        self.shared.make_room(bytes as u64)?;
        let begun = Instant::now();
        match self.write_durably(group) {
            Ok(from) => {
                self.shared.metrics.spool_sync_seconds.observe(begun.elapsed().as_secs_f64());
                let frames = group.iter().map(|append| (Arc::clone(&append.entries), append.frame.len() as u64));
                self.shared.written(from, frames);
                Ok(from)
            }
            Err(error) => {
                self.give_up_segment();
                Err(SpoolError::Failed(error.to_string()))
            }
        }
    }

    /// Leaves the frames on disk.
    fn write_durably(&mut self, group: &[Append]) -> io::Result<Place> {
        if self.current.as_ref().is_some_and(|(_, end)| end.offset >= self.segment_bytes) {
            self.current = None;
        }
        let (file, end) = match &mut self.current {
            Some(current) => current,
            none => {
                let place = Place { segment: self.shared.next_segment(), offset: 0 };
                let file = self.shared.folder.create(place.segment)?;
                self.shared.begun(Some(place.segment));
                none.insert((file, place))
            }
        };
        for append in group {
            file.write_all(&append.frame)?;
        }
        file.sync_data()?;
        let from = *end;
        end.offset += group.iter().map(|append| append.frame.len() as u64).sum::<u64>();
        Ok(from)
    }

    /// After a failure it is not known what of the file is on disk: the next frames go into another. What is not durable of this
    /// one is cut off, so that it takes no room; should that fail too, it is passed over when read.
    fn give_up_segment(&mut self) {
        if let Some((file, end)) = self.current.take() {
            let _ = file.set_len(end.offset);
            if end.offset == 0 {
                let _ = self.shared.folder.remove(end.segment);
            }
        }
        self.shared.begun(None);
    }
}
