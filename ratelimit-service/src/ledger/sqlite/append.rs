//! Storing entries, and erasing them.

use std::sync::LazyLock;

use rusqlite::{CachedStatement, OptionalExtension, Result, Transaction, params};
use tollgate_domain::Day;
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use super::sums::Deltas;
use crate::database::integer;
use crate::entry::{Batch, Entry, EventRecord, TrackedEvent, Value};

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let values = vec!["?"; EventRecord::FIELDS.len()].join(", ");
    let columns = EventRecord::FIELDS.join(", ");
    format!("INSERT INTO usage_events ({columns}) VALUES ({values}) ON CONFLICT (event_id) DO NOTHING")
});

const INSERT_UNSETTLED: &str = "
    INSERT INTO unsettled_events
        (event_id, tenant, tier, started_at_ms, api, key, request_model, input_tokens, output_tokens, images, cost_nanousd)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING";

const INSERT_TRACKED: &str = "
    INSERT INTO tracked_events (id, tenant, event_type, at_ms, quantity_micros, metadata) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (tenant, id) DO NOTHING";

/// Stores what is new, and tells of each entry whether it was.
pub(super) fn append(transaction: &Transaction<'_>, batch: &Batch) -> Result<Vec<bool>> {
    let mut append = Append {
        insert: transaction.prepare_cached(&INSERT)?,
        unsettled: transaction.prepare_cached("SELECT 1 FROM unsettled_events WHERE event_id = ?")?,
        deltas: Deltas::default(),
        transaction,
    };
    // Real events go first: an unsettled one beside its real one has nothing to stand in for.
    let mut new = vec![false; batch.len()];
    for (entry, is_new) in batch.iter().zip(&mut new).filter(|(entry, _)| unsettled(entry).is_none()) {
        *is_new = match entry {
            Entry::Usage(event) => append.real(event)?,
            Entry::Tracked(event) => append.tracked(event)?,
        };
    }
    for (entry, is_new) in batch.iter().zip(&mut new) {
        if let Some(event) = unsettled(entry) {
            *is_new = append.unsettled(event)?;
        }
    }
    append.deltas.store(transaction)?;
    Ok(new)
}

fn unsettled(entry: &Entry) -> Option<&UsageEvent> {
    match entry {
        Entry::Usage(event) if event.usage_source == UsageSource::Unsettled => Some(event),
        _ => None,
    }
}

struct Append<'t, 'b> {
    transaction: &'t Transaction<'t>,
    insert: CachedStatement<'t>,
    unsettled: CachedStatement<'t>,
    deltas: Deltas<'b>,
}

impl<'b> Append<'_, 'b> {
    fn real(&mut self, event: &'b UsageEvent) -> Result<bool> {
        let record = EventRecord::from(event);
        for (index, value) in record.values().iter().enumerate() {
            let at = index + 1;
            match value {
                Value::Text(text) => self.insert.raw_bind_parameter(at, text)?,
                Value::Texts([]) => self.insert.raw_bind_parameter(at, "[]")?,
                Value::Texts(texts) => {
                    self.insert.raw_bind_parameter(at, serde_json::Value::from(*texts).to_string())?;
                }
                Value::Count(count) => self.insert.raw_bind_parameter(at, count.map(integer))?,
                Value::Flag(flag) => self.insert.raw_bind_parameter(at, flag)?,
            }
        }
        if self.insert.raw_execute()? == 0 {
            return Ok(false);
        }
        self.deltas.add(event);
        if self.unsettled.exists([&event.event_id])? {
            self.correct(&event.event_id)?;
        }
        Ok(true)
    }

    /// The estimate goes out of the sums, as the event has come after all.
    fn correct(&mut self, event_id: &str) -> Result<()> {
        let mut query = self.transaction.prepare_cached(&format!("{} WHERE event_id = ?", super::read::UNSETTLED))?;
        let estimate = query.query_row([event_id], super::read::unsettled)?;
        let (day, tokens) = (Day::of(estimate.started_at_ms), estimate.tokens);
        let insert = "INSERT INTO corrections (event_id, tenant, day, input_tokens, output_tokens, images, cost_nanousd) \
                      VALUES (?, ?, ?, ?, ?, ?, ?)";
        self.transaction.prepare_cached(insert)?.execute(params![
            event_id,
            estimate.tenant,
            day.number(),
            integer(tokens.input),
            integer(tokens.output),
            integer(tokens.images),
            estimate.cost_nanousd.map(integer)
        ])?;
        self.deltas.take_back(estimate);
        Ok(())
    }

    fn unsettled(&mut self, event: &'b UsageEvent) -> Result<bool> {
        let mut real = self.transaction.prepare_cached("SELECT 1 FROM usage_events WHERE event_id = ?")?;
        if real.exists([&event.event_id])? {
            return Ok(false);
        }
        let inserted = self.transaction.prepare_cached(INSERT_UNSETTLED)?.execute(params![
            event.event_id,
            event.tenant,
            event.tier,
            integer(event.started_at_ms),
            event.api,
            event.key,
            event.model(),
            integer(event.tokens.input),
            integer(event.tokens.output),
            integer(event.tokens.images),
            event.cost_nanousd.map(integer),
        ])?;
        if inserted > 0 {
            self.deltas.add_unsettled(event);
        }
        Ok(inserted > 0)
    }

    fn tracked(&mut self, event: &'b TrackedEvent) -> Result<bool> {
        let TrackedEvent { id, tenant, event_type, at_ms, quantity_micros, metadata } = event;
        let inserted = self.transaction.prepare_cached(INSERT_TRACKED)?.execute(params![
            id,
            tenant,
            event_type,
            integer(*at_ms),
            integer(*quantity_micros),
            metadata
        ])?;
        if inserted > 0 {
            self.deltas.track(event);
        }
        Ok(inserted > 0)
    }
}

/// Erases a tenant, and tells how many entries that were.
pub(super) fn purge(transaction: &Transaction<'_>, tenant: &str) -> Result<u64> {
    // What is erased is not left in free pages.
    let before: i64 = transaction.pragma_query_value(None, "secure_delete", |row| row.get(0))?;
    transaction.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    transaction.execute("INSERT INTO purging VALUES (?)", [tenant])?;
    let mut entries = 0;
    for (table, is_entry) in [
        ("usage_events", true),
        ("unsettled_events", true),
        ("tracked_events", true),
        ("corrections", false),
        ("usage_sums", false),
        ("tracked_sums", false),
    ] {
        let deleted = transaction.execute(&format!("DELETE FROM {table} WHERE tenant = ?"), [tenant])?;
        entries += if is_entry { deleted as u64 } else { 0 };
    }
    transaction.execute("DELETE FROM purging", [])?;
    transaction.pragma_update_and_check(None, "secure_delete", before, |_| Ok(())).optional()?;
    Ok(entries)
}
