//! What one worker's calls have in common.

use std::cell::Cell;

use crate::config::{Config, ReadBody};
use crate::request::RequestBody;

/// What the calls of one worker share.
#[derive(Debug)]
pub struct Shared {
    config: Config,
    /// Whether a body has ever come while its headers were held.
    bodies: Cell<Bodies>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bodies {
    /// Not yet: they may wait for the headers to go on.
    Unproven,
    /// Yes, so calls may wait for them.
    Come,
}

impl Shared {
    /// Of a worker that has seen no call yet.
    pub fn new(config: Config) -> Shared {
        Shared { config, bodies: Cell::new(Bodies::Unproven) }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a call waits for its body before it is decided on.
    pub(crate) fn waits_for(&self, body: &RequestBody) -> bool {
        let settings = &self.config.request_body;
        let may_wait = match settings.read {
            ReadBody::Always => true,
            ReadBody::Auto => self.bodies.get() == Bodies::Come,
            ReadBody::Never => false,
        };
        may_wait && body.is_worth_holding(*settings)
    }

    /// Proof that Envoy hands bodies over while their headers are held.
    pub(crate) fn body_came_while_headers_were_held(&self) {
        self.bodies.set(Bodies::Come);
    }
}
