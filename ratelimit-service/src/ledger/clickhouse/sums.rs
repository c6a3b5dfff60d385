//! The tables of sums, and what the entries come to: the views that fill the tables say how.

use std::collections::{BTreeMap, BTreeSet};

use clickhouse::Row;
use serde::Deserialize;

use super::database::Database;
use crate::chance;
use crate::ledger::{Difference, Grain, LedgerError, Usage};

/// A table of sums, each filled by a view that is called as it with `_view`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    /// Over calls.
    Usage(Grain),
    /// Over tracked events by day.
    Tracked,
}

impl Sums {
    pub(super) const ALL: [Sums; 4] =
        [Sums::Usage(Grain::Hour), Sums::Usage(Grain::Day), Sums::Usage(Grain::Month), Sums::Tracked];

    pub(super) fn table(self) -> &'static str {
        match self {
            Sums::Usage(Grain::Hour) => "usage_hours",
            Sums::Usage(Grain::Day) => "usage_days",
            Sums::Usage(Grain::Month) => "usage_months",
            Sums::Tracked => "tracked_days",
        }
    }

    /// What [`Difference::place`] calls it.
    fn place(self) -> &'static str {
        match self {
            Sums::Usage(Grain::Hour) => "hour",
            Sums::Usage(Grain::Day) => "day",
            Sums::Usage(Grain::Month) => "month",
            Sums::Tracked => "tracked",
        }
    }

    /// When an entry was.
    fn time(self) -> &'static str {
        match self {
            Sums::Usage(_) => "started_at_ms",
            Sums::Tracked => "at_ms",
        }
    }

    fn names(self) -> Vec<&'static str> {
        match self {
            Sums::Usage(_) => Usage::COLUMNS.to_vec(),
            Sums::Tracked => vec!["events", "quantity_micros"],
        }
    }

    fn histograms(self) -> &'static [&'static str] {
        match self {
            Sums::Usage(_) => &["durations", "first_tokens"],
            Sums::Tracked => &[],
        }
    }

    /// All columns, in the table's and the view's order.
    fn columns(self) -> Vec<&'static str> {
        let keys: &[_] = match self {
            Sums::Usage(_) => &["tenant", "start_ms", "tier", "model", "provider", "api", "key", "streaming", "status"],
            Sums::Tracked => &["tenant", "start_ms", "event_type"],
        };
        [keys, &self.names(), self.histograms()].concat()
    }
}

/// Parts of a table of sums: of some tenants or all, that begin in `from_ms..to_ms`. No entry outside belongs to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) tenants: Option<&'a [String]>,
}

impl Part<'_> {
    /// The condition on rows, by the column of their time.
    fn condition(&self, time: &str) -> String {
        let Part { from_ms, to_ms, tenants } = self;
        let mut condition = format!("{time} >= {from_ms} AND {time} < {to_ms}");
        if let Some(tenants) = tenants {
            let tenants: Vec<_> = tenants.iter().map(|tenant| literal(tenant)).collect();
            condition = format!("{condition} AND tenant IN ({})", tenants.join(", "));
        }
        condition
    }
}

/// As a text in a statement that values may yet be bound in.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('?', "??"))
}

#[derive(Row, Deserialize)]
struct Text {
    text: String,
}

/// A statement that makes the sums of the entries for which a condition holds.
async fn made(database: &Database, sums: Sums, condition: &str) -> Result<String, LedgerError> {
    let view = "SELECT as_select AS text FROM system.tables WHERE database = currentDatabase() AND name = ?";
    let view = database.query(view).bind(format!("{}_view", sums.table()));
    let Text { text } = database.row(view).await?;
    let text = text.replace('?', "??");
    match text.rsplit_once(" GROUP BY ") {
        Some((from, by)) => Ok(format!("({from} WHERE {condition} GROUP BY {by})")),
        None => Err(LedgerError::Database(format!("ClickHouse: the view on {} is not ours: {text}", sums.table()))),
    }
}

/// As [`made`], by month, of the calls that began at or after a time, of one tenant or all.
pub(super) async fn made_since(database: &Database, from_ms: u64, tenant: Option<&str>) -> Result<String, LedgerError> {
    let tenant = tenant.map(|tenant| [tenant.to_owned()]);
    let part = Part { from_ms, to_ms: u64::MAX, tenants: tenant.as_ref().map(<[_; 1]>::as_slice) };
    let sums = Sums::Usage(Grain::Month);
    made(database, sums, &part.condition(sums.time())).await
}

#[derive(Row, Deserialize)]
struct TenantSums {
    tenant: String,
    sums: Vec<i128>,
    histograms: Vec<Vec<(u8, i64)>>,
}

/// By tenant, the sums by their names; of a histogram each bucket's count.
type ByTenant = BTreeMap<String, BTreeMap<String, i128>>;

async fn totals(database: &Database, sums: Sums, from: &str, condition: &str) -> Result<ByTenant, LedgerError> {
    let of = |function: &str, names: &[&str]| {
        names.iter().map(|name| format!("{function}({name})")).collect::<Vec<_>>().join(", ")
    };
    let names = sums.names();
    let histograms = match sums.histograms() {
        [] => "CAST([], 'Array(Map(UInt8, Int64))')".to_owned(),
        names => format!("[{}]", of("sumMap", names)),
    };
    let query = format!(
        "SELECT tenant, arrayMap(sum -> toInt128(sum), [{}]) AS sums, {histograms} AS histograms \
         FROM {from} WHERE {condition} GROUP BY tenant",
        of("sum", &names)
    );
    let rows: Vec<TenantSums> = database.rows(database.query(&query)).await?;
    let by_name = |row: TenantSums| {
        let named = names.iter().map(|name| (*name).to_owned()).zip(row.sums);
        let counted = sums.histograms().iter().zip(row.histograms).flat_map(|(name, counts)| {
            counts.into_iter().map(move |(bucket, count)| (format!("{name}[{bucket}]"), count.into()))
        });
        (row.tenant, named.chain(counted).collect())
    };
    Ok(rows.into_iter().map(by_name).collect())
}

/// Where the sums of a part are not what its entries come to.
pub(super) async fn differences(
    database: &Database,
    sums: Sums,
    part: &Part<'_>,
) -> Result<Vec<Difference>, LedgerError> {
    let made = made(database, sums, &part.condition(sums.time())).await?;
    let entries = totals(database, sums, &made, "true").await?;
    let stored = totals(database, sums, sums.table(), &part.condition("start_ms")).await?;
    let none = BTreeMap::new();
    let mut differences = Vec::new();
    let tenants: BTreeSet<_> = entries.keys().chain(stored.keys()).collect();
    for tenant in tenants {
        let (entries, stored) = (entries.get(tenant).unwrap_or(&none), stored.get(tenant).unwrap_or(&none));
        let names: BTreeSet<_> = entries.keys().chain(stored.keys()).collect();
        for name in names {
            let of = |sums: &BTreeMap<String, i128>| sums.get(name).copied().unwrap_or(0);
            let (made, found) = (of(entries), of(stored));
            if made != found {
                differences.push(Difference {
                    tenant: tenant.clone(),
                    place: sums.place().to_owned(),
                    sum: name.clone(),
                    entries: u128::try_from(made).unwrap_or(0),
                    sums: u128::try_from(found).unwrap_or(0),
                });
            }
        }
    }
    Ok(differences)
}

/// Makes the sums of a part anew from its entries. When it is broken off, it has to be done again.
pub(super) async fn rebuild(database: &Database, sums: Sums, part: &Part<'_>) -> Result<(), LedgerError> {
    let table = sums.table();
    let delete = format!("ALTER TABLE {table} DELETE WHERE {}", part.condition("start_ms"));
    database.change(database.query(&delete)).await?;
    let columns = sums.columns().join(", ");
    let made = made(database, sums, &part.condition(sums.time())).await?;
    let insert = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {made}");
    // Equal rows may have been inserted before, and deleted since.
    database.change(database.query(&insert).with_setting("insert_deduplication_token", chance::id())).await
}

#[derive(Row, Deserialize)]
struct Number {
    number: u64,
}

/// Erases a tenant's rows in all tables, and tells how many entries they were.
pub(super) async fn purge(database: &Database, tenant: &str) -> Result<u64, LedgerError> {
    let count = "SELECT sum(entries) AS number FROM ( \
                 SELECT countIf(kind != 'correction') AS entries FROM usage_events WHERE tenant = ? UNION ALL \
                 SELECT count() AS entries FROM tracked_events WHERE tenant = ?)";
    let Number { number } = database.row(database.query(count).bind(tenant).bind(tenant)).await?;
    let sums = Sums::ALL.map(Sums::table);
    // The entries go last: what is broken off can still be counted when it is done again.
    for table in sums.into_iter().chain(["entry_ids", "tracked_events", "usage_events"]) {
        let delete = format!("ALTER TABLE {table} DELETE WHERE tenant = ?");
        database.change(database.query(&delete).bind(tenant)).await?;
    }
    Ok(number)
}
