//! A push scanner for JSON: takes a document in pieces, cut anywhere, and hands over the values at known places.
//!
//! - It keeps a path only while the path is a known one; below any other it counts brackets and looks at nothing.
//! - Its state has a fixed size: known paths are short, keys and values are kept up to [`MAX_TEXT_BYTES`].
//! - It is lenient where leniency cannot move a value to another place (trailing commas, words that are no literals) and
//!   stops at anything else that is not JSON: what was read before stays, the rest of the document is ignored.
//! - Keys are compared as they stand: one that is written with escapes is not known. Of duplicate keys each is handed over.

use memchr::{memchr, memchr2};

use crate::paths::{Leaf, NodeId, Paths};

/// The longest text that is handed over; a longer one is cut here, escapes not yet decoded. A longer key is not known.
pub(crate) const MAX_TEXT_BYTES: usize = 256;
/// The most containers that a known path goes through, with the array around it all.
pub(crate) const MAX_KNOWN_DEPTH: usize = 8;

/// Takes the values at known places.
pub(crate) trait Sink {
    /// Whether the value is wanted: if not, it is neither kept nor handed over.
    fn wants(&self, leaf: Leaf) -> bool;
    /// A value, unless it is null.
    fn value(&mut self, leaf: Leaf, value: Value<'_>);
}

/// A value at a known place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number as it stands.
    Number(&'a [u8]),
    /// A string without its quotes, escapes as they stand; [`decode`] reads them.
    Text(&'a [u8]),
    /// True, false, an object or an array.
    Other,
}

/// The scanner.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    open: Open,
    /// The beginning of a key, a number or a string that reached over the end of a piece.
    kept: Kept,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A value is due, or an array's end.
    Value(Option<NodeId>),
    /// A key is due, or the object's end.
    Key,
    /// A key was read: its colon is due, then the value at this place.
    Colon(Option<NodeId>),
    /// A comma is due, or the container's end.
    Comma,
    /// Inside a string that is kept.
    Text { wanted: Wanted, escaped: bool },
    /// Inside a number or a literal.
    Scalar(Option<Leaf>),
    /// Inside a value that nobody knows, this many containers deep.
    Skip { depth: u64 },
    /// Inside a string of such a value. Depth 0: the string is the value.
    SkipText { depth: u64, escaped: bool },
    /// The document's value has ended.
    Closed,
    /// The document is not JSON.
    Broken,
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Key,
    Value(Leaf),
}

impl Scanner {
    /// A scanner at the start of a document.
    pub(crate) fn new() -> Scanner {
        Scanner { state: State::Value(Some(Paths::ROOT)), open: Open::default(), kept: Kept::default() }
    }

    /// Makes ready for the next document.
    pub(crate) fn reset(&mut self) {
        self.state = State::Value(Some(Paths::ROOT));
        self.open.len = 0;
        self.kept.len = 0;
    }

    /// Whether the document's value has been read to its end.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes a piece of the document and returns how much of it that was: less than all when the value has ended and
    /// something other than whitespace follows.
    pub(crate) fn feed(&mut self, bytes: &[u8], paths: &Paths, sink: &mut impl Sink) -> usize {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let taken = match self.state {
                State::Text { wanted, escaped } => self.text(rest, wanted, escaped, paths, sink),
                State::SkipText { depth, escaped } => self.skip_text(rest, depth, escaped),
                State::Skip { depth } => self.skip(rest, depth),
                State::Scalar(leaf) => self.scalar(rest, leaf, sink),
                State::Broken => rest.len(),
                _ if is_whitespace(byte) => 1,
                State::Closed => break,
                State::Value(place) => self.begin(byte, place, paths, sink),
                State::Key | State::Colon(_) | State::Comma => {
                    self.punctuation(byte);
                    1
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        bytes.len() - rest.len()
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8, place: Option<NodeId>, paths: &Paths, sink: &mut impl Sink) -> usize {
        let leaf = place.and_then(|place| paths.leaf(place)).filter(|leaf| sink.wants(*leaf));
        match byte {
            b'{' | b'[' => {
                if let Some(leaf) = leaf {
                    sink.value(leaf, Value::Other);
                }
                self.enter(byte, place, paths);
            }
            b'"' => {
                self.state = match leaf {
                    Some(leaf) => State::Text { wanted: Wanted::Value(leaf), escaped: false },
                    None => State::SkipText { depth: 0, escaped: false },
                };
            }
            b']' => self.leave(byte),
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                self.state = State::Scalar(leaf);
                return 0;
            }
            _ => self.state = State::Broken,
        }
        1
    }

    fn enter(&mut self, byte: u8, place: Option<NodeId>, paths: &Paths) {
        let container = place.and_then(|place| match byte {
            b'{' => Some(Container::Object(place)),
            // An array around everything is a sequence of documents.
            _ if self.open.len == 0 => Some(Container::Array(place)),
            _ => paths.element(place).map(Container::Array),
        });
        self.state = match container {
            Some(container) if self.open.push(container) => match container {
                Container::Object(_) => State::Key,
                Container::Array(element) => State::Value(Some(element)),
            },
            _ => State::Skip { depth: 1 },
        };
    }

    fn leave(&mut self, byte: u8) {
        match (self.open.pop(), byte) {
            (Some(Container::Object(_)), b'}') | (Some(Container::Array(_)), b']') => self.after_value(),
            _ => self.state = State::Broken,
        }
    }

    fn after_value(&mut self) {
        self.state = if self.open.len == 0 { State::Closed } else { State::Comma };
    }

    fn punctuation(&mut self, byte: u8) {
        match (self.state, byte) {
            (State::Key, b'"') => self.state = State::Text { wanted: Wanted::Key, escaped: false },
            (State::Colon(place), b':') => self.state = State::Value(place),
            (State::Comma, b',') => {
                self.state = match self.open.last() {
                    Some(Container::Array(element)) => State::Value(Some(element)),
                    _ => State::Key,
                }
            }
            (State::Key, b'}') | (State::Comma, b'}' | b']') => self.leave(byte),
            _ => self.state = State::Broken,
        }
    }

    /// A key or a value that is wanted.
    fn text(&mut self, rest: &[u8], wanted: Wanted, escaped: bool, paths: &Paths, sink: &mut impl Sink) -> usize {
        let end = match end_of_text(rest, escaped) {
            TextEnd::At(end) => end,
            TextEnd::Open { escaped } => {
                self.kept.push(rest);
                self.state = State::Text { wanted, escaped };
                return rest.len();
            }
        };
        let text = self.kept.complete(rest.get(..end).unwrap_or_default());
        match wanted {
            Wanted::Key => {
                let object = match self.open.last() {
                    Some(Container::Object(object)) => Some(object),
                    _ => None,
                };
                self.state = State::Colon(object.and_then(|object| paths.member(object, text)));
            }
            Wanted::Value(leaf) => {
                sink.value(leaf, Value::Text(text));
                self.after_value();
            }
        }
        self.kept.len = 0;
        end + 1
    }

    fn scalar(&mut self, rest: &[u8], leaf: Option<Leaf>, sink: &mut impl Sink) -> usize {
        let in_scalar = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
        let Some(end) = rest.iter().position(|byte| !in_scalar(byte)) else {
            self.kept.push(rest);
            return rest.len();
        };
        let text = self.kept.complete(rest.get(..end).unwrap_or_default());
        if let Some(leaf) = leaf {
            match text.first() {
                Some(b'-' | b'0'..=b'9') => sink.value(leaf, Value::Number(text)),
                Some(b't' | b'f') => sink.value(leaf, Value::Other),
                _ => {}
            }
        }
        self.kept.len = 0;
        self.after_value();
        end
    }

    fn skip(&mut self, rest: &[u8], depth: u64) -> usize {
        let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']')) else {
            return rest.len();
        };
        match rest.get(at) {
            Some(b'"') => self.state = State::SkipText { depth, escaped: false },
            Some(b'{' | b'[') => self.state = State::Skip { depth: depth.saturating_add(1) },
            _ if depth > 1 => self.state = State::Skip { depth: depth - 1 },
            _ => self.after_value(),
        }
        at + 1
    }

    fn skip_text(&mut self, rest: &[u8], depth: u64, escaped: bool) -> usize {
        match end_of_text(rest, escaped) {
            TextEnd::Open { escaped } => {
                self.state = State::SkipText { depth, escaped };
                rest.len()
            }
            TextEnd::At(end) => {
                match depth {
                    0 => self.after_value(),
                    _ => self.state = State::Skip { depth },
                }
                end + 1
            }
        }
    }
}

/// Where a string ends.
enum TextEnd {
    /// At the quote with this index.
    At(usize),
    /// Not in these bytes. `escaped`: their last byte was a backslash that holds for the next.
    Open { escaped: bool },
}

fn end_of_text(bytes: &[u8], escaped: bool) -> TextEnd {
    let mut at = usize::from(escaped);
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return TextEnd::At(at);
        }
        at += 2;
    }
    TextEnd::Open { escaped: at > bytes.len() }
}

/// JSON's whitespace.
pub(crate) fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The known containers that are open, outermost first.
#[derive(Debug, Default)]
struct Open {
    containers: [Option<Container>; MAX_KNOWN_DEPTH],
    len: usize,
}

#[derive(Debug, Clone, Copy)]
enum Container {
    Object(NodeId),
    /// With the place of its elements.
    Array(NodeId),
}

impl Open {
    fn last(&self) -> Option<Container> {
        self.containers.get(self.len.checked_sub(1)?).copied().flatten()
    }

    fn pop(&mut self) -> Option<Container> {
        let last = self.last();
        self.len = self.len.saturating_sub(1);
        last
    }

    /// False when there is no room.
    fn push(&mut self, container: Container) -> bool {
        let Some(slot) = self.containers.get_mut(self.len) else { return false };
        *slot = Some(container);
        self.len += 1;
        true
    }
}

/// The first bytes of something that came in several pieces.
#[derive(Debug)]
struct Kept {
    bytes: [u8; MAX_TEXT_BYTES],
    len: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Kept { bytes: [0; MAX_TEXT_BYTES], len: 0 }
    }
}

impl Kept {
    fn push(&mut self, piece: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let taken = room.len().min(piece.len());
        for (to, from) in room.iter_mut().zip(piece) {
            *to = *from;
        }
        self.len += taken;
    }

    /// The whole, of which this is the last piece.
    fn complete<'a>(&'a mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.len == 0 {
            return piece.get(..MAX_TEXT_BYTES).unwrap_or(piece);
        }
        self.push(piece);
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Reads the escapes of a string. What is no UTF-8 or half of a surrogate pair becomes U+FFFD, and so does an escape that
/// does not exist.
pub(crate) fn decode(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr(b'\\', rest) {
        text.push_str(&String::from_utf8_lossy(rest.get(..at).unwrap_or_default()));
        rest = rest.get(at + 1..).unwrap_or_default();
        let (decoded, taken) = match rest.first() {
            Some(b'u') => unicode_escape(rest),
            Some(b'n') => ('\n', 1),
            Some(b't') => ('\t', 1),
            Some(b'r') => ('\r', 1),
            Some(b'b') => ('\u{8}', 1),
            Some(b'f') => ('\u{c}', 1),
            Some(byte @ (b'"' | b'\\' | b'/')) => (char::from(*byte), 1),
            _ => (char::REPLACEMENT_CHARACTER, 0),
        };
        text.push(decoded);
        rest = rest.get(taken..).unwrap_or_default();
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

/// The character of `uXXXX`, or of `uXXXX\uXXXX` when that is a surrogate pair, and its length.
fn unicode_escape(bytes: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(bytes.get(at..at + 4)?).ok()?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let Some(first) = unit(1) else { return (char::REPLACEMENT_CHARACTER, 1) };
    let second = bytes.get(5..7).filter(|next| *next == b"\\u").and_then(|_| unit(7));
    match (char::decode_utf16([first]).next(), second) {
        (Some(Ok(decoded)), _) => (decoded, 5),
        (_, Some(second)) => match char::decode_utf16([first, second]).next() {
            Some(Ok(decoded)) => (decoded, 11),
            _ => (char::REPLACEMENT_CHARACTER, 5),
        },
        _ => (char::REPLACEMENT_CHARACTER, 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Field, Text};

    /// What is handed over at the places of counts, texts and marks.
    #[derive(Default)]
    struct Seen(Vec<(Field, String)>);

    impl Sink for Seen {
        fn wants(&self, _: Leaf) -> bool {
            true
        }

        fn value(&mut self, leaf: Leaf, value: Value<'_>) {
            let text = match value {
                Value::Number(text) | Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Value::Other => "…".to_owned(),
            };
            self.0.push((leaf.field, text));
        }
    }

    fn scan(document: &str) -> (Vec<String>, bool) {
        let (mut scanner, mut seen) = (Scanner::new(), Seen::default());
        scanner.feed(document.as_bytes(), Paths::all(), &mut seen);
        (seen.0.into_iter().map(|(_, text)| text).collect(), scanner.is_closed())
    }

    #[test]
    fn values_are_found_by_their_path_alone() {
        let found = |document| scan(document).0;
        assert_eq!(found(r#" { "usage" : { "prompt_tokens" : 7 } } "#), ["7"]);
        assert_eq!(found(r#"{"usage":{"a":[{"b":"]}\"}"},{}],"prompt_tokens":7}}"#), ["7"]);
        assert_eq!(found(r#"[{"usage":{"prompt_tokens":7}},{"usage":{"prompt_tokens":8}}]"#), ["7", "8"]);
        assert_eq!(found(r#"{"choices":[{"finish_reason":"a"},{"finish_reason":"b"}]}"#), ["a", "b"]);
        assert!(found(r#"{"choices":{"finish_reason":"a"}}"#).is_empty());
        assert!(found(r#"{"choices":[[{"finish_reason":"a"}]]}"#).is_empty());
        assert!(found(r#"{"a":{"usage":{"prompt_tokens":7}}}"#).is_empty());
        assert!(found(r#"{"usage":"{\"prompt_tokens\":7}"}"#).is_empty());
        assert!(found(r#"{"usage":null}"#).is_empty());
    }

    #[test]
    fn a_document_that_breaks_keeps_what_came_before() {
        for rest in ["]", "}", "{", "\"a\" 1", "\u{1}", "\"total_tokens\" 8}}", "\"total_tokens\":,8}}"] {
            let document = format!("{{\"usage\":{{\"prompt_tokens\":7,{rest}");
            let (values, _) = scan(&document);
            assert_eq!(values, ["7"], "{document}");
        }
        assert_eq!(scan("{\"usage\":{\"prompt_tokens\":7,!\"total_tokens\":8}}"), (vec!["7".to_owned()], false));
    }

    #[test]
    fn the_value_after_the_first_is_not_taken() {
        let (mut scanner, mut seen) = (Scanner::new(), Seen::default());
        let both = b"{\"model\":\"a\"} {\"model\":\"b\"}";
        assert_eq!(scanner.feed(both, Paths::all(), &mut seen), 14);
        assert_eq!(seen.0, [(Field::Text(Text::Model), "a".to_owned())]);
    }

    #[test]
    fn depth_costs_nothing() {
        let deep = "[{\"usage\":".repeat(1_000_000);
        assert_eq!(scan(&format!("{{\"a\":{deep}")), (vec![], false));
        let closed = format!("{{\"a\":{}1{},\"model\":\"m\"}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(scan(&closed), (vec!["m".to_owned()], true));
    }

    #[test]
    fn long_texts_are_cut_and_long_keys_are_unknown() {
        let long = "m".repeat(MAX_TEXT_BYTES + 9);
        let (mut scanner, mut seen) = (Scanner::new(), Seen::default());
        for byte in format!("{{\"{long}\":1,\"model\":\"{long}\"}}").as_bytes().chunks(1) {
            scanner.feed(byte, Paths::all(), &mut seen);
        }
        assert_eq!(seen.0, [(Field::Text(Text::Model), long[..MAX_TEXT_BYTES].to_owned())]);
    }

    #[test]
    fn escapes_are_read_as_serde_json_reads_them() {
        for raw in [r"a\n\t\r\b\f\/\\\u0041", r#"\"quoted\""#, r"\ud83c\udf0d earth", "plain é 你"] {
            let expected: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
            assert_eq!(decode(raw.as_bytes()), expected);
        }
        for (raw, expected) in [
            (&b"a\\ud83c"[..], "a\u{fffd}"),
            (b"\\ud83c\\u0041", "\u{fffd}A"),
            (b"\\u12", "\u{fffd}12"),
            (b"\\u+123", "\u{fffd}+123"),
            (b"a\\", "a\u{fffd}"),
            (b"\\x", "\u{fffd}x"),
            (b"\xff", "\u{fffd}"),
        ] {
            assert_eq!(decode(raw), expected);
        }
    }
}
