//! The ledger in ClickHouse: what breaks there, and what it keeps to nonetheless. What all engines do is tested by `ledger`.

mod beside;
mod doubt;
mod kills;
mod proxy;
mod setup;
mod tables;
