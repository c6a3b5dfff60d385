//! A push scanner for JSON: takes a document in pieces, cut anywhere, and hands over the values at known places.
//!
//! - It keeps a path only while the path is a known one; below any other it counts brackets and looks at nothing.
//! - Its state has a fixed size: known paths are short, keys and values are kept up to [`MAX_TEXT_BYTES`].
//! - It is lenient where leniency cannot move a value to another place (trailing commas, words that are no literals) and
//!   stops at anything else that is not JSON: what was read before stays, the rest of the document is ignored.
//! - Keys are compared as they stand, or in any spelling, as the tree says. Of duplicate keys each is handed over.
//!
//! What is known is said by a tree of [`Paths`], each place of which has a meaning of the user's own type; what is done with
//! it by a [`Sink`]:
//!
//! - A *leaf* hands over the value at its place. A string comes whole, cut to [`MAX_TEXT_BYTES`] ([`Want::Kept`]), or every
//!   byte of it as it passes ([`Want::Pieces`]). An object or an array tells that it begins and, where the tree goes on
//!   below it, that it ends; the values in between are handed over if they stand at leaves of their own.
//! - A *subtree* hands over every string and every unknown key below its place, however deep, in pieces: its own value too,
//!   if that is a string. A leaf inside speaks for itself: what it does not want is nobody's, but a container at a leaf
//!   belongs to the subtree still.
//! - Each value comes with its [`Span`]: where it stands in the document, so that an editor can replace it as it passes.

mod kept;
mod open;
mod text;

#[cfg(test)]
mod tests;

pub(crate) use text::{TextEnd, decode, end_of_text};

use crate::paths::{NodeId, Paths};
use kept::Kept;
use open::{Container, Open};

/// The longest text that is handed over whole; a longer one is cut here, escapes not yet decoded. A longer key is not known.
pub(crate) const MAX_TEXT_BYTES: usize = 256;
/// The most containers that a known path goes through, with the array around it all.
pub(crate) const MAX_KNOWN_DEPTH: usize = 16;

/// Takes the values at known places.
pub(crate) trait Sink {
    /// What a place means: the same type as that of the [`Paths`].
    type Place: Copy;
    /// Whether the value that begins is wanted, and how.
    fn wants(&self, place: Self::Place) -> Want;
    /// A value that is wanted, or a part of it.
    fn value(&mut self, place: Self::Place, value: Value<'_>, at: Span);
}

/// How a value is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Not at all: it is passed by.
    No,
    /// Whole: a string comes as [`Value::Text`].
    Kept,
    /// A string comes as [`Value::Piece`]s and a [`Value::PiecesEnd`]; anything else as with `Kept`.
    Pieces,
}

/// A value at a known place, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number as it stands, its first [`MAX_TEXT_BYTES`].
    Number(&'a [u8]),
    /// A string without its quotes, escapes as they stand, its first [`MAX_TEXT_BYTES`]; [`decode`] reads them.
    Text(&'a [u8]),
    /// Some bytes of a string, escapes as they stand: never none, cut anywhere. The span is that of these bytes.
    Piece(&'a [u8]),
    /// The string that came in pieces, perhaps in none, has ended. The span is that of its closing quote.
    PiecesEnd,
    /// True or false.
    Bool(bool),
    /// Null.
    Null,
    /// An object or an array begins. The span is that of its bracket.
    Open,
    /// An object at a known place or an array with known elements has ended. The span is all of it.
    Close,
}

/// Where a value stands: offsets from the document's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its first byte.
    pub(crate) start: u64,
    /// The byte behind its last.
    pub(crate) end: u64,
}

impl Span {
    fn of(start: u64, len: u64) -> Span {
        Span { start, end: start.saturating_add(len) }
    }
}

/// The scanner, for places that mean `P`.
#[derive(Debug)]
pub(crate) struct Scanner<P> {
    state: State<P>,
    open: Open,
    /// The beginning of a key, a number or a string that reached over the end of a piece.
    kept: Kept,
    /// Of the next byte.
    offset: u64,
    /// Of the last key or value that began.
    start: u64,
}

#[derive(Debug, Clone, Copy)]
enum State<P> {
    /// A value is due, or an array's end.
    Value(Target<P>),
    /// A key is due, or the object's end.
    Key,
    /// A key was read: its colon is due, then the value at this place.
    Colon(Target<P>),
    /// A comma is due, or the container's end.
    Comma,
    /// Inside a key.
    KeyText { escaped: bool },
    /// Inside a string that is kept.
    Text { place: P, escaped: bool },
    /// Inside a number or a literal.
    Scalar(Option<P>),
    /// Inside a value that nobody knows, this many containers deep; its strings go to the subtree.
    Skip { depth: u64, subtree: Option<P> },
    /// Inside a string that is not kept but passes, to somebody or to nobody. Depth 0: the string is the value.
    PassText { depth: u64, escaped: bool, to: Option<P> },
    /// The document's value has ended.
    Closed,
    /// The document is not JSON.
    Broken,
}

/// Where a value belongs.
#[derive(Debug, Clone, Copy)]
enum Target<P> {
    /// To a known place.
    Known(NodeId),
    /// To a subtree, or to nobody.
    Unknown(Option<P>),
}

/// A number, a literal or a string that has begun and may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenScalar<P> {
    pub(crate) place: P,
    /// Of its first byte.
    pub(crate) start: u64,
    pub(crate) first: u8,
}

impl<P: Copy> Scanner<P> {
    /// A scanner at the start of a document.
    pub(crate) fn new() -> Scanner<P> {
        let state = State::Value(Target::Known(Paths::<P>::ROOT));
        Scanner { state, open: Open::default(), kept: Kept::default(), offset: 0, start: 0 }
    }

    /// Makes ready for the next document.
    pub(crate) fn reset(&mut self) {
        self.state = State::Value(Target::Known(Paths::<P>::ROOT));
        self.open.len = 0;
        self.kept.len = 0;
        self.offset = 0;
    }

    /// Whether the document's value has been read to its end.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// How many bytes of the document have been taken.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The number, literal or kept string, at a known place and wanted there, that the bytes so far end with.
    pub(crate) fn open_scalar(&self) -> Option<OpenScalar<P>> {
        match (self.state, self.kept.first()) {
            (State::Scalar(Some(place)), Some(first)) => Some(OpenScalar { place, start: self.start, first }),
            (State::Text { place, .. }, _) => Some(OpenScalar { place, start: self.start, first: b'"' }),
            _ => None,
        }
    }

    /// Takes a piece of the document and returns how much of it that was: less than all when the value has ended and
    /// something other than whitespace follows.
    ///
    /// Each step goes as far as its bytes are there: a key to behind its colon, a value to behind its comma. Where they end, the
    /// state says what is due.
    pub(crate) fn feed(&mut self, bytes: &[u8], paths: &Paths<P>, sink: &mut impl Sink<Place = P>) -> usize {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            match self.state {
                State::PassText { depth, escaped, to } => self.pass_text(&mut rest, depth, escaped, to, sink),
                State::KeyText { escaped } => self.key_text(&mut rest, escaped, paths, sink),
                State::Text { place, escaped } => self.text(&mut rest, place, escaped, sink),
                State::Skip { depth, subtree } => self.skip(&mut rest, depth, subtree),
                State::Scalar(place) => self.scalar(&mut rest, place, sink),
                State::Broken => self.take(&mut rest, bytes.len()),
                _ if is_whitespace(byte) => self.take(&mut rest, 1),
                State::Closed => break,
                State::Value(target) => self.begin(&mut rest, byte, target, paths, sink),
                State::Key | State::Colon(_) | State::Comma => self.punctuation(&mut rest, byte, paths, sink),
            }
        }
        bytes.len() - rest.len()
    }

    /// So many of the bytes, or all that are there, are done with.
    fn take(&mut self, rest: &mut &[u8], count: usize) {
        let left = rest.get(count..).unwrap_or_default();
        self.offset = self.offset.saturating_add((rest.len() - left.len()) as u64);
        *rest = left;
    }

    /// The first byte of a value, and what follows.
    fn begin(
        &mut self,
        rest: &mut &[u8],
        byte: u8,
        target: Target<P>,
        paths: &Paths<P>,
        sink: &mut impl Sink<Place = P>,
    ) {
        if byte == b']' {
            return self.leave(rest, byte, paths, sink);
        }
        self.start = self.offset;
        let (leaf, subtree) = match target {
            Target::Known(place) => (paths.leaf(place), paths.subtree(place)),
            Target::Unknown(subtree) => (None, subtree),
        };
        let subtree = subtree.filter(|place| sink.wants(*place) != Want::No);
        let (wanted, want) = match leaf.map(|place| (place, sink.wants(place))) {
            Some((_, Want::No)) | None => (None, Want::No),
            Some((place, want)) => (Some(place), want),
        };
        match (byte, wanted) {
            (b'{' | b'[', _) => {
                if let Some(place) = wanted {
                    sink.value(place, Value::Open, Span::of(self.start, 1));
                }
                self.enter(byte, target, subtree, paths);
                self.take(rest, 1);
            }
            (b'"', Some(place)) if want == Want::Kept => {
                self.take(rest, 1);
                self.text(rest, place, false, sink);
            }
            (b'"', _) => {
                let to = wanted.or(subtree.filter(|_| leaf.is_none()));
                self.take(rest, 1);
                self.pass_text(rest, 0, false, to, sink);
            }
            (b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z', _) => self.scalar(rest, wanted, sink),
            _ => self.state = State::Broken,
        }
    }

    fn enter(&mut self, byte: u8, target: Target<P>, subtree: Option<P>, paths: &Paths<P>) {
        let container = match target {
            Target::Known(place) => {
                let element = match byte {
                    b'{' => None,
                    // An array around everything is a sequence of documents.
                    _ if self.open.len == 0 => Some(place),
                    _ => paths.element(place),
                };
                let container = Container { place, element, start: self.start };
                Some(container).filter(|_| byte == b'{' || element.is_some())
            }
            Target::Unknown(_) => None,
        };
        self.state = match container {
            Some(container) if self.open.push(container) => match container.element {
                None => State::Key,
                Some(element) => State::Value(Target::Known(element)),
            },
            _ => State::Skip { depth: 1, subtree },
        };
    }

    fn leave(&mut self, rest: &mut &[u8], byte: u8, paths: &Paths<P>, sink: &mut impl Sink<Place = P>) {
        let bracket = |container: &Container| if container.element.is_some() { b']' } else { b'}' };
        let container = self.open.pop().filter(|container| bracket(container) == byte);
        self.take(rest, 1);
        let Some(container) = container else {
            self.state = State::Broken;
            return;
        };
        if let Some(place) = paths.leaf(container.place).filter(|place| sink.wants(*place) != Want::No) {
            sink.value(place, Value::Close, Span { start: container.start, end: self.offset });
        }
        self.after_value(rest);
    }

    fn after_value(&mut self, rest: &mut &[u8]) {
        self.state = if self.open.len == 0 { State::Closed } else { State::Comma };
        if rest.first() == Some(&b',') {
            self.after_comma(rest);
        }
    }

    /// Nothing but a container has commas.
    fn after_comma(&mut self, rest: &mut &[u8]) {
        let Some(container) = self.open.last() else { return };
        self.state = match container.element {
            Some(element) => State::Value(Target::Known(element)),
            None => State::Key,
        };
        self.take(rest, 1);
    }

    fn punctuation(&mut self, rest: &mut &[u8], byte: u8, paths: &Paths<P>, sink: &mut impl Sink<Place = P>) {
        match (self.state, byte) {
            (State::Key, b'"') => {
                self.start = self.offset;
                self.take(rest, 1);
                self.key_text(rest, false, paths, sink);
            }
            (State::Colon(target), b':') => {
                self.state = State::Value(target);
                self.take(rest, 1);
            }
            (State::Comma, b',') => self.after_comma(rest),
            (State::Key, b'}') | (State::Comma, b'}' | b']') => self.leave(rest, byte, paths, sink),
            _ => self.state = State::Broken,
        }
    }

    fn key_text(&mut self, rest: &mut &[u8], escaped: bool, paths: &Paths<P>, sink: &mut impl Sink<Place = P>) {
        let end = match end_of_text(rest, escaped) {
            TextEnd::At(end) => end,
            TextEnd::Open { escaped } => {
                self.kept.push(rest);
                self.state = State::KeyText { escaped };
                return self.take(rest, rest.len());
            }
        };
        let key = self.kept.complete(rest.get(..end).unwrap_or_default());
        let target = match self.open.last() {
            Some(object) => match paths.member(object.place, key) {
                Some(place) => Target::Known(place),
                None => Target::Unknown(paths.subtree(object.place).filter(|place| sink.wants(*place) != Want::No)),
            },
            None => Target::Unknown(None),
        };
        if let Target::Unknown(Some(subtree)) = target {
            let (start, end) = (self.start.saturating_add(1), self.offset.saturating_add(end as u64));
            let at = Span { start, end };
            if !key.is_empty() {
                sink.value(subtree, Value::Piece(key), at);
            }
            sink.value(subtree, Value::PiecesEnd, Span::of(end, 1));
        }
        self.kept.len = 0;
        self.take(rest, end + 1);
        if rest.first() == Some(&b':') {
            self.state = State::Value(target);
            self.take(rest, 1);
        } else {
            self.state = State::Colon(target);
        }
    }

    /// A string that is kept.
    fn text(&mut self, rest: &mut &[u8], place: P, escaped: bool, sink: &mut impl Sink<Place = P>) {
        match end_of_text(rest, escaped) {
            TextEnd::Open { escaped } => {
                self.kept.push(rest);
                self.state = State::Text { place, escaped };
                self.take(rest, rest.len());
            }
            TextEnd::At(end) => {
                let at = Span { start: self.start, end: self.offset.saturating_add(end as u64 + 1) };
                let text = self.kept.complete(rest.get(..end).unwrap_or_default());
                sink.value(place, Value::Text(text), at);
                self.kept.len = 0;
                self.take(rest, end + 1);
                self.after_value(rest);
            }
        }
    }

    fn scalar(&mut self, rest: &mut &[u8], place: Option<P>, sink: &mut impl Sink<Place = P>) {
        let Some(end) = rest.iter().position(|byte| !in_scalar(byte)) else {
            self.kept.push(rest);
            self.state = State::Scalar(place);
            return self.take(rest, rest.len());
        };
        let at = Span { start: self.start, end: self.offset.saturating_add(end as u64) };
        let text = self.kept.complete(rest.get(..end).unwrap_or_default());
        if let Some(place) = place {
            match text {
                [b'-' | b'0'..=b'9', ..] => sink.value(place, Value::Number(text), at),
                b"true" => sink.value(place, Value::Bool(true), at),
                b"false" => sink.value(place, Value::Bool(false), at),
                b"null" => sink.value(place, Value::Null, at),
                _ => {}
            }
        }
        self.kept.len = 0;
        self.take(rest, end);
        self.after_value(rest);
    }

    fn skip(&mut self, rest: &mut &[u8], depth: u64, subtree: Option<P>) {
        let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']')) else {
            return self.take(rest, rest.len());
        };
        let byte = rest.get(at);
        self.take(rest, at + 1);
        match byte {
            Some(b'"') => self.state = State::PassText { depth, escaped: false, to: subtree },
            Some(b'{' | b'[') => self.state = State::Skip { depth: depth.saturating_add(1), subtree },
            _ if depth > 1 => self.state = State::Skip { depth: depth - 1, subtree },
            _ => self.after_value(rest),
        }
    }

    /// A string that passes.
    fn pass_text(
        &mut self,
        rest: &mut &[u8],
        depth: u64,
        escaped: bool,
        to: Option<P>,
        sink: &mut impl Sink<Place = P>,
    ) {
        let end = end_of_text(rest, escaped);
        if let Some(place) = to {
            let piece = match end {
                TextEnd::At(end) => rest.get(..end).unwrap_or_default(),
                TextEnd::Open { .. } => rest,
            };
            let len = piece.len() as u64;
            if len > 0 {
                sink.value(place, Value::Piece(piece), Span::of(self.offset, len));
            }
            if let TextEnd::At(_) = end {
                sink.value(place, Value::PiecesEnd, Span::of(self.offset.saturating_add(len), 1));
            }
        }
        match end {
            TextEnd::Open { escaped } => {
                self.state = State::PassText { depth, escaped, to };
                self.take(rest, rest.len());
            }
            TextEnd::At(end) => {
                self.take(rest, end + 1);
                match depth {
                    0 => self.after_value(rest),
                    _ => self.state = State::Skip { depth, subtree: to },
                }
            }
        }
    }
}

/// JSON's whitespace.
pub(crate) fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether a byte may stand in a number or a literal.
pub(crate) fn in_scalar(byte: &u8) -> bool {
    SCALAR.get(usize::from(*byte)).is_some_and(|is_in| *is_in)
}

static SCALAR: [bool; 256] = {
    let mut scalar = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::indexing_slicing, reason = "within the bounds, as the compiler has seen")]
        {
            scalar[byte] = matches!(byte as u8, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
        }
        byte += 1;
    }
    scalar
};
