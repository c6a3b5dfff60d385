//! One response, from its first byte to what it told.

use crate::document::Document;
use crate::format::{Format, Formats, TABLE, TokenUsage};
use crate::framing::Framing;

/// What is known about a response before its body: hints only, the content decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The response's `content-type`. Only JSON lines need it.
    pub content_type: Option<&'a str>,
    /// The request's path. It speaks for a format only where the content fits several.
    pub path: Option<&'a str>,
}

/// Reads one response as its bytes pass.
#[derive(Debug)]
pub struct Reader {
    framing: Framing,
    document: Document,
    hinted: Formats,
}

/// What a response told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The format; `None` when the response bears no format's marks.
    pub format: Option<Format>,
    /// The tokens; `None` when the response reported none.
    pub usage: Option<TokenUsage>,
    /// The model that answered, its first 256 bytes.
    pub model: Option<String>,
    /// The provider's id of the response, its first 256 bytes.
    pub response_id: Option<String>,
    /// Why the model stopped: each reason once, in the order of their coming, at most 16 of at most 256 bytes.
    pub finish_reasons: Vec<String>,
    /// Whether the response was read to its own end.
    pub end: End,
}

/// Whether a response was read to its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was: a body's JSON is closed; a stream sent `[DONE]`, or else both a finish reason and usage. (Some providers
    /// send no `[DONE]`; with both seen, nothing that is read here is still to come.)
    Complete,
    /// The bytes ended before that.
    Cut,
}

impl Reader {
    /// A reader at the start of a response.
    pub fn new(hints: Hints<'_>) -> Reader {
        let speaks = |request_path: &str| hints.path.is_some_and(|path| path.contains(request_path));
        let hinted = TABLE.iter().filter(|spec| speaks(spec.request_path));
        Reader {
            framing: Framing::new(hints.content_type),
            document: Document::new(),
            hinted: hinted.fold(Formats::NONE, |formats, spec| formats.and(Formats::only(spec.format))),
        }
    }

    /// Takes the next bytes of the body, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.framing.feed(bytes, &mut self.document);
    }

    /// What the bytes told, up to here: they may end anywhere.
    pub fn finish(mut self) -> Report {
        let is_closed_body = matches!(self.framing, Framing::Values) && self.document.is_closed();
        self.framing.finish(&mut self.document);
        let facts = self.document.facts;
        let format = facts.format(self.hinted);
        Report {
            format,
            usage: facts.usage(format),
            end: if is_closed_body || facts.are_complete(format) { End::Complete } else { End::Cut },
            model: facts.model,
            response_id: facts.response_id,
            finish_reasons: facts.finish_reasons,
        }
    }
}
