//! The service's SQLite file.
//!
//! Invariants:
//! - One connection of this process writes, each job in a transaction of its own, which is durable (WAL with
//!   `synchronous=FULL`) before its answer comes. At most [`MAX_QUEUED_WRITES`] wait; one more is refused.
//! - A job that fails changes nothing, and the next one is tried all the same.
//! - Reads see what is committed, and wait for no write.

mod functions;
mod migrations;

#[cfg(test)]
pub(crate) use migrations::statements as migrations_for_tests;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The most jobs that wait to write.
pub const MAX_QUEUED_WRITES: usize = 128;

/// How many reads there may be at once.
const READERS: usize = 4;

/// How long a statement waits for another process that has the file locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements that a connection keeps prepared.
const PREPARED: usize = 64;

/// What a connection that writes keeps of the file in memory, in KiB.
const CACHE_KIB: i64 = 64 * 1024;

/// After so many pages the write-ahead log is folded into the file: seldom, as each time costs two syncs.
const CHECKPOINT_PAGES: i64 = 16_384;

/// Why the database did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// More is waiting than it queues.
    #[error("{MAX_QUEUED_WRITES} writes are waiting for the database already")]
    Busy,
    /// It is closing.
    #[error("the database is closed")]
    Closed,
    /// SQLite said no.
    #[error("{file}: {message}")]
    Failed {
        /// Which file.
        file: String,
        /// What it said.
        message: String,
    },
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The file, for all who keep something in it.
pub struct Database {
    file: PathBuf,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
}

impl Database {
    /// Opens the file, creating it and its folder where they are missing, and brings its tables up to date.
    ///
    /// # Errors
    /// When it cannot be created or opened, or is no database of this version or an earlier one.
    pub async fn open(file: &Path) -> anyhow::Result<Database> {
        let owned = file.to_owned();
        let opened = tokio::task::spawn_blocking(move || Database::open_now(&owned)).await?;
        opened.with_context(|| format!("cannot open {}", file.display()))
    }

    fn open_now(file: &Path) -> anyhow::Result<Database> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mut connection = Connection::open(file)?;
        prepare(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        migrations::run(&mut connection)?;
        let readers = (0..READERS).map(|_| open_reader(file)).collect::<Result<Vec<_>, _>>()?;
        let (queue, jobs) = mpsc::channel(MAX_QUEUED_WRITES);
        let writer = std::thread::Builder::new().name("sqlite".to_owned()).spawn(move || write(connection, jobs))?;
        Ok(Database {
            file: file.to_owned(),
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            readers: Arc::new(Mutex::new(readers)),
            free: Arc::new(Semaphore::new(READERS)),
        })
    }

    /// Has `job` write, all or nothing. It is durable when this returns; dropping the future does not take it back.
    ///
    /// # Errors
    /// When nothing was written.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (reply, answer) = oneshot::channel();
        let job = move |connection: &mut Connection| {
            let written =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
                    let written = job(&transaction)?;
                    transaction.commit()?;
                    Ok(written)
                });
            // Nobody listens when who asked has gone.
            let _ = reply.send(written);
        };
        self.enqueue(Box::new(job))?;
        answer.await.map_err(|_| DatabaseError::Closed)?.map_err(|error| self.failed(error))
    }

    fn enqueue(&self, job: Job) -> Result<(), DatabaseError> {
        let queue = self.queue.lock();
        queue.as_ref().ok_or(DatabaseError::Closed)?.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DatabaseError::Busy,
            mpsc::error::TrySendError::Closed(_) => DatabaseError::Closed,
        })
    }

    /// Has `job` read: all of it sees one state.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| DatabaseError::Closed)?;
        let readers = Arc::clone(&self.readers);
        let read = tokio::task::spawn_blocking(move || {
            let mut reader = readers.lock().pop().ok_or(DatabaseError::Closed)?;
            let read = reader.transaction().and_then(|transaction| job(&transaction));
            readers.lock().push(reader);
            drop(permit);
            Ok(read)
        });
        let read = read.await.map_err(|error| self.failed(error))??;
        read.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl Display) -> DatabaseError {
        DatabaseError::Failed { file: self.file.display().to_string(), message: error.to_string() }
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        self.read(|transaction| {
            transaction.query_row("SELECT 1 FROM usage_sums LIMIT 1", [], |_| Ok(())).or_else(none)
        })
        .await?;
        match self.queue.lock().as_ref() {
            Some(queue) if !queue.is_closed() => Ok(()),
            _ => Err(DatabaseError::Closed),
        }
    }

    /// Writes what is waiting, and closes.
    pub async fn close(&self) {
        // The readers first: the last connection folds the write-ahead log into the file, which they cannot.
        self.free.close();
        self.readers.lock().clear();
        self.queue.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && let Ok(Err(_)) = tokio::task::spawn_blocking(move || writer.join()).await
        {
            tracing::error!("the database's writer died");
        }
    }
}

/// No row is no failure.
fn none(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    }
}

/// SQLite's integers are signed: what is larger is kept as the largest.
pub(crate) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(LOCK_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    functions::add(connection)
}

fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(file, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

fn write(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        job(&mut connection);
    }
    if let Err((_, error)) = connection.close() {
        tracing::error!(%error, "the database did not close cleanly");
    }
}
