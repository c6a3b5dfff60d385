//! What of a batch is new, and the rows that it comes to.

use std::collections::{HashMap, HashSet};

use super::database::{Database, MAX_LIST};
use super::rows::{IdRow, Kind, UsageRow, columns};
use crate::entry::{Entry, TrackedRecord};
use crate::ledger::LedgerError;

/// What an entry counts once by: its kind, for tracked events their tenant, and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    kind: Kind,
    tenant: Option<String>,
    id: String,
}

impl Key {
    pub(super) fn of(entry: &Entry) -> Key {
        let id = entry.id().to_owned();
        match entry {
            Entry::Usage(event) => Key { kind: Kind::of(event), tenant: None, id },
            Entry::Tracked(event) => Key { kind: Kind::Tracked, tenant: Some(event.tenant.clone()), id },
        }
    }

    /// `None` of a correction: no entry is one.
    pub(super) fn of_usage(row: &UsageRow) -> Option<Key> {
        let kind = row.kind().filter(|kind| *kind != Kind::Correction)?;
        Some(Key { kind, tenant: None, id: row.record.event_id.clone() })
    }

    pub(super) fn of_tracked(record: &TrackedRecord) -> Key {
        Key { kind: Kind::Tracked, tenant: Some(record.tenant.clone()), id: record.id.clone() }
    }
}

/// What is to be inserted of a batch.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) usage: Vec<UsageRow>,
    pub(super) tracked: Vec<TrackedRecord>,
    /// Of each entry, whether it is new.
    pub(super) new: Vec<bool>,
}

/// What is there under the ids of a batch.
#[derive(Debug, Default)]
struct Known {
    real: HashSet<String>,
    unsettled: HashMap<String, IdRow>,
    tracked: HashSet<(String, String)>,
}

/// Finds out what of the entries is not stored yet.
pub(super) async fn plan(database: &Database, entries: &[&Entry]) -> Result<Plan, LedgerError> {
    let mut known = known(database, entries).await?;
    let mut plan = Plan { new: vec![false; entries.len()], ..Plan::default() };
    let mut replaced = Vec::new();
    // Real events go first: an unsettled one beside its real one has nothing to stand in for.
    for (entry, is_new) in entries.iter().zip(&mut plan.new) {
        match entry {
            Entry::Usage(event) if Kind::of(event) == Kind::Real => {
                *is_new = known.real.insert(event.event_id.clone());
                if *is_new {
                    plan.usage.push(UsageRow::of(event));
                    replaced.extend(known.unsettled.get(&event.event_id).cloned());
                }
            }
            Entry::Usage(_) => {}
            Entry::Tracked(event) => {
                *is_new = known.tracked.insert((event.id.clone(), event.tenant.clone()));
                if *is_new {
                    plan.tracked.push(event.into());
                }
            }
        }
    }
    let mut expired = HashSet::new();
    for (entry, is_new) in entries.iter().zip(&mut plan.new) {
        if let Entry::Usage(event) = entry
            && Kind::of(event) == Kind::Unsettled
        {
            let id = &event.event_id;
            *is_new = !known.real.contains(id) && !known.unsettled.contains_key(id) && expired.insert(id);
            if *is_new {
                plan.usage.push(UsageRow::of(event));
            }
        }
    }
    plan.usage.extend(corrections(database, &replaced).await?);
    Ok(plan)
}

async fn known(database: &Database, entries: &[&Entry]) -> Result<Known, LedgerError> {
    let (mut calls, mut tracked) = (HashSet::new(), HashSet::new());
    for entry in entries {
        match entry {
            Entry::Usage(event) => drop(calls.insert(event.event_id.as_str())),
            Entry::Tracked(event) => drop(tracked.insert((event.id.as_str(), event.tenant.as_str()))),
        }
    }
    let mut known = Known::default();
    for row in call_ids(database, calls.into_iter().collect()).await? {
        match Kind::from_number(row.kind) {
            Some(Kind::Real) => drop(known.real.insert(row.id)),
            Some(Kind::Unsettled) => drop(known.unsettled.insert(row.id.clone(), row)),
            _ => {}
        }
    }
    for row in tracked_ids(database, tracked.into_iter().collect()).await? {
        known.tracked.insert((row.id, row.tenant));
    }
    Ok(known)
}

/// What `entry_ids` has under the ids of calls.
pub(super) async fn call_ids(database: &Database, mut ids: Vec<&str>) -> Result<Vec<IdRow>, LedgerError> {
    ids.sort_unstable();
    let mut found = Vec::new();
    for ids in ids.chunks(MAX_LIST) {
        let query = "SELECT id, kind, tenant, at_ms FROM entry_ids WHERE id IN ? AND kind != 'tracked'";
        found.extend(database.rows::<IdRow>(database.query(query).bind(ids)).await?);
    }
    Ok(found)
}

/// What `entry_ids` has under ids of tracked events, each with its tenant.
pub(super) async fn tracked_ids(database: &Database, mut keys: Vec<(&str, &str)>) -> Result<Vec<IdRow>, LedgerError> {
    keys.sort_unstable();
    let mut found = Vec::new();
    for keys in keys.chunks(MAX_LIST) {
        let ids: Vec<_> = keys.iter().map(|(id, _)| *id).collect();
        let query = "SELECT id, kind, tenant, at_ms FROM entry_ids \
                     WHERE id IN ? AND kind = 'tracked' AND (id, tenant) IN ?";
        found.extend(database.rows::<IdRow>(database.query(query).bind(ids).bind(keys)).await?);
    }
    Ok(found)
}

/// Rows that take unsettled ones out of the sums.
async fn corrections(database: &Database, replaced: &[IdRow]) -> Result<Vec<UsageRow>, LedgerError> {
    let mut rows = Vec::with_capacity(replaced.len());
    for replaced in replaced.chunks(MAX_LIST) {
        let places: Vec<_> = replaced.iter().map(|row| (&row.tenant, row.at_ms, &row.id)).collect();
        let query = format!(
            "SELECT {} FROM usage_events WHERE (tenant, started_at_ms, event_id) IN ? AND kind = 'unsettled'",
            columns::<UsageRow>()
        );
        let found: Vec<UsageRow> = database.rows(database.query_records(&query).bind(places)).await?;
        if found.len() < replaced.len() {
            // Its sums are kept longer than it was.
            let missing = replaced.len() - found.len();
            tracing::warn!(missing, "unsettled events are past their retention: the sums keep what they had reserved");
        }
        rows.extend(found.into_iter().map(|row| UsageRow::new(row.record, Kind::Correction)));
    }
    Ok(rows)
}
