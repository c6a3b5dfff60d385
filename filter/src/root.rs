//! A worker's root context: reads the configuration, and sends usage events on ticks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType};
use tollgate_flow::{Config, Delivery, Haste, LOOK_MS, Outbox, OwnedKind, Shared};
use tollgate_wire::admission::LEASE_METADATA;
use tollgate_wire::{admission, usage_event};

use crate::host::{self, Ids, Metrics, Upstream};
use crate::http::Http;

/// How often leases and the outbox are looked after and metrics are handed over: a small part of the time that an event may wait.
const TICK: Duration = Duration::from_millis(LOOK_MS);
/// gRPC's `UNAVAILABLE`: what a call that Envoy would not begin is taken for.
const UNAVAILABLE: u32 = 14;

/// What the contexts of one worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Rc<Shared>,
    pub(crate) limiter: Upstream,
    pub(crate) metrics: Metrics,
    pub(crate) ids: Ids,
    pub(crate) outbox: RefCell<Outbox>,
    /// Questions for leases that are under way, by their tokens: at most one for each kind of calls.
    asks: RefCell<Vec<(u32, OwnedKind)>>,
    collector: Upstream,
}

impl Worker {
    fn new(config: Config) -> Worker {
        let (ask, tell) = (&config.admission, &config.usage);
        Worker {
            limiter: Upstream::new(&ask.cluster, admission::SERVICE, admission::METHOD, ask.timeout_ms),
            collector: Upstream::new(&tell.cluster, usage_event::SERVICE, usage_event::METHOD, tell.timeout_ms),
            metrics: Metrics::define(),
            ids: Ids::new(),
            outbox: RefCell::new(Outbox::new(tell.clone())),
            asks: RefCell::default(),
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
            match self.limiter.call(vec![(LEASE_METADATA, ask.lease.as_bytes())], &ask.message) {
                Ok(token) => self.asks.borrow_mut().push((token, ask.kind)),
                Err(()) => self.shared.on_lease_answer(&ask.kind, None, now_ms, &self.metrics),
            }
        }
        for returned in self.shared.returned_leases(now_ms, &self.metrics) {
            self.outbox.borrow_mut().push(returned, Haste::Batched, now_ms, &self.metrics);
        }
    }

    /// The kind of calls that a lease was asked for by the question with this token.
    fn asked(&self, token: u32) -> Option<OwnedKind> {
        let mut asks = self.asks.borrow_mut();
        let at = asks.iter().position(|(of, _)| *of == token)?;
        Some(asks.swap_remove(at).1)
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
        match (worker.asked(token), answer) {
            (Some(kind), answer) => {
                worker.shared.on_lease_answer(&kind, answer.as_deref(), host::now_ms(), &worker.metrics);
            }
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
