//! The beginnings of keys, numbers and strings that reach over the end of a piece.

use super::MAX_TEXT_BYTES;

/// The first bytes of something that came in several pieces.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: [u8; MAX_TEXT_BYTES],
    pub(super) len: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Kept { bytes: [0; MAX_TEXT_BYTES], len: 0 }
    }
}

impl Kept {
    /// The first byte of what has been kept so far.
    pub(super) fn first(&self) -> Option<u8> {
        self.bytes.get(..self.len)?.first().copied()
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let taken = room.len().min(piece.len());
        for (to, from) in room.iter_mut().zip(piece) {
            *to = *from;
        }
        self.len += taken;
    }

    /// The whole, of which this is the last piece.
    pub(super) fn complete<'a>(&'a mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.len == 0 {
            return piece.get(..MAX_TEXT_BYTES).unwrap_or(piece);
        }
        self.push(piece);
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
