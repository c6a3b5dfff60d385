//! What the filter does with a call, without Envoy: events in, actions out.
//!
//! - [`Call`] is one request's state machine. The shell hands it what Envoy says (headers, chunks, the limiter's answer,
//!   the end) and does what it answers (go on, wait, ask, reply).
//! - [`Shared`] is what a worker's calls have in common: above all the leases by which they go on without asking.
//! - [`Outbox`] is a worker's queue of usage events: it decides what is sent when, and what is tried again.
//! - [`Config`] is the plugin's configuration, checked as a whole.
//!
//! Invariants: a call that was let through gives exactly one usage event, whatever its end; bytes
//! pass as they came, but for what we ask a stream to tell; time, ids and randomness are arguments; nothing here panics on input.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod call;
mod config;
mod headers;
mod identity;
mod lease;
mod limit_headers;
mod metric;
mod outbox;
mod reply;
mod report;
mod request;
mod settle;
mod shared;
mod step;

pub use call::Call;
pub use config::{
    AcceptEncoding, Admission, Config, ConfigError, FailurePolicy, Identity, LeaseMode, ReadBody, RequestBody, Settle,
    StreamUsage, UnclaimedEndpoints, Usage,
};
pub use headers::{HeaderEdit, Headers, Request};
pub use identity::{CertificateField, Origin, Pattern, Source};
pub use lease::{LOOK_MS, MAX_KINDS, OwnedKind};
pub use metric::{Counter, Gauge, Histogram, Recorder};
pub use outbox::{Delivery, Haste, Outbox};
pub use reply::Reply;
pub use report::{MAX_REPORTS, Report};
pub use shared::{LeaseAsk, Shared};
pub use step::{Ask, Next, Step};

/// Bytes that stand for one token where nothing better is known: English text has about four a token.
const BYTES_PER_TOKEN: u64 = 4;

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
