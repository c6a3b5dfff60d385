//! A log record's attributes, typed: absent is `None`, what is no value of the attribute's is an error that names it.

use std::borrow::Cow;

use super::attribute::{self, Attribute};
use super::reading::cut;
use super::{InvalidEvent, MAX_NAME_BYTES, Problem};
use crate::field;
use crate::proto::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};

pub(super) fn invalid(attribute: Attribute) -> InvalidEvent {
    InvalidEvent { attribute: attribute.name, problem: Problem::Invalid }
}

/// Attributes to be written, borrowed from an event.
pub(super) struct Attributes<'a>(Vec<(&'static str, Value<'a>)>);

enum Value<'a> {
    Text(&'a str),
    Texts(Vec<&'a str>),
    Count(i64),
    Flag(bool),
}

impl<'a> Attributes<'a> {
    /// None, with room for those of a call.
    pub(super) fn new() -> Attributes<'a> {
        Attributes(Vec::with_capacity(32))
    }

    pub(super) fn text(&mut self, attribute: Attribute, value: Option<&'a str>) {
        self.0.extend(value.map(|value| (attribute.name, Value::Text(value))));
    }

    pub(super) fn texts(&mut self, attribute: Attribute, values: impl Iterator<Item = &'a String>) {
        let values: Vec<_> = values.map(String::as_str).collect();
        if !values.is_empty() {
            self.0.push((attribute.name, Value::Texts(values)));
        }
    }

    /// OTLP's integers are signed: a count past `i64::MAX` is sent as that.
    pub(super) fn count(&mut self, attribute: Attribute, value: Option<u64>) {
        self.0.extend(value.map(|value| (attribute.name, Value::Count(i64::try_from(value).unwrap_or(i64::MAX)))));
    }

    pub(super) fn flag(&mut self, attribute: Attribute, value: bool) {
        self.0.push((attribute.name, Value::Flag(value)));
    }

    /// As messages.
    pub(super) fn into_pairs(self) -> Vec<KeyValue> {
        let text = |text: &str| any_value::Value::StringValue(text.to_owned());
        let pair = |(key, value): (&str, Value<'_>)| {
            let value = match value {
                Value::Text(value) => text(value),
                Value::Texts(values) => {
                    let values = values.into_iter().map(|value| AnyValue { value: Some(text(value)) }).collect();
                    any_value::Value::ArrayValue(ArrayValue { values })
                }
                Value::Count(count) => any_value::Value::IntValue(count),
                Value::Flag(flag) => any_value::Value::BoolValue(flag),
            };
            KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
        };
        self.0.into_iter().map(pair).collect()
    }

    /// The bytes of [`Attributes::into_pairs`], each as the field `number` of the message that `to` is.
    pub(super) fn encode(&self, number: u32, to: &mut Vec<u8>) {
        const KEY: u32 = 1; // of KeyValue
        const VALUE: u32 = 2;
        for (key, value) in &self.0 {
            let length = value.length();
            field::begin(number, field::length(KEY, key.len()) + field::length(VALUE, length), to);
            field::append(KEY, key.as_bytes(), to);
            field::begin(VALUE, length, to);
            value.encode(to);
        }
    }
}

// The fields of an AnyValue.
const TEXT: u32 = 1;
const FLAG: u32 = 2;
const COUNT: u32 = 3;
const ARRAY: u32 = 5;
/// Of an ArrayValue.
const VALUES: u32 = 1;

impl Value<'_> {
    /// Of an `AnyValue`, in bytes.
    fn length(&self) -> usize {
        match self {
            Value::Text(text) => field::length(TEXT, text.len()),
            Value::Flag(flag) => field::varint_field_length(FLAG, u64::from(*flag)),
            Value::Count(count) => field::varint_field_length(COUNT, count.cast_unsigned()),
            Value::Texts(texts) => field::length(ARRAY, array_length(texts)),
        }
    }

    /// An `AnyValue`.
    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Value::Text(text) => field::append(TEXT, text.as_bytes(), to),
            Value::Flag(flag) => field::append_varint(FLAG, u64::from(*flag), to),
            Value::Count(count) => field::append_varint(COUNT, count.cast_unsigned(), to),
            Value::Texts(texts) => {
                field::begin(ARRAY, array_length(texts), to);
                for text in texts {
                    field::begin(VALUES, field::length(TEXT, text.len()), to);
                    field::append(TEXT, text.as_bytes(), to);
                }
            }
        }
    }
}

/// Of an `ArrayValue`, in bytes.
fn array_length(texts: &[&str]) -> usize {
    texts.iter().map(|text| field::length(VALUES, field::length(TEXT, text.len()))).sum()
}

/// Attributes to be read. Of several spellings of one the present one holds, and of several values the first.
pub(super) struct Reader<'a> {
    found: [Option<Found<'a>>; attribute::COUNT],
    pairs: &'a [KeyValue],
}

#[derive(Clone, Copy)]
struct Found<'a> {
    value: &'a any_value::Value,
    is_present: bool,
}

impl Default for Reader<'_> {
    fn default() -> Self {
        Reader { found: [None; attribute::COUNT], pairs: &[] }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(pairs: &'a [KeyValue]) -> Reader<'a> {
        let mut found: [Option<Found<'a>>; attribute::COUNT] = [None; attribute::COUNT];
        for pair in pairs {
            let Some((attribute, is_present)) = attribute::find(&pair.key) else { continue };
            if let Some(value) = value_of(pair)
                && let Some(place) = found.get_mut(attribute.index)
                && place.is_none_or(|other| is_present && !other.is_present)
            {
                *place = Some(Found { value, is_present });
            }
        }
        Reader { found, pairs }
    }

    fn value(&self, attribute: Attribute) -> Option<&'a any_value::Value> {
        self.found.get(attribute.index).copied().flatten().map(|found| found.value)
    }

    /// An attribute that is not in the table.
    pub(super) fn other(&self, name: &str) -> Option<&'a any_value::Value> {
        self.pairs.iter().find(|pair| pair.key == name).and_then(value_of)
    }

    pub(super) fn has(&self, attribute: Attribute) -> bool {
        self.value(attribute).is_some()
    }

    pub(super) fn borrowed(&self, attribute: Attribute) -> Option<&'a str> {
        match self.value(attribute) {
            Some(any_value::Value::StringValue(text)) => Some(text),
            _ => None,
        }
    }

    /// A text; an empty one is none.
    fn whole(&self, attribute: Attribute) -> Result<Option<Cow<'a, str>>, InvalidEvent> {
        let text = self.value(attribute).map(|value| text_of(value).ok_or(invalid(attribute))).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// A text that may lose its end.
    pub(super) fn text(&self, attribute: Attribute) -> Result<Option<String>, InvalidEvent> {
        Ok(self.whole(attribute)?.map(|text| if text.len() > MAX_NAME_BYTES { cut(&text) } else { text.into_owned() }))
    }

    /// Somebody else's id, which is worth nothing without its end.
    pub(super) fn id(&self, attribute: Attribute) -> Result<Option<String>, InvalidEvent> {
        Ok(self.whole(attribute)?.filter(|id| id.len() <= MAX_NAME_BYTES).map(Cow::into_owned))
    }

    /// A name that must not lose its end.
    pub(super) fn name(&self, attribute: Attribute) -> Result<Option<String>, InvalidEvent> {
        match self.whole(attribute)? {
            Some(name) if name.len() > MAX_NAME_BYTES => {
                Err(InvalidEvent { attribute: attribute.name, problem: Problem::TooLong })
            }
            name => Ok(name.map(Cow::into_owned)),
        }
    }

    pub(super) fn one_of<T>(
        &self,
        attribute: Attribute,
        parse: fn(&str) -> Option<T>,
    ) -> Result<Option<T>, InvalidEvent> {
        self.whole(attribute)?.map(|text| parse(&text).ok_or(invalid(attribute))).transpose()
    }

    /// A list of texts, or one alone.
    pub(super) fn texts(&self, attribute: Attribute) -> Result<impl Iterator<Item = &'a str>, InvalidEvent> {
        let (one, array) = match self.value(attribute) {
            None => (None, [].as_slice()),
            Some(any_value::Value::StringValue(text)) => (Some(text.as_str()), [].as_slice()),
            Some(any_value::Value::ArrayValue(array)) => (None, array.values.as_slice()),
            Some(_) => return Err(invalid(attribute)),
        };
        let text = |value: &'a AnyValue| match &value.value {
            Some(any_value::Value::StringValue(text)) => Some(text.as_str()),
            _ => None,
        };
        if array.iter().any(|value| text(value).is_none()) {
            return Err(invalid(attribute));
        }
        Ok(one.into_iter().chain(array.iter().filter_map(text)))
    }

    /// A whole number from 0 up: senders and what stands between make it a text or a double.
    pub(super) fn count(&self, attribute: Attribute) -> Result<Option<u64>, InvalidEvent> {
        /// All whole numbers up to here are doubles.
        const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
        let count = match self.value(attribute) {
            None => return Ok(None),
            Some(any_value::Value::IntValue(count)) => u64::try_from(*count).ok(),
            Some(any_value::Value::StringValue(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok()
            }
            Some(any_value::Value::DoubleValue(count)) if (0.0..=MAX_EXACT).contains(count) && count.fract() == 0.0 => {
                Some(*count as u64)
            }
            Some(_) => None,
        };
        count.map(Some).ok_or(invalid(attribute))
    }

    /// A time told in milliseconds, or else in seconds.
    pub(super) fn ms(&self, ms: Attribute, seconds: Attribute) -> Result<Option<u64>, InvalidEvent> {
        if let Some(ms) = self.count(ms)? {
            return Ok(Some(ms));
        }
        match self.value(seconds) {
            Some(any_value::Value::DoubleValue(seconds)) if seconds.is_finite() && *seconds >= 0.0 => {
                // Saturates.
                Ok(Some((seconds * 1000.0).round() as u64))
            }
            Some(any_value::Value::DoubleValue(_)) => Err(invalid(seconds)),
            _ => Ok(self.count(seconds)?.map(|seconds| seconds.saturating_mul(1000))),
        }
    }

    pub(super) fn flag(&self, attribute: Attribute) -> Result<Option<bool>, InvalidEvent> {
        match self.value(attribute) {
            None => Ok(None),
            Some(any_value::Value::BoolValue(flag)) => Ok(Some(*flag)),
            Some(any_value::Value::StringValue(text)) => text.parse().map(Some).map_err(|_| invalid(attribute)),
            Some(_) => Err(invalid(attribute)),
        }
    }
}

fn value_of(pair: &KeyValue) -> Option<&any_value::Value> {
    pair.value.as_ref()?.value.as_ref()
}

/// A scalar as a text.
pub(super) fn text_of(value: &any_value::Value) -> Option<Cow<'_, str>> {
    match value {
        any_value::Value::StringValue(text) => Some(Cow::Borrowed(text)),
        any_value::Value::IntValue(number) => Some(Cow::Owned(number.to_string())),
        any_value::Value::BoolValue(flag) => Some(Cow::Owned(flag.to_string())),
        _ => None,
    }
}
