//! Recorded responses with what must be read from them.

use std::fs;
use std::path::{Path, PathBuf};

use tollgate_usage::{Hints, Reader, Report, TokenUsage};

/// One response and what must be read from it.
pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    pub(crate) content_type: String,
    pub(crate) format: String,
    /// The counts that the table has columns for, by their names.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// The error that the response tells of; empty when it tells of none.
    pub(crate) error: String,
}

type ReadCount = fn(&TokenUsage) -> u64;

/// The columns of counts and what they hold.
const COUNTS: &[(&str, ReadCount)] = &[
    ("input_tokens", |usage| usage.input),
    ("output_tokens", |usage| usage.output),
    ("cache_read", |usage| usage.cache_read),
    ("cache_creation", |usage| usage.cache_creation),
    ("cache_creation_5m", |usage| usage.cache_creation_5m),
    ("cache_creation_1h", |usage| usage.cache_creation_1h),
    ("reasoning", |usage| usage.reasoning),
    ("audio_input", |usage| usage.audio_input),
    ("audio_output", |usage| usage.audio_output),
    ("extra_input", |usage| usage.extra_input),
    ("extra_output", |usage| usage.extra_output),
    ("billed_input", |usage| usage.billed_input),
    ("billed_output", |usage| usage.billed_output),
    ("tool_requests", |usage| usage.tool_requests),
    ("images", |usage| usage.images),
];

impl Recording {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    /// What the report has in the place of the expected counts.
    pub(crate) fn counts_of(&self, report: &Report) -> Vec<(&'static str, u64)> {
        let usage = report.usage.unwrap_or_default();
        let is_expected = |name: &str| self.counts.iter().any(|(expected, _)| *expected == name);
        COUNTS.iter().filter(|(name, _)| is_expected(name)).map(|(name, count)| (*name, count(&usage))).collect()
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

/// The recordings that `expected.csv` in this folder lists. Its columns are found by name; an empty count is 0, and
/// cells have no commas.
pub(crate) fn listed_in(folder: &Path) -> Vec<Recording> {
    let table = folder.join("expected.csv");
    let table = fs::read_to_string(&table).unwrap_or_else(|error| panic!("{}: {error}", table.display()));
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().expect("a header").split(',').collect();
    let rows = lines.map(|line| {
        let cells: Vec<_> = line.split(',').collect();
        let column = |name: &str| header.iter().position(|column| *column == name).map(|at| cells[at]);
        let cell = |name: &str| column(name).expect(name).to_owned();
        let number = |cell: &str| if cell.is_empty() { 0 } else { cell.parse().expect("a count") };
        Recording {
            path: folder.join(cell("file")),
            content_type: cell("content_type"),
            format: cell("format"),
            counts: COUNTS.iter().filter_map(|(name, _)| Some((*name, number(column(name)?)))).collect(),
            error: column("error").unwrap_or_default().to_owned(),
        }
    });
    rows.collect()
}
