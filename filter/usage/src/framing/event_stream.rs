//! Amazon's event stream encoding, `application/vnd.amazon.eventstream`: frames of a prelude (length of the frame, length of
//! its headers, their CRC-32), headers, a payload that is a document, and the frame's CRC-32. Source: the Amazon Transcribe
//! developer guide, "Event stream encoding".
//!
//! A frame is read as it comes, but what it told counts only once its checksum has shown that it came whole and as it was
//! sent. Where a checksum or a length is wrong, nothing that follows is read.

mod headers;
mod payload;

use headers::Headers;
use payload::Payload;

use super::Documents;
use crate::crc::Crc;

const PRELUDE_BYTES: usize = 12;
const CRC_BYTES: usize = 4;
/// The encoding's own bound.
const MAX_FRAME_BYTES: u32 = 16 * 1024 * 1024;

/// Where in the frames the bytes stand.
#[derive(Debug, Default)]
pub(crate) struct EventStream {
    place: Place,
    /// Of the frame so far.
    crc: Crc,
    headers: Headers,
    payload: Payload,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Prelude { bytes: [u8; PRELUDE_BYTES], len: usize },
    Headers { left: usize, payload: usize },
    Payload { left: usize },
    Crc { bytes: [u8; CRC_BYTES], len: usize },
    Broken,
}

impl Default for Place {
    fn default() -> Self {
        Place::Prelude { bytes: [0; PRELUDE_BYTES], len: 0 }
    }
}

impl EventStream {
    pub(super) fn feed(&mut self, bytes: &[u8], documents: &mut impl Documents) {
        let mut rest = bytes;
        // Parts of length 0 are passed even when no bytes are left.
        while !rest.is_empty() || matches!(self.place, Place::Headers { left: 0, .. } | Place::Payload { left: 0 }) {
            let taken = match self.place {
                Place::Prelude { mut bytes, len } => {
                    let taken = fill(&mut bytes, len, rest);
                    self.place = match len + taken {
                        PRELUDE_BYTES => self.prelude(bytes, documents),
                        len => Place::Prelude { bytes, len },
                    };
                    taken
                }
                Place::Headers { left: 0, payload } => {
                    self.place = Place::Payload { left: payload };
                    0
                }
                Place::Headers { left, payload } => {
                    let headers = rest.get(..left).unwrap_or(rest);
                    self.crc.update(headers);
                    self.headers.push(headers);
                    self.place = Place::Headers { left: left - headers.len(), payload };
                    headers.len()
                }
                Place::Payload { left: 0 } => {
                    self.place = Place::Crc { bytes: [0; CRC_BYTES], len: 0 };
                    0
                }
                Place::Payload { left } => {
                    let piece = rest.get(..left).unwrap_or(rest);
                    self.crc.update(piece);
                    self.payload.feed(piece, documents);
                    self.place = Place::Payload { left: left - piece.len() };
                    piece.len()
                }
                Place::Crc { mut bytes, len } => {
                    let taken = fill(&mut bytes, len, rest);
                    self.place = match len + taken {
                        CRC_BYTES => self.end_frame(u32::from_be_bytes(bytes), documents),
                        len => Place::Crc { bytes, len },
                    };
                    taken
                }
                Place::Broken => return,
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// The bytes have ended.
    pub(super) fn finish(&mut self, documents: &mut impl Documents) {
        if !matches!(self.place, Place::Prelude { .. } | Place::Broken) {
            documents.take_back();
        }
    }

    /// Whether a checksum or a length was wrong.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.place, Place::Broken)
    }

    fn prelude(&mut self, bytes: [u8; PRELUDE_BYTES], documents: &mut impl Documents) -> Place {
        let [a, b, c, d, e, f, g, h, crc @ ..] = bytes;
        let frame = u32::from_be_bytes([a, b, c, d]);
        let headers = u32::from_be_bytes([e, f, g, h]);
        self.headers.clear();
        self.crc = Crc::default();
        self.crc.update(&[a, b, c, d, e, f, g, h]);
        let is_intact = self.crc.value() == u32::from_be_bytes(crc) && frame <= MAX_FRAME_BYTES;
        self.crc.update(&crc);
        let rest = frame.checked_sub((PRELUDE_BYTES + CRC_BYTES) as u32).filter(|_| is_intact);
        match rest.and_then(|rest| rest.checked_sub(headers)) {
            Some(payload) => {
                documents.begin_unchecked();
                Place::Headers { left: headers as usize, payload: payload as usize }
            }
            None => Place::Broken,
        }
    }

    fn end_frame(&mut self, crc: u32, documents: &mut impl Documents) -> Place {
        self.payload = Payload::default();
        if self.crc.value() != crc {
            documents.take_back();
            return Place::Broken;
        }
        if let Some(kind) = self.headers.error() {
            documents.failed(kind);
        }
        documents.end();
        Place::default()
    }
}

/// Copies bytes behind the first `len` of a buffer, as many as there is room for, and returns how many.
fn fill(buffer: &mut [u8], len: usize, bytes: &[u8]) -> usize {
    let room = buffer.get_mut(len..).unwrap_or_default();
    room.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(String, Vec<String>);

    impl Documents for Seen {
        fn failed(&mut self, _: &[u8]) {}

        fn part(&mut self, bytes: &[u8]) -> usize {
            self.0.push_str(std::str::from_utf8(bytes).unwrap());
            bytes.len()
        }

        fn end(&mut self) {
            self.1.push(std::mem::take(&mut self.0));
        }

        fn take_back(&mut self) {
            self.0.clear();
        }
    }

    fn frame(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let crc = |bytes: &[u8]| {
            let mut crc = Crc::default();
            crc.update(bytes);
            crc.value().to_be_bytes()
        };
        let lengths = [16 + headers.len() + payload.len(), headers.len()].map(|length| (length as u32).to_be_bytes());
        let mut frame = lengths.concat();
        frame.extend(crc(&frame));
        frame.extend([headers, payload].concat());
        frame.extend(crc(&frame));
        frame
    }

    fn documents(stream: &[u8], chunk_bytes: usize) -> Vec<String> {
        let (mut frames, mut seen) = (EventStream::default(), Seen::default());
        stream.chunks(chunk_bytes).for_each(|chunk| frames.feed(chunk, &mut seen));
        seen.1
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        let mut crc = Crc::default();
        crc.update(b"123456789");
        assert_eq!(crc.value(), 0xCBF4_3926);
    }

    #[test]
    fn frames_are_documents() {
        let stream = [frame(b"", b"{}"), frame(b"\x03abc", b""), frame(b"\x01h", b"{\"usage\":1}")].concat();
        for chunk_bytes in [1, 5, usize::MAX] {
            assert_eq!(documents(&stream, chunk_bytes), ["{}", "", "{\"usage\":1}"]);
        }
        assert_eq!(documents(&stream[..stream.len() - 1], 3).len(), 2);
    }

    #[test]
    fn nothing_is_read_behind_a_wrong_length_or_checksum() {
        let (first, second) = (frame(b"h", b"{}"), frame(b"h", b"{}"));
        for at in [0, 3, 7, 8, 11, 12, 13, first.len() - 1] {
            let mut broken = first.clone();
            broken[at] ^= 0x20;
            let documents = documents(&[broken, second.clone()].concat(), usize::MAX);
            assert!(documents.is_empty(), "a changed byte at {at}: {documents:?}");
        }
        let mut short = Crc::default();
        let lengths = [0, 0, 0, 15, 0, 0, 0, 0];
        short.update(&lengths);
        let stream = [&lengths[..], &short.value().to_be_bytes(), &second].concat();
        assert!(documents(&stream, 1).is_empty());
    }
}
