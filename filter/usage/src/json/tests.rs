//! The scanner on its own, with the tree of the formats and with small trees.

use super::*;
use crate::format::{Field, Text};
use crate::places::{Leaf, tree};

/// What is handed over at the places of counts, texts and marks.
#[derive(Default)]
struct Seen(Vec<(Option<Field>, String)>);

impl Sink for Seen {
    type Place = Leaf;

    fn wants(&self, _: Leaf) -> Want {
        Want::Kept
    }

    fn value(&mut self, leaf: Leaf, value: Value<'_>, _: Span) {
        let text = match value {
            Value::Number(text) | Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Value::Bool(_) | Value::Open => "…".to_owned(),
            _ => return,
        };
        self.0.push((leaf.field, text));
    }
}

fn scan(document: &str) -> (Vec<String>, bool) {
    let (mut scanner, mut seen) = (Scanner::new(), Seen::default());
    scanner.feed(document.as_bytes(), tree(), &mut seen);
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
    assert_eq!(scanner.feed(both, tree(), &mut seen), 14);
    assert_eq!(seen.0, [(Some(Field::Text(Text::Model)), "a".to_owned())]);
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
        scanner.feed(byte, tree(), &mut seen);
    }
    assert_eq!(seen.0, [(Some(Field::Text(Text::Model)), long[..MAX_TEXT_BYTES].to_owned())]);
}

/// All that a small tree hands over: the place's name, what came, its span.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log(Vec<(&'static str, String, Span)>);

impl Sink for Log {
    type Place = (&'static str, Want);

    fn wants(&self, (_, want): Self::Place) -> Want {
        want
    }

    fn value(&mut self, (name, _): Self::Place, value: Value<'_>, at: Span) {
        let text = |kind: char, raw: &[u8]| format!("{kind}{}", String::from_utf8_lossy(raw));
        let (text, is_cut) = match value {
            Value::Number(raw) => (text('#', raw), false),
            Value::Text(raw) => (text('"', raw), false),
            Value::Piece(raw) => (text('~', raw), true),
            other => (format!("{other:?}"), false),
        };
        match self.0.last_mut() {
            // Pieces that go on with one another are one.
            Some((last, whole, span)) if is_cut && *last == name && whole.starts_with('~') && span.end == at.start => {
                whole.push_str(&text[1..]);
                span.end = at.end;
            }
            _ => self.0.push((name, text, at)),
        }
    }
}

type Meaning = (&'static str, Want);

fn small_tree(leaves: &[(&[&'static str], Meaning)], subtrees: &[(&[&'static str], Meaning)]) -> Paths<Meaning> {
    let mut paths = Paths::new();
    leaves.iter().for_each(|(path, meaning)| paths.insert(path, |_| *meaning));
    subtrees.iter().for_each(|(path, meaning)| paths.insert_subtree(path, |_| *meaning));
    paths
}

/// What is handed over, the same however the document is cut: each with the bytes of its span.
fn log(paths: &Paths<Meaning>, document: &str) -> Vec<(&'static str, String, String)> {
    let read = |chunk_bytes: usize| {
        let (mut scanner, mut log) = (Scanner::new(), Log::default());
        for chunk in document.as_bytes().chunks(chunk_bytes) {
            scanner.feed(chunk, paths, &mut log);
        }
        log
    };
    let whole = read(usize::MAX);
    for chunk_bytes in [1, 2, 5] {
        assert_eq!(read(chunk_bytes), whole, "{document} in pieces of {chunk_bytes}");
    }
    let bytes = |start: u64, end: u64| document[start as usize..end as usize].to_owned();
    whole.0.into_iter().map(|(name, text, at)| (name, text, bytes(at.start, at.end))).collect()
}

fn row(name: &'static str, text: &str, span: &str) -> (&'static str, String, String) {
    (name, text.to_owned(), span.to_owned())
}

#[test]
fn every_kind_of_value_is_told_with_its_place() {
    let kept = |name| (name, Want::Kept);
    let paths =
        small_tree(&[(&["a"], kept("a")), (&["b"], kept("b")), (&["b", "c"], kept("c")), (&["d[]"], kept("d"))], &[]);
    let document = r#" {"a" : true,"a":false ,"a":null, "a": "x\"y","z":0,"b":{"c":1 , "c":{}}, "d":[1, "2",[]]}"#;
    assert_eq!(
        log(&paths, document),
        [
            row("a", "Bool(true)", "true"),
            row("a", "Bool(false)", "false"),
            row("a", "Null", "null"),
            row("a", r#""x\"y"#, r#""x\"y""#),
            row("b", "Open", "{"),
            row("c", "#1", "1"),
            row("c", "Open", "{"),
            row("c", "Close", "{}"),
            row("b", "Close", r#"{"c":1 , "c":{}}"#),
            row("d", "#1", "1"),
            row("d", "\"2", r#""2""#),
            row("d", "Open", "["),
        ]
    );
}

#[test]
fn texts_in_pieces_come_whole_however_long() {
    let paths = small_tree(&[(&["a"], ("a", Want::Pieces)), (&["b"], ("b", Want::No))], &[]);
    let long = "e\\\"".repeat(MAX_TEXT_BYTES);
    let found = log(&paths, &format!("{{\"a\":\"{long}\",\"b\":\"{long}\",\"a\":\"\",\"a\":5}}"));
    let texts: Vec<_> = found.iter().map(|(_, text, _)| text.as_str()).collect();
    assert_eq!(texts, [&format!("~{long}"), "PiecesEnd", "PiecesEnd", "#5"]);
}

#[test]
fn a_subtree_has_all_strings_and_unknown_keys_below_but_what_is_known() {
    let pieces = |name| (name, Want::Pieces);
    let paths = small_tree(
        &[(&["s", "image", "data"], ("no", Want::No)), (&["s", "n"], pieces("n"))],
        &[(&["s"], pieces("s"))],
    );
    let texts = |document: &str| -> Vec<_> {
        log(&paths, document).into_iter().filter(|(_, text, _)| text != "PiecesEnd").map(|row| (row.0, row.1)).collect()
    };
    let s = |text: &str| ("s", text.to_owned());
    assert_eq!(texts(r#"{"s":"x","t":"y"}"#), [s("~x")]);
    assert_eq!(
        texts(r#"{"s":{"k":[{"l":"x","m":1},"y"]},"t":{"k":"z"}}"#),
        [s("~k"), s("~l"), s("~x"), s("~m"), s("~y")]
    );
    assert_eq!(texts(r#"{"s":{"image":{"data":"AAAA","alt":"x"}}}"#), [s("~alt"), s("~x")]);
    assert_eq!(texts(r#"{"s":{"n":"x","o":"y"}}"#), [("n", "~x".to_owned()), s("~o"), s("~y")]);
    let deep = format!("{{\"s\":{}\"x\"{}}}", "[".repeat(9999), "]".repeat(9999));
    assert_eq!(texts(&deep), [s("~x")]);
}
