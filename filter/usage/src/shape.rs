//! Shapes: the events of a stream differ in a few values only, so an event that differs from one before in nothing but its
//! strings and numbers need not be scanned again.
//!
//! - A shape is a document that was scanned, with the places of its string and number values, the *slots*. A document has this
//!   shape if it is the same outside of the slots and has a string or a number in each of them. The scanner would take the
//!   same steps through it, so the values at known places are those of the same slots: nothing is guessed.
//! - A shape has no control characters, in slots or elsewhere: a document of this shape has no line end inside.
//! - Bounded: see the maxima. What is larger is scanned.

mod bytes;
mod learn;

use bytes::{common_prefix, end_of_number, end_of_text};
use learn::Log;

use crate::facts::Facts;
use crate::format::Field;
use crate::json::{MAX_TEXT_BYTES, Value};

/// The longest document that becomes a shape.
const MAX_BYTES: usize = 1024;
/// The most slots of a shape.
const MAX_SLOTS: usize = 64;
/// The most values at known places.
const MAX_KNOWN: usize = 32;
/// The most shapes that are remembered.
const MAX_SHAPES: usize = 3;

/// The shapes that are remembered, the last used first.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    shapes: Vec<Shape>,
    /// Where the last document that was found has its known slots.
    found: Vec<(usize, usize)>,
    log: Log,
}

/// A document that was scanned.
#[derive(Debug, Default)]
struct Shape {
    bytes: Vec<u8>,
    /// The slot that each byte is in, with the byte behind the slot, or [`NO_SLOT`].
    owners: Vec<u8>,
    slots: Vec<Slot>,
    known: Vec<Known>,
}

const NO_SLOT: u8 = u8::MAX;

/// A string between its quotes, or a number.
#[derive(Debug, Clone, Copy)]
struct Slot {
    start: u16,
    end: u16,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
}

/// What the scanner handed over at a known place.
#[derive(Debug, Clone, Copy)]
struct Known {
    field: Field,
    value: KnownValue,
    /// Where the value stands, or [`NO_SLOT`].
    slot: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownValue {
    Number,
    Text,
    /// A string in pieces.
    Pieces,
    /// In all documents of the shape.
    Bool(bool),
    Open,
    Close,
}

impl Shapes {
    /// The length of the document that these bytes begin with, if it has a known shape.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for at in 0..self.shapes.len() {
            if let Some(length) = self.shapes.get(at).and_then(|shape| shape.matches(bytes, &mut self.found)) {
                if at > 0 {
                    self.shapes.swap(0, at);
                }
                return Some(length);
            }
        }
        None
    }

    /// Hands over the values of the document that was found last.
    pub(crate) fn read(&self, document: &[u8], facts: &mut Facts) {
        let Some(shape) = self.shapes.first() else { return };
        let mut found = self.found.iter();
        for Known { field, value, slot } in &shape.known {
            let bytes = match slot {
                &NO_SLOT => &[],
                _ => found.next().and_then(|(start, end)| document.get(*start..*end)).unwrap_or_default(),
            };
            let cut = bytes.get(..MAX_TEXT_BYTES).unwrap_or(bytes);
            let value = match value {
                KnownValue::Pieces => {
                    facts.again(*field, Value::Piece(bytes));
                    Value::PiecesEnd
                }
                KnownValue::Number => Value::Number(cut),
                KnownValue::Text => Value::Text(cut),
                KnownValue::Bool(value) => Value::Bool(*value),
                KnownValue::Open => Value::Open,
                KnownValue::Close => Value::Close,
            };
            facts.again(*field, value);
        }
    }
}

impl Shape {
    /// The length of the document at the start of these bytes, if it has this shape, and where it has the known slots.
    fn matches(&self, document: &[u8], found: &mut Vec<(usize, usize)>) -> Option<usize> {
        found.clear();
        let mut known = self.known.iter().map(|known| known.slot).filter(|slot| *slot != NO_SLOT).peekable();
        let (mut ours, mut theirs) = (0, 0);
        loop {
            let same = common_prefix(self.bytes.get(ours..)?, document.get(theirs..)?);
            // Behind a slot there is a byte of the shape's own.
            if same == 0 {
                return None;
            }
            (ours, theirs) = (ours + same, theirs + same);
            let shift = theirs.wrapping_sub(ours);
            let there = |at: u16| usize::from(at).wrapping_add(shift);
            let other = match self.owners.get(ours) {
                Some(&NO_SLOT) => return None,
                Some(other) => *other,
                None => NO_SLOT,
            };
            while let Some(same) = known.next_if(|slot| *slot < other) {
                let slot = self.slots.get(usize::from(same))?;
                found.push((there(slot.start), there(slot.end)));
            }
            if other == NO_SLOT {
                return Some(theirs);
            }
            let slot = self.slots.get(usize::from(other))?;
            let start = there(slot.start);
            let value = document.get(start..)?;
            let length = match slot.kind {
                Kind::Text => end_of_text(value)?,
                Kind::Number => end_of_number(value)?,
            };
            if known.next_if_eq(&other).is_some() {
                found.push((start, start + length));
            }
            (ours, theirs) = (usize::from(slot.end), start + length);
        }
    }
}
