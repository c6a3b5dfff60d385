//! Takes out of an OpenAI stream what it has only because usage was asked for in the client's stead
//! (`stream_options.include_usage`): the client gets, byte for byte, what it would have got.
//!
//! Removed are
//!
//! - the usage chunk: an event, with its empty line, whose document has an empty array of `choices` and an object `usage`
//!   (OpenAI API reference, "The chat completion chunk object"); comments between its lines stay;
//! - `"usage":null`, at the top of every other event's document, with its comma.
//!
//! What holds, whatever the bytes are:
//!
//! - **Nothing else is touched**, lost or reordered, and the cut does not matter.
//! - **A byte waits only while it can still be part of what is removed**, and never more than [`MAX_HELD_BYTES`]: an event
//!   until its `choices` turn out not to be empty, or anything else shows that it is no usage chunk; a comma until the
//!   member behind it is another. An event that is longer passes.

mod members;

use std::mem;

use memchr::memchr2;

use members::{Members, Step, Verdict};

/// The most that waits, in bytes. Usage chunks have a few hundred.
pub const MAX_HELD_BYTES: usize = 64 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
const DATA: &[u8] = b"data";
/// The fields of a server-sent event. A usage chunk has no other line.
const FIELDS: [&[u8]; 4] = [DATA, b"event", b"id", b"retry"];
const MAX_FIELD_BYTES: usize = 5;

/// Removes from one response, which has to be server-sent events, as its bytes pass.
#[derive(Debug, Default)]
pub struct Strip {
    line: Line,
    event: Event,
    last: Last,
    members: Members,
    /// What waits.
    held: Vec<u8>,
    /// Where in `held` begins what may be a member to remove.
    member: Option<usize>,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// The byte order mark, if there is one, of which so many bytes have come.
    Mark(usize),
    /// A line.
    Start,
    /// A field's name, or its colon.
    Name { bytes: [u8; MAX_FIELD_BYTES], len: usize },
    /// The value of `data`, or the space before it.
    Colon,
    /// The value of `data`.
    Data,
    /// A comment or another field.
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Line::Mark(0)
    }
}

/// What becomes of the current event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Event {
    /// Nothing of it has come, perhaps but comments.
    #[default]
    Due,
    /// It waits.
    Held,
    /// It is not removed.
    Passes,
}

/// The last byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Any,
    /// A line feed that follows belongs to the line that has ended.
    CarriageReturn,
    /// The same, and the line went with its event.
    RemovedCarriageReturn,
}

/// The bytes on their way.
struct Passage<'a> {
    bytes: &'a [u8],
    /// How many of them were sent or dropped.
    done: usize,
    out: &'a mut Vec<u8>,
}

impl Passage<'_> {
    /// What is not done, before this place.
    fn waiting(&self, before: usize) -> &[u8] {
        self.bytes.get(self.done..before).unwrap_or_default()
    }

    fn send(&mut self, before: usize) {
        let waiting = self.bytes.get(self.done..before).unwrap_or_default();
        self.out.extend_from_slice(waiting);
        self.done = before;
    }

    /// Drops an event, but not its comments.
    fn drop_event(&mut self, before: usize) {
        let mut rest = self.bytes.get(self.done..before).unwrap_or_default();
        while let Some(last) = memchr2(b'\n', b'\r', rest).or(rest.len().checked_sub(1)) {
            let is_pair = rest.get(last..last + 2) == Some(b"\r\n");
            let (line, after) = rest.split_at_checked(last + 1 + usize::from(is_pair)).unwrap_or((rest, &[]));
            if line.first() == Some(&b':') {
                self.out.extend_from_slice(line);
            }
            rest = after;
        }
        self.done = before;
    }
}

impl Strip {
    /// At the start of a response.
    pub fn new() -> Strip {
        Strip::default()
    }

    /// Takes the next bytes of the body, cut anywhere, and appends to `out` what goes on: those that need not wait, behind
    /// those that waited and stay.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut held = mem::take(&mut self.held);
        if held.is_empty() {
            let done = self.pass(Passage { bytes, done: 0, out }, 0);
            held.extend_from_slice(bytes.get(done..).unwrap_or_default());
        } else {
            let seen = held.len();
            held.extend_from_slice(bytes);
            let done = self.pass(Passage { bytes: &held, done: 0, out }, seen);
            held.drain(..done.min(held.len()));
            held.shrink_to(MAX_HELD_BYTES);
        }
        self.held = held;
    }

    /// The body has ended: appends to `out` what waited and stays. A usage chunk that is whole but for its empty line goes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let Strip { event, members, held, .. } = mem::take(self);
        let mut passage = Passage { bytes: &held, done: 0, out };
        if event == Event::Held && members.verdict() == Verdict::UsageChunk {
            passage.drop_event(held.len());
        } else {
            passage.send(held.len());
        }
    }

    /// Passes bytes of which the first `seen` waited. Returns how many are done.
    fn pass(&mut self, mut passage: Passage<'_>, seen: usize) -> usize {
        let mut at = seen;
        while let Some(rest) = passage.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += self.step(rest, at, &mut passage);
            self.settle(at, &mut passage);
        }
        self.member = self.member.map(|member| member.saturating_sub(passage.done));
        passage.done
    }

    /// Sends what has no reason to wait, or too long a one, before this place.
    fn settle(&mut self, at: usize, passage: &mut Passage<'_>) {
        if passage.waiting(at).len() >= MAX_HELD_BYTES {
            self.event = Event::Passes;
            self.member = None;
        }
        match self.event {
            Event::Held => {}
            Event::Due | Event::Passes => passage.send(self.member.unwrap_or(at)),
        }
    }

    /// Takes some of these bytes, which are at this place, and returns how many.
    fn step(&mut self, rest: &[u8], at: usize, passage: &mut Passage<'_>) -> usize {
        let Some(&byte) = rest.first() else { return 0 };
        let last = mem::take(&mut self.last);
        if byte == b'\n' && last != Last::Any {
            if last == Last::RemovedCarriageReturn {
                passage.done = at + 1;
            }
            return 1;
        }
        match (self.line, byte) {
            (Line::Mark(len), _) => return self.mark(len, byte),
            (_, b'\n' | b'\r') => {
                if byte == b'\r' {
                    self.last = Last::CarriageReturn;
                }
                self.end_line(at, passage);
            }
            (Line::Start, b':') => {
                self.member = None;
                self.line = Line::Other;
            }
            (Line::Start, _) => {
                if self.event == Event::Due {
                    self.event = Event::Held;
                }
                self.line = Line::Name { bytes: [0; MAX_FIELD_BYTES], len: 0 };
                return 0;
            }
            (Line::Name { bytes, len }, _) => self.name(bytes, len, byte),
            (Line::Colon, _) => {
                self.line = Line::Data;
                return usize::from(byte == b' ');
            }
            (Line::Data, _) => {
                let value = rest.get(..memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())).unwrap_or_default();
                self.data(value, at, passage);
                return value.len();
            }
            (Line::Other, _) => return memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()),
        }
        1
    }

    fn mark(&mut self, len: usize, byte: u8) -> usize {
        match BYTE_ORDER_MARK.get(len) {
            Some(expected) if *expected == byte => {
                self.line = if len + 1 < BYTE_ORDER_MARK.len() { Line::Mark(len + 1) } else { Line::Start };
                1
            }
            _ if len == 0 => {
                self.line = Line::Start;
                0
            }
            // A part of a mark is the beginning of some field that nobody knows.
            _ => {
                self.pass_event();
                0
            }
        }
    }

    /// A byte of a field's name, or the colon behind it.
    fn name(&mut self, mut bytes: [u8; MAX_FIELD_BYTES], len: usize, byte: u8) {
        let name = bytes.get(..len).unwrap_or_default();
        if byte == b':' {
            return self.named(name);
        }
        let is_field = FIELDS.iter().any(|field| field.starts_with(name) && field.get(len) == Some(&byte));
        match bytes.get_mut(len) {
            Some(slot) if is_field => {
                *slot = byte;
                self.line = Line::Name { bytes, len: len + 1 };
            }
            _ => self.pass_event(),
        }
    }

    /// A field's name is complete.
    fn named(&mut self, name: &[u8]) {
        if name == DATA {
            self.line = Line::Colon;
        } else if FIELDS.contains(&name) {
            self.member = None;
            self.line = Line::Other;
        } else {
            self.pass_event();
        }
    }

    /// The line is one that no usage chunk has.
    fn pass_event(&mut self) {
        self.event = Event::Passes;
        self.member = None;
        self.line = Line::Other;
    }

    /// The line ends with the byte at this place.
    fn end_line(&mut self, at: usize, passage: &mut Passage<'_>) {
        if let Line::Name { bytes, len } = self.line {
            self.named(bytes.get(..len).unwrap_or_default());
        }
        match self.line {
            Line::Start => {
                if self.event == Event::Held && self.members.verdict() == Verdict::UsageChunk {
                    passage.drop_event(at + 1);
                    if self.last == Last::CarriageReturn {
                        self.last = Last::RemovedCarriageReturn;
                    }
                }
                self.event = Event::Due;
                self.members = Members::default();
                self.member = None;
            }
            // The lines of a document are joined by line feeds.
            Line::Colon | Line::Data => self.data(b"\n", at, passage),
            Line::Mark(_) | Line::Name { .. } | Line::Other => {}
        }
        self.line = Line::Start;
    }

    /// Bytes of the document, which are at this place.
    fn data(&mut self, value: &[u8], at: usize, passage: &mut Passage<'_>) {
        let mut rest = value;
        while !rest.is_empty() {
            let (taken, step) = self.members.feed(rest);
            rest = rest.get(taken..).unwrap_or_default();
            let behind = at + value.len() - rest.len();
            match step {
                Step::Outside => self.member = None,
                Step::Begins => self.member = Some(behind.saturating_sub(1)),
                Step::Inside => {}
                Step::Behind => {
                    if let Some(member) = self.member.take() {
                        passage.send(member);
                        passage.done = behind;
                    }
                }
            }
            if self.members.verdict() == Verdict::Other {
                self.event = Event::Passes;
            }
            self.settle(behind, passage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(stream: &[u8], chunk_bytes: usize) -> Vec<u8> {
        let (mut strip, mut out) = (Strip::new(), Vec::new());
        stream.chunks(chunk_bytes).for_each(|chunk| strip.feed(chunk, &mut out));
        strip.finish(&mut out);
        out
    }

    #[track_caller]
    fn assert_stripped(stream: &str, expected: &str) {
        for chunk_bytes in [1, 2, 3, 7, usize::MAX] {
            let out = stripped(stream.as_bytes(), chunk_bytes);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{stream:?} in chunks of {chunk_bytes}");
        }
    }

    const USAGE: &str = "{\"id\":\"i\",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}";

    #[test]
    fn the_usage_chunk_goes_whole() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = |events: &[&str]| {
                let events = events.iter().map(|event| event.replace('\n', end) + end + end);
                events.collect::<String>()
            };
            let (content, done) = ("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}", "data: [DONE]");
            let kept = stream(&[content, done]);
            for usage in [
                format!("data: {USAGE}"),
                format!("data:{USAGE}"),
                format!("id: 1\nevent: message\ndata: {USAGE}\nretry: 1"),
                "data: {\"usage\":{\"a\":{\"b\":[\"]}\"]}},\ndata: \"choices\" : [ ],\ndata\ndata: \"object\":1}"
                    .to_owned(),
            ] {
                assert_stripped(&stream(&[content, &usage, done]), &kept);
                assert_stripped(&stream(&[&usage, content, done]), &kept);
                assert_stripped(&format!("\u{feff}{}", stream(&[&usage, content, done])), &format!("\u{feff}{kept}"));
                assert_stripped(&format!("{kept}{}", usage.replace('\n', end)), &kept);
            }
            let comments = format!(": a{end}: b{end}{kept}");
            let commented = ": a\ndata: {\"usage\":{},\n: b\ndata: \"choices\":[]}".replace('\n', end);
            assert_stripped(&format!("{commented}{end}{end}{kept}"), &comments);
        }
    }

    #[test]
    fn the_null_goes_with_its_comma() {
        for (document, expected) in [
            ("{\"choices\":[{}],\"usage\":null}", "{\"choices\":[{}]}"),
            ("{\"a\":1 , \"usage\" : null , \"b\":2}", "{\"a\":1  , \"b\":2}"),
            ("{ \"usage\": null, \"b\":2 }", "{ \"b\":2 }"),
            ("{\"usage\":null,\"choices\":[{}]}", "{\"choices\":[{}]}"),
            ("{\"usage\":null}", "{}"),
            ("{\"a\":\"\\\"\",\"usage\":null,\"usage\":null}", "{\"a\":\"\\\"\"}"),
            ("{\"a\":1,\ndata: \"usage\":null\ndata: }", "{\"a\":1\ndata: }"),
            ("{\ndata: \"usage\":null,\ndata: \"a\":1}", "{\ndata: \"a\":1}"),
        ] {
            assert_stripped(&format!("data: {document}\n\n"), &format!("data: {expected}\n\n"));
        }
    }
}
