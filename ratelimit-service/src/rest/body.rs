//! Bodies of requests, read as JSON; an error names the path of the field.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::error::Category;

use super::problem::Problem;

/// What the body says, where it is said to be JSON.
pub(super) fn json<'a, T: Deserialize<'a>>(headers: &HeaderMap, body: &'a [u8]) -> Result<T, Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str).and_then(Result::ok);
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
    match media_type.trim().eq_ignore_ascii_case("application/json") {
        true => parse(body),
        false => {
            let what = "content-type: application/json is understood";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what))
        }
    }
}

/// Likewise, of what is an object: a list would be read as one of its fields.
pub(super) fn object<'a, T: Deserialize<'a>>(headers: &HeaderMap, body: &'a [u8]) -> Result<T, Problem> {
    match body.trim_ascii_start().first() {
        Some(b'[') => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the body is no JSON object")),
        _ => json(headers, body),
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let refused = |error: &serde_json::Error, what: String| {
        let status = match error.classify() {
            Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, what)
    };
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| refused(error.inner(), error.to_string()))?;
    deserializer.end().map_err(|error| refused(&error, error.to_string()))?;
    Ok(value)
}
