//! Sinks: where entries go beside the ledger.
//!
//! Invariants:
//! - Each sink reads the spool by itself: one that is down holds up no other, nor the ledger.
//! - An entry is committed once its receiver has it for good, and not before; after a failure or a crash it is sent again. So a
//!   receiver gets each at least once, in order, and tells copies by their ids.
//! - What a receiver refuses for good is found out entry by entry, counted, and named in the log by its id alone.

mod any;
mod backoff;
mod hec;
mod jsonl;
mod metrics;
mod otlp;
mod run;

use std::time::Duration;

use crate::entry::Entry;

pub use any::{AnySink, SinkSettings};
pub use backoff::Pace;
pub use hec::{Hec, HecSettings, MAX_UNACKNOWLEDGED};
pub use jsonl::{Jsonl, JsonlSettings};
pub use metrics::{OneSink, SinkMetrics};
pub use otlp::{Otlp, OtlpSettings};
pub use run::{MAX_BATCH, Source, run};

/// A receiver of entries.
pub trait Sink: Send {
    /// Sends entries from the first on, as many as go together: there is at least one. Tells of how many the receiver has
    /// the last word said.
    ///
    /// # Errors
    /// When that is none. Some may have arrived all the same.
    fn send(&mut self, entries: &[&Entry]) -> impl Future<Output = Result<Taken, SinkError>> + Send;
}

/// So many of the first entries are done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// All of them, at least 1.
    pub entries: usize,
    /// Of them, those that the receiver has thrown away, without saying which.
    pub rejected: usize,
}

/// Why no entry is done with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The same may go later.
    #[error("{why}")]
    Retry {
        /// Not before this has passed, if the receiver says so.
        after: Option<Duration>,
        /// For the log.
        why: String,
    },
    /// The first entries will never be taken together.
    #[error("{why}")]
    Refused {
        /// So many, at least 1.
        entries: usize,
        /// Which of them is at fault, from 0 on, if the receiver says so.
        at: Option<usize>,
        /// For the log.
        why: String,
    },
}

impl SinkError {
    /// The same may go later.
    pub(crate) fn retry(why: impl Into<String>) -> SinkError {
        SinkError::Retry { after: None, why: why.into() }
    }
}
