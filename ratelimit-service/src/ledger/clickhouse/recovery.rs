//! An insert whose outcome is not known is brought to its end: its rows are there once each, and so they are in the sums.
//!
//! It is made again under the same token: so ClickHouse leaves out what of it is there, in the table and behind each view. That
//! does not hold when ClickHouse was killed between the rename of a part and the note of its token. So all is looked at
//! afterwards. Rows that are not there once are taken out and inserted under a new token, and sums that are not what the entries
//! come to are made anew. The intent stays until all is well: whatever breaks off, this begins again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tollgate_domain::{Period, Span};

use super::append::{call_ids, tracked_ids};
use super::database::{Database, MAX_LIST};
use super::intent::{Intent, Intents};
use super::rows::{Kind, UsageRow};
use super::sums::{self, Part, Sums};
use crate::entry::TrackedRecord;
use crate::ledger::LedgerError;

/// How often rows are taken out and inserted anew before that is given up, until the next time.
const MAX_ATTEMPTS: usize = 3;

/// The last moment of ClickHouse's `DateTime`, which later ones count to.
const LAST_MS: u64 = u32::MAX as u64 * 1000;

/// Inserts an intent's rows.
pub(super) async fn insert(database: &Database, intent: &Intent) -> Result<(), LedgerError> {
    if !intent.usage.is_empty() {
        database.insert("usage_events", &intent.token(), &intent.usage).await?;
    }
    if !intent.tracked.is_empty() {
        database.insert("tracked_events", &intent.token(), &intent.tracked).await?;
    }
    Ok(())
}

/// Brings an insert in doubt to its end. `holds_entries` tells whether the entries of the month that begins then are all there.
pub(super) async fn settle(
    database: &Database,
    intents: &Intents,
    intent: &mut Intent,
    holds_entries: impl Fn(u64) -> bool,
) -> Result<(), LedgerError> {
    insert(database, intent).await?;
    let database = &database.patient();
    let mut attempts = 0;
    while !are_once(database, intent).await? {
        attempts += 1;
        if attempts > MAX_ATTEMPTS {
            let text = "ClickHouse does not keep an insert's rows once each, though they were inserted anew";
            return Err(LedgerError::Database(text.to_owned()));
        }
        tracing::warn!("an insert into ClickHouse was made in part, or twice; it is made anew");
        take_out(database, intent).await?;
        intent.again();
        intents.write(intent).map_err(|error| LedgerError::Database(format!("{error:#}")))?;
        insert(database, intent).await?;
    }
    for (month, tenants) in touched(intent).into_iter().filter(|((from_ms, _), _)| holds_entries(*from_ms)) {
        settle_sums(database, month, &tenants.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// The tenants of an intent's rows, by month.
fn touched(intent: &Intent) -> BTreeMap<(u64, u64), BTreeSet<String>> {
    let usage = intent.usage.iter().map(|row| (row.record.started_at_ms, &row.record.tenant));
    let tracked = intent.tracked.iter().map(|record| (record.at_ms, &record.tenant));
    let mut touched: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (at_ms, tenant) in usage.chain(tracked) {
        let month = Period::around(Span::Month, at_ms.min(LAST_MS));
        touched.entry((month.first.start_ms(), month.end.start_ms())).or_default().insert(tenant.clone());
    }
    touched
}

async fn settle_sums(database: &Database, (from_ms, to_ms): (u64, u64), tenants: &[String]) -> Result<(), LedgerError> {
    for tenants in tenants.chunks(MAX_LIST) {
        for sums in Sums::ALL {
            let differing = sums::differences(database, sums, &Part { from_ms, to_ms, tenants: Some(tenants) }).await?;
            let tenants: BTreeSet<_> = differing.into_iter().map(|difference| difference.tenant).collect();
            if tenants.is_empty() {
                continue;
            }
            let (table, tenants) = (sums.table(), tenants.into_iter().collect::<Vec<_>>());
            tracing::warn!(
                table,
                tenants = tenants.len(),
                from_ms,
                to_ms,
                "sums are made anew after an insert that broke off"
            );
            let part = Part { from_ms, to_ms, tenants: Some(&tenants) };
            sums::rebuild(database, sums, &part).await?;
            if !sums::differences(database, sums, &part).await?.is_empty() {
                let text = format!("ClickHouse: {table} differs from the entries though it was made anew from them");
                return Err(LedgerError::Database(text));
            }
        }
    }
    Ok(())
}

/// What a row counts once by: kind, tenant and id.
type RowKey = (i8, String, String);

fn keys(intent: &Intent) -> impl Iterator<Item = RowKey> {
    let usage =
        intent.usage.iter().map(|row| (row.kind_number(), row.record.tenant.clone(), row.record.event_id.clone()));
    usage.chain(intent.tracked.iter().map(tracked_key))
}

fn tracked_key(record: &TrackedRecord) -> RowKey {
    (Kind::Tracked as i8, record.tenant.clone(), record.id.clone())
}

/// Whether each row is there once, and its id once.
async fn are_once(database: &Database, intent: &Intent) -> Result<bool, LedgerError> {
    let mut rows: HashMap<RowKey, u32> = HashMap::new();
    for (key, count) in stored(database, intent).await? {
        *rows.entry(key).or_default() += count;
    }
    let mut ids: HashMap<RowKey, u32> = HashMap::new();
    let calls = intent.usage.iter().map(|row| row.record.event_id.as_str()).collect::<BTreeSet<_>>();
    let tracked = intent.tracked.iter().map(|record| (record.id.as_str(), record.tenant.as_str())).collect();
    let mut found = call_ids(database, calls.into_iter().collect()).await?;
    found.extend(tracked_ids(database, tracked).await?);
    for row in found {
        *ids.entry((row.kind, row.tenant, row.id)).or_default() += 1;
    }
    Ok(keys(intent).all(|key| rows.get(&key) == Some(&1) && ids.get(&key) == Some(&1)))
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct Count {
    kind: i8,
    tenant: String,
    id: String,
    rows: u64,
}

/// How often rows with an intent's ids are there.
async fn stored(database: &Database, intent: &Intent) -> Result<Vec<(RowKey, u32)>, LedgerError> {
    let mut counts: Vec<Count> = Vec::new();
    // A real event and a correction may share their place.
    let places: BTreeSet<_> = intent.usage.iter().map(UsageRow::place).collect();
    for places in places.into_iter().collect::<Vec<_>>().chunks(MAX_LIST) {
        let query = "SELECT kind, tenant, event_id AS id, count() AS rows FROM usage_events \
                     WHERE (tenant, started_at_ms, event_id) IN ? GROUP BY kind, tenant, id";
        counts.extend(database.rows::<Count>(database.query(query).bind(places)).await?);
    }
    for records in intent.tracked.chunks(MAX_LIST) {
        let places: Vec<_> = records.iter().map(|record| (&record.tenant, record.at_ms, &record.id)).collect();
        let query = "SELECT toInt8(4) AS kind, tenant, id, count() AS rows FROM tracked_events \
                     WHERE (tenant, at_ms, id) IN ? GROUP BY tenant, id";
        counts.extend(database.rows::<Count>(database.query(query).bind(places)).await?);
    }
    let count = |count: Count| ((count.kind, count.tenant, count.id), u32::try_from(count.rows).unwrap_or(u32::MAX));
    Ok(counts.into_iter().map(count).collect())
}

/// Deletes an intent's rows and ids, wherever they are. Sums stay as they are.
async fn take_out(database: &Database, intent: &Intent) -> Result<(), LedgerError> {
    for rows in intent.usage.chunks(MAX_LIST) {
        let places: Vec<_> = rows.iter().map(UsageRow::place).collect();
        let keys: Vec<_> = rows.iter().map(|row| (&row.record.event_id, row.kind_number())).collect();
        let delete = "ALTER TABLE usage_events DELETE \
                      WHERE (tenant, started_at_ms, event_id) IN ? AND (event_id, toInt8(kind)) IN ?";
        database.change(database.query(delete).bind(&places).bind(&keys)).await?;
        let delete = "ALTER TABLE entry_ids DELETE WHERE (id, toInt8(kind)) IN ?";
        database.change(database.query(delete).bind(&keys)).await?;
    }
    for records in intent.tracked.chunks(MAX_LIST) {
        let places: Vec<_> = records.iter().map(|record| (&record.tenant, record.at_ms, &record.id)).collect();
        let delete = "ALTER TABLE tracked_events DELETE WHERE (tenant, at_ms, id) IN ?";
        database.change(database.query(delete).bind(&places)).await?;
        let keys: Vec<_> = records.iter().map(|record| (&record.id, &record.tenant)).collect();
        let delete = "ALTER TABLE entry_ids DELETE WHERE kind = 'tracked' AND (id, tenant) IN ?";
        database.change(database.query(delete).bind(&keys)).await?;
    }
    Ok(())
}
