//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long anything may take that should happen at once or within seconds, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Tries until `attempt` succeeds, and gives what it gave.
///
/// # Errors
/// The last attempt's error, once `bound` has passed.
pub async fn eventually<T>(
    what: &str,
    bound: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match tokio::time::timeout(bound.saturating_sub(start.elapsed()), attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if start.elapsed() >= bound => {
                return Err(error).with_context(|| format!("{what}: not within {bound:?}"));
            }
            Ok(Err(_)) => tokio::time::sleep(INTERVAL).await,
            Err(_) => bail!("{what}: no answer within {bound:?}"),
        }
    }
}

/// Waits for `future` no longer than [`PATIENCE`].
///
/// # Errors
/// When it takes longer.
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))
}
