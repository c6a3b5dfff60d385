//! What a request tells the stand-in to do, by its headers.
//!
//! | header | meaning |
//! |---|---|
//! | `x-standin-chunks: N` | the completion is N tokens long (default 8), one content chunk each in a stream |
//! | `x-standin-cut: N` | the body leaves in pieces of N bytes, whatever its lines |
//! | `x-standin-delay-ms: N` | wait before each piece of the body |
//! | `x-standin-gate: ID` | each piece but the first waits for one `POST /standin/gates/ID` |
//! | `x-standin-replay: FILE` | answer with this recorded body, its type by the extension |
//! | `x-standin-status: N` | answer with this status and an error body |
//! | `x-standin-reset-after-bytes: N` | close the connection after N bytes of the body; 0: before the response's headers |

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use hyper::{HeaderMap, StatusCode};

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
    /// The recorded body to answer with.
    pub replay: Option<String>,
    /// The status to fail with.
    pub status: Option<StatusCode>,
    /// Where to break off.
    pub reset: Option<Reset>,
}

/// Where the connection is closed on a client that still waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Nothing is answered at all.
    BeforeHeaders,
    /// So many bytes of the body are sent.
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
            let value = value.to_str().map_err(|_| format!("{name}: not ASCII"))?;
            match instruction {
                "chunks" => script.chunks = Some(parse(name.as_str(), value)?),
                "cut" => script.cut_bytes = Some(parse(name.as_str(), value)?),
                "delay-ms" => script.delay = Some(Duration::from_millis(parse(name.as_str(), value)?)),
                "gate" => script.gate = Some(value.to_owned()),
                "replay" => script.replay = Some(value.to_owned()),
                "status" => script.status = Some(parse(name.as_str(), value)?),
                "reset-after-bytes" => {
                    let bytes = parse(name.as_str(), value)?;
                    script.reset = Some(NonZeroUsize::new(bytes).map_or(Reset::BeforeHeaders, Reset::AfterBytes));
                }
                _ => return Err(format!("{name}: the stand-in knows no such instruction")),
            }
        }
        Ok(script)
    }
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value:?} is no such number as it takes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

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
        let reset = |bytes| read(&[("x-standin-reset-after-bytes", bytes)]).unwrap().reset;
        assert_eq!(reset("0"), Some(Reset::BeforeHeaders));
        assert_eq!(reset("7"), Some(Reset::AfterBytes(NonZeroUsize::new(7).unwrap())));
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(read(&[("x-standin-cut", "0")]).unwrap_err().starts_with("x-standin-cut: "));
        assert!(read(&[("x-standin-chunk", "5")]).unwrap_err().starts_with("x-standin-chunk: "));
        assert!(read(&[("x-standin-status", "9999")]).unwrap_err().starts_with("x-standin-status: "));
    }
}
