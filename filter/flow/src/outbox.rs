//! A worker's queue of usage events.
//!
//! Bounded by `max_queued_events`; one batch is under way at a time, and an event leaves the queue only when the
//! collector has answered for it. What the collector can't take now is sent again, later and later; an event that arrives
//! twice is the collector's to recognise, by its id.

use std::collections::VecDeque;

use tollgate_wire::usage_event::{decode_rejected, encode_export};

use crate::config::Usage;
use crate::metric::{Counter, Gauge, Recorder};
use crate::to_u64;

/// The most events in one batch, when more than `batch_events` have come together …
pub(crate) const MAX_BATCH_EVENTS: usize = 1000;
/// … and the most bytes: a fourth of what gRPC servers take by default. A single event is far smaller.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// The events' `service.name`.
const SERVICE_NAME: &str = "tollgate-filter";

/// gRPC's `INVALID_ARGUMENT`: the one answer that sending again can't mend.
const INVALID_ARGUMENT: u32 = 3;

/// How soon an event is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// With its batch.
    Batched,
    /// At the next look at the outbox: others wait for what its call holds.
    Soon,
}

/// How the collector answered for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// It took the batch; its encoded `ExportLogsServiceResponse`.
    Taken(&'a [u8]),
    /// It did not, with this gRPC status, or could not be reached.
    Failed(u32),
}

/// Usage events on their way to the collector.
#[derive(Debug)]
pub struct Outbox {
    config: Usage,
    /// Encoded, so that sending again encodes nothing again.
    queue: VecDeque<Vec<u8>>,
    /// When the queue's first event came, as far as it still waits for a batch to fill.
    oldest_ms: u64,
    /// Whether an event that is not under way is to be sent soon.
    is_awaited: bool,
    /// How many of the queue's first events are under way.
    under_way: usize,
    /// Failed tries of the queue's first batch.
    failures: u32,
    /// No batch leaves before this.
    not_before_ms: u64,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(config: Usage) -> Outbox {
        Outbox {
            config,
            queue: VecDeque::new(),
            oldest_ms: 0,
            is_awaited: false,
            under_way: 0,
            failures: 0,
            not_before_ms: 0,
        }
    }

    /// Queues an encoded event; a full queue drops and counts it.
    pub fn push(&mut self, event: Vec<u8>, haste: Haste, now_ms: u64, recorder: &impl Recorder) {
        if self.queue.len() >= self.config.max_queued_events {
            return recorder.add(Counter::EventsDropped, 1);
        }
        if self.queue.len() == self.under_way {
            self.oldest_ms = now_ms;
        }
        self.is_awaited |= haste == Haste::Soon;
        self.queue.push_back(event);
        recorder.shift(Gauge::EventsQueued, 1);
    }

    /// The encoded request to send now, if it is time for one.
    ///
    /// Once it gave one, it gives the next only after [`Outbox::on_delivery`].
    pub fn poll(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        let due = self.is_awaited
            || self.queue.len() >= self.config.batch_events
            || now_ms.saturating_sub(self.oldest_ms) >= self.config.flush_interval_ms;
        if self.queue.is_empty() || self.under_way > 0 || !due || now_ms < self.not_before_ms {
            return None;
        }
        let mut room_bytes = MAX_BATCH_BYTES;
        let fits = |event: &&Vec<u8>| {
            let left = room_bytes.checked_sub(event.len());
            room_bytes = left.unwrap_or(0);
            left.is_some()
        };
        self.under_way = self.queue.iter().take(MAX_BATCH_EVENTS).take_while(fits).count().max(1);
        self.is_awaited &= self.under_way < self.queue.len();
        Some(encode_export(SERVICE_NAME, self.queue.iter().take(self.under_way)))
    }

    /// Takes the collector's answer for the batch under way. `jitter` is any number; it spreads the workers' retries.
    pub fn on_delivery(&mut self, delivery: Delivery<'_>, now_ms: u64, jitter: u64, recorder: &impl Recorder) {
        let events = self.under_way;
        self.under_way = 0;
        match delivery {
            Delivery::Taken(response) => {
                let rejected = decode_rejected(response).min(to_u64(events));
                recorder.add(Counter::EventsRejected, rejected);
                recorder.add(Counter::EventsDelivered, to_u64(events) - rejected);
                self.forget(events, now_ms, recorder);
            }
            Delivery::Failed(INVALID_ARGUMENT) => {
                recorder.add(Counter::EventsRejected, to_u64(events));
                self.forget(events, now_ms, recorder);
            }
            Delivery::Failed(_) => {
                recorder.add(Counter::DeliveryFailures, 1);
                self.not_before_ms = now_ms.saturating_add(self.pause_ms(jitter));
                self.failures = self.failures.saturating_add(1);
            }
        }
    }

    /// The first `events` are done with. The rest waits at the most one flush interval more.
    fn forget(&mut self, events: usize, now_ms: u64, recorder: &impl Recorder) {
        self.queue.drain(..events.min(self.queue.len()));
        recorder.shift(Gauge::EventsQueued, i64::try_from(events).map_or(0, i64::wrapping_neg));
        self.oldest_ms = now_ms;
        self.failures = 0;
        self.not_before_ms = 0;
    }

    /// Doubles with each failure, and is cut by up to a half so that workers don't retry in step.
    fn pause_ms(&self, jitter: u64) -> u64 {
        let doubled = self.config.retry_initial_ms.saturating_mul(1 << self.failures.min(32));
        let pause = doubled.min(self.config.retry_max_ms);
        pause - jitter % (pause / 2 + 1)
    }
}
