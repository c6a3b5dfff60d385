//! Where ClickHouse is, and how it is used.

use std::time::Duration;

use crate::secret::Secret;

/// How the ledger uses ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickHouseSettings {
    /// Its HTTP interface: `http://` or `https://`, without a login.
    pub url: String,
    /// The database, of this ledger alone; it is created when missing.
    pub database: String,
    /// Who we are to it.
    pub user: String,
    /// What proves that.
    pub password: Secret,
    /// How long entries are kept, in months, at most [`MAX_RETENTION_MONTHS`].
    pub retention_months: u32,
    /// How long sums and ids are kept, in months: no shorter than entries. What comes again after this counts again.
    pub sums_retention_months: u32,
    /// How long a question or an insert may take. What changes tables may take longer.
    pub timeout: Duration,
}

/// The longest that anything is kept, in months.
pub const MAX_RETENTION_MONTHS: u32 = 480;
