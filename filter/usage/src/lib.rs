//! Response bytes to token usage: pure, incremental, bounded.
//!
//! What holds, whatever the bytes are:
//!
//! - **The cut does not matter.** A [`Reader`] that is fed a response whole, byte by byte or cut anywhere reports the same.
//! - **Structure decides, never text.** A number counts only at the path where its format puts it: an answer that prints
//!   a usage object, in a string or nested elsewhere, changes nothing.
//! - **Bounded.** A reader keeps less than 16 KiB (64 KiB where it decodes), however large or deep the response is, and
//!   allocates nothing while content passes: only for a model, an id, finish reasons and shapes that it had not seen.
//! - **Total.** Every input has a defined result. Nothing panics, no arithmetic wraps, and broken bytes cost no more than
//!   sound ones.
//!
//! A response is read in layers, each in its own module, by a table:
//!
//! ```text
//! bytes ─► coding ─► framing ─ documents ─► shape, json ─ values at known places ─► facts, written ─► Report
//!                                               ▲                                       ▲
//!                                             places ◄──────────── format ──────────────┘
//! ```
//!
//! `coding` decodes what is compressed, `framing` cuts the bytes into JSON documents (one body, or the events of a stream),
//! `json` walks a document and hands over the values whose path stands in `format`'s tables, `shape` does the same for a
//! document that is like one before, `facts` keeps the values and decides which format this is, and `written` estimates what
//! the model wrote. `request` reads requests, with `json` and a tree of its own, and `strip` edits streams.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod coding;
mod crc;
mod document;
mod endpoint;
mod estimate;
mod facts;
mod format;
mod framing;
mod json;
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
