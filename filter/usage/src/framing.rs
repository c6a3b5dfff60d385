//! From bytes to JSON documents: one body, lines, or the events of a stream.
//!
//! The framing is recognised by the first byte that is neither whitespace nor part of a byte order mark; only lines, which
//! begin like a body, need the content type.

mod event_stream;
mod lines;
mod sse;

use event_stream::EventStream;
use lines::Lines;
use sse::Sse;

/// Takes the documents of a response.
pub(crate) trait Documents {
    /// Takes a piece of the current document and returns how much of it that was: less than all when the document's value
    /// has ended and something other than whitespace follows.
    fn part(&mut self, bytes: &[u8]) -> usize;
    /// The current document has ended.
    fn end(&mut self);
    /// The current document is an error of this kind.
    fn failed(&mut self, kind: &[u8]);
    /// The next document begins, and only behind its end is it known whether it came as it was sent.
    fn begin_unchecked(&mut self) {}
    /// The document that began so did not, or not to its end: what it told does not count.
    fn take_back(&mut self) {}
    /// The length of the document that these bytes begin with, when that is known without a look for its end. There is no
    /// control character in it. Nothing is taken.
    fn known_length(&mut self, bytes: &[u8]) -> Option<usize> {
        let _ = bytes;
        None
    }
    /// Takes a document that lies in one piece, at a time when no other has begun.
    fn whole(&mut self, bytes: &[u8]) {
        self.part(bytes);
        self.end();
    }
}

/// How the documents of a response are told apart.
#[derive(Debug)]
pub(crate) enum Framing {
    /// Nothing but whitespace was seen.
    Unknown(Objects),
    /// JSON values, one after the other: a body, or lines that nobody announced.
    Values,
    /// One document a line.
    Lines(Lines),
    /// Server-sent events.
    Sse(Sse),
    /// Amazon's binary frames.
    EventStream(Box<EventStream>),
}

/// What it means when the first byte is an object's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Objects {
    Values,
    Lines,
}

impl Framing {
    /// The framing of a response whose first byte has not come yet.
    pub(crate) fn new(content_type: Option<&str>) -> Framing {
        let media_type = content_type.and_then(|full| full.split(';').next()).unwrap_or_default().trim();
        let is_lines = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/stream+json"]
            .iter()
            .any(|lines| lines.eq_ignore_ascii_case(media_type));
        Framing::Unknown(if is_lines { Objects::Lines } else { Objects::Values })
    }

    /// Takes the next bytes of the response.
    pub(crate) fn feed(&mut self, bytes: &[u8], documents: &mut impl Documents) {
        let mut bytes = bytes;
        if let Framing::Unknown(objects) = *self {
            let before = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF);
            let Some(start) = bytes.iter().position(|byte| !before(byte)) else { return };
            bytes = bytes.get(start..).unwrap_or_default();
            *self = match (bytes.first(), objects) {
                (Some(b'{'), Objects::Lines) => Framing::Lines(Lines::default()),
                (Some(b'{' | b'['), _) => Framing::Values,
                // The length of a frame of less than 16 MiB.
                (Some(0), _) => Framing::EventStream(Box::default()),
                _ => Framing::Sse(Sse::default()),
            };
        }
        match self {
            Framing::Unknown(_) => {}
            Framing::Values => values(bytes, documents),
            Framing::Lines(lines) => lines.feed(bytes, documents),
            Framing::Sse(sse) => sse.feed(bytes, documents),
            Framing::EventStream(frames) => frames.feed(bytes, documents),
        }
    }

    /// Whether the bytes are not what a checksum or a length among them says.
    pub(crate) fn is_corrupt(&self) -> bool {
        matches!(self, Framing::EventStream(frames) if frames.is_broken())
    }

    /// The response has ended.
    pub(crate) fn finish(&mut self, documents: &mut impl Documents) {
        match self {
            Framing::Unknown(_) => {}
            Framing::EventStream(frames) => frames.finish(documents),
            Framing::Values | Framing::Lines(_) => documents.end(),
            Framing::Sse(sse) => sse.finish(documents),
        }
    }
}

/// A document ends where its value does, and what follows is the next.
fn values(bytes: &[u8], documents: &mut impl Documents) {
    let mut rest = bytes;
    loop {
        let taken = documents.part(rest);
        rest = rest.get(taken..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        documents.end();
    }
}
