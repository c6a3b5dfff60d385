//! A worker's root context: reads the configuration, and sends usage events on ticks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType};
use tollgate_flow::{Config, Delivery, Outbox, Shared};
use tollgate_wire::{admission, usage_event};

use crate::host::{self, Ids, Metrics, Upstream};
use crate::http::Http;

/// How often the outbox is looked at and metrics are handed over: a small part of the time that an event may wait.
const TICK: Duration = Duration::from_millis(100);
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
    fn on_grpc_call_response(&mut self, _token: u32, status: u32, size: usize) {
        let Some(worker) = &self.worker else { return };
        if status == 0 {
            let response = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size).ok().flatten();
            worker.deliver(Delivery::Taken(&response.unwrap_or_default()));
            // More may have come together meanwhile than one batch holds.
            worker.send();
        } else {
            worker.deliver(Delivery::Failed(status));
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
