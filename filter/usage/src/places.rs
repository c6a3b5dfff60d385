//! The paths of all formats as one tree, so that a document is read while its format is not known yet.

use std::sync::OnceLock;

use crate::format::{Field, Formats, TABLE};
use crate::paths::Paths;

/// What the value at a place means, and to which formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) field: Field,
    pub(crate) formats: Formats,
}

/// The tree, built on first use. Formats share a path when they mean the same by it.
pub(crate) fn tree() -> &'static Paths<Leaf> {
    static TREE: OnceLock<Paths<Leaf>> = OnceLock::new();
    TREE.get_or_init(|| {
        let mut paths = Paths::new();
        for spec in TABLE {
            for (path, field) in spec.rows() {
                let format = Formats::only(spec.format);
                paths.insert(&path, |known: Option<Leaf>| Leaf {
                    field,
                    formats: known.map_or(format, |known| known.formats.and(format)),
                });
            }
        }
        paths
    })
}
