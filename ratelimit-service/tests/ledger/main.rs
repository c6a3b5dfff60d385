//! The ledger's engines: each does what the model does.

mod contract;
mod engines;
mod model;
