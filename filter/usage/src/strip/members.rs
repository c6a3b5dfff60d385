//! The members of an event's JSON object, as far as they decide what is removed.
//!
//! Only the top level is looked at. Keys are compared as they stand, and what is no JSON removes nothing.

use crate::json::{TextEnd, end_of_text, in_scalar, is_whitespace};

const USAGE: &[u8] = b"usage";
const CHOICES: &[u8] = b"choices";
const ERROR: &[u8] = b"error";
const NULL: &[u8] = b"null";

/// What is known of a document so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may still be a usage chunk.
    Open,
    /// It is one, and closed: `choices` is an empty array, `usage` is an object, and there is no `error`.
    UsageChunk,
    /// It cannot be one.
    Other,
}

/// What a byte means for the member that is to be removed: `usage` with null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The byte is no part of such a member.
    Outside,
    /// With it, such a member may begin: it is the comma before the key, or the first key's quote.
    Begins,
    /// It may be part of the one that has begun.
    Inside,
    /// The one that has begun was complete before it.
    Behind,
}

/// Reads a document as it passes.
#[derive(Debug, Default)]
pub(super) struct Members {
    state: State,
    key: Key,
    choices: Seen,
    usage: Seen,
    error: Seen,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// The object is due.
    #[default]
    Start,
    /// The first key is due, or the object's end.
    FirstKey,
    /// A key is due, behind a comma.
    Key,
    /// Inside a key.
    InKey { place: Place, escaped: bool },
    /// The colon is due.
    Colon { place: Place },
    /// The value is due.
    Value { place: Place },
    /// Inside what may be the null of `usage`: so many bytes have come.
    Null { place: Place, matched: usize },
    /// Behind the null of `usage`, the first member: its comma belongs to it, and the whitespace behind that.
    FirstNull { comma: Comma },
    /// Inside the array of `choices`, which is empty so far.
    Choices,
    /// Inside a number or a literal.
    Scalar,
    /// Inside a string; depth 0: it is the member's value.
    Text { depth: u64, escaped: bool },
    /// Inside a container, so many deep.
    Nested { depth: u64 },
    /// A comma is due, or the object's end.
    Comma,
    /// The object has ended.
    Closed,
    /// It is no JSON object.
    Broken,
}

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Later,
}

/// Whether it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comma {
    Due,
    Seen,
}

/// What a member was, in all its occurrences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Not,
    /// As a usage chunk has it.
    AsInUsageChunk,
    /// Otherwise.
    Otherwise,
}

impl Seen {
    fn add(&mut self, seen: Seen) {
        if *self != Seen::Otherwise {
            *self = seen;
        }
    }
}

/// The first bytes of a key, one more than the longest that is known.
#[derive(Debug, Clone, Copy, Default)]
struct Key {
    bytes: [u8; 8],
    len: usize,
}

impl Key {
    fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        self.len += room.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Members {
    pub(super) fn verdict(&self) -> Verdict {
        let seen = [self.choices, self.usage, self.error];
        match self.state {
            State::Broken => Verdict::Other,
            _ if seen.contains(&Seen::Otherwise) => Verdict::Other,
            State::Closed if seen == [Seen::AsInUsageChunk, Seen::AsInUsageChunk, Seen::Not] => Verdict::UsageChunk,
            State::Closed => Verdict::Other,
            _ => Verdict::Open,
        }
    }

    /// Takes some of these bytes of the document and returns how many, and what the last of them means, or, with
    /// [`Step::Behind`], the next. All before it are [`Step::Outside`].
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Step) {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let (taken, step) = self.step(rest, byte);
            rest = rest.get(taken..).unwrap_or_default();
            if step != Step::Outside {
                return (bytes.len() - rest.len(), step);
            }
        }
        (bytes.len(), Step::Outside)
    }

    fn step(&mut self, bytes: &[u8], byte: u8) -> (usize, Step) {
        match self.state {
            State::Text { depth, escaped } => (self.text(bytes, depth, escaped), Step::Outside),
            State::Nested { depth } => (self.nested(bytes, depth), Step::Outside),
            State::Broken => (bytes.len(), Step::Outside),
            State::Null { place: Place::Later, matched: 4 } if ends_literal(byte) => {
                self.state = State::Comma;
                (0, Step::Behind)
            }
            State::Null { place: Place::First, matched: 4 } if ends_literal(byte) => {
                self.state = State::FirstNull { comma: Comma::Due };
                (0, Step::Inside)
            }
            State::FirstNull { comma: Comma::Due } if byte == b'}' => {
                self.state = State::Comma;
                (0, Step::Behind)
            }
            State::FirstNull { comma: Comma::Seen } if byte == b'"' => {
                self.state = State::FirstKey;
                (0, Step::Behind)
            }
            State::Choices if byte != b']' && !is_whitespace(byte) => {
                self.choices.add(Seen::Otherwise);
                self.state = State::Nested { depth: 1 };
                (0, Step::Outside)
            }
            State::InKey { place, escaped } => {
                let taken = self.in_key(bytes, place, escaped);
                (taken, if self.is_inside() { Step::Inside } else { Step::Outside })
            }
            State::Scalar if in_scalar(&byte) => {
                (bytes.iter().position(|byte| !in_scalar(byte)).unwrap_or(bytes.len()), Step::Outside)
            }
            _ => {
                let was_inside = self.is_inside();
                self.state = self.next(byte);
                let step = match (was_inside, self.is_inside()) {
                    (_, false) => Step::Outside,
                    (false, true) => Step::Begins,
                    (true, true) => Step::Inside,
                };
                (1, step)
            }
        }
    }

    /// Whether what came since the last comma, or since the first key's quote, may be the member that is to be removed.
    fn is_inside(&self) -> bool {
        match self.state {
            State::Key | State::Null { .. } | State::FirstNull { .. } => true,
            State::InKey { .. } => USAGE.starts_with(self.key.as_bytes()),
            State::Colon { .. } | State::Value { .. } => self.key.as_bytes() == USAGE,
            _ => false,
        }
    }

    /// The state behind a byte.
    fn next(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            (State::Null { place, matched }, _) if NULL.get(matched) == Some(&byte) => {
                State::Null { place, matched: matched + 1 }
            }
            (State::Null { .. } | State::Broken, _) => State::Broken,
            (state, _) if is_whitespace(byte) && !matches!(state, State::Scalar) => state,
            (State::Start, b'{') => State::FirstKey,
            (State::FirstKey, b'"') => self.begin_key(Place::First),
            (State::Key, b'"') => self.begin_key(Place::Later),
            (State::Colon { place }, b':') => State::Value { place },
            (State::Value { place }, _) => self.value(byte, place),
            (State::FirstNull { comma: Comma::Due }, b',') => State::FirstNull { comma: Comma::Seen },
            (State::Choices, b']') => {
                self.choices.add(Seen::AsInUsageChunk);
                State::Comma
            }
            (State::Comma, b',') => State::Key,
            (State::FirstKey | State::Comma, b'}') => State::Closed,
            (State::Scalar, _) => {
                self.state = State::Comma;
                self.next(byte)
            }
            _ => State::Broken,
        }
    }

    fn begin_key(&mut self, place: Place) -> State {
        self.key = Key::default();
        State::InKey { place, escaped: false }
    }

    /// What these bytes have of a key.
    fn in_key(&mut self, bytes: &[u8], place: Place, escaped: bool) -> usize {
        let (text_bytes, taken, state) = match end_of_text(bytes, escaped) {
            TextEnd::At(end) => (end, end + 1, State::Colon { place }),
            TextEnd::Open { escaped } => (bytes.len(), bytes.len(), State::InKey { place, escaped }),
        };
        self.key.push(bytes.get(..text_bytes).unwrap_or_default());
        self.state = state;
        taken
    }

    /// The state behind the first byte of a member's value.
    fn value(&mut self, byte: u8, place: Place) -> State {
        match (self.key.as_bytes(), byte) {
            (USAGE, b'n') => {
                self.usage.add(Seen::Otherwise);
                return State::Null { place, matched: 1 };
            }
            (USAGE, b'{') => self.usage.add(Seen::AsInUsageChunk),
            (USAGE, _) => self.usage.add(Seen::Otherwise),
            (CHOICES, b'[') => return State::Choices,
            (CHOICES, _) => self.choices.add(Seen::Otherwise),
            (ERROR, b'n') => {}
            (ERROR, _) => self.error.add(Seen::Otherwise),
            _ => {}
        }
        match byte {
            b'"' => State::Text { depth: 0, escaped: false },
            b'{' | b'[' => State::Nested { depth: 1 },
            _ if in_scalar(&byte) => State::Scalar,
            _ => State::Broken,
        }
    }

    /// What these bytes have of a string.
    fn text(&mut self, bytes: &[u8], depth: u64, escaped: bool) -> usize {
        match end_of_text(bytes, escaped) {
            TextEnd::Open { escaped } => {
                self.state = State::Text { depth, escaped };
                bytes.len()
            }
            TextEnd::At(end) => {
                self.state = if depth == 0 { State::Comma } else { State::Nested { depth } };
                end + 1
            }
        }
    }

    /// What these bytes have of a container, up to its next string or bracket.
    fn nested(&mut self, bytes: &[u8], depth: u64) -> usize {
        let is_structure = |byte: &u8| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']');
        let Some(at) = bytes.iter().position(is_structure) else { return bytes.len() };
        self.state = match bytes.get(at) {
            Some(b'"') => State::Text { depth, escaped: false },
            Some(b'{' | b'[') => State::Nested { depth: depth.saturating_add(1) },
            _ if depth > 1 => State::Nested { depth: depth - 1 },
            _ => State::Comma,
        };
        at + 1
    }
}

/// Whether a literal is complete before this byte.
fn ends_literal(byte: u8) -> bool {
    is_whitespace(byte) || matches!(byte, b',' | b'}')
}
