//! How many tokens a text has, by its bytes alone.
//!
//! - The estimate is a sum: each character costs what its kind and its place in a run of that kind cost on average in the
//!   tokenizer of GPT-4o and later (`o200k_base`). No vocabulary is needed, and a byte costs about a nanosecond.
//! - The cut does not matter: an escape or a character that is cut goes on with the next piece.
//! - Bytes are taken as they stand in a JSON string. What is no UTF-8 or no escape is counted as something, never refused.

/// A running estimate over any number of texts.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextEstimate {
    /// What was counted, in parts of a token.
    cost: u64,
    last: Kind,
    /// How many characters of the last kind stand in a row.
    run: u8,
    pending: Pending,
}

/// The parts that a token is counted in.
const PARTS: u64 = 64;
/// Longer runs cost for each character what they cost here.
const MAX_RUN: u8 = 15;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// Nothing yet.
    #[default]
    Start,
    Lower,
    Upper,
    Digit,
    Space,
    Newline,
    Punctuation,
    Latin,
    Cyrillic,
    Arabic,
    Indic,
    Kana,
    Han,
    Hangul,
    Symbol,
    Emoji,
}

/// What the next byte goes on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Pending {
    #[default]
    Nothing,
    /// After a backslash.
    Escape,
    /// After `\u` and this many digits.
    Unicode { digits: u8, value: u16 },
    /// After a first byte that leaves the kind open.
    Second(u8),
}

impl TextEstimate {
    /// Takes a piece of a text: bytes of a JSON string without its quotes, escapes as they stand, cut anywhere.
    pub fn feed(&mut self, raw: &[u8]) {
        for byte in raw {
            self.byte(*byte);
        }
    }

    /// Ends a text: what comes next is not joined with it.
    pub fn end(&mut self) {
        *self = TextEstimate { cost: self.cost, ..TextEstimate::default() };
    }

    /// The estimate of all texts together, in tokens, rounded up.
    pub fn tokens(&self) -> u64 {
        self.cost.div_ceil(PARTS)
    }

    fn byte(&mut self, byte: u8) {
        match self.pending {
            Pending::Nothing => match byte {
                b'\\' => self.pending = Pending::Escape,
                b'a'..=b'z' => self.step(Kind::Lower),
                b'A'..=b'Z' => self.step(Kind::Upper),
                b'0'..=b'9' => self.step(Kind::Digit),
                b' ' | b'\t' => self.step(Kind::Space),
                b'\n' | b'\r' => self.step(Kind::Newline),
                0..=0x7f => self.step(Kind::Punctuation),
                0x80..=0xbf => {}
                0xe3 => self.pending = Pending::Second(byte),
                _ => self.step(kind_of_first(byte)),
            },
            Pending::Escape => {
                self.pending = Pending::Nothing;
                match byte {
                    b'n' | b'r' => self.step(Kind::Newline),
                    b't' | b'b' | b'f' => self.step(Kind::Space),
                    b'u' => self.pending = Pending::Unicode { digits: 0, value: 0 },
                    _ => self.step(Kind::Punctuation),
                }
            }
            Pending::Unicode { digits, value } => {
                let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()).unwrap_or(0);
                let value = (value << 4) | digit;
                self.pending = Pending::Unicode { digits: digits + 1, value };
                if digits == 3 {
                    self.pending = Pending::Nothing;
                    self.unit(value);
                }
            }
            Pending::Second(_) => {
                self.pending = Pending::Nothing;
                self.step(if byte == 0x80 { Kind::Symbol } else { Kind::Kana });
            }
        }
    }

    /// A UTF-16 unit that was written as an escape: the same as its bytes in UTF-8.
    fn unit(&mut self, unit: u16) {
        match char::from_u32(u32::from(unit)) {
            Some('\\') => self.step(Kind::Punctuation),
            Some(character) => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    self.byte(byte);
                }
            }
            // The first half of a pair stands for both.
            None if unit < 0xdc00 => self.step(Kind::Emoji),
            None => {}
        }
    }

    fn step(&mut self, kind: Kind) {
        self.run = if kind == self.last { (self.run + 1).min(MAX_RUN) } else { 1 };
        self.last = kind;
        let parts = match (kind, self.run) {
            (Kind::Lower, 1) => 48,
            (Kind::Lower, 2..=6) => 3,
            (Kind::Lower, _) => 14,
            (Kind::Space, _) => 4,
            (Kind::Upper | Kind::Symbol | Kind::Punctuation | Kind::Newline, _) => 40,
            (Kind::Digit | Kind::Cyrillic | Kind::Arabic | Kind::Indic, _) => 22,
            (Kind::Latin | Kind::Kana | Kind::Han | Kind::Hangul, _) => 44,
            (Kind::Emoji, _) => 128,
            (Kind::Start, _) => 0,
        };
        self.cost = self.cost.saturating_add(parts);
    }
}

/// The kind of a character by its first byte in UTF-8.
fn kind_of_first(byte: u8) -> Kind {
    match byte {
        0xc3..=0xc9 => Kind::Latin,
        0xcc..=0xd5 => Kind::Cyrillic,
        0xd6..=0xdf => Kind::Arabic,
        0xe0 | 0xe1 => Kind::Indic,
        0xe4..=0xe9 => Kind::Han,
        0xea..=0xed => Kind::Hangul,
        0xf0..=0xff => Kind::Emoji,
        _ => Kind::Symbol,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(pieces: &[&[u8]]) -> u64 {
        let mut estimate = TextEstimate::default();
        for piece in pieces {
            estimate.feed(piece);
        }
        estimate.tokens()
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(text in "(\\PC|[\\\\u0-9a-f ]|\\\\u[0-9a-f]{4}|\\\\n){0,60}", at in any::<prop::sample::Index>()) {
            let (first, second) = text.as_bytes().split_at(at.index(text.len() + 1));
            prop_assert_eq!(tokens(&[first, second]), tokens(&[text.as_bytes()]));
            let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(tokens(&bytes), tokens(&[text.as_bytes()]));
        }
    }
}
