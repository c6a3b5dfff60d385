//! What all tenants have spent of their limits, and reserved.

mod guarded;
mod memory;
mod redis;
mod start;

use tollgate_domain::{Ask, Expired, Overlap, Settled, Take, Unused, Used, Verdict};

pub(crate) use guarded::REMEMBERED;
pub use guarded::{GuardMetrics, Guarded, MAX_WAITING, OnFailure};
pub use memory::{MAX_RESERVATIONS, MAX_TENANTS, MemoryCounters};
pub use redis::{ClientCertificate, RedisCounters, RedisSettings, Target, TargetError, Time, Tls, benchmark_command};
pub(crate) use start::start;

/// The most expired reservations that [`Counters::unposted`] gives at once.
pub const MAX_UNPOSTED: usize = 1000;

/// An engine that keeps one [`tollgate_domain::TenantCounters`] for each tenant, or acts as if it did.
#[tonic::async_trait]
pub trait Counters: Send + Sync {
    /// The clock that it decides by, in milliseconds since the Unix epoch: what asks are made by.
    fn now_ms(&self) -> u64;

    /// Decides about a call of `tenant`. All is taken, or nothing.
    async fn admit(&self, tenant: &str, asks: &[Ask<'_>], take: Take<'_>) -> Result<Verdict, Unavailable>;

    /// Settles the call of this id to what it has used.
    async fn settle(&self, tenant: &str, id: &str, used: &Used<'_>) -> Result<Settled, Unavailable>;

    /// Gives back what was lent to calls that are not to come. Again does nothing.
    async fn give_back(&self, tenant: &str, unused: &Unused<'_>) -> Result<(), Unavailable>;

    /// Reservations that ran out, each with its tenant, [`MAX_UNPOSTED`] at most; again after a while until
    /// [`Counters::posted`] is told of them.
    async fn unposted(&self) -> Result<Vec<(String, Expired)>, Unavailable>;

    /// The tenant's expired reservation is in the ledger.
    async fn posted(&self, tenant: &str, id: &str) -> Result<(), Unavailable>;

    /// Whether what it knows outlives the service.
    fn outlives(&self) -> bool;

    /// Brings counters of days and months to at least what the ledger says was used in the present periods, one ask for each;
    /// [`Overlap`] tells what of that may be held too.
    async fn restore(&self, tenant: &str, asks: &[Ask<'_>], overlap: Overlap) -> Result<(), Unavailable>;

    /// Knows again of a reservation that ran out before a restart, so that a late event corrects what was restored of its
    /// estimate, the `asks`. An engine that outlives the service does nothing.
    async fn restore_expired(&self, tenant: &str, expired: &Expired, asks: &[Ask<'_>]) -> Result<(), Unavailable>;

    /// Forgives what the tenant has spent, and remembers that it was then, for as long as a month. What is held stays.
    async fn reset(&self, tenant: &str, at_ms: u64) -> Result<(), Unavailable>;

    /// When the tenant was reset last, by whoever has these counters too; 0 where that is not known.
    async fn last_reset_ms(&self, tenant: &str) -> Result<u64, Unavailable>;
}

/// The engine did not answer as it should, or not in time. What was asked may have been done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the counters do not answer: {0}")]
pub struct Unavailable(pub String);
