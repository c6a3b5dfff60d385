//! Tables of prices: the one that comes with the program, those of others, and how they differ.
//!
//! - [`shipped`]: providers' list prices, in force where neither a tenant nor the operator has a price.
//! - [`import`]: public tables, read as prices; [`diff`]: what they would change.
//! - [`row`]: one price in columns, as in CSV, in a configuration, and in a JSON document.
//!
//! What a price is, and which one holds, is `tollgate-domain`'s. Money is read from its digits: no float comes between.

pub mod diff;
pub mod import;
pub mod row;
mod shipped;

pub use shipped::shipped;
