//! Strings: where they end, and what their escapes stand for.

use memchr::memchr;

/// Where a string ends.
pub(crate) enum TextEnd {
    /// At the quote with this index.
    At(usize),
    /// Not in these bytes. `escaped`: their last byte was a backslash that holds for the next.
    Open { escaped: bool },
}

/// Finds the end of a string. `escaped`: the byte before was a backslash that holds for the first.
pub(crate) fn end_of_text(bytes: &[u8], escaped: bool) -> TextEnd {
    let mut at = usize::from(escaped);
    while let Some(found) = bytes.get(at..).and_then(quote_or_backslash) {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return TextEnd::At(at);
        }
        at += 2;
    }
    TextEnd::Open { escaped: at > bytes.len() }
}

/// The first quote or backslash. Most strings are short: a search that has to make ready costs more than it saves.
fn quote_or_backslash(text: &[u8]) -> Option<usize> {
    /// In each byte.
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (blocks, rest) = text.as_chunks::<8>();
    for (at, block) in blocks.iter().enumerate() {
        let bytes = u64::from_le_bytes(*block);
        // The high bit of each byte that is zero, and perhaps of bytes above one: the lowest is right.
        let zeros = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes & (ONES << 7);
        let found = zeros(bytes ^ (ONES * u64::from(b'"'))) | zeros(bytes ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let is_wanted = |byte: &u8| matches!(byte, b'"' | b'\\');
    rest.iter().position(is_wanted).map(|at| blocks.len() * 8 + at)
}

/// Reads the escapes of a string. What is no UTF-8 or half of a surrogate pair becomes U+FFFD, and so does an escape that
/// does not exist.
pub(crate) fn decode(raw: &[u8]) -> String {
    let mut escape = memchr(b'\\', raw);
    if let (None, Ok(plain)) = (escape, std::str::from_utf8(raw)) {
        return plain.to_owned();
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = escape {
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
        escape = memchr(b'\\', rest);
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_quote_or_backslash_is_found(
            text in prop::collection::vec(prop_oneof![9 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\')], 0..60),
        ) {
            let expected = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(quote_or_backslash(&text), expected);
        }
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
