//! Response bytes to token usage: pure, incremental, bounded.
//!
//! What holds, whatever the bytes are:
//!
//! - **The cut does not matter.** A [`Reader`] that is fed a response whole, byte by byte or cut anywhere reports the same.
//! - **Structure decides, never text.** A number counts only at the path where its format puts it: an answer that prints
//!   a usage object, in a string or nested elsewhere, changes nothing.
//! - **Bounded.** A reader keeps less than 16 KiB, however large or deep the response is, and allocates nothing while
//!   content passes: only for a model, an id and finish reasons that it had not seen.
//! - **Total.** Every input has a defined result. Nothing panics, no arithmetic wraps, and broken bytes cost no more than
//!   sound ones.
//!
//! Three layers, each in its own module, and a table:
//!
//! ```text
//! bytes ─► framing ─ documents ─► json ─ values at known paths ─► facts ─► Report
//!                                  ▲                                ▲
//!                                paths ◄──────── format ────────────┘
//! ```
//!
//! `framing` cuts the bytes into JSON documents (one body, or the events of a stream), `json` walks a document and hands
//! over the values whose path stands in `format`'s tables, `facts` keeps them and decides which format this is.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod coding;
mod document;
mod endpoint;
mod estimate;
mod facts;
mod format;
mod framing;
#[allow(dead_code, reason = "offsets, booleans and subtrees are for the readers and editors of requests and streams")]
mod json;
#[allow(dead_code, reason = "subtrees are for the readers of requests")]
mod paths;
mod places;
mod reader;
mod request;
mod shape;
mod strip;
mod written;

pub use coding::{Decoder, MAX_DECODED_BYTES, Unreadable, readable_codings};
pub use endpoint::Endpoint;
pub use estimate::TextEstimate;
pub use format::{Format, TokenUsage};
pub use reader::{End, Hints, Reader, Report};
pub use request::{Edit, RequestFacts, RequestReader, apply};
pub use strip::{MAX_HELD_BYTES, Strip};
