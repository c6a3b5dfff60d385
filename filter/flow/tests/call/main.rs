//! A call's way through the state machine, event by event.

mod admission;
mod bodies;
mod endings;
mod leases;
mod reports;
mod scene;
