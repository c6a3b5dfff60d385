//! What may be removed from a stream, said on the whole of it. JSON is taken by its structure: what stands deep inside a value is
//! not checked.

use std::collections::BTreeSet;

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
    let is_usage_chunk = is_line_start && is_usage_chunk(&document);
    if is_usage_chunk { vec![(stream.len() - at - rest.len(), comments)] } else { vec![] }
}

/// Whether a document is an object with an empty array of `choices` and an object `usage`, in all their occurrences, and no
/// `error` but null.
pub(crate) fn is_usage_chunk(document: &[u8]) -> bool {
    let Some(members) = members(document) else { return false };
    let values =
        |key: &'static str| members.iter().filter(move |(name, _)| *name == key.as_bytes()).map(|(_, value)| *value);
    let is_empty = |array: &[u8]| array.strip_prefix(b"[").is_some_and(|rest| json_space(rest) == b"]");
    values("choices").count() > 0
        && values("choices").all(is_empty)
        && values("usage").count() > 0
        && values("usage").all(|usage| usage.starts_with(b"{"))
        && values("error").all(|error| error.starts_with(b"n"))
}

/// The keys and values of a document that is an object.
fn members(document: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut members = Vec::new();
    let mut rest = json_space(literal(json_space(document), b"{")?);
    if let Some(after) = literal(rest, b"}") {
        return json_space(after).is_empty().then_some(members);
    }
    loop {
        let behind_key = text(rest)?;
        let key = &rest[1..rest.len() - behind_key.len() - 1];
        rest = json_space(literal(json_space(behind_key), b":")?);
        let behind = value(rest)?;
        members.push((key, &rest[..rest.len() - behind.len()]));
        rest = json_space(behind);
        match rest.first()? {
            b',' => rest = json_space(&rest[1..]),
            b'}' => return json_space(&rest[1..]).is_empty().then_some(members),
            _ => return None,
        }
    }
}

fn json_space(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    &bytes[end.unwrap_or(bytes.len())..]
}

/// Behind a string.
fn text(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = literal(bytes, b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return None,
        };
    }
}

/// Behind a value.
fn value(bytes: &[u8]) -> Option<&[u8]> {
    let is_scalar = |byte: &u8| byte.is_ascii_alphanumeric() || b"-+.".contains(byte);
    let (mut rest, mut depth) = (bytes, 0);
    loop {
        rest = match rest.first()? {
            b'"' => text(rest)?,
            b'{' | b'[' => {
                depth += 1;
                &rest[1..]
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                &rest[1..]
            }
            _ if depth > 0 => &rest[1..],
            byte if is_scalar(byte) => &rest[rest.iter().position(|byte| !is_scalar(byte)).unwrap_or(rest.len())..],
            _ => return None,
        };
        if depth == 0 {
            return Some(rest);
        }
    }
}
