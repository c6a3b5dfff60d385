//! A worker's root context: reads the configuration, and sends usage events on ticks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType};
use tollgate_flow::{Config, Delivery, Haste, LOOK_MS, Outbox, OwnedKind, Report, Shared};
use tollgate_wire::admission::LEASE_METADATA;
use tollgate_wire::{admission, usage_event};

use crate::host::{self, Ids, Metrics, Upstream};
use crate::http::Http;

/// How often leases and the outbox are looked after and metrics are handed over: a small part of the time that an event may wait.
const TICK: Duration = Duration::from_millis(LOOK_MS);
/// gRPC's `UNAVAILABLE`: what a call that Envoy would not begin is taken for.
const UNAVAILABLE: u32 = 14;

/// What is sent to the limiter aside from calls.
#[derive(Debug)]
enum Sent {
    /// The question for a lease, for calls of this kind.
    Lease(OwnedKind),
    /// What calls used.
    Report(Report),
}

/// What the contexts of one worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Rc<Shared>,
    pub(crate) limiter: Upstream,
    /// The same, asked for leases.
    lender: Upstream,
    pub(crate) metrics: Metrics,
    pub(crate) ids: Ids,
    pub(crate) outbox: RefCell<Outbox>,
    /// What is under way to the limiter, by its token, beside the questions of calls: bounded by the kinds of calls that are kept
    /// apart, and the timeout.
    sent: RefCell<Vec<(u32, Sent)>>,
    collector: Upstream,
}

impl Worker {
    fn new(config: Config) -> Worker {
        let (ask, tell) = (&config.admission, &config.usage);
        let limiter = |timeout_ms| Upstream::new(&ask.cluster, admission::SERVICE, admission::METHOD, timeout_ms);
        Worker {
            limiter: limiter(ask.timeout_ms),
            lender: limiter(ask.lease_timeout_ms()),
            collector: Upstream::new(&tell.cluster, usage_event::SERVICE, usage_event::METHOD, tell.timeout_ms),
            metrics: Metrics::define(),
            ids: Ids::new(),
            outbox: RefCell::new(Outbox::new(tell.clone())),
            sent: RefCell::default(),
            shared: Rc::new(Shared::new(config)),
        }
    }

    /// Sends the next batch, if there is one to send.
    fn send(&self) {
        let Some(batch) = self.outbox.borrow_mut().poll(host::now_ms()) else { return };
        if self.collector.call(Vec::new(), &batch).is_err() {
            self.deliver(Delivery::Failed(UNAVAILABLE));
        }
    }

    /// Asks for leases, and gives back what of them is not used.
    fn look_after_leases(&self) {
        let now_ms = host::now_ms();
        for ask in self.shared.lease_asks(now_ms) {
            match self.lender.call(vec![(LEASE_METADATA, ask.lease.as_bytes())], &ask.message) {
                Ok(token) => self.sent.borrow_mut().push((token, Sent::Lease(ask.kind))),
                Err(()) => self.shared.on_lease_answer(&ask.kind, None, now_ms, &self.metrics),
            }
        }
        for returned in self.shared.returned_leases(now_ms, &self.metrics) {
            self.outbox.borrow_mut().push(returned, Haste::Batched, now_ms, &self.metrics);
        }
    }

    /// Tells the limiter what calls used, where it reads no events.
    fn report(&self) {
        for (report, message) in self.shared.reports() {
            match self.limiter.call(Vec::new(), &message) {
                Ok(token) => self.sent.borrow_mut().push((token, Sent::Report(report))),
                Err(()) => self.shared.on_report_failed(report, &self.metrics),
            }
        }
    }

    /// What was sent to the limiter under this token.
    fn sent(&self, token: u32) -> Option<Sent> {
        let mut sent = self.sent.borrow_mut();
        let at = sent.iter().position(|(of, _)| *of == token)?;
        Some(sent.swap_remove(at).1)
    }

    fn deliver(&self, delivery: Delivery<'_>) {
        self.outbox.borrow_mut().on_delivery(delivery, host::now_ms(), host::random(), &self.metrics);
    }
}

/// The root context.
#[derive(Debug, Default)]
pub(crate) struct Root {
    /// There once the configuration is.
    worker: Option<Rc<Worker>>,
}

impl Context for Root {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        let Some(worker) = &self.worker else { return };
        let answer = (status == 0).then(|| {
            let message = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size).ok().flatten();
            message.unwrap_or_default()
        });
        match (worker.sent(token), answer) {
            (Some(Sent::Lease(kind)), answer) => {
                worker.shared.on_lease_answer(&kind, answer.as_deref(), host::now_ms(), &worker.metrics);
            }
            (Some(Sent::Report(_)), Some(_)) => {}
            (Some(Sent::Report(report)), None) => worker.shared.on_report_failed(report, &worker.metrics),
            (None, Some(answer)) => {
                worker.deliver(Delivery::Taken(&answer));
                // More may have come together meanwhile than one batch holds.
                worker.send();
            }
            (None, None) => worker.deliver(Delivery::Failed(status)),
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match Config::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(config) => {
                self.worker = Some(Rc::new(Worker::new(config)));
                self.set_tick_period(TICK);
                true
            }
            Err(refusal) => {
                error!("{refusal}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(worker) = &self.worker {
            worker.look_after_leases();
            worker.report();
            worker.send();
            worker.metrics.flush();
        }
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http::new(self.worker.as_ref()?.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
