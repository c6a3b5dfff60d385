//! Sinks against real receivers on this machine that misbehave.

mod hec;
mod jsonl;
mod otlp;
mod receiver;
mod source;
mod spool;
