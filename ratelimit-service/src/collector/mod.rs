//! The collector: takes what is to be billed, and answers once it is kept.
//!
//! Invariants:
//! - An export is answered once its entries are durable in the spool, never before.
//! - A record that is no valid usage event is rejected by itself, with a reason; the others are taken.
//! - A call whose reservation is known is settled at once, whatever the ledger does.

mod otlp;

use std::sync::Arc;

use crate::entry::Entry;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::spool::{Spool, SpoolError};

/// Takes entries.
#[derive(Clone)]
pub struct Collector {
    spool: Arc<Spool>,
    limiter: Arc<Limiter>,
    metrics: Metrics,
}

impl Collector {
    /// Keeps entries in `spool` and settles calls in `limiter`.
    pub fn new(spool: Arc<Spool>, limiter: Arc<Limiter>, metrics: Metrics) -> Collector {
        Collector { spool, limiter, metrics }
    }

    /// Keeps entries that came from outside: the plan that holds now is named where a call named none, and what calls cost is
    /// worked out. They are durable when this returns.
    ///
    /// # Errors
    /// When none of them was kept; they may be sent again.
    pub async fn store(&self, entries: Vec<Entry>) -> Result<(), SpoolError> {
        // A task of its own, so that a client's going away cannot part keeping from settling.
        let collector = self.clone();
        let stored = tokio::spawn(async move { collector.spool.append(entries).await });
        stored.await.map_err(|error| SpoolError::Failed(error.to_string()))?
    }
}
