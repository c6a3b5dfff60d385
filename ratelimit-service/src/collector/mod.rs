//! The collector: takes what is to be billed, and answers once it is kept.
//!
//! Invariants:
//! - An export is answered once its entries are durable in the spool, never before.
//! - A record that is no valid usage event is rejected by itself, with a reason; the others are taken.
//! - A call whose reservation is known is settled at once, whatever the ledger does; any other once the ledger has said that it
//!   is new. So each is settled once, however often its event comes.

mod dead_letters;
mod drain;
pub(crate) mod http;
mod intake;
mod json;
mod otlp;
mod rejected;
mod settled;
#[cfg(test)]
mod tests;
pub(crate) mod track;

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use tollgate_domain::Settles;
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::alerts::Alerts;
use crate::counters::MAX_UNPOSTED;
use crate::entry::Entry;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::spool::{Spool, SpoolError};
use crate::usage_metrics::UsageMetrics;
use settled::{Settled, Told};

pub use dead_letters::DeadLetterSettings;
pub use drain::{Drain, Settling};
pub use http::MAX_BODY_BYTES;
pub use intake::{Intake, IntakeSettings};
pub use otlp::MAX_EXPORT_BYTES;
pub(crate) use otlp::RETRY_AFTER_S;
pub use rejected::Class;
pub(crate) use rejected::MAX_AHEAD_MS;

/// How many calls of an export are settled at once: with the counters elsewhere, each is a round trip.
const SETTLED_AT_ONCE: usize = 64;

/// Takes entries.
#[derive(Clone)]
pub struct Collector {
    spool: Arc<Spool>,
    limiter: Arc<Limiter>,
    settled: Arc<Settled>,
    intake: Arc<Intake>,
    usage: Option<UsageMetrics>,
    alerts: Option<Arc<Alerts>>,
    metrics: Metrics,
}

impl Collector {
    /// Keeps entries in `spool` and settles calls in `limiter`.
    pub fn new(spool: Arc<Spool>, limiter: Arc<Limiter>, metrics: Metrics) -> Collector {
        Collector {
            spool,
            limiter,
            settled: Arc::default(),
            intake: Arc::default(),
            usage: None,
            alerts: None,
            metrics,
        }
    }

    /// Reads what comes in as its operator has said.
    pub fn with_intake(self, intake: Intake) -> Collector {
        Collector { intake: Arc::new(intake), ..self }
    }

    /// Has calls counted by tenant and model, each once.
    pub fn with_usage_metrics(self, usage: UsageMetrics) -> Collector {
        Collector { usage: Some(usage), ..self }
    }

    /// Has tenants looked at whose calls are settled.
    pub fn with_alerts(self, alerts: Arc<Alerts>) -> Collector {
        Collector { alerts: Some(alerts), ..self }
    }

    /// Keeps entries that came from outside: the plan that holds now is named where a call named none, and what calls cost is
    /// worked out. They are durable when this returns.
    ///
    /// # Errors
    /// When none of them was kept; they may be sent again.
    pub async fn store(&self, mut entries: Vec<Entry>) -> Result<(), SpoolError> {
        for entry in &mut entries {
            if let Entry::Usage(event) = entry {
                self.limiter.rate(event);
            }
        }
        self.replay(entries).await
    }

    /// Keeps entries as they are: they were stored before, here or elsewhere.
    ///
    /// # Errors
    /// When none of them was kept; they may be sent again.
    pub async fn replay(&self, entries: Vec<Entry>) -> Result<(), SpoolError> {
        if entries.is_empty() {
            return Ok(());
        }
        // A task of its own, so that a client's going away cannot part keeping from settling.
        let collector = self.clone();
        let kept = tokio::spawn(async move { collector.keep(entries.into()).await });
        kept.await.map_err(|error| SpoolError::Failed(error.to_string()))?
    }

    /// Keeps all calls whose reservation ran out, each at its estimate.
    ///
    /// # Errors
    /// When the counters do not answer, or nothing can be kept; what is not kept is offered again.
    pub async fn post_unsettled(&self) -> anyhow::Result<()> {
        loop {
            let events = self.limiter.unposted().await?;
            if events.is_empty() {
                return Ok(());
            }
            self.spool.append(events.iter().cloned().map(Entry::Usage).collect()).await?;
            self.limiter.posted(&events).await?;
            if events.len() < MAX_UNPOSTED {
                return Ok(());
            }
        }
    }

    async fn keep(&self, entries: Arc<[Entry]>) -> Result<(), SpoolError> {
        let place = self.spool.append(Arc::clone(&entries)).await?;
        let told = stream::iter(0..entries.len()).map(|index| self.settle_at_once(&entries[index]));
        self.settled.tell(place, told.buffered(SETTLED_AT_ONCE).collect().await);
        Ok(())
    }

    /// Settles a call whose reservation is known.
    async fn settle_at_once(&self, entry: &Entry) -> Told {
        let Entry::Usage(event) = entry else { return Told::No };
        if event.reservation_id.is_none() || event.usage_source == UsageSource::Unsettled {
            return Told::No;
        }
        self.settle(event, Settles::Known).await
    }

    /// Settles a call, and tells whether that is done.
    async fn settle(&self, event: &UsageEvent, settles: Settles) -> Told {
        let begun = Instant::now();
        match self.limiter.settle(event, settles).await {
            Ok(tollgate_domain::Settled::Unknown) => Told::No,
            Ok(_) => {
                if let Some(alerts) = &self.alerts {
                    alerts.touched(&event.tenant, &event.tier);
                }
                Told::Settled
            }
            Err(error) => {
                // It waits, or its reservation runs out; the ledger gets the event. An outage is logged once, not here.
                self.metrics.settlements_failed.inc();
                tracing::debug!(%error, "a call is not settled yet");
                Told::InDoubt(begun)
            }
        }
    }
}
