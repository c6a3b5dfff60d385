//! What the end-to-end tests, the demo and the benchmark are made of.
//!
//! - [`standin`]: a server that speaks OpenAI's API in an LLM provider's place, and does what each request tells it to.
//! - [`bench`]: what the filter costs.
//! - [`harness`]: starts and stops the real Envoy, the real service and the stand-in, on ports of their own.
//! - [`local`]: the demo, and the same left running.

pub mod bench;
pub mod harness;
pub mod local;
pub mod standin;
