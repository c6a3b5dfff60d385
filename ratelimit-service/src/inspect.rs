//! `tollgate inspect`: what the filter would read from recorded responses. It uses the filter's own reader, so it answers
//! "why zero tokens?" for a response at hand.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use tollgate_usage::{Hints, Reader, Report};

/// Files are read in pieces of this size, however large they are.
const READ_BYTES: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

/// What to inspect, and how.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The responses' content type. When absent, the extension tells: .sse .json .ndjson .jsonarray .bin
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Feed the reader at most this many bytes at a time; the result does not depend on it
    #[arg(long, value_name = "N", default_value_t = READ_BYTES)]
    pub chunk_bytes: NonZeroUsize,
    /// Recorded response bodies, decompressed
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// One line of output. What few responses have is there only where it is not 0.
#[derive(Debug, Serialize)]
struct Line<'a> {
    file: Cow<'a, str>,
    /// `None` when no usage was found.
    format: Option<&'static str>,
    model: Option<&'a str>,
    input_tokens: u64,
    output_tokens: u64,
    cache_read: u64,
    cache_creation: u64,
    reasoning: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cache_creation_5m: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cache_creation_1h: u64,
    #[serde(skip_serializing_if = "is_zero")]
    audio_input: u64,
    #[serde(skip_serializing_if = "is_zero")]
    audio_output: u64,
    #[serde(skip_serializing_if = "is_zero")]
    extra_input: u64,
    #[serde(skip_serializing_if = "is_zero")]
    extra_output: u64,
    #[serde(skip_serializing_if = "is_zero")]
    billed_input: u64,
    #[serde(skip_serializing_if = "is_zero")]
    billed_output: u64,
    #[serde(skip_serializing_if = "is_zero")]
    tool_requests: u64,
    #[serde(skip_serializing_if = "is_zero")]
    images: u64,
    #[serde(skip_serializing_if = "is_zero")]
    output_estimate: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// Why the response could not be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl<'a> Line<'a> {
    fn new(file: &'a Path, report: &'a Report) -> Line<'a> {
        let usage = report.usage.unwrap_or_default();
        Line {
            file: file.to_string_lossy(),
            format: report.usage.and(report.format).map(|format| format.as_str()),
            model: report.model.as_deref(),
            input_tokens: usage.input,
            output_tokens: usage.output,
            cache_read: usage.cache_read,
            cache_creation: usage.cache_creation,
            reasoning: usage.reasoning,
            cache_creation_5m: usage.cache_creation_5m,
            cache_creation_1h: usage.cache_creation_1h,
            audio_input: usage.audio_input,
            audio_output: usage.audio_output,
            extra_input: usage.extra_input,
            extra_output: usage.extra_output,
            billed_input: usage.billed_input,
            billed_output: usage.billed_output,
            tool_requests: usage.tool_requests,
            images: usage.images,
            output_estimate: report.output_estimate,
            error: report.error.as_deref(),
            unreadable: report.unreadable.map(|reason| reason.to_string()),
        }
    }
}

/// What came of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every file was read and holds usage.
    AllFound,
    /// Some file could not be read or holds no usage.
    SomeMissing,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        match outcome {
            Outcome::AllFound => ExitCode::SUCCESS,
            Outcome::SomeMissing => ExitCode::FAILURE,
        }
    }
}

/// Reads the files and prints one JSON line for each. The `format` of a file that holds no usage is null. A file that cannot
/// be read is reported on `err`; the others are still read.
///
/// # Errors
/// When `out` or `err` cannot be written.
pub fn run(args: &InspectArgs, out: &mut impl io::Write, err: &mut impl io::Write) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::AllFound;
    for file in &args.files {
        match read(file, args) {
            Ok(report) => {
                writeln!(out, "{}", serde_json::to_string(&Line::new(file, &report))?)?;
                if report.usage.is_none() {
                    outcome = Outcome::SomeMissing;
                }
            }
            Err(error) => {
                writeln!(err, "tollgate inspect: {error:#}")?;
                outcome = Outcome::SomeMissing;
            }
        }
    }
    Ok(outcome)
}

fn read(path: &Path, args: &InspectArgs) -> anyhow::Result<Report> {
    let content_type = args.content_type.as_deref().or_else(|| content_type(path));
    let mut reader = Reader::new(Hints { content_type, ..Hints::default() });
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut file = BufReader::with_capacity(READ_BYTES.get(), file);
    loop {
        let bytes = file.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
        if bytes.is_empty() {
            return Ok(reader.finish());
        }
        for chunk in bytes.chunks(args.chunk_bytes.get()) {
            reader.feed(chunk);
        }
        let taken = bytes.len();
        file.consume(taken);
    }
}

/// The content type that a recording's extension stands for.
fn content_type(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "sse" => Some("text/event-stream"),
        "json" | "jsonarray" => Some("application/json"),
        "ndjson" => Some("application/x-ndjson"),
        "bin" => Some("application/vnd.amazon.eventstream"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSE: &str = concat!(
        "data: {\"model\":\"m-1\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":12,",
        "\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n",
    );

    /// What a run over these files prints, and what came of it.
    fn inspect(chunk_bytes: usize, files: Vec<PathBuf>) -> (String, String, Outcome) {
        let args = InspectArgs { content_type: None, chunk_bytes: NonZeroUsize::new(chunk_bytes).unwrap(), files };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = run(&args, &mut out, &mut err).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), outcome)
    }

    #[test]
    fn prints_what_the_response_told_whatever_the_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("answer.sse");
        std::fs::write(&file, SSE).unwrap();
        let expected = format!(
            "{{\"file\":{},\"format\":\"openai-chat\",\"model\":\"m-1\",\"input_tokens\":19,\"output_tokens\":12,\
             \"cache_read\":4,\"cache_creation\":0,\"reasoning\":0,\"output_estimate\":1}}\n",
            serde_json::to_string(&file).unwrap()
        );
        for chunk_bytes in [1, 7, usize::MAX] {
            assert_eq!(inspect(chunk_bytes, vec![file.clone()]), (expected.clone(), String::new(), Outcome::AllFound));
        }
    }

    #[test]
    fn a_missing_file_and_one_without_usage_fail_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let [missing, silent, good] = ["missing.sse", "silent.json", "good.sse"].map(|name| folder.path().join(name));
        std::fs::write(&silent, "{\"choices\":[{\"message\":{}}]}").unwrap();
        std::fs::write(&good, SSE).unwrap();
        let (out, err, outcome) = inspect(1400, vec![missing.clone(), silent, good]);
        let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{out}");
        assert_eq!((&lines[0]["format"], &lines[0]["input_tokens"]), (&serde_json::Value::Null, &0.into()));
        assert_eq!(lines[1]["input_tokens"], 19);
        assert!(err.contains(&format!("cannot open {}", missing.display())), "{err}");
        assert_eq!(outcome, Outcome::SomeMissing);
    }

    #[test]
    fn the_extension_stands_for_the_content_type() {
        assert_eq!(content_type(Path::new("a/b.ndjson")), Some("application/x-ndjson"));
        assert_eq!(content_type(Path::new("a/b.txt")), None);
    }
}
