//! One response, from its first byte to what it told.

use crate::coding::{Decoder, Unreadable};
use crate::document::Document;
use crate::format::{Format, Formats, TokenUsage};
use crate::framing::Framing;

/// What is known about a response before its body: hints only, the content decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The response's `content-type`. Only JSON lines need it.
    pub content_type: Option<&'a str>,
    /// The format of the endpoint that was called. It speaks only where the content fits several.
    pub format: Option<Format>,
    /// The response's `content-encoding`. Without it the bytes are read as they are.
    pub content_encoding: Option<&'a str>,
}

/// Reads one response as its bytes pass.
#[derive(Debug)]
pub struct Reader {
    decoder: Decoder,
    framing: Framing,
    document: Document,
    hinted: Formats,
}

/// What a response told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The format; `None` when the response bears no format's marks.
    pub format: Option<Format>,
    /// The tokens; `None` when the response reported none. Some formats report as they go: with [`End::Cut`] it is the last
    /// that was reported, not what the call used.
    pub usage: Option<TokenUsage>,
    /// The model that answered, its first 256 bytes.
    pub model: Option<String>,
    /// The provider's id of the response, its first 256 bytes.
    pub response_id: Option<String>,
    /// Why the model stopped: each reason once, in the order of their coming, at most 16 of at most 256 bytes.
    pub finish_reasons: Vec<String>,
    /// How the response failed, where it says so in its body or in the middle of its stream: the error's status, type or code,
    /// its first 256 bytes, never its message; `_OTHER` where there is none.
    pub error: Option<String>,
    /// The tokens of the text that the model wrote, as far as it passed, by [`TextEstimate`](crate::TextEstimate): all choices,
    /// reasoning and tool calls' arguments among it.
    pub output_estimate: u64,
    /// Whether the response was read to its own end.
    pub end: End,
    /// Why the response, or the rest of it, could not be read. What was told before stands here all the same.
    pub unreadable: Option<Unreadable>,
}

/// Whether a response was read to its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was: a body's JSON is closed; a stream sent `[DONE]`, or else all that is read here: usage and, in the formats
    /// that have one beside it, a finish reason. (Some providers send no `[DONE]`.)
    Complete,
    /// The bytes ended before that.
    Cut,
}

impl Reader {
    /// A reader at the start of a response.
    pub fn new(hints: Hints<'_>) -> Reader {
        Reader {
            decoder: Decoder::new(hints.content_encoding),
            framing: Framing::new(hints.content_type),
            document: Document::new(),
            hinted: hints.format.map_or(Formats::NONE, Formats::only),
        }
    }

    /// Takes the next bytes of the body, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Reader { decoder, framing, document, .. } = self;
        decoder.decode(bytes, &mut |plain| framing.feed(plain, document));
    }

    /// What the bytes told, up to here: they may end anywhere.
    pub fn finish(mut self) -> Report {
        let coded = self.decoder.finish();
        let coded = if self.framing.is_corrupt() { coded.and(Err(Unreadable::Corrupt)) } else { coded };
        let is_closed_body = matches!(self.framing, Framing::Values) && self.document.is_closed();
        self.framing.finish(&mut self.document);
        let mut facts = self.document.facts;
        let format = facts.format(self.hinted);
        Report {
            format,
            usage: facts.usage(format),
            end: if is_closed_body || facts.are_complete(format) { coded.unwrap_or(End::Cut) } else { End::Cut },
            unreadable: coded.err(),
            error: facts.error(),
            output_estimate: facts.output_estimate(),
            model: facts.model,
            response_id: facts.response_id,
            finish_reasons: facts.finish_reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &str = "data: {\"id\":\"\",\"model\":\"\",\"choices\":[{\"delta\":{}}]}\n\n";
    const NAMED: &str = "data: {\"id\":\"i\\u002d1\",\"model\":\"m\",\"choices\":[{\"delta\":{}}]}\n\n";
    const STOP: &str = "data: {\"id\":\"i-2\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const USAGE: &str =
        "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";

    fn read(parts: &[&str]) -> Report {
        let mut reader = Reader::new(Hints::default());
        parts.iter().for_each(|part| reader.feed(part.as_bytes()));
        reader.finish()
    }

    #[test]
    fn a_report_holds_the_first_model_and_id_and_each_finish_reason_once() {
        let length = STOP.replace("stop", "length");
        let other_model = USAGE.replace("\"m\"", "\"m-2\"");
        let report = read(&[CONTENT, NAMED, STOP, STOP, &length, &other_model]);
        assert_eq!(report.format, Some(Format::OpenAiChat));
        assert_eq!(report.model.as_deref(), Some("m"));
        assert_eq!(report.response_id.as_deref(), Some("i-1"));
        assert_eq!(report.finish_reasons, ["stop", "length"]);
        assert_eq!(report.usage, Some(TokenUsage { input: 1, output: 2, ..TokenUsage::default() }));
    }

    #[test]
    fn a_stream_is_complete_when_it_says_so_or_nothing_is_outstanding() {
        assert_eq!(read(&[CONTENT, STOP, USAGE]).end, End::Complete);
        assert_eq!(read(&[CONTENT, "data: [DONE]\n\n"]).end, End::Complete);
        assert_eq!(read(&[CONTENT, "data: [DONE]"]).end, End::Complete);
        assert_eq!(read(&[CONTENT, STOP]).end, End::Cut);
        assert_eq!(read(&[CONTENT, USAGE]).end, End::Cut);
        assert_eq!(read(&[CONTENT, "data: \"[DONE]\"\n\n"]).end, End::Cut);
        assert_eq!(read(&[]).end, End::Cut);
    }

    #[test]
    fn a_body_is_complete_when_it_is_closed() {
        let body = "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}";
        assert_eq!(read(&[body, "\n"]).end, End::Complete);
        let cut = read(&[&body[..body.len() - 1]]);
        assert_eq!((cut.end, cut.usage), (End::Cut, read(&[body]).usage));
        assert_eq!(read(&[body, "x"]).end, End::Cut);
    }

    #[test]
    fn what_is_written_counts_once() {
        let word = |rest: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\" word\"}}{rest}}}]}}\n\n");
        let repeated = |message: &str| word(&format!(",\"message\":{{\"content\":\"{message}\"}}"));
        let once = read(&[&word(""), &word("")]).output_estimate;
        assert!(once > 0);
        assert_eq!(read(&[&repeated(" word"), &repeated(" word word")]).output_estimate, once);
        let created = "data: {\"response\":{\"output\":[]}}\n\n";
        let delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\" word\"}\n\n";
        let output = "\"output\":[{\"content\":[{\"text\":\" word\"},{\"text\":\" word\"}]}]";
        let completed =
            format!("data: {{\"text\":\" word word\",\"item\":{{{output}}},\"response\":{{{output}}}}}\n\n");
        assert_eq!(read(&[created, delta, delta, &completed]).output_estimate, once);
        assert_eq!(read(&[&format!("{{{output}}}")]).output_estimate, once);
    }

    #[test]
    fn vectors_and_ranks_are_no_output() {
        for body in [
            r#"{"object":"list","model":"m","data":[{"embedding":"AAAAgD8AAABA","index":0}]}"#,
            r#"{"id":"i","response_type":"embeddings_floats","texts":["a text"],"embeddings":[[0.5,1.5]]}"#,
            r#"{"id":"i","embeddings":{"base64":["AAAAgD8AAABA"]},"texts":["a text"],"meta":{"warnings":["a text"]}}"#,
            r#"{"embedding":[0.5],"embeddingsByType":{"float":[0.5]},"message":"a text"}"#,
            r#"{"results":[{"document":{"text":"a text"},"relevance_score":0.5}]}"#,
            r#"{"model":"m","embeddings":[[0.5]]}"#,
        ] {
            let report = read(&[body]);
            assert_eq!((report.output_estimate, report.usage), (0, None), "{body}");
        }
    }

    #[test]
    fn what_bears_no_marks_has_no_format() {
        for body in ["{\"error\":{\"message\":\"no\"}}", "{\"object\":\"list\",\"data\":[]}", "<html></html>", ""] {
            let report = read(&[body]);
            assert_eq!((report.format, report.usage), (None, None), "{body}");
        }
    }

    #[test]
    fn the_endpoint_decides_where_the_content_fits_several_formats() {
        let read_as = |format, body: &str| {
            let mut reader = Reader::new(Hints { format, ..Hints::default() });
            reader.feed(body.as_bytes());
            reader.finish().format
        };
        let ambiguous = "{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}";
        for format in [Format::Anthropic, Format::OpenAiResponses] {
            assert_eq!(read_as(Some(format), ambiguous), Some(format));
        }
        assert_eq!(read_as(None, ambiguous), Some(Format::OpenAiResponses));
        let marked = "{\"choices\":[{\"message\":{}}],\"usage\":{\"prompt_tokens\":1}}";
        assert_eq!(read_as(Some(Format::Anthropic), marked), Some(Format::OpenAiChat));
    }

    #[test]
    fn images_are_counted_where_they_are_made() {
        let images = |format, body: &str| {
            let mut reader = Reader::new(Hints { format, ..Hints::default() });
            reader.feed(body.as_bytes());
            let Report { format, usage, end, output_estimate, .. } = reader.finish();
            assert_eq!(output_estimate, 0, "{body}");
            (format, usage.map(|usage| usage.images), end)
        };
        let openai = Some(Format::OpenAiImages);
        let (address, picture) = (r#"{"url":"https://a"}"#, r#"{"b64_json":"iVBO"}"#);
        let list = |images: &[&str]| format!(r#"{{"created":1,"data":[{}]}}"#, images.join(","));
        let both = r#"{"b64_json":"iVBO","url":"https://a"}"#;
        for (answered, count) in [
            (&[address, address][..], 2),
            (&[picture, both], 2),
            (&[], 0),
            (&[r#"{"url":null}"#, r#"{"b64_json":""}"#, r#"{"error":{"url":"x"}}"#, address], 1),
            (&[r#"[{"url":"x"}]"#, r#""url""#], 0),
        ] {
            assert_eq!(images(openai, &list(answered)), (openai, Some(count), End::Complete), "{answered:?}");
        }
        // Addresses may be those of search results.
        assert_eq!(images(None, &list(&[address])), (None, None, End::Complete));
        assert_eq!(images(Some(Format::OpenAiChat), &list(&[address])), (None, None, End::Complete));
        assert_eq!(images(None, &list(&[picture])), (openai, Some(1), End::Complete));
        // The second image has not come to its end.
        let cut = list(&[address, picture]);
        assert_eq!(images(openai, &cut[..cut.len() - 4]), (openai, Some(1), End::Cut));
        let embeddings = r#"{"predictions":[{"embeddings":{"values":[0.5]}}]}"#;
        assert_eq!(images(None, embeddings), (None, None, End::Complete));
        let other = "{\"choices\":[{\"message\":{\"content\":\"\"}}],\"usage\":{\"prompt_tokens\":1},\"data\":[{\"url\":\"x\"}]}";
        assert_eq!(images(openai, other), (Some(Format::OpenAiChat), Some(0), End::Complete));
    }

    #[test]
    fn a_settled_format_ignores_the_others() {
        let other = "data: {\"usageMetadata\":{\"promptTokenCount\":9},\"content_block\":{},\"done\":true}\n\n";
        assert_eq!(read(&[CONTENT, other, STOP, USAGE, other]), read(&[CONTENT, STOP, USAGE]));
    }

    #[test]
    fn a_reader_is_small_however_much_it_reads() {
        assert!(size_of::<Reader>() < 4096, "{}", size_of::<Reader>());
    }
}
