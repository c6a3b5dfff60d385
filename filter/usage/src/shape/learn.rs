//! How a document becomes a shape.

use super::bytes::{end_of_number, end_of_text};
use super::{Kind, Known, KnownValue, MAX_BYTES, MAX_KNOWN, MAX_SHAPES, MAX_SLOTS, NO_SLOT, Shape, Shapes, Slot};
use crate::facts::Facts;
use crate::format::Field;
use crate::json::{Sink, Span, Value, Want, in_scalar, is_whitespace};
use crate::places::Leaf;

/// What the scanner handed over from a document that may become a shape.
#[derive(Debug, Default)]
pub(super) struct Log {
    state: LogState,
    values: Vec<Logged>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LogState {
    #[default]
    Off,
    On,
}

#[derive(Debug)]
struct Logged {
    field: Field,
    value: KnownValue,
    /// The end of its slot, if it is in one.
    end: u64,
}

/// Hands values over to the facts, and writes down where they were.
#[derive(Debug)]
pub(crate) struct Learner<'a> {
    facts: &'a mut Facts,
    log: &'a mut Log,
}

impl Shapes {
    /// What takes the values of a document that is scanned. One that lies in one piece may be learnt afterwards.
    pub(crate) fn learner<'a>(&'a mut self, whole: Option<&[u8]>, facts: &'a mut Facts) -> Learner<'a> {
        let may_be_learnt = facts.are_settled() && whole.is_some_and(|document| document.len() <= MAX_BYTES);
        self.log.state = if may_be_learnt { LogState::On } else { LogState::Off };
        self.log.values.clear();
        Learner { facts, log: &mut self.log }
    }

    /// The document that was scanned last was sound to its end.
    pub(crate) fn learn(&mut self, document: &[u8]) {
        if self.log.state == LogState::Off {
            return;
        }
        if self.shapes.len() < MAX_SHAPES {
            self.shapes.push(Shape::default());
        }
        let last = self.shapes.len().saturating_sub(1);
        let Some(shape) = self.shapes.get_mut(last) else { return };
        match shape.learn(document, &self.log.values) {
            Some(()) => self.shapes.swap(0, last),
            None => shape.bytes.clear(),
        }
    }
}

impl Sink for Learner<'_> {
    type Place = Leaf;

    fn wants(&self, leaf: Leaf) -> Want {
        self.facts.wants(leaf)
    }

    fn value(&mut self, leaf: Leaf, value: Value<'_>, at: Span) {
        self.facts.value(leaf, value);
        let Some(field) = leaf.field.filter(|_| self.log.state == LogState::On) else { return };
        let (value, end) = match value {
            Value::Number(_) => (KnownValue::Number, at.end),
            Value::Text(_) => (KnownValue::Text, at.end.saturating_sub(1)),
            // Its end is told next.
            Value::Piece(_) => return,
            Value::PiecesEnd => (KnownValue::Pieces, at.start),
            Value::Bool(value) => (KnownValue::Bool(value), 0),
            Value::Open => (KnownValue::Open, 0),
            Value::Close => (KnownValue::Close, 0),
            // It tells nothing.
            Value::Null => return,
        };
        if self.log.values.len() == MAX_KNOWN {
            self.log.state = LogState::Off;
        } else {
            self.log.values.push(Logged { field, value, end });
        }
    }
}

impl Shape {
    /// Becomes the shape of a document; `None` when it is beyond the bounds, or not as simple as a shape must be.
    fn learn(&mut self, document: &[u8], values: &[Logged]) -> Option<()> {
        if document.last() != Some(&b'}') || document.iter().any(|byte| *byte < b' ') {
            return None;
        }
        self.find_slots(document)?;
        self.bytes.clear();
        self.bytes.extend_from_slice(document);
        self.owners.clear();
        self.owners.resize(document.len(), NO_SLOT);
        for (slot, at) in self.slots.iter().zip(0..) {
            self.owners.get_mut(usize::from(slot.start)..=usize::from(slot.end))?.fill(at);
        }
        self.known.clear();
        let mut slots = self.slots.iter().zip(0..);
        for Logged { field, value, end } in values {
            let kind = match value {
                KnownValue::Number => Some(Kind::Number),
                KnownValue::Text | KnownValue::Pieces => Some(Kind::Text),
                KnownValue::Bool(_) | KnownValue::Open | KnownValue::Close => None,
            };
            let slot = match kind {
                // A key that was handed over has no slot.
                Some(kind) => slots.find(|(slot, _)| slot.kind == kind && u64::from(slot.end) == *end)?.1,
                None => NO_SLOT,
            };
            self.known.push(Known { field: *field, value: *value, slot });
        }
        Some(())
    }

    /// Finds all strings that are no keys, and all numbers.
    fn find_slots(&mut self, document: &[u8]) -> Option<()> {
        self.slots.clear();
        let mut at = 0;
        while let Some(byte) = document.get(at) {
            let rest = document.get(at..)?;
            let (kind, start, end) = match byte {
                b'"' => (Kind::Text, at + 1, at + 1 + end_of_text(rest.get(1..)?)?),
                b'-' | b'0'..=b'9' => (Kind::Number, at, at + end_of_number(rest)?),
                b'a'..=b'z' | b'A'..=b'Z' => {
                    at += rest.iter().position(|byte| !in_scalar(byte))?;
                    continue;
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            at = end + usize::from(kind == Kind::Text);
            let is_key =
                kind == Kind::Text && document.get(at..)?.iter().find(|byte| !is_whitespace(**byte)) == Some(&b':');
            if !is_key {
                if self.slots.len() == MAX_SLOTS {
                    return None;
                }
                self.slots.push(Slot { start: u16::try_from(start).ok()?, end: u16::try_from(end).ok()?, kind });
            }
        }
        Some(())
    }
}
