//! A body that is a form (RFC 7578): so do APIs take pictures. Its parts are fields by their names; files pass by.

use memchr::memchr;

use crate::json::MAX_TEXT_BYTES;

/// The longest boundary: RFC 2046, section 5.1.1.
const MAX_BOUNDARY_BYTES: usize = 70;

/// What stands around a boundary, before a part and behind the last one.
const BEFORE_BOUNDARY: &[u8] = b"\r\n--";
const BEHIND_LAST: &[u8] = b"--";

/// Takes what a form has.
pub(super) trait Fields {
    /// The field of this name is at its end: this is its text, the first [`MAX_TEXT_BYTES`].
    fn field(&mut self, name: Name, text: &[u8]);
    /// A piece of the prompt.
    fn prompt(&mut self, piece: &[u8]);
}

/// The fields that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Model,
    Choices,
    Stream,
    Prompt,
}

const NAMES: [(&[u8], Name); 4] =
    [(b"model", Name::Model), (b"n", Name::Choices), (b"stream", Name::Stream), (b"prompt", Name::Prompt)];

/// A form that is being read.
#[derive(Debug)]
pub(super) struct Form {
    /// A line's end, hyphens and the boundary.
    delimiter: Vec<u8>,
    state: State,
    /// The name of the part whose headers or text are read.
    name: Option<Name>,
    /// The first bytes of the current line or text.
    kept: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a part, or before the first: the last bytes are the first ones of the delimiter, this many.
    Content { matched: usize },
    /// In the line of a boundary.
    Boundary,
    /// In a part's headers.
    Header,
    /// Behind the last part.
    End,
}

impl Form {
    /// A form with this content type; `None` when it is of another one, or has no boundary.
    pub(super) fn new(content_type: &str) -> Option<Form> {
        let mut parameters = content_type.split(';').map(str::trim);
        parameters.next().filter(|media_type| media_type.eq_ignore_ascii_case("multipart/form-data"))?;
        let boundary = parameters.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"').as_bytes())
        })?;
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_BYTES || boundary.contains(&b'\r') {
            return None;
        }
        // The first boundary may be the body's first line.
        let state = State::Content { matched: BEFORE_BOUNDARY.len() - BEHIND_LAST.len() };
        Some(Form { delimiter: [BEFORE_BOUNDARY, boundary].concat(), state, name: None, kept: Vec::new() })
    }

    /// Whether its last part has come to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], fields: &mut impl Fields) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.state {
                State::Content { matched } => self.content(rest, matched, fields),
                State::Boundary | State::Header => self.line(rest),
                State::End => return,
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Takes some of a part, and returns how much: up to the next byte that may begin the delimiter, or one of the delimiter.
    fn content(&mut self, bytes: &[u8], matched: usize, fields: &mut impl Fields) -> usize {
        if bytes.first() == self.delimiter.get(matched) {
            let matched = matched + 1;
            self.state = State::Content { matched };
            if matched == self.delimiter.len() {
                if let Some(name) = self.name.take() {
                    fields.field(name, &self.kept);
                }
                self.kept.clear();
                self.state = State::Boundary;
            }
            return 1;
        }
        if matched > 0 {
            // It was none. A line's end stands in it only as its first.
            let begun = std::mem::take(&mut self.delimiter);
            self.keep(begun.get(..matched).unwrap_or_default(), fields);
            self.delimiter = begun;
            self.state = State::Content { matched: 0 };
            return 0;
        }
        let end = memchr(b'\r', bytes).unwrap_or(bytes.len());
        self.keep(bytes.get(..end).unwrap_or_default(), fields);
        end
    }

    fn keep(&mut self, piece: &[u8], fields: &mut impl Fields) {
        match self.name {
            None => {}
            Some(Name::Prompt) => fields.prompt(piece),
            Some(_) => self.keep_bounded(piece),
        }
    }

    fn keep_bounded(&mut self, piece: &[u8]) {
        let room = MAX_TEXT_BYTES.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    /// Takes some of a line, and returns how much: to its end.
    fn line(&mut self, bytes: &[u8]) -> usize {
        let Some(end) = memchr(b'\n', bytes) else {
            self.keep_bounded(bytes);
            if self.state == State::Boundary && self.kept.starts_with(BEHIND_LAST) {
                self.state = State::End;
            }
            return bytes.len();
        };
        self.keep_bounded(bytes.get(..end).unwrap_or_default());
        let line = self.kept.trim_ascii();
        self.state = match self.state {
            State::Boundary if line.starts_with(BEHIND_LAST) => State::End,
            State::Header if line.is_empty() => State::Content { matched: 0 },
            State::Header => {
                self.name = self.name.or_else(|| name(line));
                State::Header
            }
            _ => State::Header,
        };
        self.kept.clear();
        end + 1
    }
}

/// The name of a part with this header, if it is a field that is read.
fn name(header: &[u8]) -> Option<Name> {
    let (field, value) = std::str::from_utf8(header).ok()?.split_once(':')?;
    if !field.eq_ignore_ascii_case("content-disposition") || value.contains("filename") {
        return None;
    }
    let named = value.split(';').find_map(|parameter| parameter.trim().strip_prefix("name="))?;
    let named = named.trim_matches('"').as_bytes();
    NAMES.iter().find(|(known, _)| *known == named).map(|(_, name)| *name)
}
