//! Alerts that were given, in the service's database.

use rusqlite::{Connection, params};

use super::Crossing;
use crate::database::integer;

/// Periods that began so long ago are forgotten: their limits count no more.
const KEPT_MS: u64 = 400 * 86_400_000;

/// Notes an alert, and tells whether it is new.
pub(super) fn note(connection: &Connection, crossing: &Crossing, now_ms: u64) -> rusqlite::Result<bool> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO alerts (tenant, limit_name, period_start_ms, threshold_percent, fired_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?;
    let (tenant, known_by, period_start_ms) = crossing.counted();
    let noted =
        insert.execute(params![tenant, known_by, integer(period_start_ms), crossing.threshold, integer(now_ms)])?;
    Ok(noted == 1)
}

/// Forgets the alerts of periods that are long over.
pub(super) fn forget_old(connection: &Connection, now_ms: u64) -> rusqlite::Result<()> {
    let before_ms = integer(now_ms.saturating_sub(KEPT_MS));
    connection.execute("DELETE FROM alerts WHERE period_start_ms < ?1", [before_ms])?;
    Ok(())
}
