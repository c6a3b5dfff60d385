//! The outbox against any course of events.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use tollgate_flow::{Config, Counter, Delivery, Gauge, Haste, Histogram, Outbox, Recorder};
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_wire::usage_event::UsageEvent;

#[derive(Default)]
struct Counts {
    counters: RefCell<BTreeMap<&'static str, u64>>,
    queued: Cell<i64>,
}

impl Recorder for Counts {
    fn add(&self, counter: Counter, amount: u64) {
        *self.counters.borrow_mut().entry(counter.name()).or_default() += amount;
    }
    fn observe(&self, _: Histogram, _: u64) {}
    fn shift(&self, gauge: Gauge, by: i64) {
        assert_eq!(gauge, Gauge::EventsQueued);
        self.queued.set(self.queued.get() + by);
    }
}

impl Counts {
    fn of(&self, counter: Counter) -> u64 {
        self.counters.borrow().get(counter.name()).copied().unwrap_or(0)
    }
}

fn outbox(config: &str) -> Outbox {
    Outbox::new(Config::parse(format!(r#"{{"usage":{config}}}"#).as_bytes()).unwrap().usage)
}

fn event(id: usize) -> UsageEvent {
    let (tenant, tier) = ("acme".to_owned(), "pro".to_owned());
    UsageEvent { event_id: id.to_string(), tenant, tier, started_at_ms: 1, ..UsageEvent::default() }
}

fn ids(batch: &[u8]) -> Vec<String> {
    let request = ExportLogsServiceRequest::decode(batch).unwrap();
    let records = &request.resource_logs[0].scope_logs[0].log_records;
    records.iter().map(|record| UsageEvent::from_log_record(record).unwrap().event_id).collect()
}

#[test]
fn a_batch_leaves_by_size_or_by_time() {
    let counts = Counts::default();
    let mut outbox = outbox(r#"{"batch_events":3,"flush_interval_ms":1000}"#);
    assert_eq!(outbox.poll(0), None);
    outbox.push(event(0).encode(), Haste::Batched, 100, &counts);
    assert_eq!(outbox.poll(1099), None);
    assert_eq!(ids(&outbox.poll(1100).unwrap()), ["0"]);
    assert_eq!(outbox.poll(9000), None, "one at a time");
    outbox.on_delivery(Delivery::Taken(&[]), 1200, 0, &counts);
    for id in 1..4 {
        assert_eq!(outbox.poll(1300), None);
        outbox.push(event(id).encode(), Haste::Batched, 1300, &counts);
    }
    assert_eq!(ids(&outbox.poll(1300).unwrap()), ["1", "2", "3"]);
    assert_eq!(counts.queued.get(), 3);
    outbox.on_delivery(Delivery::Taken(&[]), 1400, 0, &counts);
    assert_eq!((counts.queued.get(), counts.of(Counter::EventsDelivered)), (0, 4));
}

#[test]
fn what_others_wait_for_takes_the_whole_queue_along() {
    let counts = Counts::default();
    let mut outbox = outbox("{}");
    outbox.push(event(0).encode(), Haste::Batched, 0, &counts);
    assert_eq!(outbox.poll(1), None);
    outbox.push(event(1).encode(), Haste::Soon, 1, &counts);
    outbox.push(event(2).encode(), Haste::Batched, 1, &counts);
    assert_eq!(ids(&outbox.poll(1).unwrap()), ["0", "1", "2"]);
    outbox.push(event(3).encode(), Haste::Soon, 2, &counts);
    outbox.on_delivery(Delivery::Taken(&[]), 3, 0, &counts);
    assert_eq!(ids(&outbox.poll(3).unwrap()), ["3"], "it came while another batch was under way");
    outbox.on_delivery(Delivery::Taken(&[]), 3, 0, &counts);
    outbox.push(event(4).encode(), Haste::Batched, 3, &counts);
    assert_eq!(outbox.poll(4), None, "nobody waits any more");
}

#[test]
fn what_fails_is_sent_again_later_and_later() {
    let counts = Counts::default();
    let mut outbox = outbox(r#"{"batch_events":1,"retry_initial_ms":100,"retry_max_ms":350}"#);
    outbox.push(event(0).encode(), Haste::Batched, 0, &counts);
    let mut now_ms = 0;
    for pause_ms in [100, 200, 350, 350] {
        assert_eq!(ids(&outbox.poll(now_ms).unwrap()), ["0"]);
        outbox.on_delivery(Delivery::Failed(14), now_ms, 0, &counts);
        assert_eq!(outbox.poll(now_ms + pause_ms - 1), None);
        now_ms += pause_ms;
    }
    assert_eq!(ids(&outbox.poll(now_ms).unwrap()), ["0"]);
    outbox.on_delivery(Delivery::Failed(14), now_ms, u64::MAX, &counts);
    assert!(outbox.poll(now_ms + 350).is_some(), "jitter only shortens the pause");
    assert_eq!(counts.of(Counter::DeliveryFailures), 5);
}

#[test]
fn a_full_queue_drops_the_newest_and_counts_it() {
    let counts = Counts::default();
    let mut outbox = outbox(r#"{"batch_events":1,"max_queued_events":2}"#);
    for id in 0..5 {
        outbox.push(event(id).encode(), Haste::Batched, 0, &counts);
    }
    assert_eq!((counts.of(Counter::EventsDropped), counts.queued.get()), (3, 2));
    assert_eq!(ids(&outbox.poll(0).unwrap()), ["0", "1"]);
}

#[test]
fn a_batch_is_bounded_in_bytes_too() {
    let counts = Counts::default();
    let mut outbox = outbox(r#"{"batch_events":1}"#);
    for id in 0..900 {
        outbox.push(
            UsageEvent { finish_reasons: vec!["x".repeat(4000)], ..event(id) }.encode(),
            Haste::Batched,
            0,
            &counts,
        );
    }
    let mut delivered = 0;
    while let Some(batch) = outbox.poll(0) {
        assert!(batch.len() < 1_100_000, "{}", batch.len());
        delivered += ids(&batch).len();
        outbox.on_delivery(Delivery::Taken(&[]), 0, 0, &counts);
    }
    assert_eq!(delivered, 900);
}

#[test]
fn refusals_are_counted_and_not_sent_again() {
    let counts = Counts::default();
    let mut outbox = outbox(r#"{"batch_events":2}"#);
    for id in 0..4 {
        outbox.push(event(id).encode(), Haste::Batched, 0, &counts);
    }
    outbox.poll(0).unwrap();
    let partial_success = Some(ExportLogsPartialSuccess { rejected_log_records: 1, error_message: String::new() });
    let response = ExportLogsServiceResponse { partial_success }.encode_to_vec();
    outbox.on_delivery(Delivery::Taken(&response), 0, 0, &counts);
    assert_eq!((counts.of(Counter::EventsDelivered), counts.of(Counter::EventsRejected)), (3, 1));
    outbox.push(event(4).encode(), Haste::Batched, 0, &counts);
    outbox.push(event(5).encode(), Haste::Batched, 0, &counts);
    outbox.poll(0).unwrap();
    outbox.on_delivery(Delivery::Failed(3), 0, 0, &counts);
    assert_eq!((counts.of(Counter::EventsRejected), counts.queued.get()), (3, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    Poll,
    Taken,
    Failed,
    Wait(u64),
}

proptest! {
    /// Whatever happens: in order, none lost but the counted, each delivered once.
    #[test]
    fn pushed_is_delivered_queued_or_dropped(steps in proptest::collection::vec(prop_oneof![
        6 => Just(Step::Push),
        3 => Just(Step::Poll),
        2 => Just(Step::Taken),
        1 => Just(Step::Failed),
        1 => (0..2000u64).prop_map(Step::Wait),
    ], 0..400)) {
        let counts = Counts::default();
        let mut outbox = outbox(r#"{"batch_events":4,"max_queued_events":16}"#);
        let (mut now_ms, mut pushed, mut under_way, mut delivered) = (0, 0, Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Push => {
                    let dropped = counts.of(Counter::EventsDropped);
                    outbox.push(event(pushed).encode(), Haste::Batched, now_ms, &counts);
                    pushed += usize::from(counts.of(Counter::EventsDropped) == dropped);
                }
                Step::Poll => {
                    if let Some(batch) = outbox.poll(now_ms) {
                        prop_assert!(under_way.is_empty());
                        under_way = ids(&batch);
                    }
                }
                Step::Taken if !under_way.is_empty() => {
                    outbox.on_delivery(Delivery::Taken(&[]), now_ms, 0, &counts);
                    delivered.append(&mut under_way);
                }
                Step::Failed if !under_way.is_empty() => {
                    outbox.on_delivery(Delivery::Failed(14), now_ms, 7, &counts);
                    under_way.clear();
                }
                Step::Taken | Step::Failed => {}
                Step::Wait(ms) => now_ms += ms,
            }
        }
        now_ms += 1_000_000;
        while let Some(batch) = {
            if !under_way.is_empty() {
                outbox.on_delivery(Delivery::Taken(&[]), now_ms, 0, &counts);
                delivered.append(&mut under_way);
                now_ms += 1_000_000;
            }
            outbox.poll(now_ms)
        } {
            under_way = ids(&batch);
        }
        prop_assert_eq!(delivered, (0..pushed).map(|id| id.to_string()).collect::<Vec<_>>());
        prop_assert_eq!(counts.queued.get(), 0);
    }
}
