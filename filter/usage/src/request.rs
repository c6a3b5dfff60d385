//! What a request asks for, read from its body as it passes.
//!
//! - **The cut does not matter**, for the facts and, if it is JSON, for the body that the edits make.
//! - **Bounded and total**, as all of this crate: some KiB, any bytes, an allocation only for the model, for edits and for what
//!   is spelled in an odd way.
//! - **What some upstream reads is read**: keys with escapes or in another case, a byte order mark before the body. UTF-16 is
//!   not JSON (RFC 8259), and is not read.
//! - **A form is read too**, where APIs take pictures so: `form`.
//! - **Content is never kept.** Of prompts there are a running estimate and the first bytes of what may be a picture.
//! - **An edit never breaks a body.** It replaces a literal or adds a member; every other byte stays as it is.

mod form;
mod media;
mod places;
mod splice;

pub use splice::{Edit, apply};

use crate::endpoint::{Endpoint, StreamOptions};
use crate::estimate::TextEstimate;
use crate::facts::whole_number;
use crate::format::Format;
use crate::json::{Scanner, Sink, Span, Value, Want, decode};
use form::{Fields, Form, Name};
use media::Media;
use places::{Place, tree};
use splice::Splice;

/// U+FEFF, which many readers ignore at the start (RFC 8259, section 8.1, allows them to).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Around each message: OpenAI's cookbook ("How to count tokens with tiktoken") has 3, and one for the role.
const MESSAGE_TOKENS: u64 = 4;
/// Before the answer, for any prompt: the same source.
const ANSWER_TOKENS: u64 = 3;
/// Around each tool's description: the same source.
const TOOL_TOKENS: u64 = 7;
/// Behind all tools: the same source.
const TOOLS_TOKENS: u64 = 12;
/// What Anthropic puts before tools: its "Tool use" page, for Claude 4 with tool choice `auto`.
const ANTHROPIC_TOOLS_TOKENS: u64 = 346;
/// Around a string or a key in tools' schemas and arguments: quotes, colon, comma, mostly as one token.
const JSON_STRING_TOKENS: u64 = 1;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model: the path's, or else the body's, its first 256 bytes.
    pub model: Option<String>,
    /// Whether the answer will be a stream; `None` while neither path nor body has said so. Ollama streams unless it is told
    /// not to.
    pub stream: Option<bool>,
    /// The most output tokens of each choice, reasoning among them; `None` when the request sets no bound. Only those bounds
    /// count that the endpoint's format has, any where it is not known; the greatest where a body has several. What does not
    /// generate has 0.
    pub output_cap: Option<u64>,
    /// Whether the answer has tokens of its own: embeddings and rankings have none.
    pub generates: bool,
    /// How many answers are generated and billed (`n`, `best_of`, `candidateCount`), at least 1: all of them together have
    /// at most `output_cap` times this.
    pub choices: u64,
    /// How many images are to be made; 0 where the API makes none of them.
    pub images: u64,
    /// The prompt's tokens, estimated: text by its bytes, media by their size, and what providers add around messages and
    /// tools. What is only named, as a file's id or an earlier answer's, is not known and counts nothing.
    pub input_estimate: u64,
    /// Whether the call only begins an answer, which is fetched later: `background` of OpenAI Responses and of Gemini
    /// Interactions. The answer to this call has no usage then.
    pub background: bool,
    /// Whether the body is one JSON value, or a form, that has come to its end.
    pub complete: bool,
}

/// Reads a request's body.
#[derive(Debug)]
pub struct RequestReader {
    scanner: Scanner<Place>,
    /// What reads the body in the scanner's place.
    form: Option<Form>,
    seen: Seen,
    /// How much of a byte order mark stands before the body.
    mark_bytes: usize,
    /// Something stands behind the body's value.
    trailing: bool,
}

/// What was read so far.
#[derive(Debug)]
struct Seen {
    format: Option<Format>,
    operation: Option<&'static str>,
    path_model: Option<String>,
    path_stream: Option<bool>,
    model: Option<String>,
    stream: Option<bool>,
    output_cap: Option<u64>,
    choices: u64,
    background: bool,
    text: TextEstimate,
    media: Media,
    messages: u64,
    tools: u64,
    /// Tokens that stand as such: prompts may be given as their numbers, and what strings of JSON cost beside their text.
    tokens: u64,
    splice: Splice,
}

impl RequestReader {
    /// A reader for a request to this endpoint; for `None` it reads what any format has, and makes no edits.
    pub fn new(endpoint: Option<&Endpoint>) -> RequestReader {
        RequestReader::with(endpoint, endpoint.map_or(StreamOptions::None, |endpoint| endpoint.stream_options))
    }

    /// The same for a body that must stay as it is, as one that is signed: it makes no edits.
    pub fn without_edits(endpoint: Option<&Endpoint>) -> RequestReader {
        RequestReader::with(endpoint, StreamOptions::None)
    }

    /// The same for a body with this content type, if that is a form: it is read by the names of OpenAI's fields, and makes no
    /// edits.
    pub fn of_form(endpoint: Option<&Endpoint>, content_type: &str) -> Option<RequestReader> {
        let form = Form::new(content_type)?;
        Some(RequestReader { form: Some(form), ..RequestReader::without_edits(endpoint) })
    }

    fn with(endpoint: Option<&Endpoint>, stream_options: StreamOptions) -> RequestReader {
        let format = endpoint.map(|endpoint| endpoint.format);
        let seen = Seen {
            format,
            operation: endpoint.map(|endpoint| endpoint.operation),
            path_model: endpoint.and_then(|endpoint| endpoint.model.clone()),
            path_stream: endpoint.and_then(|endpoint| endpoint.stream),
            model: None,
            stream: None,
            output_cap: None,
            choices: 0,
            background: false,
            text: TextEstimate::default(),
            media: Media::default(),
            messages: 0,
            tools: 0,
            tokens: 0,
            splice: Splice::new(stream_options),
        };
        RequestReader { scanner: Scanner::new(), form: None, seen, mark_bytes: 0, trailing: false }
    }

    /// Takes the next bytes of the body, and returns the edits that make the upstream report usage at a stream's end, as far as
    /// they fall into these bytes, in order. They are to be applied at once, each to these bytes: that is harmless if the body
    /// turns out broken or not to stream, or to ask for usage itself.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Edit> {
        if let Some(form) = &mut self.form {
            form.feed(bytes, &mut self.seen);
            return Vec::new();
        }
        let bytes = self.behind_mark(bytes);
        let start = self.scanner.offset();
        let taken = self.scanner.feed(bytes, tree(), &mut self.seen);
        self.trailing |= taken < bytes.len();
        let mut edits =
            self.seen.splice.edits(start, self.scanner.offset(), self.scanner.open_scalar(), self.seen.stream);
        let mark_bytes = self.mark_bytes as u64;
        for edit in &mut edits {
            edit.at = edit.at.start.saturating_add(mark_bytes)..edit.at.end.saturating_add(mark_bytes);
        }
        edits
    }

    /// What these bytes have behind the byte order mark that the body may begin with.
    fn behind_mark<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.scanner.offset() > 0 {
            return bytes;
        }
        let due = BYTE_ORDER_MARK.get(self.mark_bytes..).unwrap_or_default();
        let taken = due.iter().zip(bytes).take_while(|(due, byte)| due == byte).count();
        self.mark_bytes += taken;
        bytes.get(taken..).unwrap_or_default()
    }

    /// What is known by now.
    pub fn facts(&self) -> RequestFacts {
        let seen = &self.seen;
        let complete = self.is_complete();
        RequestFacts {
            model: seen.path_model.as_ref().or(seen.model.as_ref()).cloned(),
            stream: self.stream(),
            output_cap: if seen.generates() { seen.output_cap } else { Some(0) },
            generates: seen.generates(),
            choices: seen.choices.max(1),
            images: seen.images(),
            background: seen.background && seen.may_run_in_background(),
            input_estimate: seen.input_estimate(),
            complete,
        }
    }

    /// [`RequestFacts::stream`] alone.
    pub fn stream(&self) -> Option<bool> {
        let seen = &self.seen;
        seen.path_stream.or(seen.stream).or(seen.streams_by_default().filter(|_| self.is_complete()))
    }

    /// Whether the upstream reports usage on the stream only because of the edits: the client did not ask for it, so what
    /// reports it is to be taken out again.
    pub fn usage_is_ours(&self) -> bool {
        self.is_complete() && self.seen.stream == Some(true) && self.seen.splice.usage_is_ours()
    }

    fn is_complete(&self) -> bool {
        if let Some(form) = &self.form {
            return form.is_complete();
        }
        let is_mark_whole = [0, BYTE_ORDER_MARK.len()].contains(&self.mark_bytes);
        self.scanner.is_closed() && is_mark_whole && !self.trailing
    }
}

impl Seen {
    fn generates(&self) -> bool {
        !matches!(self.operation, Some("embeddings" | "rerank"))
    }

    fn images(&self) -> u64 {
        match self.format.map_or(0, Format::default_images) {
            0 => 0,
            _ if self.choices > 0 => self.choices,
            unless_told => unless_told,
        }
    }

    fn may_run_in_background(&self) -> bool {
        matches!(self.format, None | Some(Format::OpenAiResponses | Format::GeminiInteractions))
    }

    fn streams_by_default(&self) -> Option<bool> {
        (self.format == Some(Format::Ollama)).then(|| self.generates())
    }

    fn input_estimate(&self) -> u64 {
        let tools = match (self.tools, self.format) {
            (0, _) => 0,
            (_, Some(Format::Anthropic)) => ANTHROPIC_TOOLS_TOKENS,
            _ => TOOLS_TOKENS,
        };
        let content = self.text.tokens().saturating_add(self.tokens).saturating_add(self.media.tokens(self.format));
        let around = self
            .messages
            .saturating_mul(MESSAGE_TOKENS)
            .saturating_add(self.tools.saturating_mul(TOOL_TOKENS))
            .saturating_add(tools);
        match content.saturating_add(around) {
            0 => 0,
            sum if self.generates() => sum.saturating_add(ANSWER_TOKENS),
            sum => sum,
        }
    }
}

/// What servers take for true or false: Pydantic's lax mode also words and numbers, JavaScript any number but 0.
fn truth(value: Value<'_>) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(truth),
        Value::Number(number) => Some(whole_number(number) != Some(0)),
        Value::Text(raw) => match decode(raw).to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

impl Fields for Seen {
    fn field(&mut self, name: Name, text: &[u8]) {
        match name {
            Name::Model => {
                self.model = Some(String::from_utf8_lossy(text).into_owned()).filter(|model| !model.is_empty())
            }
            Name::Choices => self.choices = self.choices.max(whole_number(text).unwrap_or(0)),
            Name::Stream => self.stream = truth(Value::Text(text)),
            Name::Prompt => self.text.end(),
        }
    }

    fn prompt(&mut self, piece: &[u8]) {
        self.text.feed(piece);
    }
}

impl Sink for Seen {
    type Place = Place;

    fn wants(&self, place: Place) -> Want {
        match place {
            Place::Structure => Want::No,
            Place::Text | Place::Json | Place::Message | Place::Media => Want::Pieces,
            Place::Top | Place::DataSources | Place::StreamOptions | Place::StreamOption | Place::IncludeUsage => {
                self.splice.wants()
            }
            Place::Model
            | Place::Stream
            | Place::OutputCap(_)
            | Place::Choices
            | Place::Background
            | Place::Token
            | Place::Tool
            | Place::Detail => Want::Kept,
        }
    }

    fn value(&mut self, place: Place, value: Value<'_>, at: Span) {
        match (place, value) {
            (Place::Model, Value::Text(raw)) => self.model = Some(decode(raw)),
            (Place::Stream, value) => self.stream = truth(value),
            (Place::OutputCap(formats), Value::Number(number)) => {
                if self.format.is_none_or(|format| formats.contains(&format)) {
                    self.output_cap = self.output_cap.max(whole_number(number));
                }
            }
            (Place::Choices, Value::Number(number)) => {
                self.choices = self.choices.max(whole_number(number).unwrap_or(0))
            }
            (Place::Background, value) => self.background = truth(value) == Some(true),
            (Place::Message, Value::Open) => self.messages = self.messages.saturating_add(1),
            (Place::Tool, Value::Open) => self.tools = self.tools.saturating_add(1),
            (Place::Detail, Value::Text(b"low")) => self.media.low_detail(),
            (Place::Media, Value::Piece(raw)) => self.media.feed(raw, &mut self.text),
            (Place::Media, Value::PiecesEnd) => self.media.end(&mut self.text),
            (Place::Message | Place::Token, Value::Number(_)) => self.tokens = self.tokens.saturating_add(1),
            (Place::Text | Place::Json | Place::Message, Value::Piece(raw)) => self.text.feed(raw),
            (Place::Json, Value::PiecesEnd) => {
                self.text.end();
                self.tokens = self.tokens.saturating_add(JSON_STRING_TOKENS);
            }
            (Place::Text | Place::Message, Value::PiecesEnd) => self.text.end(),
            _ => self.splice.value(place, value, at, self.stream),
        }
    }
}
