//! How many tokens a text has, by its bytes alone.
//!
//! - The estimate is a sum: each character costs what its kind, after the kind before it and at its place in a run of its own
//!   kind, costs on average in the tokenizer of GPT-4o and later (`o200k_base`). No vocabulary is needed, and a byte costs a
//!   nanosecond or two.
//! - The cut does not matter: an escape or a character that is cut goes on with the next piece.
//! - Bytes are taken as they stand in a JSON string. What is no UTF-8 or no escape is counted as something, never refused.

mod weights;

use weights::{RUN, START};

/// A running estimate over any number of texts.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextEstimate {
    /// What was counted, in [`PARTS`] of a token.
    cost: u64,
    last: Last,
    pending: Pending,
}

/// The parts that a token is counted in.
const PARTS: u64 = 64;

/// The last character.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    /// A [`Kind`].
    kind: u8,
    /// How many of its kind stand before it in its run; at most 15 are told apart.
    before: u8,
}

/// Kinds of characters that tokenizers treat alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// None: a text begins.
    #[default]
    Start,
    Lower,
    Upper,
    Digit,
    Space,
    Newline,
    Punctuation,
    /// Latin letters beyond ASCII.
    Latin,
    Cyrillic,
    /// Arabic, Hebrew, Greek.
    Arabic,
    /// Devanagari and other scripts of South and Southeast Asia.
    Indic,
    Kana,
    Han,
    Hangul,
    /// Punctuation and symbols beyond ASCII.
    Symbol,
    Emoji,
}

/// What the next byte goes on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Pending {
    #[default]
    Nothing,
    /// An escape, after its backslash.
    Escape,
    /// `\u` with this many digits.
    Unicode { digits: u8, unit: u16 },
    /// A character whose first byte leaves its kind open.
    Second,
}

/// What a byte is where nothing is pending: the first one of a character of this [`Kind`], or one of those below.
const CLASSES: [u8; 256] = {
    let mut classes = [LATER; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::indexing_slicing, reason = "within the bounds, as the compiler has seen")]
        {
            classes[byte] = class(byte as u8);
        }
        byte += 1;
    }
    classes
};
/// A later byte of a character.
const LATER: u8 = KINDS as u8;
const BACKSLASH: u8 = LATER + 1;
/// The first byte of kana and of the punctuation of Chinese and Japanese.
const FIRST_OF_KANA: u8 = LATER + 2;

const fn class(byte: u8) -> u8 {
    let kind = match byte {
        b'\\' => return BACKSLASH,
        0x80..=0xbf => return LATER,
        0xe3 => return FIRST_OF_KANA,
        b'a'..=b'z' => Kind::Lower,
        b'A'..=b'Z' => Kind::Upper,
        b'0'..=b'9' => Kind::Digit,
        b' ' | b'\t' => Kind::Space,
        b'\n' | b'\r' => Kind::Newline,
        0..=0x7f => Kind::Punctuation,
        0xc3..=0xc9 => Kind::Latin,
        0xcc..=0xcf | 0xd6..=0xdf => Kind::Arabic,
        0xd0..=0xd5 => Kind::Cyrillic,
        0xe0 | 0xe1 => Kind::Indic,
        0xe4..=0xe9 => Kind::Han,
        0xea..=0xed => Kind::Hangul,
        0xf0..=0xff => Kind::Emoji,
        _ => Kind::Symbol,
    };
    kind as u8
}

impl TextEstimate {
    /// Takes a piece of a text: bytes of a JSON string without its quotes, escapes as they stand, cut anywhere.
    pub fn feed(&mut self, raw: &[u8]) {
        let mut rest = raw;
        while let Some((byte, more)) = rest.split_first() {
            rest = if self.pending == Pending::Nothing {
                self.plain(rest)
            } else {
                self.go_on(*byte);
                more
            };
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

    /// Takes characters up to one that makes something pending, and returns what comes behind it.
    fn plain<'a>(&mut self, raw: &'a [u8]) -> &'a [u8] {
        let (mut last, mut cost) = (self.last, 0);
        let mut bytes = raw.iter();
        for byte in bytes.by_ref() {
            let class = CLASSES.get(usize::from(*byte)).copied().unwrap_or(LATER);
            if class < LATER {
                cost += last.step(class);
            } else if class != LATER {
                self.pending = if class == BACKSLASH { Pending::Escape } else { Pending::Second };
                break;
            }
        }
        self.last = last;
        self.cost = self.cost.saturating_add(cost);
        bytes.as_slice()
    }

    /// Takes a byte of what is pending.
    fn go_on(&mut self, byte: u8) {
        let pending = std::mem::take(&mut self.pending);
        match pending {
            Pending::Nothing => {}
            Pending::Second => self.step(if byte == 0x80 { Kind::Symbol } else { Kind::Kana }),
            Pending::Escape => match byte {
                b'u' => self.pending = Pending::Unicode { digits: 0, unit: 0 },
                b'n' | b'r' => self.step(Kind::Newline),
                b't' => self.step(Kind::Space),
                _ => self.step(Kind::Punctuation),
            },
            Pending::Unicode { digits, unit } => {
                let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()).unwrap_or(0);
                let unit = (unit << 4) | digit;
                match digits {
                    0..3 => self.pending = Pending::Unicode { digits: digits + 1, unit },
                    _ => self.unit(unit),
                }
            }
        }
    }

    /// A UTF-16 unit that was written as an escape costs what its character costs in UTF-8.
    fn unit(&mut self, unit: u16) {
        match char::from_u32(u32::from(unit)) {
            Some('\\') => self.step(Kind::Punctuation),
            Some(character) => self.feed(character.encode_utf8(&mut [0; 4]).as_bytes()),
            // The first half of a pair stands for both.
            None if unit < 0xdc00 => self.step(Kind::Emoji),
            None => {}
        }
    }

    fn step(&mut self, kind: Kind) {
        self.cost = self.cost.saturating_add(self.last.step(kind as u8));
    }
}

/// What a character costs, by its kind and a column: first those of [`START`], then those of [`RUN`]. One table, for every
/// byte of a prompt comes through here.
const WEIGHTS: [u8; KINDS * COLUMNS] = {
    let mut weights = [0; KINDS * COLUMNS];
    let mut at = 0;
    while at < weights.len() {
        let (kind, column) = (at / COLUMNS, at % COLUMNS);
        #[allow(clippy::indexing_slicing, reason = "within the bounds, as the compiler has seen")]
        {
            weights[at] = if column < KINDS { START[kind][column] } else { RUN[kind][column - KINDS] };
        }
        at += 1;
    }
    weights
};
const KINDS: usize = 16;
const COLUMNS: usize = 2 * KINDS;

impl Last {
    /// Goes on to the next character, and returns what it costs.
    fn step(&mut self, kind: u8) -> u64 {
        let is_run = kind == self.kind;
        let column = if is_run { KINDS + usize::from(self.before) } else { usize::from(self.kind) };
        self.before = if is_run { (self.before + 1).min(15) } else { 0 };
        self.kind = kind;
        // The mask tells the compiler that it is within.
        WEIGHTS.get((usize::from(kind) * COLUMNS + column) & (WEIGHTS.len() - 1)).copied().map_or(0, u64::from)
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
