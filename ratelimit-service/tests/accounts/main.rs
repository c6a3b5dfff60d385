//! The accounts' engines: what holds for each, and what for one of them.

mod contract;
mod engines;
mod isolation;
mod model;
mod postgres;
mod records;
mod requests;
mod sqlite;
