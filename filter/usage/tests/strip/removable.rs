//! What may be removed from a stream, said on the whole of it.

use std::collections::BTreeSet;

use serde_json::Value;

/// Whether `out` is `input` less usage chunks and members `usage` with null.
pub(crate) fn is_input_without_removable(input: &[u8], out: &[u8]) -> bool {
    // Pairs of how much of both was compared.
    let mut reached = BTreeSet::from([(0, 0)]);
    while let Some((at, sent)) = reached.pop_first() {
        if (at, sent) == (input.len(), out.len()) {
            return true;
        }
        if at < input.len() && out.get(sent) == Some(&input[at]) {
            reached.insert((at + 1, sent + 1));
        }
        reached.extend(null_members(&input[at..]).into_iter().map(|bytes| (at + bytes, sent)));
        for (bytes, comments) in usage_chunk(input, at) {
            if out[sent..].starts_with(&comments) {
                reached.insert((at + bytes, sent + comments.len()));
            }
        }
    }
    false
}

/// How long members with their comma are that may be removed from here: with the comma before, or with that behind and any
/// whitespace there, for which there are several lengths.
fn null_members(bytes: &[u8]) -> Vec<usize> {
    let null = |rest| literal(space(literal(space(literal(rest, b"\"usage\"")?), b":")?), b"null");
    let length = |rest: &[u8]| bytes.len() - rest.len();
    let later = literal(bytes, b",").and_then(|rest| null(space(rest))).map(length);
    let first = null(bytes).map(space);
    let only = first.filter(|rest| rest.starts_with(b"}")).map(length);
    let before_another = first.and_then(|rest| literal(rest, b",")).map(space).map(length);
    [later, only, before_another].into_iter().flatten().collect()
}

fn literal<'a>(bytes: &'a [u8], literal: &[u8]) -> Option<&'a [u8]> {
    bytes.strip_prefix(literal)
}

/// Behind whitespace, and ends of lines with the next line's `data:`.
fn space(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    loop {
        let line_end = [&b"\r\n"[..], b"\n", b"\r"].into_iter().find_map(|end| rest.strip_prefix(end));
        rest = match (line_end, rest) {
            (Some(line), _) => match line.strip_prefix(b"data") {
                Some(value @ [b'\n' | b'\r', ..]) => value,
                Some([b':', value @ ..]) => value,
                _ => return rest,
            },
            (None, [b' ' | b'\t', after @ ..]) => after,
            _ => return rest,
        };
    }
}

/// The usage chunk that begins here, if one does: how long it is, with and without the line feed behind a carriage return, and
/// its comments.
fn usage_chunk(stream: &[u8], at: usize) -> Vec<(usize, Vec<u8>)> {
    let is_line_start = matches!(stream[..at], [] | [.., b'\n' | b'\r'] | [0xEF, 0xBB, 0xBF]);
    let (mut document, mut comments, mut rest) = (Vec::new(), Vec::new(), &stream[at..]);
    while is_line_start && !rest.is_empty() {
        let text_bytes = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let end_bytes = if rest[text_bytes..].starts_with(b"\r\n") { 2 } else { 1.min(rest.len() - text_bytes) };
        let (line, after) = rest.split_at(text_bytes + end_bytes);
        rest = after;
        let text = &line[..text_bytes];
        if text.is_empty() {
            break;
        } else if text.starts_with(b":") {
            comments.extend_from_slice(line);
        } else if let Some(value) = text.strip_prefix(b"data") {
            document.push(b'\n');
            document.extend_from_slice(value.strip_prefix(b":").unwrap_or(value));
        }
    }
    let is_usage_chunk = serde_json::from_slice(&document).is_ok_and(|document: Value| {
        document["choices"].as_array().is_some_and(Vec::is_empty) && document["usage"].is_object()
    });
    if is_usage_chunk { vec![(stream.len() - at - rest.len(), comments)] } else { vec![] }
}
