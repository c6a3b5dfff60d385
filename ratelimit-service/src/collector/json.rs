//! OTLP in JSON: what of it tells of calls. Ids are in hexadecimal and 64-bit numbers are texts or numbers
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>); what is not known is passed over, above all bodies.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_wire::proto::opentelemetry::proto::common::v1 as common;
use tollgate_wire::proto::opentelemetry::proto::logs::v1 as logs;
use tollgate_wire::proto::opentelemetry::proto::resource::v1 as resource;
use tonic::Status;
use tonic_types::StatusExt;

/// Reads an export.
///
/// # Errors
/// When it is no JSON, or a field that is read has another type; names its path.
pub(super) fn request(json: &[u8]) -> Result<ExportLogsServiceRequest, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let request: Request = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(request.into())
}

/// The answer in JSON.
pub(super) fn response(response: &ExportLogsServiceResponse) -> Value {
    match &response.partial_success {
        None => json!({}),
        Some(partial) => json!({ "partialSuccess": {
            "rejectedLogRecords": partial.rejected_log_records.to_string(),
            "errorMessage": partial.error_message,
        } }),
    }
}

/// A `google.rpc.Status` in JSON.
pub(super) fn status(status: &Status) -> Value {
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let retry_info = |delay: Duration| json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{}s", delay.as_secs()) });
    let details: Vec<_> = delay.map(retry_info).into_iter().collect();
    json!({ "code": i32::from(status.code()), "message": status.message(), "details": details })
}

/// Reads a message from an object alone: what is derived (with `remote = "Self"`) takes a list of its fields too.
macro_rules! object {
    ($message:ident) => {
        impl<'de> Deserialize<'de> for $message {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$message, D::Error> {
                struct Object;

                impl<'de> Visitor<'de> for Object {
                    type Value = $message;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<$message, A::Error> {
                        $message::deserialize(MapAccessDeserializer::new(fields))
                    }
                }

                deserializer.deserialize_map(Object)
            }
        }
    };
}

/// Messages as they are written, each with the fields that are read.
macro_rules! messages {
    ($($message:ident => $to:path { $($field:ident: $type:ty,)+ $(..$default:ident)? })+) => {
        $(
            #[derive(Default, Deserialize)]
            #[serde(default, rename_all = "camelCase", remote = "Self")]
            struct $message { $(#[serde(deserialize_with = "or_default")] $field: $type,)+ }

            object!($message);

            impl From<$message> for $to {
                fn from(message: $message) -> $to {
                    Self { $($field: message.$field.converted(),)+ $(..Self::$default())? }
                }
            }
        )+
    };
}

messages! {
    Request => ExportLogsServiceRequest { resource_logs: Vec<ResourceLogs>, }
    ResourceLogs => logs::ResourceLogs { resource: Option<Resource>, scope_logs: Vec<ScopeLogs>, ..default }
    Resource => resource::Resource { attributes: Vec<KeyValue>, }
    ScopeLogs => logs::ScopeLogs { log_records: Vec<LogRecord>, ..default }
    LogRecord => logs::LogRecord {
        time_unix_nano: Number<u64>,
        observed_time_unix_nano: Number<u64>,
        attributes: Vec<KeyValue>,
        trace_id: Hex,
        span_id: Hex,
        event_name: String,
        ..default
    }
    KeyValue => common::KeyValue { key: String, value: Option<AnyValue>, }
    ArrayValue => common::ArrayValue { values: Vec<AnyValue>, }
}

/// `null` is a field that is not there.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A field as it is written, to the message's field.
trait Field<T> {
    fn converted(self) -> T;
}

impl Field<String> for String {
    fn converted(self) -> String {
        self
    }
}

impl<A: Into<B>, B> Field<Vec<B>> for Vec<A> {
    fn converted(self) -> Vec<B> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<A: Into<B>, B> Field<Option<B>> for Option<A> {
    fn converted(self) -> Option<B> {
        self.map(Into::into)
    }
}

impl Field<u64> for Number<u64> {
    fn converted(self) -> u64 {
        self.0
    }
}

impl Field<Vec<u8>> for Hex {
    fn converted(self) -> Vec<u8> {
        self.0
    }
}

/// Lists of pairs and bytes are no values of attributes that are read.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", remote = "Self")]
struct AnyValue {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Number<i64>>,
    double_value: Option<Double>,
    array_value: Option<ArrayValue>,
}

object!(AnyValue);

impl From<AnyValue> for common::AnyValue {
    fn from(value: AnyValue) -> common::AnyValue {
        use common::any_value::Value;
        let AnyValue { string_value, bool_value, int_value, double_value, array_value } = value;
        let value = (string_value.map(Value::StringValue))
            .or(bool_value.map(Value::BoolValue))
            .or(int_value.map(|Number(number)| Value::IntValue(number)))
            .or(double_value.map(|Double(number)| Value::DoubleValue(number)))
            .or(array_value.map(|array| Value::ArrayValue(array.into())));
        common::AnyValue { value }
    }
}

/// A 64-bit number: a text of digits, or a number.
#[derive(Default)]
struct Number<T>(T);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number<T>, D::Error> {
        deserializer.deserialize_any(NumberVisitor(PhantomData))
    }
}

struct NumberVisitor<T>(PhantomData<T>);

impl<T: TryFrom<i128>> NumberVisitor<T> {
    fn number<E: Error>(number: Option<i128>, found: impl fmt::Display) -> Result<Number<T>, E> {
        let number = number.and_then(|number| T::try_from(number).ok());
        number.map(Number).ok_or_else(|| E::custom(format_args!("`{found}` is no whole number of 64 bits")))
    }
}

impl<T: TryFrom<i128>> Visitor<'_> for NumberVisitor<T> {
    type Value = Number<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of 64 bits, as a number or a text")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number<T>, E> {
        Self::number(Some(number.into()), number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number<T>, E> {
        Self::number(Some(number.into()), number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number<T>, E> {
        // A double past this may stand for several numbers.
        let is_exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        Self::number(is_exact.then_some(number as i128), number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Number<T>, E> {
        Self::number(text.parse().ok(), text.escape_default())
    }
}

/// A number with a fraction, or a text such as `NaN`.
struct Double(f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Double, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Double(number)),
            Written::Text(text) => text.parse().map(Double).map_err(D::Error::custom),
        }
    }
}

/// The bytes of an id.
#[derive(Default)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Hex).ok_or_else(|| D::Error::custom("an id is in hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use tollgate_wire::usage_event::UsageEvent;

    use super::*;

    #[test]
    fn an_export_is_read_as_the_encoding_says() {
        let json = r#"{"resourceLogs":[{"schemaUrl":"x","resource":{"attributes":[
            {"key":"tollgate.tenant","value":{"stringValue":"acme"}},{"key":"none"},{"key":"null","value":null}]},
          "scopeLogs":[{"scope":{"name":"s"},"logRecords":[{
            "timeUnixNano":"1700000000123000000","observedTimeUnixNano":1700000000124000000,
            "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","eventName":"e",
            "severityNumber":9,"body":{"kvlistValue":{"values":[{"key":"messages","value":{"stringValue":"secret"}}]}},
            "attributes":[
              {"key":"i","value":{"intValue":"-5"}},{"key":"n","value":{"intValue":6}},{"key":"d","value":{"doubleValue":7}},
              {"key":"f","value":{"doubleValue":"NaN"}},{"key":"b","value":{"boolValue":true}},
              {"key":"a","value":{"arrayValue":{"values":[{"stringValue":"stop"}]}}},
              {"key":"k","value":{"kvlistValue":{"values":[]}}},{"key":"y","value":{"bytesValue":"AAEC"}}],
            "unknown":{"deep":[1,2,{"x":null}]}}]}]}],"other":1}"#;
        let read = request(json.as_bytes()).unwrap();
        let logs = &read.resource_logs[0];
        assert_eq!(logs.resource.as_ref().unwrap().attributes.len(), 3);
        let record = &logs.scope_logs[0].log_records[0];
        assert_eq!(record.time_unix_nano, 1_700_000_000_123_000_000);
        assert_eq!(record.observed_time_unix_nano, 1_700_000_000_124_000_000);
        assert_eq!((record.trace_id.len(), record.trace_id[0], record.span_id[7]), (16, 0x5b, 0x74));
        assert_eq!((record.event_name.as_str(), &record.body), ("e", &None));
        let values: Vec<_> = record.attributes.iter().map(|pair| pair.value.clone().unwrap().value).collect();
        use common::any_value::Value;
        assert_eq!(values[0], Some(Value::IntValue(-5)));
        assert_eq!(values[1], Some(Value::IntValue(6)));
        assert_eq!(values[2], Some(Value::DoubleValue(7.0)));
        assert!(matches!(values[3], Some(Value::DoubleValue(number)) if number.is_nan()));
        assert_eq!(values[4], Some(Value::BoolValue(true)));
        assert!(matches!(&values[5], Some(Value::ArrayValue(array)) if array.values.len() == 1));
        assert_eq!(values[6..], [None, None]);
    }

    #[test]
    fn null_and_what_is_left_out_is_the_default() {
        let empty = ExportLogsServiceRequest::default();
        assert_eq!(request(b"{}").unwrap(), empty);
        assert_eq!(request(br#"{"resourceLogs":null}"#).unwrap(), empty);
        let read = request(br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"","attributes":null}]}]}]}"#);
        let record = &read.unwrap().resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(record, &logs::LogRecord::default());
        assert!(UsageEvent::from_log_record(record).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let record = |field: &str| format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{field}}}]}}]}}]}}"#);
        let path = "resourceLogs[0].scopeLogs[0].logRecords[0]";
        let cases = [
            (record(r#""timeUnixNano":"-1""#), format!("{path}.timeUnixNano: `-1` is no whole number of 64 bits")),
            (record(r#""timeUnixNano":1.5"#), format!("{path}.timeUnixNano: `1.5` is no whole number of 64 bits")),
            (record(r#""traceId":"xyz0""#), format!("{path}.traceId: an id is in hexadecimal")),
            (record(r#""spanId":"abc""#), format!("{path}.spanId: an id is in hexadecimal")),
            (record(r#""attributes":[["key",null]]"#), format!("{path}.attributes[0]: invalid type: sequence")),
            (record(r#""eventName":5"#), format!("{path}.eventName: invalid type: integer `5`")),
            ("{".to_owned(), "EOF while parsing an object".to_owned()),
            ("{} x".to_owned(), "trailing characters".to_owned()),
            ("[".repeat(100_000), "invalid type: sequence".to_owned()),
        ];
        for (json, message) in cases {
            let error = request(json.as_bytes()).unwrap_err();
            assert!(error.contains(&message), "{error}");
        }
        let deep =
            format!(r#"{{"key":"x","value":{}1{}}}"#, r#"{"arrayValue":{"values":["#.repeat(200), "]}}".repeat(200));
        let error = request(record(&format!(r#""attributes":[{deep}]"#)).as_bytes()).unwrap_err();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }
}
