//! From the spool into the ledger.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tollgate_domain::Settles;
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use super::settled::Told;
use super::{Collector, SETTLED_AT_ONCE};
use crate::counters::REMEMBERED;
use crate::entry::{Batch, Entry};
use crate::ledger::Ledger;
use crate::spool::{Consumer, Place};

/// The most entries that are stored together, beside a larger export.
const MAX_BATCH: usize = 16_384;

/// How long it waits until it tries again what the ledger did not store: doubled each time, up to the longest.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Which calls are settled that were not when they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// Those that are new, and those whose reservation is known. Of what came before the service died it is not known what was
    /// settled: of those, calls that had a reservation only where it is known.
    Late,
    /// None: the counters learn from the ledger what was used.
    Never,
}

/// Brings what waits in the spool into a ledger, in order, until the spool is closed and all is taken.
pub struct Drain {
    /// What waits.
    consumer: Consumer,
    /// Where it goes.
    ledger: Arc<dyn Ledger>,
    /// Who settles.
    collector: Collector,
    /// What stands before came before the start.
    started_at: Place,
    caught_up: Arc<Notify>,
}

impl Drain {
    /// Brings what `consumer` gets into `ledger`, and has `collector` settle it.
    pub fn new(consumer: Consumer, ledger: Arc<dyn Ledger>, collector: Collector) -> Drain {
        Drain { started_at: consumer.end(), consumer, ledger, collector, caught_up: Arc::default() }
    }

    /// Is notified once, when all is taken that came before the start.
    pub fn caught_up(&self) -> Arc<Notify> {
        Arc::clone(&self.caught_up)
    }

    /// Takes all, waiting for more.
    pub async fn run(mut self) {
        while let Some(batch) = self.consumer.ready(MAX_BATCH).await {
            let is_later = self.consumer.places().iter().any(|place| *place >= self.started_at);
            self.take(&batch).await;
            if is_later {
                break;
            }
        }
        self.caught_up.notify_one();
        while let Some(batch) = self.consumer.next(MAX_BATCH).await {
            self.take(&batch).await;
        }
    }

    async fn take(&mut self, batch: &Batch) {
        let limiter = Arc::clone(&self.collector.limiter);
        let _posting = limiter.posting().await;
        let new = self.store(batch).await;
        self.finish(batch, &new, Settling::Late).await;
    }

    /// Takes what is there now.
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
            let is_of_before = *place < self.started_at;
            let told = self.collector.settled.take(*place);
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
                    Entry::Usage(event) => {
                        let may_be_settled = match told.get(index).copied().unwrap_or_default() {
                            Told::Settled => continue,
                            Told::No => is_of_before,
                            Told::InDoubt(since) => since.elapsed() >= REMEMBERED,
                        };
                        let has_to_be = *is_new && !(may_be_settled && event.reservation_id.is_some());
                        late.push((event, if has_to_be { Settles::All } else { Settles::Known }));
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
