//! What is billed: usage events and tracked events, and the one form in which they are kept outside the ledger's tables.
//!
//! [`EventRecord`] and [`TrackedRecord`] are flat: their fields are the columns of the ledgers and of exports, the keys of JSON
//! lines, and the protobuf fields of the spool. A field's number and name are for good.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

/// The longest event type of a tracked event, in bytes.
pub const MAX_EVENT_TYPE_BYTES: usize = 128;
/// The longest metadata of a tracked event, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 4096;
/// The largest quantity of a tracked event, a billion: sums of such stay far from the end of the databases' integers.
pub const MAX_QUANTITY_MICROS: u64 = 1_000_000_000_000_000;

/// Something to be billed, immutable.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // Nearly all are calls: to box them would only cost.
pub enum Entry {
    /// A call to a model.
    Usage(UsageEvent),
    /// Anything else.
    Tracked(TrackedEvent),
}

/// Something other than a call that is billed by its quantity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrackedEvent {
    /// Counts it once; unique for its tenant. At most [`tollgate_wire::usage_event::MAX_NAME_BYTES`] long.
    pub id: String,
    /// Who pays.
    pub tenant: String,
    /// What it is: a name of the operator's, at most [`MAX_EVENT_TYPE_BYTES`] long.
    pub event_type: String,
    /// When it was, milliseconds since the Unix epoch. It belongs to the period that this lies in.
    pub at_ms: u64,
    /// How much of it, in millionths, at most [`MAX_QUANTITY_MICROS`].
    pub quantity_micros: u64,
    /// What else there is to know: a JSON object, at most [`MAX_METADATA_BYTES`] long.
    pub metadata: String,
}

impl Entry {
    /// Who pays.
    pub fn tenant(&self) -> &str {
        match self {
            Entry::Usage(event) => &event.tenant,
            Entry::Tracked(event) => &event.tenant,
        }
    }

    /// When it was, milliseconds since the Unix epoch.
    pub fn at_ms(&self) -> u64 {
        match self {
            Entry::Usage(event) => event.started_at_ms,
            Entry::Tracked(event) => event.at_ms,
        }
    }

    /// What counts it once.
    pub fn id(&self) -> &str {
        match self {
            Entry::Usage(event) => &event.event_id,
            Entry::Tracked(event) => &event.id,
        }
    }
}

/// Entries in order, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Batch(Vec<Arc<[Entry]>>);

impl Batch {
    /// Of parts that are shared.
    pub fn new(parts: Vec<Arc<[Entry]>>) -> Batch {
        Batch(parts)
    }

    /// The parts, each of entries that came together.
    pub fn parts(&self) -> &[Arc<[Entry]>] {
        &self.0
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.0.iter().flat_map(|part| part.iter())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<Entry>> for Batch {
    fn from(entries: Vec<Entry>) -> Batch {
        Batch(vec![entries.into()])
    }
}

impl From<Vec<UsageEvent>> for Batch {
    fn from(events: Vec<UsageEvent>) -> Batch {
        Batch(vec![events.into_iter().map(Entry::Usage).collect()])
    }
}

/// A field's value. Those that are not there have their kind all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text.
    Text(Option<&'a str>),
    /// Several.
    Texts(&'a [String]),
    /// A number.
    Count(Option<u64>),
    /// Yes or no.
    Flag(bool),
}

/// What a database has in a row's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    Number(i64),
    Text(String),
}

/// A field's value out of its cell; the default where the cell holds another kind, which no ledger writes.
trait FromCell: Default {
    fn from_cell(cell: Cell) -> Self;
}

macro_rules! cells {
    ($($type:ty: $cell:pat => $made:expr,)+) => {
        $(impl FromCell for $type {
            fn from_cell(cell: Cell) -> $type {
                match cell {
                    $cell => $made,
                    _ => <$type>::default(),
                }
            }
        })+
    };
}

cells! {
    String: Cell::Text(text) => text,
    Option<String>: Cell::Text(text) => Some(text),
    Vec<String>: Cell::Text(texts) => serde_json::from_str(&texts).unwrap_or_default(),
    u64: Cell::Number(number) => number.unsigned_abs(),
    Option<u64>: Cell::Number(number) => Some(number.unsigned_abs()),
    u32: Cell::Number(number) => u32::try_from(number).unwrap_or_default(),
    bool: Cell::Number(number) => number != 0,
}

macro_rules! values {
    ($($type:ty: $value:ident => $made:expr,)+) => {
        $(impl<'a> From<&'a $type> for Value<'a> {
            fn from($value: &'a $type) -> Value<'a> {
                $made
            }
        })+
    };
}

values! {
    String: text => Value::Text(Some(text)),
    Option<String>: text => Value::Text(text.as_deref()),
    Vec<String>: texts => Value::Texts(texts),
    u64: count => Value::Count(Some(*count)),
    Option<u64>: count => Value::Count(*count),
    u32: count => Value::Count(Some((*count).into())),
    bool: flag => Value::Flag(*flag),
}

/// One list of the fields: each is a column, a key and a protobuf field.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[allow(missing_docs)] // The event that it is made of has them.
        pub struct $name { $($(#[$attribute])* pub $field: $type,)+ }

        impl $name {
            /// The fields' names, in order.
            pub const FIELDS: &[&str] = &[$(stringify!($field)),+];

            /// The fields' values, in order.
            pub fn values(&self) -> Vec<Value<'_>> {
                vec![$(Value::from(&self.$field)),+]
            }

            /// Of cells that are in the fields' order.
            ///
            /// # Errors
            /// Those of `next`, which gives the next cell.
            pub(crate) fn from_cells<E>(mut next: impl FnMut() -> Result<Cell, E>) -> Result<$name, E> {
                Ok($name { $($field: FromCell::from_cell(next()?),)+ })
            }
        }
    };
}

record! {
    /// A [`UsageEvent`], flat.
    EventRecord {
        #[prost(string, tag = "1")] event_id: String,
        #[prost(string, optional, tag = "2")] reservation_id: Option<String>,
        #[prost(string, optional, tag = "3")] request_id: Option<String>,
        #[prost(string, tag = "4")] tenant: String,
        #[prost(string, tag = "5")] tier: String,
        #[prost(string, optional, tag = "6")] key: Option<String>,
        #[prost(uint64, tag = "7")] started_at_ms: u64,
        #[prost(uint64, tag = "8")] duration_ms: u64,
        #[prost(uint64, optional, tag = "9")] time_to_first_token_ms: Option<u64>,
        #[prost(string, optional, tag = "10")] api: Option<String>,
        #[prost(string, optional, tag = "11")] operation: Option<String>,
        #[prost(string, optional, tag = "12")] provider: Option<String>,
        #[prost(string, optional, tag = "13")] request_model: Option<String>,
        #[prost(uint64, optional, tag = "14")] output_cap: Option<u64>,
        #[prost(uint64, optional, tag = "15")] input_estimate: Option<u64>,
        #[prost(string, optional, tag = "16")] response_model: Option<String>,
        #[prost(string, optional, tag = "17")] response_id: Option<String>,
        #[prost(string, repeated, tag = "18")] finish_reasons: Vec<String>,
        #[prost(bool, tag = "19")] streaming: bool,
        #[prost(uint32, tag = "20")] status: u32,
        #[prost(string, optional, tag = "21")] error_type: Option<String>,
        #[prost(string, optional, tag = "22")] unreadable: Option<String>,
        #[prost(string, repeated, tag = "23")] upstream_limits: Vec<String>,
        #[prost(uint64, tag = "24")] input_tokens: u64,
        #[prost(uint64, tag = "25")] output_tokens: u64,
        #[prost(uint64, tag = "26")] cache_read_tokens: u64,
        #[prost(uint64, tag = "27")] cache_creation_tokens: u64,
        #[prost(uint64, tag = "28")] cache_creation_5m_tokens: u64,
        #[prost(uint64, tag = "29")] cache_creation_1h_tokens: u64,
        #[prost(uint64, tag = "30")] reasoning_tokens: u64,
        #[prost(uint64, tag = "31")] audio_input_tokens: u64,
        #[prost(uint64, tag = "32")] audio_output_tokens: u64,
        #[prost(uint64, tag = "33")] extra_input_tokens: u64,
        #[prost(uint64, tag = "34")] extra_output_tokens: u64,
        #[prost(uint64, tag = "35")] billed_input_tokens: u64,
        #[prost(uint64, tag = "36")] billed_output_tokens: u64,
        #[prost(uint64, tag = "37")] tool_requests: u64,
        #[prost(uint64, optional, tag = "38")] cost_nanousd: Option<u64>,
        #[prost(string, tag = "39")] usage_source: String,
        #[prost(string, tag = "40")] finish: String,
        #[prost(uint64, tag = "41")] request_bytes: u64,
        #[prost(uint64, tag = "42")] response_bytes: u64,
        #[prost(uint64, tag = "43")] images: u64,
    }
}

record! {
    /// A [`TrackedEvent`].
    TrackedRecord {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, tag = "2")] tenant: String,
        #[prost(string, tag = "3")] event_type: String,
        #[prost(uint64, tag = "4")] at_ms: u64,
        #[prost(uint64, tag = "5")] quantity_micros: u64,
        #[prost(string, tag = "6")] metadata: String,
    }
}

/// An [`Entry`]; as JSON, the record's fields beside its `type`.
#[derive(Clone, PartialEq, prost::Oneof, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, clippy::large_enum_variant)] // As in `Entry`.
pub enum EntryRecord {
    #[prost(message, tag = "1")]
    Usage(EventRecord),
    #[prost(message, tag = "2")]
    Tracked(TrackedRecord),
}

/// A record that is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidRecord {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl From<&UsageEvent> for EventRecord {
    fn from(event: &UsageEvent) -> EventRecord {
        let UsageEvent { tokens, .. } = event;
        EventRecord {
            event_id: event.event_id.clone(),
            reservation_id: event.reservation_id.clone(),
            request_id: event.request_id.clone(),
            tenant: event.tenant.clone(),
            tier: event.tier.clone(),
            key: event.key.clone(),
            started_at_ms: event.started_at_ms,
            duration_ms: event.duration_ms,
            time_to_first_token_ms: event.time_to_first_token_ms,
            api: event.api.clone(),
            operation: event.operation.clone(),
            provider: event.provider.clone(),
            request_model: event.request_model.clone(),
            output_cap: event.output_cap,
            input_estimate: event.input_estimate,
            response_model: event.response_model.clone(),
            response_id: event.response_id.clone(),
            finish_reasons: event.finish_reasons.clone(),
            streaming: event.streaming,
            status: event.status.into(),
            error_type: event.error_type.clone(),
            unreadable: event.unreadable.clone(),
            upstream_limits: event.upstream_limits.clone(),
            input_tokens: tokens.input,
            output_tokens: tokens.output,
            cache_read_tokens: tokens.cache_read,
            cache_creation_tokens: tokens.cache_creation,
            cache_creation_5m_tokens: tokens.cache_creation_5m,
            cache_creation_1h_tokens: tokens.cache_creation_1h,
            reasoning_tokens: tokens.reasoning,
            audio_input_tokens: tokens.audio_input,
            audio_output_tokens: tokens.audio_output,
            extra_input_tokens: tokens.extra_input,
            extra_output_tokens: tokens.extra_output,
            billed_input_tokens: tokens.billed_input,
            billed_output_tokens: tokens.billed_output,
            tool_requests: tokens.tool_requests,
            cost_nanousd: event.cost_nanousd,
            usage_source: event.usage_source.as_str().to_owned(),
            finish: event.finish.as_str().to_owned(),
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            images: tokens.images,
        }
    }
}

impl TryFrom<EventRecord> for UsageEvent {
    type Error = InvalidRecord;

    fn try_from(record: EventRecord) -> Result<UsageEvent, InvalidRecord> {
        let unknown = |field| InvalidRecord { field, problem: "is none of its values" };
        named("event_id", &record.event_id)?;
        named("tenant", &record.tenant)?;
        Ok(UsageEvent {
            status: u16::try_from(record.status).map_err(|_| unknown("status"))?,
            usage_source: UsageSource::parse(&record.usage_source).ok_or(unknown("usage_source"))?,
            finish: Finish::parse(&record.finish).ok_or(unknown("finish"))?,
            tokens: TokenCounts {
                input: record.input_tokens,
                output: record.output_tokens,
                cache_read: record.cache_read_tokens,
                cache_creation: record.cache_creation_tokens,
                cache_creation_5m: record.cache_creation_5m_tokens,
                cache_creation_1h: record.cache_creation_1h_tokens,
                reasoning: record.reasoning_tokens,
                audio_input: record.audio_input_tokens,
                audio_output: record.audio_output_tokens,
                extra_input: record.extra_input_tokens,
                extra_output: record.extra_output_tokens,
                billed_input: record.billed_input_tokens,
                billed_output: record.billed_output_tokens,
                tool_requests: record.tool_requests,
                images: record.images,
            },
            event_id: record.event_id,
            reservation_id: record.reservation_id,
            request_id: record.request_id,
            tenant: record.tenant,
            tier: record.tier,
            key: record.key,
            started_at_ms: record.started_at_ms,
            duration_ms: record.duration_ms,
            time_to_first_token_ms: record.time_to_first_token_ms,
            api: record.api,
            operation: record.operation,
            provider: record.provider,
            request_model: record.request_model,
            output_cap: record.output_cap,
            input_estimate: record.input_estimate,
            response_model: record.response_model,
            response_id: record.response_id,
            finish_reasons: record.finish_reasons,
            streaming: record.streaming,
            error_type: record.error_type,
            unreadable: record.unreadable,
            upstream_limits: record.upstream_limits,
            cost_nanousd: record.cost_nanousd,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
        })
    }
}

fn named(field: &'static str, name: &str) -> Result<(), InvalidRecord> {
    if name.is_empty() { Err(InvalidRecord { field, problem: "is missing or empty" }) } else { Ok(()) }
}

impl From<&TrackedEvent> for TrackedRecord {
    fn from(event: &TrackedEvent) -> TrackedRecord {
        TrackedRecord {
            id: event.id.clone(),
            tenant: event.tenant.clone(),
            event_type: event.event_type.clone(),
            at_ms: event.at_ms,
            quantity_micros: event.quantity_micros,
            metadata: event.metadata.clone(),
        }
    }
}

impl TryFrom<TrackedRecord> for TrackedEvent {
    type Error = InvalidRecord;

    fn try_from(record: TrackedRecord) -> Result<TrackedEvent, InvalidRecord> {
        let TrackedRecord { id, tenant, event_type, at_ms, quantity_micros, metadata } = record;
        named("id", &id)?;
        named("tenant", &tenant)?;
        named("event_type", &event_type)?;
        Ok(TrackedEvent { id, tenant, event_type, at_ms, quantity_micros, metadata })
    }
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> EntryRecord {
        match entry {
            Entry::Usage(event) => EntryRecord::Usage(event.into()),
            Entry::Tracked(event) => EntryRecord::Tracked(event.into()),
        }
    }
}

impl TryFrom<EntryRecord> for Entry {
    type Error = InvalidRecord;

    fn try_from(record: EntryRecord) -> Result<Entry, InvalidRecord> {
        Ok(match record {
            EntryRecord::Usage(record) => Entry::Usage(record.try_into()?),
            EntryRecord::Tracked(record) => Entry::Tracked(record.try_into()?),
        })
    }
}
