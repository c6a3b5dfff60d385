//! Deliveries that wait, in the service's database. What is done with is deleted.

use rusqlite::{Connection, OptionalExtension, params};

use crate::database::integer;

/// The most deliveries that wait for one endpoint.
pub const MAX_WAITING: u64 = 10_000;

/// How many deliveries are tried at once, of one endpoint.
pub(super) const MAX_TOGETHER: u64 = 8;

/// A message on its way to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) row: i64,
    pub(super) message_id: String,
    pub(super) body: String,
    /// This one included.
    pub(super) attempts: u32,
}

/// What became of a delivery that was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// There is no further attempt.
    Done,
    /// There is one, not before this time.
    At(u64),
}

/// Whether a delivery was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Waiting,
    /// The endpoint is disabled.
    Void,
    /// There is no room.
    Dropped,
}

/// Puts in a message for one endpoint.
pub(super) fn put(
    connection: &Connection,
    endpoint: &str,
    message_id: &str,
    body: &str,
    now_ms: u64,
) -> rusqlite::Result<Put> {
    if is_gone(connection, endpoint)? {
        return Ok(Put::Void);
    }
    if waiting_for(connection, endpoint)? >= MAX_WAITING {
        return Ok(Put::Dropped);
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO webhook_deliveries (message_id, endpoint, body, created_at_ms, attempts, next_at_ms)
         VALUES (?1, ?2, ?3, ?4, 0, ?4)",
    )?;
    insert.execute(params![message_id, endpoint, body, integer(now_ms)])?;
    Ok(Put::Waiting)
}

/// Whether [`claim`] would find something.
pub(super) fn is_due(connection: &Connection, endpoint: &str, now_ms: u64) -> rusqlite::Result<bool> {
    let mut select = connection
        .prepare_cached("SELECT 1 FROM webhook_deliveries WHERE endpoint = ?1 AND next_at_ms <= ?2 LIMIT 1")?;
    Ok(select.query_row(params![endpoint, integer(now_ms)], |_| Ok(())).optional()?.is_some())
}

/// The endpoints for which [`claim`] would find something. However much waits, an endpoint is a few steps in the index.
pub(super) fn due(connection: &Connection, now_ms: u64) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare_cached(
        "WITH RECURSIVE endpoints (name) AS (
             SELECT min(endpoint) FROM webhook_deliveries
             UNION ALL
             SELECT (SELECT min(endpoint) FROM webhook_deliveries WHERE endpoint > name) FROM endpoints
             WHERE name IS NOT NULL
         )
         SELECT name FROM endpoints WHERE EXISTS
             (SELECT 1 FROM webhook_deliveries WHERE endpoint = name AND next_at_ms <= ?1)",
    )?;
    select.query_map([integer(now_ms)], |row| row.get(0))?.collect()
}

/// Takes the deliveries that are due longest, [`MAX_TOGETHER`] at most, to be tried now. They are due again at `until_ms`, should
/// nobody say what became of them: whoever took them may have died.
pub(super) fn claim(
    connection: &Connection,
    endpoint: &str,
    now_ms: u64,
    until_ms: u64,
) -> rusqlite::Result<Vec<Delivery>> {
    let mut update = connection.prepare_cached(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, next_at_ms = ?3
         WHERE id IN (SELECT id FROM webhook_deliveries WHERE endpoint = ?1 AND next_at_ms <= ?2
                      ORDER BY next_at_ms, id LIMIT ?4)
         RETURNING id, message_id, body, attempts",
    )?;
    let claimed = update
        .query_map(params![endpoint, integer(now_ms), integer(until_ms), integer(MAX_TOGETHER)], |row| {
            Ok(Delivery { row: row.get(0)?, message_id: row.get(1)?, body: row.get(2)?, attempts: row.get(3)? })
        })?;
    let mut claimed: Vec<Delivery> = claimed.collect::<Result<_, _>>()?;
    claimed.sort_by_key(|delivery| delivery.row);
    Ok(claimed)
}

/// Says what became of a delivery.
pub(super) fn settle(connection: &Connection, row: i64, next: Next) -> rusqlite::Result<()> {
    match next {
        Next::Done => connection.prepare_cached("DELETE FROM webhook_deliveries WHERE id = ?1")?.execute([row])?,
        Next::At(at_ms) => connection
            .prepare_cached("UPDATE webhook_deliveries SET next_at_ms = ?2 WHERE id = ?1")?
            .execute(params![row, integer(at_ms)])?,
    };
    Ok(())
}

/// Disables an endpoint. What waits for it is void, and counted.
pub(super) fn disable(connection: &Connection, endpoint: &str, now_ms: u64) -> rusqlite::Result<u64> {
    connection.execute(
        "INSERT INTO webhook_endpoints_disabled (endpoint, at_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![endpoint, integer(now_ms)],
    )?;
    Ok(connection.execute("DELETE FROM webhook_deliveries WHERE endpoint = ?1", [endpoint])? as u64)
}

/// All endpoints that have deliveries or are disabled.
pub(super) fn known(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select = connection
        .prepare("SELECT endpoint FROM webhook_deliveries UNION SELECT endpoint FROM webhook_endpoints_disabled")?;
    select.query_map([], |row| row.get(0))?.collect()
}

/// Forgets an endpoint, and gives the number of deliveries to it. Should it come back it begins anew.
pub(super) fn forget(connection: &Connection, endpoint: &str) -> rusqlite::Result<u64> {
    connection.execute("DELETE FROM webhook_endpoints_disabled WHERE endpoint = ?1", [endpoint])?;
    Ok(connection.execute("DELETE FROM webhook_deliveries WHERE endpoint = ?1", [endpoint])? as u64)
}

/// Enables an endpoint that was disabled before it was changed.
pub(super) fn enable(connection: &Connection, endpoint: &str, changed_at_ms: u64) -> rusqlite::Result<()> {
    let mut delete =
        connection.prepare_cached("DELETE FROM webhook_endpoints_disabled WHERE endpoint = ?1 AND at_ms < ?2")?;
    delete.execute(params![endpoint, integer(changed_at_ms)])?;
    Ok(())
}

/// How many deliveries wait.
pub(super) fn waiting(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT count(*) FROM webhook_deliveries")?.query_row([], |row| row.get(0))
}

/// How many endpoints are disabled.
pub(super) fn disabled(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM webhook_endpoints_disabled", [], |row| row.get(0))
}

fn is_gone(connection: &Connection, endpoint: &str) -> rusqlite::Result<bool> {
    let mut select = connection.prepare_cached("SELECT 1 FROM webhook_endpoints_disabled WHERE endpoint = ?1")?;
    Ok(select.query_row([endpoint], |_| Ok(())).optional()?.is_some())
}

fn waiting_for(connection: &Connection, endpoint: &str) -> rusqlite::Result<u64> {
    let mut count = connection.prepare_cached("SELECT count(*) FROM webhook_deliveries WHERE endpoint = ?1")?;
    let waiting: i64 = count.query_row([endpoint], |row| row.get(0))?;
    Ok(u64::try_from(waiting).unwrap_or(0))
}
