//! Events other than calls, as they are posted: checked, and with their quantity as it is written.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_wire::usage_event::MAX_NAME_BYTES;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};

use super::rejected::MAX_AHEAD_MS;
use crate::entry::{MAX_EVENT_TYPE_BYTES, MAX_METADATA_BYTES, MAX_QUANTITY_MICROS, TrackedEvent};

/// Decimals of a quantity.
const PLACES: i64 = 6;

/// The longest quantity that is read, in bytes: more has more digits than there are.
const MAX_QUANTITY_BYTES: usize = 64;

/// An event as it is posted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Event)]
pub(crate) struct Posted<'a> {
    #[schema(schema_with = printable::<MAX_NAME_BYTES>)]
    tenant_id: String,
    #[schema(schema_with = printable::<MAX_EVENT_TYPE_BYTES>)]
    event_type: String,
    #[serde(borrow)]
    #[schema(schema_with = quantities)]
    quantity: &'a RawValue,
    /// At most 4096 bytes of JSON.
    #[serde(borrow, default)]
    #[schema(value_type = Option<serde_json::Map<String, serde_json::Value>>)]
    metadata: Option<&'a RawValue>,
    /// When it was, not before 1970 and not more than a day ahead; now, without.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    #[schema(schema_with = id)]
    pub(crate) id: Option<String>,
}

/// A [`name`] of at most so many bytes.
fn printable<const MOST: usize>() -> Object {
    let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MOST));
    name.pattern(Some(r"^[^\u0000-\u001f\u007f-\u009f]+$")).build()
}

fn id() -> Object {
    ObjectBuilder::from(printable::<MAX_NAME_BYTES>())
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .build()
}

/// A number, or a text that has one: see [`quantity_micros`].
fn quantities() -> Schema {
    let most = MAX_QUANTITY_MICROS as f64 / 1e6;
    let number = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0.0)).maximum(Some(most));
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[0-9]{1,9}(\.[0-9]{1,6})?$"));
    let either = OneOfBuilder::new().item(number.multiple_of(Some(1e-6))).item(text);
    either.description(Some("At most 6 decimals")).build().into()
}

/// What is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct InvalidEvent {
    field: &'static str,
    problem: String,
}

fn invalid(field: &'static str, problem: impl Into<String>) -> InvalidEvent {
    InvalidEvent { field, problem: problem.into() }
}

impl Posted<'_> {
    /// The event under this id, of now unless it says when.
    ///
    /// # Errors
    /// When a field is out of its bounds; names it.
    pub(crate) fn checked(self, id: String, now_ms: u64) -> Result<TrackedEvent, InvalidEvent> {
        let Posted { tenant_id, event_type, quantity, metadata, timestamp, id: _ } = self;
        name("id", &id, MAX_NAME_BYTES)?;
        name("tenant_id", &tenant_id, MAX_NAME_BYTES)?;
        name("event_type", &event_type, MAX_EVENT_TYPE_BYTES)?;
        Ok(TrackedEvent {
            id,
            tenant: tenant_id,
            event_type,
            at_ms: timestamp.map_or(Ok(now_ms), |text| moment(&text, now_ms))?,
            quantity_micros: quantity_micros(quantity.get())?,
            metadata: metadata.map_or(Ok("{}"), |metadata| object(metadata.get()))?.to_owned(),
        })
    }
}

/// Bytes of a name that may be printed.
fn name(field: &'static str, text: &str, most: usize) -> Result<(), InvalidEvent> {
    match text.len() {
        0 => Err(invalid(field, "is empty")),
        bytes if bytes > most => Err(invalid(field, format!("{bytes} bytes; at most {most} are taken"))),
        _ if text.chars().any(char::is_control) => Err(invalid(field, "has control characters")),
        _ => Ok(()),
    }
}

fn moment(text: &str, now_ms: u64) -> Result<u64, InvalidEvent> {
    let at = text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    match at {
        None => Err(invalid("timestamp", "is no moment since 1970 in RFC 3339, such as 2026-11-25T10:00:00Z")),
        Some(at_ms) if at_ms > now_ms.saturating_add(MAX_AHEAD_MS) => {
            Err(invalid("timestamp", "is more than a day ahead of the clock here"))
        }
        Some(at_ms) => Ok(at_ms),
    }
}

fn object(json: &str) -> Result<&str, InvalidEvent> {
    match json.len() {
        _ if !json.starts_with('{') => Err(invalid("metadata", "is no object")),
        bytes if bytes > MAX_METADATA_BYTES => {
            Err(invalid("metadata", format!("{bytes} bytes; at most {MAX_METADATA_BYTES} are taken")))
        }
        _ => Ok(json),
    }
}

/// Of a JSON number, or of a text that has one.
fn quantity_micros(json: &str) -> Result<u64, InvalidEvent> {
    let text = if json.starts_with('"') {
        serde_json::from_str::<Cow<'_, str>>(json).unwrap_or_default()
    } else {
        Cow::Borrowed(json)
    };
    let refused = || {
        let most = MAX_QUANTITY_MICROS / 1_000_000;
        invalid("quantity", format!("is no number from 0 to {most} with at most {PLACES} decimals"))
    };
    micros(&text).filter(|micros| *micros <= MAX_QUANTITY_MICROS).ok_or_else(refused)
}

/// The number in `text`, in millionths; `None` where it has parts of one, is negative, or is none. Read from its digits: no
/// binary fraction comes between.
fn micros(text: &str) -> Option<u64> {
    if text.len() > MAX_QUANTITY_BYTES {
        return None;
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) || !are_digits(exponent.trim_start_matches(['+', '-'])) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // The last significant digit stands for so many tenths of tenths.
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let decimals = i64::try_from(fraction.len()).ok()? - dropped - exponent.parse::<i64>().ok()?;
    let shift = u32::try_from(PLACES.checked_sub(decimals)?).ok()?;
    significant.parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(shift)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decimal;

    const NOW_MS: u64 = 1_774_008_000_000;

    fn read(json: &str) -> Result<TrackedEvent, String> {
        let posted: Posted<'_> = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let id = posted.id.clone().unwrap_or("new".into());
        posted.checked(id, NOW_MS).map_err(|error| error.to_string())
    }

    #[test]
    fn an_event_is_kept_as_it_is_written() {
        let event = read(
            r#"{"tenant_id":"acme","event_type":"query","quantity":1.50,
                "metadata":{"endpoint": "/api/search", "n": 12345678901234567890.1},
                "timestamp":"2026-03-20T12:00:00+02:00","id":"q-1"}"#,
        );
        let expected = TrackedEvent {
            id: "q-1".into(),
            tenant: "acme".into(),
            event_type: "query".into(),
            at_ms: 1_774_000_800_000,
            quantity_micros: 1_500_000,
            metadata: r#"{"endpoint": "/api/search", "n": 12345678901234567890.1}"#.into(),
        };
        assert_eq!(event, Ok(expected));
        let bare = read(r#"{"tenant_id":"acme","event_type":"query","quantity":"1"}"#).unwrap();
        assert_eq!((bare.id.as_str(), bare.at_ms, bare.metadata.as_str()), ("new", NOW_MS, "{}"));
    }

    #[test]
    fn a_quantity_is_exact() {
        for (text, expected) in [
            ("1", 1_000_000),
            ("0", 0),
            ("0.000001", 1),
            ("0.1", 100_000),
            ("1e-06", 1),
            ("1E+2", 100_000_000),
            ("12.5e1", 125_000_000),
            ("100.0000000000", 100_000_000),
            ("10e-7", 1),
            ("0.00", 0),
            ("999999999.999999", 999_999_999_999_999),
            ("0e999", 0),
        ] {
            assert_eq!(micros(text), Some(expected), "{text}");
        }
        for text in ["", "-1", "+1", "1.", ".5", "1e", "e1", "0.0000001", "1e-7", "1e99", "NaN", "1_0", "0x1", "1e--1"]
        {
            assert_eq!(micros(text), None, "{text}");
        }
        assert_eq!(micros(&"9".repeat(100)), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(micros_of in 0..=MAX_QUANTITY_MICROS) {
            prop_assert_eq!(micros(&decimal::written(micros_of.into(), 6)), Some(micros_of));
        }

        #[test]
        fn no_text_is_too_much(text in "[0-9.eE+-]{0,70}") {
            let _ = micros(&text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |field: &str, value: &str| {
            let mut fields = vec![("tenant_id", "\"a\""), ("event_type", "\"q\""), ("quantity", "1")];
            fields.retain(|(name, _)| *name != field);
            fields.push((field, value));
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            read(&format!("{{{}}}", fields.join(","))).unwrap_err()
        };
        let long = |bytes| format!("\"{}\"", "x".repeat(bytes));
        let metadata = format!("{{\"a\":{}}}", long(MAX_METADATA_BYTES));
        let cases = [
            ("tenant_id", "\"\"", "tenant_id: is empty"),
            ("tenant_id", &long(257), "tenant_id: 257 bytes; at most 256 are taken"),
            ("event_type", &long(129), "event_type: 129 bytes; at most 128 are taken"),
            ("event_type", "\"a\\nb\"", "event_type: has control characters"),
            ("id", "\"\"", "id: is empty"),
            ("quantity", "-1", "quantity: is no number from 0 to 1000000000 with at most 6 decimals"),
            ("quantity", "1000000000.000001", "quantity: is no number from 0 to 1000000000"),
            ("quantity", "\"1.0000001\"", "quantity: is no number"),
            ("quantity", "true", "quantity: is no number"),
            ("quantity", "[1]", "quantity: is no number"),
            ("metadata", "[1]", "metadata: is no object"),
            ("metadata", &metadata, "metadata: 4104 bytes; at most 4096 are taken"),
            ("timestamp", "\"yesterday\"", "timestamp: is no moment since 1970 in RFC 3339"),
            ("timestamp", "\"1969-12-31T23:59:59Z\"", "timestamp: is no moment since 1970"),
            ("timestamp", "\"2026-03-22T00:00:00Z\"", "timestamp: is more than a day ahead"),
            ("price", "1", "unknown field `price`"),
        ];
        for (field, value, message) in cases {
            let error = with(field, value);
            assert!(error.contains(message), "{field} = {value}: {error}");
        }
    }
}
