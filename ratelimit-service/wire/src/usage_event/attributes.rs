//! A log record's attributes, typed: absent is `None`, another type than ours is an error that names the attribute.

use super::{InvalidEvent, MAX_NAME_BYTES, Problem};
use crate::field;
use crate::proto::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};

pub(super) fn invalid(attribute: &'static str) -> InvalidEvent {
    InvalidEvent { attribute, problem: Problem::Invalid }
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

    pub(super) fn text(&mut self, key: &'static str, value: Option<&'a str>) {
        self.0.extend(value.map(|value| (key, Value::Text(value))));
    }

    pub(super) fn texts(&mut self, key: &'static str, values: impl Iterator<Item = &'a String>) {
        let values: Vec<_> = values.map(String::as_str).collect();
        if !values.is_empty() {
            self.0.push((key, Value::Texts(values)));
        }
    }

    /// OTLP's integers are signed: a count past `i64::MAX` is sent as that.
    pub(super) fn count(&mut self, key: &'static str, value: Option<u64>) {
        self.0.extend(value.map(|value| (key, Value::Count(i64::try_from(value).unwrap_or(i64::MAX)))));
    }

    pub(super) fn flag(&mut self, key: &'static str, value: bool) {
        self.0.push((key, Value::Flag(value)));
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
        let mut bytes = Vec::with_capacity(64);
        for (key, value) in &self.0 {
            bytes.clear();
            value.encode(&mut bytes);
            field::append_pair(number, key.as_bytes(), &bytes, to);
        }
    }
}

impl Value<'_> {
    /// An `AnyValue`.
    fn encode(&self, to: &mut Vec<u8>) {
        const TEXT: u32 = 1;
        const FLAG: u32 = 2;
        const COUNT: u32 = 3;
        const ARRAY: u32 = 5;
        const VALUES: u32 = 1; // of ArrayValue
        match self {
            Value::Text(text) => field::append(TEXT, text.as_bytes(), to),
            Value::Flag(flag) => field::append_varint(FLAG, u64::from(*flag), to),
            Value::Count(count) => field::append_varint(COUNT, count.cast_unsigned(), to),
            Value::Texts(texts) => {
                let mut array = Vec::new();
                for text in texts {
                    let mut value = Vec::with_capacity(text.len() + 4);
                    field::append(TEXT, text.as_bytes(), &mut value);
                    field::append(VALUES, &value, &mut array);
                }
                field::append(ARRAY, &array, to);
            }
        }
    }
}

/// Attributes to be read.
pub(super) struct Reader<'a>(&'a [KeyValue]);

impl<'a> Reader<'a> {
    pub(super) fn new(pairs: &'a [KeyValue]) -> Reader<'a> {
        Reader(pairs)
    }

    fn value(&self, key: &str) -> Option<&any_value::Value> {
        self.0.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<String>, InvalidEvent> {
        match self.value(key) {
            None => Ok(None),
            Some(any_value::Value::StringValue(text)) => Ok(Some(text.clone())),
            Some(_) => Err(invalid(key)),
        }
    }

    pub(super) fn name(&self, key: &'static str) -> Result<String, InvalidEvent> {
        self.optional_name(key)?.ok_or(InvalidEvent { attribute: key, problem: Problem::Missing })
    }

    /// An empty one is none.
    pub(super) fn optional_name(&self, key: &'static str) -> Result<Option<String>, InvalidEvent> {
        let text = self.text(key)?.filter(|text| !text.is_empty());
        match text {
            Some(text) if text.len() > MAX_NAME_BYTES => {
                Err(InvalidEvent { attribute: key, problem: Problem::TooLong })
            }
            text => Ok(text),
        }
    }

    pub(super) fn one_of<T>(&self, key: &'static str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, InvalidEvent> {
        self.text(key)?.map(|text| parse(&text).ok_or(invalid(key))).transpose()
    }

    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<String>, InvalidEvent> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(any_value::Value::ArrayValue(array)) => {
                let text = |value: &AnyValue| match &value.value {
                    Some(any_value::Value::StringValue(text)) => Ok(text.clone()),
                    _ => Err(invalid(key)),
                };
                array.values.iter().map(text).collect()
            }
            Some(_) => Err(invalid(key)),
        }
    }

    pub(super) fn count(&self, key: &'static str) -> Result<Option<u64>, InvalidEvent> {
        match self.value(key) {
            None => Ok(None),
            Some(any_value::Value::IntValue(count)) => Ok(Some(u64::try_from(*count).map_err(|_| invalid(key))?)),
            Some(_) => Err(invalid(key)),
        }
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>, InvalidEvent> {
        match self.value(key) {
            None => Ok(None),
            Some(any_value::Value::BoolValue(flag)) => Ok(Some(*flag)),
            Some(_) => Err(invalid(key)),
        }
    }
}
