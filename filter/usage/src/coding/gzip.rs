//! The coding `gzip` (RFC 1952): members one after the other, each a header, a stream, and the checksum and length of what
//! came out of it. Both are checked, and so is the header's own checksum.

use super::inflate::{Inflate, Wrapper};
use super::{Progress, Unreadable};
use crate::crc::Crc;

/// The header's first bytes: its mark and the only method. The flags follow.
const HEADER_START: [u8; 3] = [0x1F, 0x8B, 8];
/// The header up to where its optional parts begin.
const HEADER_BYTES: u8 = 10;
const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0b1110_0000;

/// Where in the body the bytes stand.
#[derive(Debug)]
pub(super) struct Gzip {
    part: Part,
    /// Of the current header.
    flags: u8,
    /// Over the header, then over what came out of the stream.
    crc: Crc,
    /// How much came out, modulo 2^32.
    decoded_bytes: u32,
    inflate: Inflate,
}

/// What the next byte belongs to. Numbers are little endian.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// The part of the header that is always there, of which so many bytes have come.
    Header(u8),
    ExtraLength(Number),
    Extra {
        left: u64,
    },
    Name,
    Comment,
    HeaderCrc(Number),
    Stream,
    /// The checksum, then the length.
    Trailer(Number),
    /// Another member, if there is one.
    Another,
}

#[derive(Debug, Clone, Copy, Default)]
struct Number {
    value: u64,
    bits: u32,
}

impl Number {
    /// With its next byte. A number has at most 8.
    fn push(self, byte: u8) -> Number {
        Number { value: self.value | u64::from(byte) << self.bits, bits: self.bits + 8 }
    }
}

impl Gzip {
    pub(super) fn new() -> Gzip {
        let (crc, inflate) = (Crc::default(), Inflate::new(Wrapper::None));
        Gzip { part: Part::Header(0), flags: 0, crc, decoded_bytes: 0, inflate }
    }

    pub(super) fn progress(&self) -> Progress {
        match self.part {
            Part::Another => Progress::Ended,
            _ => Progress::Open,
        }
    }

    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let taken = match self.part {
                Part::Stream => self.stream(rest, take)?,
                Part::Trailer(number) => {
                    self.part = self.trailer(number.push(byte))?;
                    1
                }
                Part::Another => {
                    self.part = Part::Header(0);
                    0
                }
                _ => {
                    self.part = self.header(byte)?;
                    1
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// A byte of the header, which gives what follows it.
    fn header(&mut self, byte: u8) -> Result<Part, Unreadable> {
        let crc_before = self.crc;
        self.crc.update(&[byte]);
        let part = match self.part {
            Part::Header(at) => {
                match HEADER_START.get(usize::from(at)) {
                    Some(expected) if *expected != byte => return Err(Unreadable::Corrupt),
                    None if at == 3 && byte & FLAGS_RESERVED != 0 => return Err(Unreadable::Corrupt),
                    None if at == 3 => self.flags = byte,
                    _ => {}
                }
                if at + 1 < HEADER_BYTES { Part::Header(at + 1) } else { self.after_header() }
            }
            Part::ExtraLength(length) => match length.push(byte) {
                Number { value, bits: 16 } if value > 0 => Part::Extra { left: value },
                Number { bits: 16, .. } => self.after_extra(),
                length => Part::ExtraLength(length),
            },
            Part::Extra { left } if left > 1 => Part::Extra { left: left - 1 },
            Part::Extra { .. } => self.after_extra(),
            Part::Name if byte == 0 => self.after_name(),
            Part::Comment if byte == 0 => self.after_comment(),
            Part::HeaderCrc(crc) => {
                // It is over what comes before it.
                self.crc = crc_before;
                let computed = u64::from(self.crc.value() & 0xFFFF);
                match crc.push(byte) {
                    Number { value, bits: 16 } if value == computed => Part::Stream,
                    Number { bits: 16, .. } => return Err(Unreadable::Corrupt),
                    crc => Part::HeaderCrc(crc),
                }
            }
            other => other,
        };
        if let Part::Stream = part {
            self.crc = Crc::default();
            self.decoded_bytes = 0;
            self.inflate.reset();
        }
        Ok(part)
    }

    fn after_header(&self) -> Part {
        if self.flags & FLAG_EXTRA != 0 { Part::ExtraLength(Number::default()) } else { self.after_extra() }
    }

    fn after_extra(&self) -> Part {
        if self.flags & FLAG_NAME != 0 { Part::Name } else { self.after_name() }
    }

    fn after_name(&self) -> Part {
        if self.flags & FLAG_COMMENT != 0 { Part::Comment } else { self.after_comment() }
    }

    fn after_comment(&self) -> Part {
        if self.flags & FLAG_HEADER_CRC != 0 { Part::HeaderCrc(Number::default()) } else { Part::Stream }
    }

    fn stream(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), Unreadable>,
    ) -> Result<usize, Unreadable> {
        let (crc, decoded_bytes) = (&mut self.crc, &mut self.decoded_bytes);
        let (taken, progress) = self.inflate.inflate(bytes, &mut |decoded| {
            crc.update(decoded);
            // A piece is no longer than the window.
            *decoded_bytes = decoded_bytes.wrapping_add(decoded.len() as u32);
            take(decoded)
        })?;
        if progress == Progress::Ended {
            self.part = Part::Trailer(Number::default());
        }
        Ok(taken)
    }

    fn trailer(&mut self, number: Number) -> Result<Part, Unreadable> {
        if number.bits < u64::BITS {
            return Ok(Part::Trailer(number));
        }
        let computed = u64::from(self.decoded_bytes) << 32 | u64::from(self.crc.value());
        self.crc = Crc::default();
        if number.value == computed { Ok(Part::Another) } else { Err(Unreadable::Corrupt) }
    }
}
