//! Recorded responses come out exactly, however they are cut: our own fixtures always, and a larger corpus of real
//! responses where it lies beside the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use tollgate_usage::{Hints, Reader, Report, TokenUsage};

/// One response and what must be read from it.
struct Recording {
    path: PathBuf,
    content_type: String,
    format: String,
    usage: TokenUsage,
}

/// Reads a table of recordings: `file,content_type,format,…,input_tokens,output_tokens,cache_read,cache_creation,reasoning`.
fn recordings(folder: &Path) -> Vec<Recording> {
    let table = fs::read_to_string(folder.join("expected.csv")).expect("expected.csv is readable");
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().expect("a header").split(',').collect();
    lines
        .map(|line| {
            let cells: Vec<_> = line.split(',').collect();
            let cell = |name: &str| cells[header.iter().position(|column| *column == name).expect("a known column")];
            let number = |name: &str| cell(name).parse().expect("a number");
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
        })
        .collect()
}

fn read(recording: &Recording, bytes: &[u8], chunk_bytes: usize) -> Report {
    let mut reader = Reader::new(Hints { content_type: Some(&recording.content_type), path: None });
    for chunk in bytes.chunks(chunk_bytes) {
        reader.feed(chunk);
    }
    reader.finish()
}

/// Reads every recording in cuts of several sizes and returns what went wrong.
fn failures(recordings: &[Recording]) -> Vec<String> {
    let mut failures = Vec::new();
    for recording in recordings {
        let bytes = fs::read(&recording.path).expect("the recording is readable");
        let whole = read(recording, &bytes, usize::MAX);
        let format = whole.format.map(|format| format.as_str());
        if format != Some(&recording.format) || whole.usage != Some(recording.usage) {
            failures.push(format!("{}: expected {} {:?}, got {whole:?}", recording.path.display(), recording.format, recording.usage));
        }
        for chunk_bytes in [1, 7, 1400] {
            let cut = read(recording, &bytes, chunk_bytes);
            if cut != whole {
                failures.push(format!("{}: in chunks of {chunk_bytes}: {cut:?}", recording.path.display()));
            }
        }
    }
    failures
}

#[test]
fn recorded_responses_come_out_exactly() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    if !shared.join("expected.csv").exists() {
        eprintln!("no corpus beside the checkout: only our own fixtures were read");
        return;
    }
    let recordings: Vec<_> = recordings(&shared).into_iter().filter(|recording| recording.format == "openai-chat").collect();
    let failures = failures(&recordings);
    assert!(failures.is_empty(), "{} failures of {} recordings:\n{}", failures.len(), recordings.len(), failures.join("\n"));
    eprintln!("{} recordings of the corpus beside the checkout came out exactly", recordings.len());
}
