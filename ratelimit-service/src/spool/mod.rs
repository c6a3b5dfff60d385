//! The write-ahead spool: what was acknowledged waits here, on disk, for everyone who takes it further.

use std::path::PathBuf;

use crate::entry::{Batch, Entry};

/// Where the spool is, and how large it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Its folder, created when missing; of this spool alone.
    pub folder: PathBuf,
    /// The most bytes of its segments together.
    pub max_bytes: u64,
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
#[derive(Debug)]
pub struct Spool;

impl Spool {
    /// Keeps the entries. They are durable when this returns; dropping the future does not take them back.
    ///
    /// # Errors
    /// When they were not kept.
    pub async fn append(&self, _entries: Vec<Entry>) -> Result<(), SpoolError> {
        Err(SpoolError::Closed)
    }
}

/// Someone who takes entries further, from where its cursor stands: at least once each, in order.
#[derive(Debug)]
pub struct Consumer;

impl Consumer {
    /// What follows what was committed: at most `most` entries, but at least the ones that were appended together. Waits while
    /// there is nothing; `None` once the spool is closed. Dropping the future loses nothing.
    pub async fn next(&mut self, _most: usize) -> Option<Batch> {
        None
    }

    /// What [`Consumer::next`] gave last is done with, for good.
    pub fn commit(&mut self) {}
}
