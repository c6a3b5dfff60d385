//! What a request tells the stand-in to do, by its headers.
//!
//! | header | meaning |
//! |---|---|
//! | `x-standin-chunks: N` | the completion is N tokens long (default 8), one content chunk each in a stream |
//! | `x-standin-cut: N` | the body leaves in pieces of N bytes, whatever its lines |
//! | `x-standin-delay-ms: N` | wait before each piece of the body |
//! | `x-standin-gate: ID` | each piece but the first waits for one `POST /standin/gates/ID` |
//! | `x-standin-encoding: CODING` | the body is compressed: `gzip`, `deflate` or `br` |
//! | `x-standin-header-NAME: VALUE` | the response has this header too |
//! | `x-standin-replay: FILE` | answer with this recorded body, its type by the extension |
//! | `x-standin-status: N` | fail with this status and the API's error body |
//! | `x-standin-reset-after-bytes: N` | fail: close the connection after N bytes of the body; 0: before the response's headers |
//! | `x-standin-hang-after-bytes: N` | fail: send nothing more after N bytes of the body; 0: nothing at all |
//! | `x-standin-fail-attempts: N` | fail (by status 503, if nothing else is told) the first N attempts only, told by `x-request-id` |

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::encoding::Encoding;

/// A request's instructions; the default asks for nothing unusual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// The completion's length in tokens.
    pub chunks: Option<u32>,
    /// The size of the body's pieces.
    pub cut_bytes: Option<NonZeroUsize>,
    /// What each piece waits for.
    pub delay: Option<Duration>,
    /// The gate that each piece but the first waits at.
    pub gate: Option<String>,
    /// How the body is compressed.
    pub encoding: Option<Encoding>,
    /// More headers of the response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The recorded body to answer with.
    pub replay: Option<String>,
    /// How to fail.
    pub failure: Failure,
    /// How many attempts fail; all, when `None`.
    pub fail_attempts: Option<u32>,
}

/// How an answer fails; the default does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failure {
    /// The status to fail with.
    pub status: Option<StatusCode>,
    /// Where to break off.
    pub breaks: Option<(Break, Place)>,
}

/// What becomes of a client that still waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The connection is closed on it.
    Reset,
    /// It waits for ever.
    Hang,
}

/// How much of an answer comes before the break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing at all.
    BeforeHeaders,
    /// The headers, and so many bytes of the body.
    AfterBytes(NonZeroUsize),
}

impl Script {
    /// Reads the `x-standin-*` headers.
    ///
    /// # Errors
    /// Says which header is unknown or has no such value as it should.
    pub fn read(headers: &HeaderMap) -> Result<Script, String> {
        let mut script = Script::default();
        for (name, value) in headers {
            let Some(instruction) = name.as_str().strip_prefix("x-standin-") else { continue };
            if let Some(header) = instruction.strip_prefix("header-") {
                script.headers.push((parse(name.as_str(), header)?, value.clone()));
                continue;
            }
            let value = value.to_str().map_err(|_| format!("{name}: not ASCII"))?;
            let place = || {
                let bytes = parse(name.as_str(), value)?;
                Ok::<_, String>(NonZeroUsize::new(bytes).map_or(Place::BeforeHeaders, Place::AfterBytes))
            };
            match instruction {
                "chunks" => script.chunks = Some(parse(name.as_str(), value)?),
                "cut" => script.cut_bytes = Some(parse(name.as_str(), value)?),
                "delay-ms" => script.delay = Some(Duration::from_millis(parse(name.as_str(), value)?)),
                "gate" => script.gate = Some(value.to_owned()),
                "encoding" => script.encoding = Some(parse(name.as_str(), value)?),
                "replay" => script.replay = Some(value.to_owned()),
                "status" => script.failure.status = Some(parse(name.as_str(), value)?),
                "reset-after-bytes" => script.failure.breaks = Some((Break::Reset, place()?)),
                "hang-after-bytes" => script.failure.breaks = Some((Break::Hang, place()?)),
                "fail-attempts" => script.fail_attempts = Some(parse(name.as_str(), value)?),
                _ => return Err(format!("{name}: the stand-in knows no such instruction")),
            }
        }
        if script.fail_attempts.is_some() && script.failure == Failure::default() {
            script.failure.status = Some(StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(script)
    }
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value:?} is nothing that it takes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Result<Script, String> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Script::read(&headers)
    }

    #[test]
    fn headers_of_others_tell_nothing() {
        assert_eq!(read(&[("x-tenant-id", "acme"), ("content-length", "2")]), Ok(Script::default()));
    }

    #[test]
    fn zero_bytes_means_before_the_headers() {
        let breaks = |name, bytes| read(&[(name, bytes)]).unwrap().failure.breaks;
        let seven = Place::AfterBytes(NonZeroUsize::new(7).unwrap());
        assert_eq!(breaks("x-standin-reset-after-bytes", "0"), Some((Break::Reset, Place::BeforeHeaders)));
        assert_eq!(breaks("x-standin-reset-after-bytes", "7"), Some((Break::Reset, seven)));
        assert_eq!(breaks("x-standin-hang-after-bytes", "7"), Some((Break::Hang, seven)));
    }

    #[test]
    fn attempts_fail_with_503_unless_told_otherwise() {
        let status = |headers: &[(&'static str, &'static str)]| read(headers).unwrap().failure.status;
        assert_eq!(status(&[("x-standin-fail-attempts", "1")]), Some(StatusCode::SERVICE_UNAVAILABLE));
        let rate_limited = [("x-standin-fail-attempts", "1"), ("x-standin-status", "429")];
        assert_eq!(status(&rate_limited), Some(StatusCode::TOO_MANY_REQUESTS));
        let reset = [("x-standin-fail-attempts", "1"), ("x-standin-reset-after-bytes", "0")];
        assert_eq!(status(&reset), None);
    }

    #[test]
    fn a_headers_name_is_in_the_instructions() {
        let script = read(&[("x-standin-header-x-ratelimit-remaining-tokens", "5")]).unwrap();
        assert_eq!(script.headers, [("x-ratelimit-remaining-tokens".parse().unwrap(), "5".parse().unwrap())]);
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(read(&[("x-standin-cut", "0")]).unwrap_err().starts_with("x-standin-cut: "));
        assert!(read(&[("x-standin-chunk", "5")]).unwrap_err().starts_with("x-standin-chunk: "));
        assert!(read(&[("x-standin-encoding", "zip")]).unwrap_err().starts_with("x-standin-encoding: "));
        assert!(read(&[("x-standin-status", "9999")]).unwrap_err().starts_with("x-standin-status: "));
    }
}
