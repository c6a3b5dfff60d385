//! The contracts between the filter and the service, as they go over the wire.
//!
//! - [`admission`]: what the filter asks before it forwards a call and what it is told, carried by Envoy's rate limit
//!   service v3. The RLS words *descriptor* and *hits addend* stay inside that module.
//! - [`usage_event`]: what the filter tells after a call, carried by OTLP logs.
//! - [`proto`]: the protobuf messages themselves, and with the feature `grpc` their clients and servers.
//!
//! The crate compiles to wasm: no clock, no I/O.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod admission;
mod field;
pub mod usage_event;

/// Messages generated from `proto/`, under their protobuf packages.
#[allow(missing_docs, clippy::pedantic)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));

    /// The encoded `FileDescriptorSet` of all messages here, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
