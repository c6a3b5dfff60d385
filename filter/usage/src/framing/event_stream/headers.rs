//! A frame's headers, of which one matters: the kind of the exception or the error that the frame is. Each header is a
//! length of one byte, a name, a type of one byte and a value; an error's is a string (type 7) after its length of two bytes.

/// Headers are read up to here: real ones take less than 200 bytes.
const MAX_BYTES: usize = 512;
/// An exception that the API documents, or another error.
const ERROR_HEADERS: [&[u8]; 2] = [b":exception-type", b":error-code"];

/// The headers as far as they have come.
#[derive(Debug)]
pub(super) struct Headers {
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl Default for Headers {
    fn default() -> Self {
        Headers { bytes: [0; MAX_BYTES], len: 0 }
    }
}

impl Headers {
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.len += super::fill(&mut self.bytes, self.len, piece);
    }

    /// The kind of the error that the frame is, if it is one.
    pub(super) fn error(&self) -> Option<&[u8]> {
        let mut rest = self.bytes.get(..self.len)?;
        while let Some((name, value, behind)) = header(rest) {
            if ERROR_HEADERS.contains(&name) {
                return Some(value);
            }
            rest = behind;
        }
        None
    }
}

/// A header's name, its value without its length, and what is behind it.
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (kind, rest) = rest.split_first()?;
    let (length, rest) = match kind {
        0 | 1 => (0, rest),
        2 => (1, rest),
        3 => (2, rest),
        4 => (4, rest),
        5 | 8 => (8, rest),
        6 | 7 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        9 => (16, rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((name, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(name: &str, value: &str) -> Vec<u8> {
        let mut header = vec![name.len() as u8];
        header.extend(name.bytes());
        header.push(7);
        header.extend((value.len() as u16).to_be_bytes());
        header.extend(value.bytes());
        header
    }

    #[test]
    fn an_error_is_found_among_headers_of_all_types() {
        let others = [&b"\x01a\x00"[..], b"\x01b\x02\x09", b"\x01c\x04\0\0\0\0", b"\x01d\x08\0\0\0\0\0\0\0\0"].concat();
        for name in [":exception-type", ":error-code"] {
            let mut headers = Headers::default();
            let bytes =
                [string(":message-type", "exception"), others.clone(), string(name, "throttlingException")].concat();
            bytes.chunks(1).for_each(|byte| headers.push(byte));
            assert_eq!(headers.error(), Some(&b"throttlingException"[..]));
            headers.clear();
            headers.push(&string(":event-type", "metadata"));
            assert_eq!(headers.error(), None);
        }
        for broken in [&b"\x0f:exception-type"[..], b"\x0f:exception-type\x07\xff\xffa", b"\x01a\x63", b"\xff"] {
            let mut headers = Headers::default();
            headers.push(broken);
            assert_eq!(headers.error(), None);
        }
    }
}
