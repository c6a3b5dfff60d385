//! The paths of all formats as one tree, so that a document is read while its format is not known yet.

use std::sync::OnceLock;

use crate::format::{ALL_BELOW, Field, Formats, Row, TABLE};
use crate::paths::Paths;

/// What the value at a place tells, and to which formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) field: Option<Field>,
    /// The formats that read the field here.
    pub(crate) formats: Formats,
    /// The formats that are known by a value here.
    pub(crate) marks: Formats,
}

impl Leaf {
    const NONE: Leaf = Leaf { field: None, formats: Formats::NONE, marks: Formats::NONE };

    fn with(self, row: Row, format: Formats) -> Leaf {
        match row {
            Row::Field(field) => Leaf { field: Some(field), formats: self.formats.and(format), ..self },
            Row::Mark => Leaf { marks: self.marks.and(format), ..self },
        }
    }
}

/// The tree, built on first use. Formats share a path when they mean the same by it.
pub(crate) fn tree() -> &'static Paths<Leaf> {
    static TREE: OnceLock<Paths<Leaf>> = OnceLock::new();
    TREE.get_or_init(|| {
        let mut paths = Paths::new();
        for spec in TABLE {
            for (path, row) in spec.rows() {
                let more = |known: Option<Leaf>| known.unwrap_or(Leaf::NONE).with(row, Formats::only(spec.format));
                match path.split_last() {
                    Some((&ALL_BELOW, place)) => paths.insert_subtree(place, more),
                    _ => paths.insert(&path, more),
                }
            }
        }
        paths
    })
}
