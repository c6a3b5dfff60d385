//! A request's body on its way up: read, held while the call is decided on, and changed where its answer would not tell
//! its usage.

use tollgate_usage::{Endpoint, RequestFacts, RequestReader, apply};

use crate::config::{self, AcceptEncoding, Config, ReadBody, StreamUsage};
use crate::headers::{HeaderEdit, Headers, text};
use crate::{BYTES_PER_TOKEN, to_u64};

/// A request's body, and those of its headers that depend on it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None` where the body is neither JSON nor a form of pictures, or is compressed: then nothing is known of it.
    reader: Option<RequestReader>,
    rewrites: Rewrites,
    unread_costs: UnreadCosts,
    content_length: Option<u64>,
    accept_encoding: Option<String>,
    progress: Progress,
    /// Bytes that came, and bytes that stand in their place.
    received_bytes: u64,
    forwarded_bytes: u64,
    /// Of the bytes that stand, those that Envoy holds.
    held_bytes: usize,
}

/// Whether the body may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewrites {
    /// It may: a stream of this format tells its usage only when it is asked to.
    Allowed,
    /// It stays as it is.
    None,
}

/// What a body is taken to cost that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnreadCosts {
    /// It may be anything.
    Nothing,
    /// It is a prompt: whoever sends it compressed, or broken, gains nothing by that.
    ByItsBytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// More is to come.
    Open,
    /// All has come.
    Complete,
}

impl RequestBody {
    /// The body of a request with these headers. `has_body`: whether anything follows them.
    pub(crate) fn new(
        headers: &impl Headers,
        has_body: bool,
        endpoint: Option<&Endpoint>,
        config: &Config,
    ) -> RequestBody {
        let is_asked = endpoint.is_some_and(Endpoint::tells_usage_when_asked);
        let is_read = has_body && is_readable(headers, endpoint);
        let makes_images = endpoint.is_some_and(|endpoint| endpoint.format.default_images() > 0);
        let content_type = text(headers, "content-type").filter(|_| has_body && makes_images && is_plain(headers));
        let form = content_type.and_then(|content_type| RequestReader::of_form(endpoint, content_type));
        let rewrites = match config.stream_usage {
            StreamUsage::Ask if is_asked && is_read && !is_signed(headers) => Rewrites::Allowed,
            _ => Rewrites::None,
        };
        RequestBody {
            reader: form.or_else(|| {
                is_read.then(|| match rewrites {
                    Rewrites::Allowed => RequestReader::new(endpoint),
                    Rewrites::None => RequestReader::without_edits(endpoint),
                })
            }),
            rewrites,
            unread_costs: match endpoint {
                // It may be pictures, whose bytes are no text.
                Some(_) if makes_images => UnreadCosts::Nothing,
                Some(_) => UnreadCosts::ByItsBytes,
                None => UnreadCosts::Nothing,
            },
            content_length: text(headers, "content-length").and_then(|length| length.parse().ok()),
            accept_encoding: text(headers, "accept-encoding").map(str::to_owned),
            progress: if has_body { Progress::Open } else { Progress::Complete },
            received_bytes: 0,
            forwarded_bytes: 0,
            held_bytes: 0,
        }
    }

    /// Whether it is worth to wait for this body: it can be read, and may be held.
    pub(crate) fn is_worth_holding(&self, settings: config::RequestBody) -> bool {
        self.progress == Progress::Open && self.reader.is_some() && self.may_be_held(settings)
    }

    /// Whether it says how long it is.
    pub(crate) fn has_known_length(&self) -> bool {
        self.content_length.is_some()
    }

    /// Whether what has come of this body may stay with Envoy, which refuses what outgrows its buffer: a body that may do so
    /// must not even begin to be held.
    pub(crate) fn may_be_held(&self, settings: config::RequestBody) -> bool {
        let max_bytes = to_u64(settings.max_bytes);
        let is_announced_so = match self.content_length {
            Some(length) => length <= max_bytes,
            None => settings.read == ReadBody::Always,
        };
        is_announced_so && self.forwarded_bytes <= max_bytes
    }

    /// Takes the next bytes. Gives what is to stand in their place, where that differs.
    pub(crate) fn take(&mut self, bytes: &[u8], is_last: bool) -> Option<Vec<u8>> {
        if is_last {
            self.progress = Progress::Complete;
        }
        let offset = self.received_bytes;
        self.received_bytes = offset.saturating_add(to_u64(bytes.len()));
        let edits = self.reader.as_mut().map(|reader| reader.feed(bytes)).unwrap_or_default();
        let replaced = (!edits.is_empty()).then(|| apply(&edits, bytes, offset));
        let forwarded = replaced.as_ref().map_or(bytes.len(), Vec::len);
        self.forwarded_bytes = self.forwarded_bytes.saturating_add(to_u64(forwarded));
        replaced
    }

    /// Bytes that came stay with Envoy until the call goes on.
    pub(crate) fn hold(&mut self) {
        self.held_bytes = usize::try_from(self.forwarded_bytes).unwrap_or(usize::MAX);
    }

    /// Envoy holds nothing any more.
    pub(crate) fn release(&mut self) {
        self.held_bytes = 0;
    }

    /// How many of the bytes in Envoy's buffer have been taken before.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many bytes the client has sent.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// What was read up to here; `None` of a body that can't be read.
    pub(crate) fn facts(&self) -> Option<RequestFacts> {
        self.reader.as_ref().map(RequestReader::facts)
    }

    /// Whether it asks for a stream, as far as the body has come.
    pub(crate) fn asks_for_stream(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.stream() == Some(true))
    }

    /// The prompt's tokens, as far as the body has come.
    pub(crate) fn input_estimate(&self, facts: Option<&RequestFacts>) -> u64 {
        let read = facts.map_or(0, |facts| facts.input_estimate);
        let is_unread = self.progress == Progress::Complete && !facts.is_some_and(|facts| facts.complete);
        match self.unread_costs {
            UnreadCosts::ByItsBytes if is_unread => read.max(self.received_bytes.div_ceil(BYTES_PER_TOKEN)),
            _ => read,
        }
    }

    /// Whether the body asks for usage because of us.
    pub(crate) fn usage_is_ours(&self) -> bool {
        self.reader.as_ref().is_some_and(RequestReader::usage_is_ours)
    }

    /// What is to change on the headers, now that they go on.
    pub(crate) fn header_edits(&self, config: &Config) -> Vec<HeaderEdit> {
        let may_change = self.rewrites == Rewrites::Allowed && self.progress == Progress::Open;
        let mut edits = Vec::new();
        if self.content_length.is_some() {
            if may_change {
                edits.push(("content-length".into(), None));
            } else if self.received_bytes != self.forwarded_bytes {
                edits.push(("content-length".into(), Some(self.forwarded_bytes.to_string())));
            }
        }
        if let Some(accepted) = &self.accept_encoding {
            let narrowed = match config.accept_encoding {
                // What has to be taken out of the answer again must not come compressed.
                _ if may_change || self.usage_is_ours() => None,
                AcceptEncoding::Narrow => tollgate_usage::readable_codings(accepted),
                AcceptEncoding::Remove => None,
                AcceptEncoding::Leave => Some(accepted.clone()),
            };
            if narrowed.as_ref() != Some(accepted) {
                edits.push(("accept-encoding".into(), narrowed));
            }
        }
        edits
    }
}

/// Whether the body is one that can be read. On an endpoint that a format claims all are tried that may be JSON, whatever
/// they are called: upstreams do so too.
fn is_readable(headers: &impl Headers, endpoint: Option<&Endpoint>) -> bool {
    let media_type = text(headers, "content-type").unwrap_or_default().to_ascii_lowercase();
    let may_be_json = match endpoint {
        Some(_) => !media_type.starts_with("multipart/"),
        None => media_type.is_empty() || media_type.contains("json"),
    };
    may_be_json && is_plain(headers)
}

/// Whether the body is not compressed.
fn is_plain(headers: &impl Headers) -> bool {
    headers.get("content-encoding").is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity"))
}

/// Whether the body's bytes are signed, so that none may change: AWS Signature Version 4, and digests (RFC 9530, RFC 3230).
fn is_signed(headers: &impl Headers) -> bool {
    let is_aws = headers.get("authorization").is_some_and(|value| value.starts_with(b"AWS4-"));
    is_aws || ["content-digest", "repr-digest", "digest", "content-md5"].iter().any(|name| headers.get(name).is_some())
}
