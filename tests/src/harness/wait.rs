//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

/// How long anything may take that should happen at once or within seconds, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Tries until `attempt` succeeds, and gives what it gave.
///
/// # Errors
/// The error of the last attempt that ended, once `bound` has passed.
pub async fn eventually<T>(
    what: &str,
    bound: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let mut last = anyhow!("no answer");
    while let Ok(outcome) = tokio::time::timeout(bound.saturating_sub(start.elapsed()), attempt()).await {
        match outcome {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
        if start.elapsed() >= bound {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Err(last).with_context(|| format!("{what}: not within {bound:?}"))
}

/// Waits for `future` no longer than [`PATIENCE`].
///
/// # Errors
/// When it takes longer.
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))
}
