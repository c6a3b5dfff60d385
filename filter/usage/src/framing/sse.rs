//! Server-sent events by the grammar of the WHATWG HTML standard, on bytes: lines end with LF, CRLF or CR, an empty line
//! ends the event, its `data` lines joined by LF are the document. Two things differ, on purpose: an event that the end of
//! the stream cuts off before its empty line counts, and fields other than `data` are not looked at.

use memchr::memchr2;

use super::Documents;

const DATA: &[u8] = b"data";

/// Where in the stream the bytes stand.
#[derive(Debug, Default)]
pub(crate) struct Sse {
    line: Line,
    event: Event,
    last: Last,
}

#[derive(Debug, Default, Clone, Copy)]
enum Line {
    #[default]
    Start,
    /// Inside a field name that begins like `data`, after this many bytes.
    Name(usize),
    /// After the colon, where one space is no part of the value.
    Colon,
    /// Inside the value of `data`.
    Data,
    /// Inside a comment or another field.
    Other,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// No `data` line has come.
    #[default]
    Empty,
    /// One has.
    Begun,
}

/// The last byte.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Last {
    #[default]
    Any,
    /// A line feed that follows belongs to the line that has ended.
    CarriageReturn,
}

impl Sse {
    pub(super) fn feed(&mut self, bytes: &[u8], documents: &mut impl Documents) {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let taken = if self.last == Last::CarriageReturn && byte == b'\n' {
                self.last = Last::Any;
                1
            } else {
                self.whole_event(rest, documents).unwrap_or_else(|| self.line(rest, documents))
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    pub(super) fn finish(&mut self, documents: &mut impl Documents) {
        if self.event == Event::Begun {
            documents.end();
        }
    }

    /// The common case: an event of one `data` line that lies in these bytes with the empty line behind it.
    fn whole_event(&mut self, bytes: &[u8], documents: &mut impl Documents) -> Option<usize> {
        let (Line::Start, Event::Empty) = (self.line, self.event) else { return None };
        let value = bytes.strip_prefix(b"data:")?;
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let end = documents.known_length(value).or_else(|| memchr2(b'\n', b'\r', value))?;
        let after = value.get(end..)?;
        let gap = [&b"\n\n"[..], b"\r\n\r\n"].into_iter().find(|gap| after.starts_with(gap))?.len();
        documents.whole(value.get(..end)?);
        self.last = Last::Any;
        Some(bytes.len() - after.len() + gap)
    }

    /// What these bytes have of the current line, and its end.
    fn line(&mut self, bytes: &[u8], documents: &mut impl Documents) -> usize {
        let end = memchr2(b'\n', b'\r', bytes);
        self.last = Last::Any;
        self.content(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default(), documents);
        let Some(end) = end else { return bytes.len() };
        match self.line {
            Line::Start => {
                self.finish(documents);
                self.event = Event::Empty;
            }
            // A name without a colon has an empty value.
            Line::Name(matched) if matched == DATA.len() => self.begin_data(documents),
            _ => {}
        }
        self.line = Line::Start;
        if bytes.get(end) == Some(&b'\r') {
            self.last = Last::CarriageReturn;
        }
        end + 1
    }

    fn content(&mut self, bytes: &[u8], documents: &mut impl Documents) {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let matched = match self.line {
                Line::Start => 0,
                Line::Name(matched) => matched,
                Line::Colon => {
                    rest = rest.strip_prefix(b" ").unwrap_or(rest);
                    self.line = Line::Data;
                    continue;
                }
                Line::Data => {
                    documents.part(rest);
                    return;
                }
                Line::Other => return,
            };
            self.line = match DATA.get(matched) {
                Some(expected) if *expected == byte => Line::Name(matched + 1),
                None if byte == b':' => {
                    self.begin_data(documents);
                    Line::Colon
                }
                _ => Line::Other,
            };
            rest = rest.get(1..).unwrap_or_default();
        }
    }

    fn begin_data(&mut self, documents: &mut impl Documents) {
        match self.event {
            Event::Empty => self.event = Event::Begun,
            Event::Begun => _ = documents.part(b"\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        documents: Vec<String>,
        current: Vec<u8>,
    }

    impl Documents for Seen {
        fn failed(&mut self, _: &[u8]) {}

        fn part(&mut self, bytes: &[u8]) -> usize {
            self.current.extend_from_slice(bytes);
            bytes.len()
        }

        fn end(&mut self) {
            self.documents.push(String::from_utf8(std::mem::take(&mut self.current)).unwrap());
        }
    }

    fn documents(stream: &str, chunk_bytes: usize) -> Vec<String> {
        let (mut sse, mut seen) = (Sse::default(), Seen::default());
        for chunk in stream.as_bytes().chunks(chunk_bytes) {
            sse.feed(chunk, &mut seen);
        }
        sse.finish(&mut seen);
        seen.documents
    }

    #[test]
    fn follows_the_grammar() {
        for (stream, expected) in [
            ("data: a\n\ndata: b\n\n", &["a", "b"][..]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data: a\r\r\ndata: b\n\r\n", &["a", "b"]),
            ("data: a\n\r\ndata: b\r\n\r", &["a", "b"]),
            ("data:a\n\ndata:  b \n\n", &["a", " b "]),
            ("data: a\ndata: b\ndata:\ndata\ndata: c\n\n", &["a\nb\n\n\nc"]),
            ("data\n\ndata:\n\n", &["", ""]),
            ("event: x\ndata: a\nid: 1\nretry: 2\n\n\n\n: c\n\ndata: b", &["a", "b"]),
            ("dat: a\n\ndatum: b\n\ndata : c\n\n data: d\n\nDATA: e\n\n", &[]),
            ("event: x\n\n: only\n\n", &[]),
        ] {
            for chunk_bytes in [1, 2, 3, usize::MAX] {
                assert_eq!(documents(stream, chunk_bytes), expected, "{stream:?} in chunks of {chunk_bytes}");
            }
        }
    }
}
