//! What is asked of the ledger.

use std::collections::HashSet;

use clickhouse::Row;
use serde::Deserialize;
use tollgate_domain::{Day, Period, Span};
use tollgate_wire::usage_event::UsageEvent;

use super::append::call_ids;
use super::database::Database;
use super::rows::{Kind, UsageRow, columns, event};
use super::sums::{self, Part, Sums};
use crate::entry::{TrackedEvent, TrackedRecord};
use crate::ledger::{
    Difference, Dimension, Grain, Histogram, LedgerError, Page, Point, Series, Spent, TrackedSum, Usage,
};

/// The most rows that share a tenant, time and id: a real event, an unsettled one, and its correction.
const ROWS_OF_CALL: usize = 3;

#[derive(Row, Deserialize)]
struct PointRow {
    start_ms: u64,
    label: Option<String>,
    sums: Vec<i64>,
    all_durations: Vec<(u8, i64)>,
    all_first_tokens: Vec<(u8, i64)>,
}

/// The sums by their columns; those below 0 are none.
fn usage(sums: &[i64], durations: Vec<(u8, i64)>, first_tokens: Vec<(u8, i64)>) -> Result<Usage, LedgerError> {
    let sum = |name: &str| {
        let sum = Usage::COLUMNS.iter().position(|column| *column == name).and_then(|at| sums.get(at));
        let sum = sum.ok_or_else(|| LedgerError::Database(format!("ClickHouse did not answer with {name}")))?;
        Ok::<_, LedgerError>(u64::try_from(*sum).unwrap_or(0))
    };
    let histogram = |counts: Vec<(u8, i64)>| {
        Histogram::from_counts(counts.into_iter().map(|(bucket, count)| (bucket, u64::try_from(count).unwrap_or(0))))
    };
    let mut usage = Usage::from_columns(sum)?;
    (usage.durations, usage.first_tokens) = (histogram(durations), histogram(first_tokens));
    Ok(usage)
}

fn sum_columns() -> String {
    Usage::COLUMNS.iter().map(|column| format!("sum({column})")).collect::<Vec<_>>().join(", ")
}

pub(super) async fn series(database: &Database, series: &Series<'_>) -> Result<Vec<Point>, LedgerError> {
    let label = match series.by {
        None => "CAST(NULL, 'Nullable(String)')",
        Some(Dimension::Model) => "CAST(model, 'Nullable(String)')",
        Some(Dimension::Provider) => "CAST(provider, 'Nullable(String)')",
        Some(Dimension::Api) => "CAST(api, 'Nullable(String)')",
        Some(Dimension::Key) => "CAST(key, 'Nullable(String)')",
        Some(Dimension::Tier) => "CAST(tier, 'Nullable(String)')",
        Some(Dimension::Streaming) => "CAST(if(streaming, 'true', 'false'), 'Nullable(String)')",
        Some(Dimension::Status) => "CAST(toString(status), 'Nullable(String)')",
    };
    let query = format!(
        "SELECT start_ms, {label} AS label, [{}] AS sums, sumMap(durations) AS all_durations, sumMap(first_tokens) AS all_first_tokens FROM {} \
         WHERE tenant = ? AND start_ms >= ? AND start_ms < ? GROUP BY start_ms, label HAVING sum(requests) != 0",
        sum_columns(),
        Sums::Usage(series.grain).table(),
    );
    let query = database.query(&query).bind(series.tenant).bind(series.from_ms).bind(series.to_ms);
    let rows: Vec<PointRow> = database.rows(query).await?;
    let point = |row: PointRow| {
        let usage = usage(&row.sums, row.all_durations, row.all_first_tokens)?;
        Ok(Point { start_ms: row.start_ms, label: row.label, usage })
    };
    let mut points = rows.into_iter().map(point).collect::<Result<Vec<_>, LedgerError>>()?;
    points.sort_by(|one, other| (one.start_ms, &one.label).cmp(&(other.start_ms, &other.label)));
    Ok(points)
}

#[derive(Row, Deserialize)]
struct TrackedSumRow {
    start_ms: u64,
    event_type: String,
    number: i64,
    quantity: i128,
}

pub(super) async fn tracked(
    database: &Database,
    tenant: &str,
    from_ms: u64,
    to_ms: u64,
) -> Result<Vec<TrackedSum>, LedgerError> {
    let query = "SELECT start_ms, event_type, sum(events) AS number, sum(quantity_micros) AS quantity FROM tracked_days \
                 WHERE tenant = ? AND start_ms >= ? AND start_ms < ? GROUP BY start_ms, event_type \
                 HAVING number != 0 ORDER BY start_ms, event_type";
    let query = database.query(query).bind(tenant).bind(from_ms).bind(to_ms);
    let rows: Vec<TrackedSumRow> = database.rows(query).await?;
    let sum = |row: TrackedSumRow| TrackedSum {
        start_ms: row.start_ms,
        event_type: row.event_type,
        events: u64::try_from(row.number).unwrap_or(0),
        quantity_micros: u128::try_from(row.quantity).unwrap_or(0),
    };
    Ok(rows.into_iter().map(sum).collect())
}

#[derive(Row, Deserialize)]
struct Name {
    name: String,
}

pub(super) async fn tenants(database: &Database, from_ms: u64, to_ms: u64) -> Result<Vec<String>, LedgerError> {
    // Corrected or not, an hour that had a call has a row. Days of tracked events that end later have others too.
    let query = "SELECT DISTINCT tenant AS name FROM ( \
                 SELECT tenant FROM usage_hours WHERE start_ms >= ? AND start_ms < ? UNION ALL \
                 SELECT tenant FROM tracked_days WHERE start_ms >= ? AND start_ms + 86400000 <= ? UNION ALL \
                 SELECT tenant FROM tracked_events WHERE at_ms >= ? AND at_ms < ?) ORDER BY name";
    let query = database.query(query).bind(from_ms).bind(to_ms).bind(from_ms).bind(to_ms).bind(from_ms).bind(to_ms);
    let rows: Vec<Name> = database.rows(query).await?;
    Ok(rows.into_iter().map(|Name { name }| name).collect())
}

/// A page of calls, of those for which a further condition holds: for an unsettled one's correction as for itself.
pub(super) async fn events(
    database: &Database,
    page: &Page<'_>,
    condition: &str,
) -> Result<Vec<UsageEvent>, LedgerError> {
    let of = Rows { table: "usage_events", time: "started_at_ms", id: "event_id", condition };
    let mut events = Vec::new();
    let mut after = page.after.map(|(at_ms, id)| (at_ms, id.to_owned()));
    while events.len() < page.limit {
        let most = page.limit - events.len() + ROWS_OF_CALL;
        let rows: Vec<UsageRow> = page_rows(database, page, &of, &after, most).await?;
        let is_last = rows.len() < most;
        let (rows, last) = whole_calls(rows, is_last);
        for row in counting(rows) {
            events.push(event(row.record)?);
        }
        after = last;
        if is_last {
            break;
        }
    }
    events.truncate(page.limit);
    Ok(events)
}

/// Without the rows of the last call, of which there may be more, unless no row follows; and the time and id of the last that
/// is left.
fn whole_calls(mut rows: Vec<UsageRow>, is_last: bool) -> (Vec<UsageRow>, Option<(u64, String)>) {
    let place = |row: &UsageRow| (row.record.started_at_ms, row.record.event_id.clone());
    if let Some(last) = rows.last().map(place)
        && !is_last
        && rows.first().map(place).as_ref() != Some(&last)
    {
        rows.retain(|row| place(row) != last);
    }
    let last = rows.last().map(place);
    (rows, last)
}

/// Without corrections, and what these take out.
fn counting(rows: Vec<UsageRow>) -> Vec<UsageRow> {
    let corrections = rows.iter().filter(|row| row.is_correction());
    let corrected: HashSet<_> = corrections.map(|row| row.record.event_id.clone()).collect();
    let counts = |row: &UsageRow| match row.kind() {
        Some(Kind::Correction) => false,
        Some(Kind::Unsettled) => !corrected.contains(&row.record.event_id),
        _ => true,
    };
    rows.into_iter().filter(counts).collect()
}

pub(super) async fn tracked_events(database: &Database, page: &Page<'_>) -> Result<Vec<TrackedEvent>, LedgerError> {
    let after = page.after.map(|(at_ms, id)| (at_ms, id.to_owned()));
    let of = Rows { table: "tracked_events", time: "at_ms", id: "id", condition: "" };
    let rows: Vec<TrackedRecord> = page_rows(database, page, &of, &after, page.limit).await?;
    let event = |record: TrackedRecord| {
        let id = record.id.clone();
        TrackedEvent::try_from(record)
            .map_err(|error| LedgerError::Database(format!("ClickHouse holds no tracked event under {id}: {error}")))
    };
    rows.into_iter().map(event).collect()
}

/// A table that is read page by page.
struct Rows<'q> {
    table: &'q str,
    /// The column that a page is in the order of,
    time: &'q str,
    /// and the one within a moment.
    id: &'q str,
    /// Nothing, or `AND` and something else that has to hold.
    condition: &'q str,
}

async fn page_rows<T>(
    database: &Database,
    page: &Page<'_>,
    of: &Rows<'_>,
    after: &Option<(u64, String)>,
    most: usize,
) -> Result<Vec<T>, LedgerError>
where
    T: clickhouse::RowOwned + clickhouse::RowRead,
{
    let Rows { table, time, id, condition } = of;
    let columns = columns::<T>();
    let mut query =
        format!("SELECT {columns} FROM {table} WHERE tenant = ? AND {time} >= ? AND {time} < ? {condition}");
    if after.is_some() {
        query.push_str(&format!(" AND {time} >= ? AND ({time}, {id}) > (?, ?)"));
    }
    query.push_str(&format!(" ORDER BY tenant, {time}, {id} LIMIT ?"));
    let mut query = database.query_records(&query).bind(page.tenant).bind(page.from_ms).bind(page.to_ms);
    if let Some((at_ms, id)) = after {
        query = query.bind(at_ms).bind(at_ms).bind(id);
    }
    database.rows(query.bind(most)).await
}

#[derive(Row, Deserialize)]
struct SpentRow {
    tenant: String,
    tier: String,
    requested: Option<String>,
    format: Option<String>,
    shown: Option<String>,
    sums: Vec<i64>,
}

pub(super) async fn spent_since(
    database: &Database,
    from_ms: u64,
    tenant: Option<&str>,
) -> Result<Vec<Spent>, LedgerError> {
    let made = sums::made_since(database, from_ms, tenant).await?;
    let query = format!(
        "SELECT tenant, tier, CAST(model, 'Nullable(String)') AS requested, CAST(api, 'Nullable(String)') AS format, \
         CAST(key, 'Nullable(String)') AS shown, [{}] AS sums FROM {made} \
         GROUP BY tenant, tier, requested, format, shown HAVING sum(requests) != 0",
        sum_columns()
    );
    let rows: Vec<SpentRow> = database.rows(database.query(&query)).await?;
    let spent = |row: SpentRow| {
        let usage = usage(&row.sums, Vec::new(), Vec::new())?;
        let SpentRow { tenant, tier, requested: model, format: api, shown: key, .. } = row;
        Ok(Spent { tenant, tier, model, api, key, usage })
    };
    rows.into_iter().map(spent).collect()
}

pub(super) async fn unsettled_since(
    database: &Database,
    from_ms: u64,
    limit: usize,
) -> Result<Vec<UsageEvent>, LedgerError> {
    let query = format!(
        "SELECT {} FROM usage_events WHERE kind = 'unsettled' AND started_at_ms >= ? AND event_id NOT IN \
         (SELECT event_id FROM usage_events WHERE kind = 'correction' AND started_at_ms >= ?) \
         ORDER BY started_at_ms DESC, event_id LIMIT ?",
        columns::<UsageRow>()
    );
    let query = database.query_records(&query).bind(from_ms).bind(from_ms).bind(limit);
    let rows: Vec<UsageRow> = database.rows(query).await?;
    rows.into_iter().map(|row| event(row.record)).collect()
}

pub(super) async fn real(database: &Database, event_id: &str) -> Result<Option<UsageEvent>, LedgerError> {
    let found = call_ids(database, vec![event_id]).await?;
    let Some(at) = found.into_iter().find(|row| row.kind == Kind::Real as i8) else { return Ok(None) };
    let query = format!(
        "SELECT {} FROM usage_events WHERE tenant = ? AND started_at_ms = ? AND event_id = ? AND kind = 'real' LIMIT 1",
        columns::<UsageRow>()
    );
    let query = database.query_records(&query).bind(at.tenant).bind(at.at_ms).bind(event_id);
    let rows: Vec<UsageRow> = database.rows(query).await?;
    rows.into_iter().next().map(|row| event(row.record)).transpose()
}

#[derive(Row, Deserialize)]
struct TierRow {
    at_ms: u64,
    tier: String,
}

pub(super) async fn last_tier(database: &Database, tenant: &str) -> Result<Option<String>, LedgerError> {
    const LATEST: &str = "ORDER BY tenant DESC, started_at_ms DESC, event_id DESC LIMIT 1";
    let settled = format!(
        "SELECT started_at_ms AS at_ms, CAST(tier, 'String') AS tier FROM usage_events \
         WHERE tenant = ? AND kind = 'real' {LATEST}"
    );
    let settled: Option<TierRow> = database.rows(database.query(&settled).bind(tenant)).await?.into_iter().next();
    let after_ms = settled.as_ref().map_or(0, |settled| settled.at_ms.saturating_add(1));
    let open = format!(
        "SELECT started_at_ms AS at_ms, CAST(tier, 'String') AS tier FROM usage_events \
         WHERE tenant = ? AND kind = 'unsettled' AND started_at_ms >= ? AND event_id NOT IN \
         (SELECT event_id FROM usage_events WHERE tenant = ? AND kind = 'correction' AND started_at_ms >= ?) {LATEST}"
    );
    let open = database.query(&open).bind(tenant).bind(after_ms).bind(tenant).bind(after_ms);
    let open: Vec<TierRow> = database.rows(open).await?;
    Ok(open.into_iter().next().or(settled).map(|row| row.tier))
}

#[derive(Row, Deserialize)]
struct Month {
    month: u32,
}

/// Of whole days, and of the whole months among them; `holds_entries` tells of a month whether its entries are all there.
pub(super) async fn differences(
    database: &Database,
    from_ms: u64,
    to_ms: u64,
    holds_entries: impl Fn(u64) -> bool,
) -> Result<Vec<Difference>, LedgerError> {
    let (from, to) = (day_from(from_ms), day_from(to_ms));
    // Those that are there at all: all tables are parted by month.
    let months = "SELECT DISTINCT toUInt32OrZero(partition) AS month FROM system.parts \
                  WHERE database = currentDatabase() AND active AND table != 'ledger_migrations' ORDER BY month";
    let months: Vec<Month> = database.rows(database.query(months)).await?;
    let mut differences = Vec::new();
    for month in months.into_iter().filter_map(|Month { month }| whole_month(month)) {
        let days = Period { first: month.first.max(from), end: month.end.min(to) };
        if days.first >= days.end || !holds_entries(month.first.start_ms()) {
            continue;
        }
        let part = Part { from_ms: days.first.start_ms(), to_ms: days.end.start_ms(), tenants: None };
        differences.extend(ids(database, &part).await?);
        for sums in Sums::ALL {
            // A month that reaches past the period has other entries too.
            if sums != Sums::Usage(Grain::Month) || days == month {
                differences.extend(sums::differences(database, sums, &part).await?);
            }
        }
    }
    Ok(differences)
}

/// The month that a partition is called by, as 202611.
fn whole_month(number: u32) -> Option<Period> {
    let first = jiff::civil::Date::new(i16::try_from(number / 100).ok()?, i8::try_from(number % 100).ok()?, 1).ok()?;
    let at_ms = first.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    Some(Period::around(Span::Month, u64::try_from(at_ms).ok()?))
}

/// The first day that begins at or after a time.
fn day_from(at_ms: u64) -> Day {
    let day = Day::of(at_ms);
    if day.start_ms() < at_ms { day.plus(1) } else { day }
}

#[derive(Row, Deserialize)]
struct IdCounts {
    tenant: String,
    sum: String,
    rows: u64,
    ids: u64,
}

/// Ids that count more than once, as two services appended at a time (`repeated`), and entries whose ids are not known (`ids`).
async fn ids(database: &Database, part: &Part<'_>) -> Result<Vec<Difference>, LedgerError> {
    let Part { from_ms, to_ms, .. } = part;
    let within = |time: &str| format!("{time} >= {from_ms} AND {time} < {to_ms}");
    let repeated = format!(
        "SELECT CAST(tenant, 'String') AS tenant, 'repeated' AS sum, toUInt64(sum(counted)) AS rows, count() AS ids FROM ( \
         SELECT any(entry_ids.tenant) AS tenant, sum(if(kind = 'correction', -1, 1)) AS counted FROM entry_ids \
         WHERE {} GROUP BY id, if(kind = 'tracked', CAST(entry_ids.tenant, 'String'), '') HAVING counted > 1) \
         GROUP BY tenant ORDER BY tenant",
        within("at_ms")
    );
    let unknown = format!(
        "SELECT CAST(tenant, 'String') AS tenant, 'ids' AS sum, sum(row) AS rows, sum(known) AS ids FROM ( \
         SELECT tenant, count() AS row, toUInt64(0) AS known FROM usage_events WHERE {} GROUP BY tenant UNION ALL \
         SELECT tenant, count() AS row, toUInt64(0) AS known FROM tracked_events WHERE {tracked} GROUP BY tenant UNION ALL \
         SELECT tenant, toUInt64(0) AS row, count() AS known FROM entry_ids WHERE {tracked} GROUP BY tenant) \
         GROUP BY tenant HAVING rows != ids ORDER BY tenant",
        within("started_at_ms"),
        tracked = within("at_ms"),
    );
    let mut rows: Vec<IdCounts> = database.rows(database.query(&repeated)).await?;
    rows.extend(database.rows::<IdCounts>(database.query(&unknown)).await?);
    let difference = |row: IdCounts| Difference {
        tenant: row.tenant,
        place: "entries".to_owned(),
        sum: row.sum,
        entries: row.rows.into(),
        sums: row.ids.into(),
    };
    Ok(rows.into_iter().map(difference).collect())
}
