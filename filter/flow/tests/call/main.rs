//! A call's way through the state machine, event by event.

mod admission;
mod bodies;
mod endings;
mod images;
mod leases;
mod reports;
mod scene;
