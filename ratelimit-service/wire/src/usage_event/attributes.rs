//! A log record's attributes, typed: absent is `None`, another type than ours is an error that names the attribute.

use super::{InvalidEvent, MAX_NAME_BYTES, Problem};
use crate::proto::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};

pub(super) fn invalid(attribute: &'static str) -> InvalidEvent {
    InvalidEvent { attribute, problem: Problem::Invalid }
}

/// Attributes to be written.
pub(super) struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// None, with room for those of a call.
    pub(super) fn new() -> Attributes {
        Attributes(Vec::with_capacity(32))
    }

    pub(super) fn into_pairs(self) -> Vec<KeyValue> {
        self.0
    }

    pub(super) fn push(&mut self, key: &str, value: any_value::Value) {
        self.0.push(KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) });
    }

    pub(super) fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(key, any_value::Value::StringValue(value.to_owned()));
        }
    }

    pub(super) fn texts<'a>(&mut self, key: &str, values: impl Iterator<Item = &'a String>) {
        let text = |value: &String| AnyValue { value: Some(any_value::Value::StringValue(value.clone())) };
        let values: Vec<_> = values.map(text).collect();
        if !values.is_empty() {
            self.push(key, any_value::Value::ArrayValue(ArrayValue { values }));
        }
    }

    /// OTLP's integers are signed: a count past `i64::MAX` is sent as that.
    pub(super) fn count(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.push(key, any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
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
