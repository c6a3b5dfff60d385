//! Log records read as events, from our filter and from whoever else follows the conventions.

use crate::proto::opentelemetry::proto::common::v1::{KeyValue, any_value};
use crate::proto::opentelemetry::proto::logs::v1::LogRecord;

use super::attribute::{self, Attribute};
use super::attributes::{Reader, invalid, text_of};
use super::{
    EVENT_NAME, Finish, InvalidEvent, MAX_FINISH_REASONS, MAX_NAME_BYTES, MAX_UPSTREAM_LIMITS, Problem, TokenCounts,
    UsageEvent, UsageSource, carried,
};

/// The name of the conventions' event of a call to a model.
pub const INFERENCE_EVENT_NAME: &str = "gen_ai.client.inference.operation.details";

/// Bytes of a trace's id.
const TRACE_ID_BYTES: usize = 16;
/// Bytes of a span's id.
const SPAN_ID_BYTES: usize = 8;

const SUCCESS: u16 = 200;

/// What stands around log records and is true of all of them.
#[derive(Default)]
pub struct Around<'a> {
    resource: Reader<'a>,
    tenant_attributes: &'a [String],
}

impl<'a> Around<'a> {
    /// Of records under a resource with these attributes: who pays, by which plan and key stands there where it does not stand
    /// on the record. The tenant is also looked for under `tenant_attributes`, in their order.
    pub fn new(resource: &'a [KeyValue], tenant_attributes: &'a [String]) -> Around<'a> {
        Around { resource: Reader::new(resource), tenant_attributes }
    }
}

impl UsageEvent {
    /// Reads an event from a log record that stands alone. See [`UsageEvent::read`].
    ///
    /// # Errors
    /// Likewise.
    pub fn from_log_record(record: &LogRecord) -> Result<UsageEvent, InvalidEvent> {
        UsageEvent::read(record, &Around::default())
    }

    /// Reads an event from a log record named [`EVENT_NAME`] or [`INFERENCE_EVENT_NAME`], or one that has no name and either an
    /// [`attribute::EVENT_ID`] or tokens. Attributes that are not in the table are passed over: above all, content.
    ///
    /// What only we tell is derived where it is not told: the id from the ids of trace and span; the source of the tokens is
    /// the provider's report where there are tokens; the call is complete where there is no error.
    ///
    /// # Errors
    /// When the record is no usage event, the id, the tenant or the time is missing, a name is longer than
    /// [`MAX_NAME_BYTES`], or an attribute has a value out of its range.
    pub fn read(record: &LogRecord, around: &Around<'_>) -> Result<UsageEvent, InvalidEvent> {
        let from = Reader::new(&record.attributes);
        check_name(record, &from)?;
        let at_ns = Some(record.time_unix_nano).filter(|at_ns| *at_ns != 0).unwrap_or(record.observed_time_unix_nano);
        if at_ns == 0 {
            return Err(InvalidEvent { attribute: "time_unix_nano", problem: Problem::Missing });
        }
        let error_type = from.text(attribute::ERROR_TYPE)?;
        let finish = from.one_of(attribute::FINISH, Finish::parse)?;
        let usage_source = from.one_of(attribute::USAGE_SOURCE, UsageSource::parse)?;
        let mut tokens = TokenCounts::read(&from)?;
        if usage_source.is_none() {
            tokens.include_cache();
        }
        Ok(UsageEvent {
            event_id: event_id(record, &from)?,
            reservation_id: from.name(attribute::RESERVATION_ID)?,
            request_id: from.id(attribute::REQUEST_ID)?,
            tenant: tenant(&from, around)?,
            tier: either(&from, around, attribute::TIER)?.unwrap_or_default(),
            key: either(&from, around, attribute::KEY)?,
            started_at_ms: at_ns / 1_000_000,
            duration_ms: from.ms(attribute::DURATION_MS, attribute::DURATION_S)?.unwrap_or(0),
            time_to_first_token_ms: from.ms(attribute::TIME_TO_FIRST_TOKEN_MS, attribute::TIME_TO_FIRST_CHUNK_S)?,
            api: from.text(attribute::API)?,
            operation: from.text(attribute::OPERATION)?,
            provider: from.text(attribute::PROVIDER)?,
            request_model: from.text(attribute::REQUEST_MODEL)?,
            output_cap: from.count(attribute::OUTPUT_CAP)?,
            input_estimate: from.count(attribute::INPUT_ESTIMATE)?,
            response_model: from.text(attribute::RESPONSE_MODEL)?,
            response_id: from.id(attribute::RESPONSE_ID)?,
            finish_reasons: from.texts(attribute::FINISH_REASONS)?.take(MAX_FINISH_REASONS).map(cut).collect(),
            streaming: from.flag(attribute::STREAMING)?.unwrap_or(false),
            status: status(&from, finish, error_type.as_deref())?,
            unreadable: from.text(attribute::UNREADABLE)?,
            upstream_limits: (from.texts(attribute::UPSTREAM_LIMITS)?.filter(carried))
                .take(MAX_UPSTREAM_LIMITS)
                .map(str::to_owned)
                .collect(),
            tokens,
            cost_nanousd: from.count(attribute::COST)?,
            usage_source: usage_source.unwrap_or(if tells_tokens(&from) {
                UsageSource::Reported
            } else {
                UsageSource::None
            }),
            finish: finish.unwrap_or(if error_type.is_some() { Finish::UpstreamError } else { Finish::Complete }),
            error_type,
            request_bytes: from.count(attribute::REQUEST_BYTES)?.unwrap_or(0),
            response_bytes: from.count(attribute::RESPONSE_BYTES)?.unwrap_or(0),
        })
    }
}

/// The attributes of a record that are in the table, under their present names. All others may be content.
pub fn known_attributes(record: &LogRecord) -> impl Iterator<Item = (&'static str, &any_value::Value)> {
    record.attributes.iter().filter_map(|pair| {
        let (attribute, _) = attribute::find(&pair.key)?;
        Some((attribute.name, pair.value.as_ref()?.value.as_ref()?))
    })
}

/// Refuses records that are no usage events.
fn check_name(record: &LogRecord, from: &Reader<'_>) -> Result<(), InvalidEvent> {
    let attribute = || from.borrowed(attribute::NAME).unwrap_or_default();
    let name = if record.event_name.is_empty() { attribute() } else { record.event_name.as_str() };
    match name {
        EVENT_NAME | INFERENCE_EVENT_NAME => Ok(()),
        "" if from.has(attribute::EVENT_ID) || tells_tokens(from) => Ok(()),
        _ => Err(InvalidEvent { attribute: "event_name", problem: Problem::Foreign }),
    }
}

fn tells_tokens(from: &Reader<'_>) -> bool {
    from.has(attribute::INPUT_TOKENS) || from.has(attribute::OUTPUT_TOKENS)
}

/// The id that is told, or else one of the span that tells of the call: a span that is sent again counts once.
fn event_id(record: &LogRecord, from: &Reader<'_>) -> Result<String, InvalidEvent> {
    let is_id = |id: &[u8], bytes: usize| id.len() == bytes && id.iter().any(|byte| *byte != 0);
    match from.name(attribute::EVENT_ID)? {
        Some(id) => Ok(id),
        None if is_id(&record.trace_id, TRACE_ID_BYTES) && is_id(&record.span_id, SPAN_ID_BYTES) => {
            Ok(format!("otel:{}:{}", hex(&record.trace_id), hex(&record.span_id)))
        }
        None => Err(InvalidEvent { attribute: attribute::EVENT_ID.name, problem: Problem::Missing }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn tenant(from: &Reader<'_>, around: &Around<'_>) -> Result<String, InvalidEvent> {
    if let Some(tenant) = either(from, around, attribute::TENANT)? {
        return Ok(tenant);
    }
    for name in around.tenant_attributes {
        for value in [from.other(name), around.resource.other(name)].into_iter().flatten() {
            let tenant = text_of(value).ok_or(invalid(attribute::TENANT))?;
            match tenant.len() {
                0 => {}
                1..=MAX_NAME_BYTES => return Ok(tenant.into_owned()),
                _ => return Err(InvalidEvent { attribute: attribute::TENANT.name, problem: Problem::TooLong }),
            }
        }
    }
    Err(InvalidEvent { attribute: attribute::TENANT.name, problem: Problem::Missing })
}

/// A name that stands on the record, or else on its resource.
fn either(from: &Reader<'_>, around: &Around<'_>, attribute: Attribute) -> Result<Option<String>, InvalidEvent> {
    match from.name(attribute)? {
        Some(name) => Ok(Some(name)),
        None => around.resource.name(attribute),
    }
}

/// Where neither a status nor our word of how the call ended is told, there was success where there is no error; an error may be
/// named by its status.
fn status(from: &Reader<'_>, finish: Option<Finish>, error_type: Option<&str>) -> Result<u16, InvalidEvent> {
    if let Some(status) = from.count(attribute::STATUS)? {
        return u16::try_from(status).map_err(|_| invalid(attribute::STATUS));
    }
    Ok(match (finish, error_type) {
        (None, None) => SUCCESS,
        (None, Some(error)) => error.parse().ok().filter(|status| (400..600).contains(status)).unwrap_or(0),
        (Some(_), _) => 0,
    })
}

pub(super) fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or_default().to_owned()
}
