//! The sums' tables: what entries add to them, and how they are made anew.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::{CachedStatement, Result, Row, ToSql, Transaction, params};
use tollgate_wire::usage_event::UsageEvent;

use super::read;
use crate::database::integer;
use crate::entry::TrackedEvent;
use crate::ledger::{Grain, Histogram, Usage, kept};

/// The columns that sums are kept apart by, beside their grain, tenant and time.
pub(super) const DIMENSIONS: [&str; 7] = ["tier", "model", "provider", "api", "key", "streaming", "status"];

/// Events that are summed at once when sums are made anew.
const SUMMED_AT_ONCE: usize = 50_000;

pub(super) fn number(grain: Grain) -> i64 {
    match grain {
        Grain::Hour => 0,
        Grain::Day => 1,
        Grain::Month => 2,
    }
}

/// What sums are kept apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key<'a> {
    tenant: Cow<'a, str>,
    /// Of the hour, until it is stored.
    start_ms: u64,
    tier: Cow<'a, str>,
    model: Cow<'a, str>,
    provider: Cow<'a, str>,
    api: Cow<'a, str>,
    key: Cow<'a, str>,
    streaming: bool,
    status: u16,
}

impl<'a> Key<'a> {
    fn of(event: &'a UsageEvent) -> Key<'a> {
        let label = |label: &'a Option<String>| Cow::from(label.as_deref().unwrap_or_default());
        Key {
            tenant: Cow::from(&event.tenant),
            start_ms: Grain::Hour.start_ms(event.started_at_ms),
            tier: Cow::from(&event.tier),
            model: Cow::from(event.model().unwrap_or_default()),
            provider: label(&event.provider),
            api: label(&event.api),
            key: label(&event.key),
            streaming: event.streaming,
            status: event.status,
        }
    }

    fn into_owned(self) -> Key<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Key {
            tenant: owned(self.tenant),
            tier: owned(self.tier),
            model: owned(self.model),
            provider: owned(self.provider),
            api: owned(self.api),
            key: owned(self.key),
            ..self
        }
    }
}

/// What is added to sums, and taken back from them.
#[derive(Debug, Clone, Default)]
struct Delta {
    added: Usage,
    taken: Usage,
}

/// What the entries of a transaction add.
#[derive(Debug, Default)]
pub(super) struct Deltas<'a> {
    usage: HashMap<Key<'a>, Delta>,
    tracked: HashMap<(&'a str, u64, &'a str), (u64, u64)>,
}

impl<'a> Deltas<'a> {
    pub(super) fn add(&mut self, event: &'a UsageEvent) {
        self.usage.entry(Key::of(event)).or_default().added.add(&Usage::of(event));
    }

    /// As far as it is kept.
    pub(super) fn add_unsettled(&mut self, event: &UsageEvent) {
        let event = kept(event);
        self.usage.entry(Key::of(&event).into_owned()).or_default().added.add(&Usage::of(&event));
    }

    pub(super) fn take_back(&mut self, unsettled: UsageEvent) {
        self.usage.entry(Key::of(&unsettled).into_owned()).or_default().taken.add(&Usage::of(&unsettled));
    }

    pub(super) fn track(&mut self, event: &'a TrackedEvent) {
        let day = Grain::Day.start_ms(event.at_ms);
        let (events, quantity) = self.tracked.entry((&event.tenant, day, &event.event_type)).or_default();
        *events += 1;
        *quantity = quantity.saturating_add(event.quantity_micros);
    }

    /// Brings all to the tables.
    pub(super) fn store(self, transaction: &Transaction<'_>) -> Result<()> {
        let mut upsert = transaction.prepare_cached(&UPSERT)?;
        let mut by_grain = self.usage;
        for grain in [Grain::Hour, Grain::Day, Grain::Month] {
            if grain != Grain::Hour {
                by_grain = coarser(by_grain, grain);
            }
            for (key, delta) in &by_grain {
                upsert_usage(&mut upsert, grain, key, delta)?;
            }
        }
        let mut upsert = transaction.prepare_cached(UPSERT_TRACKED)?;
        for ((tenant, start_ms, event_type), (events, quantity)) in self.tracked {
            upsert.execute(params![tenant, integer(start_ms), event_type, integer(events), integer(quantity)])?;
        }
        Ok(())
    }
}

/// The same, by longer parts of time.
fn coarser(finer: HashMap<Key<'_>, Delta>, grain: Grain) -> HashMap<Key<'_>, Delta> {
    let mut coarser: HashMap<Key<'_>, Delta> = HashMap::with_capacity(finer.len());
    for (key, delta) in finer {
        let sum = coarser.entry(Key { start_ms: grain.start_ms(key.start_ms), ..key }).or_default();
        sum.added.add(&delta.added);
        sum.taken.add(&delta.taken);
    }
    coarser
}

static UPSERT: LazyLock<String> = LazyLock::new(|| {
    let dimensions = DIMENSIONS.join(", ");
    let (columns, values) = (Usage::COLUMNS.join(", "), vec!["?"; 3 + DIMENSIONS.len() + Usage::COLUMNS.len() + 2]);
    let sums: Vec<_> = Usage::COLUMNS.iter().map(|column| format!("{column} = {column} + excluded.{column}")).collect();
    format!(
        "INSERT INTO usage_sums (grain, tenant, start_ms, {dimensions}, {columns}, durations, first_tokens) \
         VALUES ({}) ON CONFLICT (grain, tenant, start_ms, {dimensions}) DO UPDATE SET {}, \
         durations = add_counts(durations, excluded.durations), \
         first_tokens = add_counts(first_tokens, excluded.first_tokens)",
        values.join(", "),
        sums.join(", ")
    )
});

const UPSERT_TRACKED: &str = "
    INSERT INTO tracked_sums (tenant, start_ms, event_type, events, quantity_micros) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (tenant, start_ms, event_type) DO UPDATE SET
        events = events + excluded.events, quantity_micros = quantity_micros + excluded.quantity_micros";

/// Only what was unsettled is taken back, and that has no histograms.
fn upsert_usage(upsert: &mut CachedStatement<'_>, grain: Grain, key: &Key<'_>, delta: &Delta) -> Result<()> {
    let Key { tenant, start_ms, tier, model, provider, api, key, streaming, status } = key;
    let mut at = 0;
    let mut bind = |upsert: &mut CachedStatement<'_>, value: &dyn ToSql| {
        at += 1;
        upsert.raw_bind_parameter(at, value)
    };
    let start_ms = integer(*start_ms);
    let texts: [&str; 5] = [tier, model, provider, api, key];
    bind(upsert, &number(grain))?;
    bind(upsert, &tenant.as_ref())?;
    bind(upsert, &start_ms)?;
    for text in texts {
        bind(upsert, &text)?;
    }
    bind(upsert, streaming)?;
    bind(upsert, status)?;
    for (added, taken) in delta.added.columns().into_iter().zip(delta.taken.columns()) {
        bind(upsert, &(integer(added) - integer(taken)))?;
    }
    bind(upsert, &delta.added.durations.encode())?;
    bind(upsert, &delta.added.first_tokens.encode())?;
    upsert.raw_execute()?;
    Ok(())
}

/// Makes the sums of all calls anew, where there are none.
///
/// # Errors
/// When the entries cannot be read, or sums are there already.
pub(crate) fn sum_all(transaction: &Transaction<'_>) -> Result<()> {
    sum(transaction, read::EVENTS, read::event)?;
    sum(transaction, read::OPEN, read::unsettled)
}

fn sum(transaction: &Transaction<'_>, query: &str, read: fn(&Row<'_>) -> Result<UsageEvent>) -> Result<()> {
    let mut query = transaction.prepare(query)?;
    let mut rows = query.query_map([], read)?;
    loop {
        let events: Vec<_> = rows.by_ref().take(SUMMED_AT_ONCE).collect::<Result<_>>()?;
        if events.is_empty() {
            return Ok(());
        }
        let mut deltas = Deltas::default();
        events.iter().for_each(|event| deltas.add(event));
        deltas.store(transaction)?;
    }
}

/// The histogram of a column.
pub(super) fn histogram(row: &Row<'_>, column: &str) -> Result<Histogram> {
    Ok(Histogram::decode(row.get_ref(column)?.as_blob()?))
}
