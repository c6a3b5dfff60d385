//! Whether the sums are those of the entries.

use std::collections::BTreeMap;

use rusqlite::{Result, Transaction, params};
use tollgate_wire::usage_event::UsageEvent;

use super::read;
use crate::database::integer;
use crate::ledger::{DAY_MS, Difference, Grain, Series, Usage};

/// What is wrong of one tenant's sums over days. Of months, those that lie in the days as a whole.
pub(super) fn differences(
    transaction: &Transaction<'_>,
    tenant: &str,
    from_ms: u64,
    to_ms: u64,
) -> Result<Vec<Difference>> {
    let day_ms = |ms: u64| ms.min(i64::MAX as u64).next_multiple_of(DAY_MS);
    let (from_ms, to_ms) = (day_ms(from_ms), day_ms(to_ms));
    let mut entries = Usage::default();
    let mut of_months: BTreeMap<u64, Usage> = BTreeMap::new();
    let of_tenant = "tenant = ?1 AND started_at_ms >= ?2 AND started_at_ms < ?3";
    let bounds = params![tenant, integer(from_ms), integer(to_ms)];
    let real = format!("{} WHERE {of_tenant}", read::EVENTS);
    let open = format!("{} AND {of_tenant}", read::OPEN);
    let mut add = |event: UsageEvent| {
        let usage = Usage::of(&event);
        of_months.entry(Grain::Month.start_ms(event.started_at_ms)).or_default().add(&usage);
        entries.add(&usage);
    };
    for event in transaction.prepare_cached(&real)?.query_map(bounds, read::event)? {
        add(event?);
    }
    for event in transaction.prepare_cached(&open)?.query_map(bounds, read::unsettled)? {
        add(event?);
    }
    let mut found = Vec::new();
    for (place, grain) in [("hour", Grain::Hour), ("day", Grain::Day)] {
        compare(&mut found, tenant, place, &entries, &summed(transaction, tenant, grain, (from_ms, to_ms))?);
    }
    // A month that reaches past the period has other entries too.
    let is_whole = |start: u64| start >= from_ms && Grain::Month.end_ms(start) <= to_ms;
    let whole: Vec<u64> = of_months.keys().copied().filter(|start| is_whole(*start)).collect();
    for start in whole {
        let end = Grain::Month.end_ms(start);
        let sums = summed(transaction, tenant, Grain::Month, (start, end))?;
        compare(&mut found, tenant, "month", &of_months[&start], &sums);
    }
    tracked(transaction, tenant, (from_ms, to_ms), &mut found)?;
    Ok(found)
}

fn summed(transaction: &Transaction<'_>, tenant: &str, grain: Grain, (from_ms, to_ms): (u64, u64)) -> Result<Usage> {
    let points = read::series(transaction, &Series { tenant, grain, from_ms, to_ms, by: None })?;
    Ok(points.iter().map(|point| &point.usage).sum())
}

fn compare(found: &mut Vec<Difference>, tenant: &str, place: &str, entries: &Usage, sums: &Usage) {
    let mut differ = |sum: &str, entries: u64, sums: u64| {
        if entries != sums {
            found.push(Difference {
                tenant: tenant.to_owned(),
                place: place.to_owned(),
                sum: sum.to_owned(),
                entries: entries.into(),
                sums: sums.into(),
            });
        }
    };
    for ((sum, entries), sums) in Usage::COLUMNS.iter().zip(entries.columns()).zip(sums.columns()) {
        differ(sum, entries, sums);
    }
    for (sum, entries, sums) in [
        ("durations", &entries.durations, &sums.durations),
        ("first_tokens", &entries.first_tokens, &sums.first_tokens),
    ] {
        let differing = entries.counts().iter().filter(|count| !sums.counts().contains(count)).count();
        let surplus = sums.counts().iter().filter(|count| !entries.counts().contains(count)).count();
        differ(sum, entries.counts().len() as u64, (entries.counts().len() + differing + surplus) as u64);
    }
}

fn tracked(
    transaction: &Transaction<'_>,
    tenant: &str,
    (from_ms, to_ms): (u64, u64),
    found: &mut Vec<Difference>,
) -> Result<()> {
    let query = "SELECT at_ms / 86400000 * 86400000, event_type, count(*), sum(quantity_micros) FROM tracked_events \
                 WHERE tenant = ? AND at_ms >= ? AND at_ms < ? GROUP BY 1, 2";
    let mut entries: BTreeMap<(u64, String), (u128, u128)> = BTreeMap::new();
    let mut query = transaction.prepare_cached(query)?;
    let mut rows = query.query(params![tenant, integer(from_ms), integer(to_ms)])?;
    while let Some(row) = rows.next()? {
        let count = |index| row.get::<_, i64>(index).map(|count| u128::from(count.unsigned_abs()));
        entries.insert((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?), (count(2)?, count(3)?));
    }
    let sums = read::tracked(transaction, tenant, from_ms, to_ms)?.into_iter();
    let mut sums: BTreeMap<_, _> =
        sums.map(|sum| ((sum.start_ms, sum.event_type), (u128::from(sum.events), sum.quantity_micros))).collect();
    for (key, entries) in entries {
        let sum = sums.remove(&key).unwrap_or_default();
        let figures = [("events", entries.0, sum.0), ("quantity_micros", entries.1, sum.1)];
        for (name, entries, sums) in figures.into_iter().filter(|(_, entries, sums)| entries != sums) {
            let (tenant, place) = (tenant.to_owned(), "tracked".to_owned());
            found.push(Difference { tenant, place, sum: format!("{} {name}", key.1), entries, sums });
        }
    }
    for ((_, event_type), (events, _)) in sums {
        let (tenant, place, sum) = (tenant.to_owned(), "tracked".to_owned(), format!("{event_type} events"));
        found.push(Difference { tenant, place, sum, entries: 0, sums: events });
    }
    Ok(())
}
