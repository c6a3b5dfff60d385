//! From the spool into the ledger.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tollgate_domain::Settles;
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use super::{Collector, SETTLED_AT_ONCE};
use crate::entry::{Batch, Entry};
use crate::ledger::Ledger;
use crate::spool::Consumer;

/// The most entries that are stored together, beside a larger export.
const MAX_BATCH: usize = 16_384;

/// How long it waits until it tries again what the ledger did not store: doubled each time, up to the longest.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Which calls are settled that were not when they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// Those that are new, and those whose reservation is known.
    Late,
    /// Those whose reservation is known, and those that are new and had none: of the others it is not known whether the service
    /// settled them before it died.
    Again,
    /// The counters learn from the ledger what was used.
    Never,
}

/// Brings what waits in the spool into a ledger, in order, until the spool is closed and all is taken.
pub struct Drain {
    /// What waits.
    pub consumer: Consumer,
    /// Where it goes.
    pub ledger: Arc<dyn Ledger>,
    /// Who settles.
    pub collector: Collector,
}

impl Drain {
    /// Takes all, waiting for more.
    pub async fn run(mut self) {
        while let Some(batch) = self.consumer.next(MAX_BATCH).await {
            let limiter = Arc::clone(&self.collector.limiter);
            let _posting = limiter.posting().await;
            let new = self.store(&batch).await;
            self.finish(&batch, &new, Settling::Late).await;
        }
    }

    /// Takes what is there at the start.
    ///
    /// # Errors
    /// When the ledger does not store it.
    pub async fn catch_up(&mut self, settling: Settling) -> anyhow::Result<()> {
        while let Some(batch) = self.consumer.ready(MAX_BATCH).await {
            let new = self.ledger.append(batch.clone()).await?;
            self.finish(&batch, &new, settling).await;
        }
        Ok(())
    }

    /// The entries are stored: calls that were not settled before are settled.
    async fn finish(&mut self, batch: &Batch, new: &[bool], settling: Settling) {
        let (mut of_batch, mut accepted) = (new.iter(), 0);
        let (mut late, mut expired) = (Vec::new(), Vec::new());
        for (place, part) in self.consumer.places().iter().zip(batch.parts()) {
            let settled = self.collector.settled.take(*place);
            let is_settled = |index| settled.as_ref().is_some_and(|settled| settled.get(index) == Some(&true));
            for (index, (entry, is_new)) in part.iter().zip(of_batch.by_ref()).enumerate() {
                accepted += u64::from(*is_new);
                if let Entry::Usage(event) = entry
                    && *is_new
                    && let Some(usage) = &self.collector.usage
                {
                    usage.observe(event);
                }
                match entry {
                    Entry::Usage(event) if event.usage_source == UsageSource::Unsettled && *is_new => {
                        self.collector.metrics.reservations_expired.inc();
                    }
                    Entry::Usage(event) if event.usage_source == UsageSource::Unsettled => expired.push(event),
                    Entry::Usage(event) if is_settled(index) => {}
                    Entry::Usage(event) => {
                        let is_unsettled = *is_new && (settling == Settling::Late || event.reservation_id.is_none());
                        late.push((event, if is_unsettled { Settles::All } else { Settles::Known }));
                    }
                    _ => {}
                }
            }
        }
        if settling != Settling::Never {
            stream::iter(late)
                .for_each_concurrent(SETTLED_AT_ONCE, async |(event, settles)| {
                    self.collector.settle(event, settles).await;
                })
                .await;
            for event in expired {
                self.correct(event).await;
            }
        }
        self.collector.metrics.events_accepted.inc_by(accepted);
        self.collector.metrics.events_duplicate.inc_by(new.len() as u64 - accepted);
        self.consumer.commit();
    }

    /// Tries until the ledger has stored the batch.
    async fn store(&self, batch: &Batch) -> Vec<bool> {
        let metrics = &self.collector.metrics;
        let [mut wait, longest] = RETRY_AFTER;
        loop {
            let begun = Instant::now();
            let stored = self.ledger.append(batch.clone()).await;
            metrics.ledger_commit_seconds.observe(begun.elapsed().as_secs_f64());
            metrics.ledger_up.set(i64::from(stored.is_ok()));
            match stored {
                Ok(new) => return new,
                Err(error) => {
                    tracing::error!(%error, entries = batch.len(), "the ledger stored nothing; it is tried again, and what comes waits in the spool");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }

    /// A reservation ran out though its event had come: the counters were away when it was to be settled. They have its estimate,
    /// and get what was used.
    async fn correct(&self, expired: &UsageEvent) {
        match self.ledger.real(&expired.event_id).await {
            Ok(Some(event)) => {
                self.collector.settle(&event, Settles::Known).await;
            }
            // It was posted twice.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the counters keep an estimate, as the ledger cannot be read"),
        }
    }
}
