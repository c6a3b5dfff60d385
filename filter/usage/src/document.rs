//! The current document: scanned as it comes, or read by its shape when it lies in one piece.

use crate::facts::{Checkpoint, Facts};
use crate::framing::Documents;
use crate::json::{Scanner, is_whitespace};
use crate::paths::Paths;
use crate::places::{Leaf, tree};
use crate::shape::Shapes;

/// What ends an OpenAI stream, in the place of a document.
const SENTINEL: &[u8] = b"[DONE]";

/// Reads documents into facts.
#[derive(Debug)]
pub(crate) struct Document {
    paths: &'static Paths<Leaf>,
    scanner: Scanner<Leaf>,
    shapes: Shapes,
    /// The length of the document that begins, if its shape was found.
    found: Option<usize>,
    sentinel: Sentinel,
    /// What all documents told.
    pub(crate) facts: Facts,
    /// Before the document that may be taken back.
    checkpoint: Checkpoint,
}

/// How far the document is the sentinel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sentinel {
    /// Its first bytes, this many, are.
    Matched(usize),
    /// It is not.
    No,
}

impl Document {
    pub(crate) fn new() -> Document {
        Document {
            paths: tree(),
            scanner: Scanner::new(),
            shapes: Shapes::default(),
            found: None,
            sentinel: Sentinel::Matched(0),
            facts: Facts::default(),
            checkpoint: Checkpoint::default(),
        }
    }

    /// Whether the current document is a JSON value that has come to its end.
    pub(crate) fn is_closed(&self) -> bool {
        self.scanner.is_closed()
    }

    fn make_ready(&mut self) {
        self.scanner.reset();
        self.sentinel = Sentinel::Matched(0);
    }

    fn match_sentinel(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let Sentinel::Matched(matched) = self.sentinel else { return };
            if !is_whitespace(*byte) {
                self.sentinel = match SENTINEL.get(matched) {
                    Some(expected) if expected == byte => Sentinel::Matched(matched + 1),
                    _ => Sentinel::No,
                };
            }
        }
    }
}

impl Documents for Document {
    fn part(&mut self, bytes: &[u8]) -> usize {
        self.match_sentinel(bytes);
        self.scanner.feed(bytes, self.paths, &mut self.shapes.learner(None, &mut self.facts))
    }

    fn failed(&mut self, kind: &[u8]) {
        self.facts.failed(kind);
    }

    fn end(&mut self) {
        if self.sentinel == Sentinel::Matched(SENTINEL.len()) {
            self.facts.stream_done();
        } else {
            self.facts.document_done();
        }
        self.make_ready();
    }

    fn begin_unchecked(&mut self) {
        self.checkpoint = self.facts.checkpoint();
    }

    fn take_back(&mut self) {
        self.facts.take_back(&self.checkpoint);
        self.make_ready();
    }

    fn known_length(&mut self, bytes: &[u8]) -> Option<usize> {
        self.found = self.shapes.find(bytes);
        self.found
    }

    fn whole(&mut self, bytes: &[u8]) {
        if self.found.take().or_else(|| self.shapes.find(bytes)) == Some(bytes.len()) {
            self.shapes.read(bytes, &mut self.facts);
            return;
        }
        self.match_sentinel(bytes);
        let taken = self.scanner.feed(bytes, self.paths, &mut self.shapes.learner(Some(bytes), &mut self.facts));
        if taken == bytes.len() && self.is_closed() {
            self.shapes.learn(bytes);
        }
        self.end();
    }
}
