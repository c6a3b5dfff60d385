//! Questions, answered from sums, or from the entries of a tenant and time.

use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Result, Row, Transaction, params};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

use super::sums::{histogram, number};
use crate::database::integer;
use crate::entry::{Cell, EventRecord, TrackedEvent, TrackedRecord};
use crate::ledger::{DAY_MS, Dimension, Grain, HOUR_MS, Page, Point, Series, Spent, TrackedSum, Usage};

/// All real events.
pub(super) const EVENTS: &str = "SELECT * FROM usage_events";

/// All unsettled ones, as [`unsettled`] reads them.
pub(super) const UNSETTLED: &str = "
    SELECT * FROM unsettled_events";

/// Those of them whose event has not come.
pub(super) const OPEN: &str = "
    SELECT * FROM unsettled_events
    WHERE NOT EXISTS (SELECT 1 FROM corrections WHERE corrections.event_id = unsettled_events.event_id)";

/// The tier of the tenant's latest call that has an event, or may still get one.
const LAST_TIER: &str = "
    WITH settled AS MATERIALIZED (
        SELECT started_at_ms AS at_ms, tier FROM usage_events WHERE tenant = ?1 ORDER BY started_at_ms DESC LIMIT 1
    ), unsettled AS MATERIALIZED (
        SELECT started_at_ms AS at_ms, tier FROM unsettled_events
        WHERE tenant = ?1 AND started_at_ms > ifnull((SELECT at_ms FROM settled), -1)
            AND NOT EXISTS (SELECT 1 FROM corrections WHERE corrections.event_id = unsettled_events.event_id)
        ORDER BY started_at_ms DESC LIMIT 1
    )
    SELECT tier FROM (SELECT * FROM settled UNION ALL SELECT * FROM unsettled) ORDER BY at_ms DESC LIMIT 1";

/// Each tenant that has entries in the period, found by as many steps in the indexes as there are tenants.
const TENANTS: &str = "
    WITH RECURSIVE
    called(tenant) AS (
        SELECT min(tenant) FROM usage_events
        UNION ALL SELECT (SELECT min(tenant) FROM usage_events WHERE tenant > called.tenant) FROM called
        WHERE called.tenant IS NOT NULL
    ),
    expired(tenant) AS (
        SELECT min(tenant) FROM unsettled_events
        UNION ALL SELECT (SELECT min(tenant) FROM unsettled_events WHERE tenant > expired.tenant) FROM expired
        WHERE expired.tenant IS NOT NULL
    ),
    tracked(tenant) AS (
        SELECT min(tenant) FROM tracked_events
        UNION ALL SELECT (SELECT min(tenant) FROM tracked_events WHERE tenant > tracked.tenant) FROM tracked
        WHERE tracked.tenant IS NOT NULL
    )
    SELECT tenant FROM called WHERE EXISTS
        (SELECT 1 FROM usage_events e WHERE e.tenant = called.tenant AND started_at_ms >= ?1 AND started_at_ms < ?2)
    UNION SELECT tenant FROM expired WHERE EXISTS
        (SELECT 1 FROM unsettled_events e WHERE e.tenant = expired.tenant AND started_at_ms >= ?1 AND started_at_ms < ?2)
    UNION SELECT tenant FROM tracked WHERE EXISTS
        (SELECT 1 FROM tracked_events e WHERE e.tenant = tracked.tenant AND at_ms >= ?1 AND at_ms < ?2)
    ORDER BY tenant";

/// Every sum, over rows.
static SUMS: LazyLock<String> = LazyLock::new(|| {
    let sums: Vec<_> = Usage::COLUMNS.iter().map(|column| format!("sum({column}) AS {column}")).collect();
    sums.join(", ")
});

fn column(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Model => "model",
        Dimension::Provider => "provider",
        Dimension::Api => "api",
        Dimension::Key => "key",
        Dimension::Tier => "tier",
        Dimension::Streaming => "iif(streaming, 'true', 'false')",
        Dimension::Status => "CAST(status AS TEXT)",
    }
}

pub(super) fn series(transaction: &Transaction<'_>, series: &Series<'_>) -> Result<Vec<Point>> {
    let label = series.by.map_or("''", column);
    let query = format!(
        "SELECT start_ms, {label} AS label, {}, sum_counts(durations) AS durations, sum_counts(first_tokens) AS first_tokens \
         FROM usage_sums WHERE grain = ?1 AND tenant = ?2 AND start_ms >= ?3 AND start_ms < ?4 \
         GROUP BY start_ms, label HAVING sum(requests) > 0 ORDER BY start_ms, label",
        *SUMS
    );
    let mut query = transaction.prepare_cached(&query)?;
    let (from, to) = (integer(series.from_ms), integer(series.to_ms));
    let rows = query.query_map(params![number(series.grain), series.tenant, from, to], |row| {
        let label: String = row.get("label")?;
        Ok(Point {
            start_ms: row.get::<_, i64>("start_ms")?.unsigned_abs(),
            label: Some(label).filter(|label| !label.is_empty()),
            usage: Usage {
                durations: histogram(row, "durations")?,
                first_tokens: histogram(row, "first_tokens")?,
                ..usage(row)?
            },
        })
    })?;
    rows.collect()
}

/// The sums, without histograms.
pub(super) fn usage(row: &Row<'_>) -> Result<Usage> {
    Usage::from_columns(|column| row.get::<_, i64>(column).map(i64::unsigned_abs))
}

pub(super) fn tracked(
    transaction: &Transaction<'_>,
    tenant: &str,
    from_ms: u64,
    to_ms: u64,
) -> Result<Vec<TrackedSum>> {
    let query = "SELECT start_ms, event_type, events, quantity_micros FROM tracked_sums \
                 WHERE tenant = ? AND start_ms >= ? AND start_ms < ? ORDER BY start_ms, event_type";
    let mut query = transaction.prepare_cached(query)?;
    let rows = query.query_map(params![tenant, integer(from_ms), integer(to_ms)], |row| {
        Ok(TrackedSum {
            start_ms: row.get::<_, i64>(0)?.unsigned_abs(),
            event_type: row.get(1)?,
            events: row.get::<_, i64>(2)?.unsigned_abs(),
            quantity_micros: row.get::<_, i64>(3)?.unsigned_abs().into(),
        })
    })?;
    rows.collect()
}

pub(super) fn tenants(transaction: &Transaction<'_>, from_ms: u64, to_ms: u64) -> Result<Vec<String>> {
    let mut query = transaction.prepare_cached(TENANTS)?;
    query.query_map([integer(from_ms), integer(to_ms)], |row| row.get(0))?.collect()
}

/// A [`Page`] that can be sent elsewhere.
pub(super) struct OwnedPage {
    tenant: String,
    from_ms: i64,
    to_ms: i64,
    after: (i64, String),
    limit: i64,
}

impl From<&Page<'_>> for OwnedPage {
    fn from(page: &Page<'_>) -> OwnedPage {
        // No id is empty: it is before all of its moment.
        let (after_ms, after_id) = page.after.map_or((0, ""), |(at_ms, id)| (at_ms, id));
        OwnedPage {
            tenant: page.tenant.to_owned(),
            from_ms: integer(page.from_ms.max(after_ms)),
            to_ms: integer(page.to_ms),
            after: (integer(after_ms), after_id.to_owned()),
            limit: integer(page.limit as u64),
        }
    }
}

pub(super) fn events(transaction: &Transaction<'_>, page: &OwnedPage) -> Result<Vec<UsageEvent>> {
    page_of(transaction, page, ["", ""])
}

/// The first condition is that of an index, word for word.
pub(super) fn unpriced(transaction: &Transaction<'_>, page: &OwnedPage) -> Result<Vec<UsageEvent>> {
    page_of(transaction, page, ["AND cost_nanousd IS NULL AND usage_source <> 'none'", "AND cost_nanousd IS NULL"])
}

/// Calls that are settled, and those that are not, each under a condition of its own.
fn page_of(
    transaction: &Transaction<'_>,
    page: &OwnedPage,
    [of_settled, of_open]: [&str; 2],
) -> Result<Vec<UsageEvent>> {
    let of_page = "tenant = ?1 AND started_at_ms >= ?2 AND started_at_ms < ?3 AND (started_at_ms, event_id) > (?4, ?5)";
    let ordered = "ORDER BY started_at_ms, event_id LIMIT ?6";
    let OwnedPage { tenant, from_ms, to_ms, after: (after_ms, after_id), limit } = page;
    let bounds = params![tenant, from_ms, to_ms, after_ms, after_id, limit];
    let mut query = transaction.prepare_cached(&format!("{EVENTS} WHERE {of_page} {of_settled} {ordered}"))?;
    let mut events: Vec<_> = query.query_map(bounds, event)?.collect::<Result<_>>()?;
    let mut query = transaction.prepare_cached(&format!("{OPEN} AND {of_page} {of_open} {ordered}"))?;
    let open: Vec<_> = query.query_map(bounds, unsettled)?.collect::<Result<_>>()?;
    if !open.is_empty() {
        events.extend(open);
        events.sort_by(|a, b| (a.started_at_ms, &a.event_id).cmp(&(b.started_at_ms, &b.event_id)));
        events.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
    }
    Ok(events)
}

pub(super) fn tracked_events(transaction: &Transaction<'_>, page: &OwnedPage) -> Result<Vec<TrackedEvent>> {
    let query = "SELECT id, tenant, event_type, at_ms, quantity_micros, metadata FROM tracked_events \
                 WHERE tenant = ?1 AND at_ms >= ?2 AND at_ms < ?3 AND (at_ms, id) > (?4, ?5) ORDER BY at_ms, id LIMIT ?6";
    let OwnedPage { tenant, from_ms, to_ms, after: (after_ms, after_id), limit } = page;
    let mut query = transaction.prepare_cached(query)?;
    let rows = query.query_map(params![tenant, from_ms, to_ms, after_ms, after_id, limit], |row| {
        TrackedRecord::from_cells(cells(row))?.try_into().map_err(corrupt)
    })?;
    rows.collect()
}

/// The cells of a row, one after the other.
fn cells<'a>(row: &'a Row<'_>) -> impl FnMut() -> Result<Cell> + 'a {
    let mut index = 0;
    move || {
        let cell = match row.get_ref(index)? {
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Cell::Null,
            ValueRef::Integer(number) => Cell::Number(number),
            ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        };
        index += 1;
        Ok(cell)
    }
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

/// A row of [`EVENTS`].
pub(super) fn event(row: &Row<'_>) -> Result<UsageEvent> {
    EventRecord::from_cells(cells(row))?.try_into().map_err(corrupt)
}

/// A row of [`UNSETTLED`] or [`OPEN`].
pub(super) fn unsettled(row: &Row<'_>) -> Result<UsageEvent> {
    let count = |column: &str| row.get::<_, i64>(column).map(i64::unsigned_abs);
    let event_id: String = row.get("event_id")?;
    Ok(UsageEvent {
        reservation_id: Some(event_id.clone()),
        event_id,
        tenant: row.get("tenant")?,
        tier: row.get("tier")?,
        started_at_ms: count("started_at_ms")?,
        api: row.get("api")?,
        key: row.get("key")?,
        request_model: row.get("request_model")?,
        tokens: TokenCounts {
            input: count("input_tokens")?,
            output: count("output_tokens")?,
            images: count("images")?,
            ..TokenCounts::default()
        },
        cost_nanousd: row.get::<_, Option<i64>>("cost_nanousd")?.map(i64::unsigned_abs),
        usage_source: UsageSource::Unsettled,
        finish: Finish::Unknown,
        ..UsageEvent::default()
    })
}

type SpentKey = (String, String, String, String, String);

/// From the beginning of the next day on, from days; before, from hours; and before the next hour, from events.
pub(super) fn spent_since(transaction: &Transaction<'_>, from_ms: u64, tenant: Option<&str>) -> Result<Vec<Spent>> {
    let mut spent: HashMap<SpentKey, Usage> = HashMap::new();
    // What is later than SQLite's integers has no calls.
    if i64::try_from(from_ms).is_err() {
        return Ok(Vec::new());
    }
    let (hour, day) = (from_ms.next_multiple_of(HOUR_MS), from_ms.next_multiple_of(DAY_MS));
    let by_sums = [(Grain::Hour, hour.min(day), day), (Grain::Day, day, u64::MAX)];
    for (grain, from_ms, to_ms) in by_sums.into_iter().filter(|(_, from_ms, to_ms)| from_ms < to_ms) {
        add_sums(transaction, &mut spent, tenant, (grain, from_ms, to_ms))?;
    }
    if from_ms < hour {
        let tenants = match tenant {
            Some(tenant) => vec![tenant.to_owned()],
            None => tenants(transaction, from_ms, hour)?,
        };
        for tenant in tenants {
            let (after, limit) = ((0, String::new()), i64::MAX);
            let page = OwnedPage { tenant, from_ms: integer(from_ms), to_ms: integer(hour), after, limit };
            for event in events(transaction, &page)? {
                let label = |name: Option<&str>| name.unwrap_or_default().to_owned();
                let [model, api, key] = [event.model(), event.api.as_deref(), event.key.as_deref()].map(label);
                let of = (event.tenant.clone(), event.tier.clone(), model, api, key);
                spent.entry(of).or_default().add(&Usage::of(&event));
            }
        }
    }
    let named = |name: String| Some(name).filter(|name| !name.is_empty());
    let spent = spent.into_iter().filter(|(_, usage)| usage.requests > 0);
    let spent = spent.map(|((tenant, tier, model, api, key), usage)| {
        let [model, api, key] = [model, api, key].map(named);
        Spent { tenant, tier, model, api, key, usage }
    });
    Ok(spent.collect())
}

fn add_sums(
    transaction: &Transaction<'_>,
    spent: &mut HashMap<SpentKey, Usage>,
    tenant: Option<&str>,
    (grain, from_ms, to_ms): (Grain, u64, u64),
) -> Result<()> {
    let of_tenant = if tenant.is_some() { "tenant = ?4" } else { "?4 IS NULL" };
    let query = format!(
        "SELECT tenant, tier, model, api, key, {} FROM usage_sums \
         WHERE grain = ?1 AND start_ms >= ?2 AND start_ms < ?3 AND {of_tenant} GROUP BY tenant, tier, model, api, key",
        *SUMS
    );
    let mut query = transaction.prepare_cached(&query)?;
    let mut rows = query.query(params![number(grain), integer(from_ms), integer(to_ms), tenant])?;
    while let Some(row) = rows.next()? {
        let of = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        spent.entry(of).or_default().add(&usage(row)?);
    }
    Ok(())
}

pub(super) fn unsettled_since(transaction: &Transaction<'_>, from_ms: u64, limit: usize) -> Result<Vec<UsageEvent>> {
    let query = format!("{OPEN} AND started_at_ms >= ? ORDER BY started_at_ms DESC LIMIT ?");
    let mut query = transaction.prepare_cached(&query)?;
    query.query_map([integer(from_ms), integer(limit as u64)], unsettled)?.collect()
}

pub(super) fn real(transaction: &Transaction<'_>, event_id: &str) -> Result<Option<UsageEvent>> {
    transaction.prepare_cached(&format!("{EVENTS} WHERE event_id = ?"))?.query_row([event_id], event).optional()
}

pub(super) fn last_tier(transaction: &Transaction<'_>, tenant: &str) -> Result<Option<String>> {
    transaction.prepare_cached(LAST_TIER)?.query_row([tenant], |row| row.get(0)).optional()
}
