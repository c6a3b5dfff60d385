//! The rows of the ledger's tables, as they are inserted and read.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use crate::entry::{EventRecord, TrackedRecord};
use crate::ledger::{LedgerError, MAX_COST_NANOUSD, MAX_COUNT, bucket, kept};

/// What a row of `usage_events` is; the numbers are those of the tables' enums and of the intents on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A call's event.
    Real = 1,
    /// What was reserved, of a call that expired.
    Unsettled = 2,
    /// It takes the unsettled one out of the sums.
    Correction = 3,
    /// A tracked event; in `entry_ids` alone.
    Tracked = 4,
}

impl Kind {
    pub(super) fn of(event: &UsageEvent) -> Kind {
        if event.usage_source == UsageSource::Unsettled { Kind::Unsettled } else { Kind::Real }
    }

    pub(super) fn from_number(number: i8) -> Option<Kind> {
        [Kind::Real, Kind::Unsettled, Kind::Correction, Kind::Tracked].into_iter().find(|kind| *kind as i8 == number)
    }
}

/// A row of `usage_events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct UsageRow {
    pub(super) record: EventRecord,
    kind: i8,
    sign: i8,
    duration_bucket: u8,
    first_token_bucket: u8,
}

impl UsageRow {
    pub(super) fn new(record: EventRecord, kind: Kind) -> UsageRow {
        UsageRow {
            kind: kind as i8,
            sign: if kind == Kind::Correction { -1 } else { 1 },
            duration_bucket: bucket(record.duration_ms),
            first_token_bucket: record.time_to_first_token_ms.map_or(0, bucket),
            record,
        }
    }

    /// As its numbers are kept, and an unsettled one as far as it is.
    pub(super) fn of(event: &UsageEvent) -> UsageRow {
        let kind = Kind::of(event);
        let record = match kind {
            Kind::Unsettled => EventRecord::from(&kept(event)),
            _ => EventRecord::from(event),
        };
        UsageRow::new(bounded(record), kind)
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind)
    }

    /// As in the table's enum.
    pub(super) fn kind_number(&self) -> i8 {
        self.kind
    }

    /// Where it stands in the table: tenant, time and id.
    pub(super) fn place(&self) -> (&str, u64, &str) {
        (&self.record.tenant, self.record.started_at_ms, &self.record.event_id)
    }

    pub(super) fn is_correction(&self) -> bool {
        self.kind == Kind::Correction as i8
    }
}

/// What is summed stays far from the end of the sums' integers.
fn bounded(mut record: EventRecord) -> EventRecord {
    let counts = [
        &mut record.duration_ms,
        &mut record.input_tokens,
        &mut record.output_tokens,
        &mut record.cache_read_tokens,
        &mut record.cache_creation_tokens,
        &mut record.cache_creation_5m_tokens,
        &mut record.cache_creation_1h_tokens,
        &mut record.reasoning_tokens,
        &mut record.audio_input_tokens,
        &mut record.audio_output_tokens,
        &mut record.extra_input_tokens,
        &mut record.extra_output_tokens,
        &mut record.billed_input_tokens,
        &mut record.billed_output_tokens,
        &mut record.tool_requests,
        &mut record.images,
    ];
    counts.into_iter().chain(&mut record.time_to_first_token_ms).for_each(|count| *count = (*count).min(MAX_COUNT));
    record.cost_nanousd = record.cost_nanousd.map(|cost| cost.min(MAX_COST_NANOUSD));
    record
}

/// The event that a row holds.
pub(super) fn event(record: EventRecord) -> Result<UsageEvent, LedgerError> {
    let id = record.event_id.clone();
    UsageEvent::try_from(record)
        .map_err(|error| LedgerError::Database(format!("ClickHouse holds no event under {id}: {error}")))
}

/// `names` and then `more`.
const fn joined<const N: usize>(names: &[&'static str], more: &[&'static str]) -> [&'static str; N] {
    let mut all = [""; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < names.len() { names[at] } else { more[at - names.len()] };
        at += 1;
    }
    all
}

const USAGE_COLUMNS: [&str; EventRecord::FIELDS.len() + 4] =
    joined(EventRecord::FIELDS, &["kind", "sign", "duration_bucket", "first_token_bucket"]);

/// The trait's constants are what its derive would make of a struct without another in it.
macro_rules! row {
    ($row:ty, $columns:expr) => {
        impl Row for $row {
            const NAME: &'static str = stringify!($row);
            const COLUMN_NAMES: &'static [&'static str] = $columns;
            const COLUMN_COUNT: usize = <$row as Row>::COLUMN_NAMES.len();
            const KIND: clickhouse::_priv::RowKind = clickhouse::_priv::RowKind::Struct;
            type Value<'a> = $row;
        }
    };
}

row!(UsageRow, &USAGE_COLUMNS);
row!(TrackedRecord, TrackedRecord::FIELDS);

/// The columns of a row that is read, as a statement names them.
pub(super) fn columns<T: Row>() -> String {
    T::COLUMN_NAMES.join(", ")
}

/// What stands under an id.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub(super) struct IdRow {
    pub(super) id: String,
    pub(super) kind: i8,
    pub(super) tenant: String,
    pub(super) at_ms: u64,
}
