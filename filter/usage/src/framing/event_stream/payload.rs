//! A frame's payload as a document. InvokeModel wraps the model's JSON as base64, `{"bytes":"eyJ…"}`: it is handed on
//! decoded in its place, `{"bytes":{…}}`, so that it is at a path like any other.

use memchr::memchr;

use crate::framing::Documents;
use crate::json::is_whitespace;

const WRAPPED: &[u8] = b"{\"bytes\":\"";
/// Of decoded bytes, handed on at a time.
const PIECE_BYTES: usize = 768;

/// Where in the payload the bytes stand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload {
    /// This many bytes are those of a wrapped one.
    Start(usize),
    /// Inside the base64, with the bits that are no whole byte yet.
    Wrapped { bits: u32, count: u32 },
    /// Inside JSON that goes on as it is.
    Plain,
}

impl Default for Payload {
    fn default() -> Self {
        Payload::Start(0)
    }
}

impl Payload {
    pub(super) fn feed(&mut self, bytes: &[u8], documents: &mut impl Documents) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match *self {
                Payload::Start(matched) => self.start(rest, matched, documents),
                Payload::Wrapped { bits, count } => self.wrapped(rest, bits, count, documents),
                Payload::Plain => {
                    documents.part(rest);
                    return;
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    fn start(&mut self, bytes: &[u8], matched: usize, documents: &mut impl Documents) -> usize {
        match bytes.first() {
            Some(byte) if is_whitespace(*byte) => 1,
            Some(byte) if WRAPPED.get(matched) == Some(byte) => {
                *self = Payload::Start(matched + 1);
                if let Some((b'"', object)) = WRAPPED.split_last().filter(|_| matched + 1 == WRAPPED.len()) {
                    documents.part(object);
                    *self = Payload::Wrapped { bits: 0, count: 0 };
                }
                1
            }
            _ => {
                documents.part(WRAPPED.get(..matched).unwrap_or_default());
                *self = Payload::Plain;
                0
            }
        }
    }

    fn wrapped(&mut self, bytes: &[u8], mut bits: u32, mut count: u32, documents: &mut impl Documents) -> usize {
        let taken = memchr(b'"', bytes).unwrap_or(bytes.len()).min(PIECE_BYTES);
        if taken == 0 {
            *self = Payload::Plain;
            return 1;
        }
        let mut decoded = [0; PIECE_BYTES];
        let mut room = decoded.iter_mut();
        for digit in bytes.iter().take(taken).filter_map(|byte| digit(*byte)) {
            bits = (bits << 6 | digit) & 0x3FFF;
            count += 6;
            if count >= 8 {
                count -= 8;
                if let Some(byte) = room.next() {
                    *byte = (bits >> count) as u8;
                }
            }
        }
        let len = PIECE_BYTES - room.len();
        documents.part(decoded.get(..len).unwrap_or_default());
        *self = Payload::Wrapped { bits, count };
        taken
    }
}

/// A base64 digit; padding and the escape of `/` are none.
fn digit(byte: u8) -> Option<u32> {
    let (first, value) = match byte {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(byte - first) + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<u8>);

    impl Documents for Seen {
        fn failed(&mut self, _: &[u8]) {}

        fn part(&mut self, bytes: &[u8]) -> usize {
            self.0.extend_from_slice(bytes);
            bytes.len()
        }

        fn end(&mut self) {}
    }

    #[test]
    fn base64_is_handed_on_decoded_in_its_place() {
        let long = format!("{{\"bytes\":\"{}\",\"p\":\"ab\"}}", "e30g".repeat(999));
        let decoded = format!("{{\"bytes\":{},\"p\":\"ab\"}}", "{} ".repeat(999));
        for (payload, document) in [
            ("{\"bytes\":\"e30=\",\"p\":\"ab\"}", "{\"bytes\":{},\"p\":\"ab\"}"),
            (" { \"bytes\" : \"eyI\\/Pz8+IjowfQ==\" }", "{\"bytes\":{\"???>\":0} }"),
            ("{\"bytes\":1}", "{\"bytes\":1}"),
            ("{\"bytesRead\":\"e30=\"}", "{\"bytesRead\":\"e30=\"}"),
            ("{\"usage\":{}}", "{\"usage\":{}}"),
            (&long, &decoded),
        ] {
            for chunk_bytes in [1, 7, usize::MAX] {
                let (mut state, mut seen) = (Payload::default(), Seen::default());
                payload.as_bytes().chunks(chunk_bytes).for_each(|chunk| state.feed(chunk, &mut seen));
                assert_eq!(String::from_utf8_lossy(&seen.0), *document, "in chunks of {chunk_bytes}");
            }
        }
    }
}
