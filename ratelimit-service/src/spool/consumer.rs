//! Those who take entries further.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::folder::Place;
use super::state::{Next, Shared};
use crate::entry::Batch;

/// A busy consumer's cursor is kept that often.
const KEEP_INTERVAL: Duration = Duration::from_millis(250);

/// After a read that failed, it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Someone who takes entries further, from where its cursor stands: at least once each, in order.
pub struct Consumer {
    shared: Arc<Shared>,
    index: usize,
    changed: watch::Receiver<()>,
    /// What was given last.
    given: Option<Given>,
    /// Since when there is something to keep.
    unkept_since: Option<Instant>,
}

enum Looked {
    Found(Batch),
    Nothing,
    Closed,
}

struct Given {
    from: Place,
    to: Place,
    places: Vec<Place>,
    entries: usize,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Consumer {
        let changed = shared.subscribe();
        Consumer { shared, index, changed, given: None, unkept_since: None }
    }

    /// What follows what was committed: at most `most` entries, but at least the ones that were appended together. Waits while
    /// there is nothing; `None` once the spool is closed and all was given. Dropping the future loses nothing.
    pub async fn next(&mut self, most: usize) -> Option<Batch> {
        loop {
            match self.look(most).await {
                Looked::Found(batch) => return Some(batch),
                Looked::Nothing => self.changed.changed().await.ok()?,
                Looked::Closed => return None,
            }
        }
    }

    /// What follows, if it is there already.
    pub async fn ready(&mut self, most: usize) -> Option<Batch> {
        match self.look(most).await {
            Looked::Found(batch) => Some(batch),
            Looked::Nothing | Looked::Closed => None,
        }
    }

    async fn look(&mut self, most: usize) -> Looked {
        self.keep_after(KEEP_INTERVAL).await;
        loop {
            self.changed.borrow_and_update();
            let (parts, from, to) = match self.shared.next(self.index, most) {
                Next::Cached { parts, from, to } => (parts, from, to),
                Next::Stored { from, end } => {
                    let shared = Arc::clone(&self.shared);
                    let read = tokio::task::spawn_blocking(move || shared.read(from, end, most)).await;
                    match read.unwrap_or_else(|error| Err(error.into())) {
                        Ok(stored) => (stored.parts, from, stored.to),
                        // It may have been dropped meanwhile: then the cursor is elsewhere now.
                        Err(error) => {
                            tracing::warn!(%error, "the spool cannot be read; it is tried again");
                            tokio::time::sleep(RETRY_INTERVAL).await;
                            continue;
                        }
                    }
                }
                Next::Nothing => {
                    self.keep_after(Duration::ZERO).await;
                    return Looked::Nothing;
                }
                Next::Closed => {
                    self.keep_after(Duration::ZERO).await;
                    return Looked::Closed;
                }
            };
            let (places, parts) = parts.into_iter().unzip();
            let batch = Batch::new(parts);
            self.given = Some(Given { from, to, places, entries: batch.len() });
            if !batch.is_empty() {
                return Looked::Found(batch);
            }
            // What could not be read was passed over.
            self.commit();
        }
    }

    /// Where the next entries go that come, should no one have come since the spool was opened.
    pub fn end(&self) -> Place {
        Place { segment: self.shared.next_segment(), offset: 0 }
    }

    /// Where the parts of what [`Consumer::next`] gave last stand: entries that were appended together are one.
    pub fn places(&self) -> &[Place] {
        self.given.as_ref().map_or(&[], |given| &given.places)
    }

    /// What [`Consumer::next`] gave last is done with, for good.
    pub fn commit(&mut self) {
        let Some(Given { from, to, entries, .. }) = self.given.take() else { return };
        self.shared.commit(self.index, from, to, entries);
        self.unkept_since.get_or_insert_with(Instant::now);
    }

    /// Keeps the cursor, if it was moved `since` so long: off the runtime's own threads, as it waits for the disk.
    async fn keep_after(&mut self, since: Duration) {
        if self.unkept_since.is_some_and(|moved| moved.elapsed() >= since) {
            self.unkept_since = None;
            let (shared, index) = (Arc::clone(&self.shared), self.index);
            let _ = tokio::task::spawn_blocking(move || shared.keep_cursor(index)).await;
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.unkept_since.is_some() {
            self.shared.keep_cursor(self.index);
        }
    }
}
