//! The write-ahead spool: what was acknowledged waits here, on disk, for everyone who takes it further.
//!
//! Invariants:
//! - Entries are durable before [`Spool::append`] returns; those that wait together share one sync.
//! - Every [`Consumer`] gets every entry, in order, from where its cursor stands; after a crash, those since the cursor was
//!   last kept again.
//! - The segments are never longer than [`SpoolSettings::max_bytes`] together. When that is reached, the oldest entries are
//!   dropped for the consumers that allow it ([`Lag::Drop`]), which is counted; while one that does not needs them, no more is
//!   taken.
//! - A record that was being written when the process died is passed over: it was never acknowledged. What cannot be read
//!   otherwise is put aside in the folder `corrupt`, and counted.

mod consumer;
mod folder;
mod frame;
mod read;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::entry::Entry;
use crate::metrics::Metrics;
use folder::Folder;
use state::Shared;
use writer::Append;

pub use consumer::Consumer;
pub use folder::Place;
pub use read::{is_segment, read_file};

/// Bytes that wait to be written; more is refused as [`SpoolError::Full`].
pub const MAX_WAITING_BYTES: usize = 64 << 20;

/// A segment that is longer is followed by another; at most this,
const MAX_SEGMENT_BYTES: u64 = 64 << 20;

/// and of all that there may be, one of so many parts.
const SEGMENTS: u64 = 16;

/// Where the spool is, and how large it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Its folder, created when missing; of this spool alone.
    pub folder: PathBuf,
    /// The most bytes of its segments together.
    pub max_bytes: u64,
}

/// What becomes of entries that a consumer has not taken when there is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// They stay, and no more is taken.
    Wait,
    /// The oldest are dropped for it, and counted.
    Drop,
}

/// Why entries were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// There is no room until what waits has been taken further.
    #[error("the spool is full: what waits there has first to be taken further")]
    Full,
    /// The disk said no.
    #[error("the spool cannot be written: {0}")]
    Failed(String),
    /// It is closing.
    #[error("the spool is closed")]
    Closed,
}

/// Entries on disk, in the order in which they came.
pub struct Spool {
    shared: Arc<Shared>,
    queue: Mutex<Option<mpsc::UnboundedSender<Append>>>,
    waiting_bytes: Arc<AtomicUsize>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Spool {
    /// Opens the spool for these consumers, each by a name that its cursor is kept under. A new one begins with the oldest
    /// entry that is there.
    ///
    /// # Errors
    /// When the folder cannot be created or read, or another process uses it.
    pub fn open(
        settings: &SpoolSettings,
        consumers: &[(String, Lag)],
        metrics: &Metrics,
    ) -> anyhow::Result<(Spool, Vec<Consumer>)> {
        let folder = Folder::open(&settings.folder)?;
        let shared = Arc::new(Shared::new(folder, settings.max_bytes, consumers, metrics)?);
        // Its items hold no more than `MAX_WAITING_BYTES` together.
        let (queue, appends) = mpsc::unbounded_channel();
        let segment_bytes = MAX_SEGMENT_BYTES.min(settings.max_bytes / SEGMENTS);
        let writer = writer::Writer::new(Arc::clone(&shared), segment_bytes);
        let writer = std::thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run(appends))?;
        let consumers = (0..consumers.len()).map(|index| Consumer::new(Arc::clone(&shared), index)).collect();
        let spool = Spool {
            shared,
            queue: Mutex::new(Some(queue)),
            waiting_bytes: Arc::default(),
            writer: Mutex::new(Some(writer)),
        };
        Ok((spool, consumers))
    }

    /// Keeps the entries, all or none, and tells where. They are durable when this returns; dropping the future does not take
    /// them back.
    ///
    /// # Errors
    /// When they were not kept.
    pub async fn append(&self, entries: Arc<[Entry]>) -> Result<Place, SpoolError> {
        let too_many = || SpoolError::Failed("too much was sent at once".to_owned());
        let frame = frame::encode(&entries).ok_or_else(too_many)?;
        let waiting = Waiting::reserve(&self.waiting_bytes, frame.len()).ok_or(SpoolError::Full)?;
        let (reply, answer) = oneshot::channel();
        let append = Append { frame, entries, reply, _waiting: waiting };
        self.queue.lock().as_ref().ok_or(SpoolError::Closed)?.send(append).map_err(|_| SpoolError::Closed)?;
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Takes no more, and lets consumers end once they have taken all. Returns when what was waiting is written.
    pub async fn close(&self) {
        self.queue.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && let Ok(Err(_)) = tokio::task::spawn_blocking(move || writer.join()).await
        {
            tracing::error!("the spool's writer died");
        }
        self.shared.close();
    }
}

impl Drop for Spool {
    /// Ends the writer, which has the folder to itself.
    fn drop(&mut self) {
        self.queue.lock().take();
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

/// Bytes that wait, counted while this lives.
struct Waiting {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Waiting {
    fn reserve(all: &Arc<AtomicUsize>, bytes: usize) -> Option<Waiting> {
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Waiting { all: Arc::clone(all), bytes };
        (before == 0 || before + bytes <= MAX_WAITING_BYTES).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
