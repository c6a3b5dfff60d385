//! The proxy-wasm shell: Envoy's callbacks to [`tollgate_flow`], and its actions back to Envoy. It decides nothing.
//!
//! Each Envoy worker has its own instance of this module: one root context, which owns the outbox and sends from it on
//! ticks, and one HTTP context for each request. Usage is sent from the root because Envoy cancels a context's calls when
//! the context ends.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod header_map;
mod host;
mod http;
mod root;

use proxy_wasm::types::LogLevel;

// The entry point that proxy-wasm asks for is an exported symbol.
#[allow(unsafe_code, missing_docs)]
mod entry {
    use super::{LogLevel, root};

    proxy_wasm::main! {{
        proxy_wasm::set_log_level(LogLevel::Info);
        proxy_wasm::set_root_context(|_| Box::new(root::Root::default()));
    }}
}
