//! Recorded responses with what must be read from them.

use std::fs;
use std::path::{Path, PathBuf};

use tollgate_usage::{Hints, Reader, Report, TokenUsage};

/// One response and what must be read from it.
pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    pub(crate) content_type: String,
    pub(crate) format: String,
    pub(crate) usage: TokenUsage,
}

impl Recording {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    /// Reads bytes in the given pieces, with this recording's content type.
    pub(crate) fn read<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Report {
        let mut reader = Reader::new(Hints { content_type: Some(&self.content_type), ..Hints::default() });
        for piece in pieces {
            reader.feed(piece);
        }
        reader.finish()
    }
}

/// Our own fixtures.
pub(crate) fn fixtures() -> Vec<Recording> {
    listed_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"))
}

/// The recordings that `expected.csv` in this folder lists. Its columns are found by name; cells have no commas.
pub(crate) fn listed_in(folder: &Path) -> Vec<Recording> {
    let table = folder.join("expected.csv");
    let table = fs::read_to_string(&table).unwrap_or_else(|error| panic!("{}: {error}", table.display()));
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().expect("a header").split(',').collect();
    let rows = lines.map(|line| {
        let cells: Vec<_> = line.split(',').collect();
        let cell = |name: &str| cells[header.iter().position(|column| *column == name).expect(name)];
        let number = |name: &str| cell(name).parse().expect(name);
        Recording {
            path: folder.join(cell("file")),
            content_type: cell("content_type").to_owned(),
            format: cell("format").to_owned(),
            usage: TokenUsage {
                input: number("input_tokens"),
                output: number("output_tokens"),
                cache_read: number("cache_read"),
                cache_creation: number("cache_creation"),
                reasoning: number("reasoning"),
            },
        }
    });
    rows.collect()
}
