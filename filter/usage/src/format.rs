//! The formats, one file each, and what they have in common: where a count stands, and how the counts become
//! [`TokenUsage`].
//!
//! To add a format: a file with a [`Spec`], a line in [`TABLE`], a variant of [`Format`], fixtures.

mod anthropic;
mod bedrock_converse;
mod bedrock_invoke;
mod cohere_v1;
mod cohere_v2;
mod counts;
mod gemini;
mod gemini_interactions;
mod ollama;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_images;
mod openai_responses;
mod vertex_images;

pub use counts::TokenUsage;
pub(crate) use counts::{Count, Counts};

/// A provider's way to report usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// OpenAI chat completions, and every provider that is compatible with them.
    OpenAiChat,
    /// OpenAI's older text completions.
    OpenAiCompletions,
    /// OpenAI embeddings.
    OpenAiEmbeddings,
    /// OpenAI Responses.
    OpenAiResponses,
    /// Anthropic Messages.
    Anthropic,
    /// Gemini and Vertex: generateContent, streamed or not.
    Gemini,
    /// Gemini Interactions.
    GeminiInteractions,
    /// Cohere v2.
    CohereV2,
    /// Cohere v1.
    CohereV1,
    /// Ollama's own API.
    Ollama,
    /// Bedrock Converse.
    BedrockConverse,
    /// Bedrock InvokeModel of models that have no format of their own here.
    BedrockInvoke,
    /// OpenAI images: made, edited, varied.
    OpenAiImages,
    /// Imagen on Vertex and Gemini.
    VertexImages,
}

impl Format {
    /// The format's name, as in `openai-chat`.
    pub fn as_str(self) -> &'static str {
        self.spec().name
    }

    /// Every format.
    pub fn all() -> impl Iterator<Item = Format> {
        TABLE.iter().map(|spec| spec.format)
    }

    /// OpenTelemetry's `gen_ai.operation.name`, as in `chat`.
    pub fn operation(self) -> &'static str {
        self.spec().operation
    }

    /// How many images a call makes that does not tell; 0 where the API makes no images alone.
    pub fn default_images(self) -> u64 {
        match self {
            Format::OpenAiImages => 1,
            // Google's API reference, "Imagen API", `sampleCount`.
            Format::VertexImages => 4,
            _ => 0,
        }
    }

    pub(crate) fn spec(self) -> &'static Spec {
        match self {
            Format::OpenAiChat => &openai_chat::SPEC,
            Format::OpenAiCompletions => &openai_completions::SPEC,
            Format::OpenAiEmbeddings => &openai_embeddings::SPEC,
            Format::OpenAiResponses => &openai_responses::SPEC,
            Format::Anthropic => &anthropic::SPEC,
            Format::Gemini => &gemini::SPEC,
            Format::GeminiInteractions => &gemini_interactions::SPEC,
            Format::CohereV2 => &cohere_v2::SPEC,
            Format::CohereV1 => &cohere_v1::SPEC,
            Format::Ollama => &ollama::SPEC,
            Format::BedrockConverse => &bedrock_converse::SPEC,
            Format::BedrockInvoke => &bedrock_invoke::SPEC,
            Format::OpenAiImages => &openai_images::SPEC,
            Format::VertexImages => &vertex_images::SPEC,
        }
    }
}

/// All formats. Where a response bears the marks of several, the first here is meant.
pub(crate) static TABLE: &[&Spec] = &[
    &openai_chat::SPEC,
    &openai_completions::SPEC,
    &openai_embeddings::SPEC,
    &openai_responses::SPEC,
    &anthropic::SPEC,
    &gemini::SPEC,
    &gemini_interactions::SPEC,
    &cohere_v2::SPEC,
    &cohere_v1::SPEC,
    &ollama::SPEC,
    &bedrock_converse::SPEC,
    &bedrock_invoke::SPEC,
    &openai_images::SPEC,
    &vertex_images::SPEC,
];

/// A format: where it puts what, and what it means by it. In a path a segment that ends in `[]` is an array, and the path goes
/// on in its elements.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) format: Format,
    pub(crate) name: &'static str,
    pub(crate) operation: &'static str,
    /// OpenTelemetry's `gen_ai.provider.name` of who made the format.
    pub(crate) provider: &'static str,
    /// Ends of the request's path, without its query, by which a request is known to be of this format. A `*` stands for
    /// anything but a slash.
    pub(crate) endpoints: &'static [&'static str],
    /// What the end of a stream has, when nothing else says that it is the end.
    pub(crate) ends_with: EndsWith,
    /// The places of usage objects. The counts stand below each of them.
    pub(crate) usage_at: &'static [Path],
    /// Paths below a usage object. Of several that give the same count the last in the response wins.
    pub(crate) counts: &'static [(Path, Count)],
    /// Paths below a usage object of what is not simply a count.
    pub(crate) details: &'static [(Path, Field)],
    /// Paths of names and ids.
    pub(crate) texts: &'static [(Path, Text)],
    /// Paths that only this format has: a value there, unless it is null, says that the response has this format.
    pub(crate) marks: &'static [Path],
    /// The places below which generated text stands.
    pub(crate) content_at: &'static [Path],
    /// Paths of generated text below those places, each text at one of them only. After [`ALL_BELOW`] it is every string
    /// and key there.
    pub(crate) content: &'static [(Path, Channel)],
    /// What was counted, in OpenTelemetry's terms; `None` when it is not enough to be a usage report.
    pub(crate) usage: fn(&Counts) -> Option<TokenUsage>,
}

/// The keys from a document's top to a place.
pub(crate) type Path = &'static [&'static str];

/// As a path's last segment: all strings and keys below.
pub(crate) const ALL_BELOW: &str = "**";

/// Where a response says that it failed, whatever its format. The message is not read.
const ERRORS: &[(Path, Field)] = &[
    (&["error"], Field::Error(ErrorPart::Any)),
    (&["error", "code"], Field::Error(ErrorPart::Code)),
    (&["error", "type"], Field::Error(ErrorPart::Type)),
    (&["error", "status"], Field::Error(ErrorPart::Status)),
    (&["response", "error"], Field::Error(ErrorPart::Any)),
    (&["response", "error", "code"], Field::Error(ErrorPart::Code)),
    (&["choices[]", "error"], Field::Error(ErrorPart::Any)),
    (&["choices[]", "error", "code"], Field::Error(ErrorPart::Code)),
];

impl Spec {
    /// All paths that this format knows, and what stands there.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Vec<&'static str>, Row)> {
        let usage = self.usage_at.iter().flat_map(|place| {
            let counts = self.counts.iter().map(|(path, count)| (*path, Field::Count(*count)));
            let fields = counts.chain(self.details.iter().copied());
            fields.map(|(path, field)| ([*place, path].concat(), Row::Field(field)))
        });
        let content = self.content_at.iter().flat_map(|place| {
            let row =
                |(path, channel): &(Path, Channel)| ([*place, *path].concat(), Row::Field(Field::Content(*channel)));
            self.content.iter().map(row)
        });
        let texts = self.texts.iter().map(|(path, text)| (path.to_vec(), Row::Field(Field::Text(*text))));
        let marks = self.marks.iter().map(|path| (path.to_vec(), Row::Mark));
        let errors = ERRORS.iter().map(|(path, field)| (path.to_vec(), Row::Field(*field)));
        usage.chain(content).chain(texts).chain(marks).chain(errors)
    }
}

/// The format to which requests at this path belong, which has neither query nor slashes at its end: of those that know its
/// end, the one that knows most of it.
pub(crate) fn by_request_path(path: &str) -> Option<&'static Spec> {
    let known_bytes = |spec: &Spec| spec.endpoints.iter().filter(|end| ends_with(path, end)).map(|end| end.len()).max();
    TABLE.iter().copied().filter(|spec| known_bytes(spec).is_some()).max_by_key(|spec| known_bytes(spec))
}

fn ends_with(path: &str, end: &str) -> bool {
    match end.split_once('*') {
        None => path.ends_with(end),
        Some((begin, end)) => {
            let before = path.strip_suffix(end).and_then(|path| path.rsplit_once(begin));
            before.is_some_and(|(_, between)| !between.contains('/'))
        }
    }
}

/// What has been seen when a stream has told all that it had to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndsWith {
    /// Usage, which comes once.
    Usage,
    /// Usage and a finish reason, in any order.
    UsageAndReason,
    /// An image. Of a body, which has a list of them, only its own end tells that there are no more.
    Image,
}

/// What a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// Its value tells something.
    Field(Field),
    /// That there is a value says that the response has this format.
    Mark,
}

/// What a value tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// A number: the last counts.
    Count(Count),
    /// A number that is added to the others of its array.
    Sum(Count),
    /// The array of the passes that a call took, in whose elements sums stand: with it they begin anew.
    Passes,
    /// An object with a modality and a number of tokens: with sound they are this count.
    ByModality(Count),
    /// The modality of such an object.
    Modality,
    /// Its tokens.
    ModalityTokens,
    /// The array of the images that were made: with it their number begins anew.
    Images,
    /// An object that may be an image: one if something below it is a picture.
    Image,
    /// A picture, or where it can be fetched.
    Picture,
    /// What an event of a stream is: the last of an image is one.
    ImageEvent,
    /// A name or an id.
    Text(Text),
    /// What the model wrote.
    Content(Channel),
    /// That the response failed, and how.
    Error(ErrorPart),
}

/// The texts that formats report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Model,
    ResponseId,
    FinishReason,
}

/// Where generated text stands. Some providers send the same text at several places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// What counts.
    Text,
    /// What counts if nothing came at places of `Text`.
    Whole,
    /// Of these three the longest counts.
    Reasoning,
    ReasoningContent,
    ReasoningDetails,
}

/// What tells how a response failed, from the least to the most telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ErrorPart {
    /// A message, in a document of a format that has it nowhere else. It is not read.
    Message,
    /// That it did.
    Any,
    /// A number or a word.
    Code,
    Type,
    Status,
}

/// A set of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Formats(u32);

impl Formats {
    pub(crate) const NONE: Formats = Formats(0);
    pub(crate) const ALL: Formats = Formats(u32::MAX);

    pub(crate) fn only(format: Format) -> Formats {
        Formats(1 << format as u32)
    }

    /// Those of answers that are images.
    pub(crate) fn of_images() -> Formats {
        Formats::only(Format::OpenAiImages).and(Formats::only(Format::VertexImages))
    }

    pub(crate) fn and(self, other: Formats) -> Formats {
        Formats(self.0 | other.0)
    }

    pub(crate) fn common(self, other: Formats) -> Formats {
        Formats(self.0 & other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The format of the set that stands first in [`TABLE`].
    pub(crate) fn first(self) -> Option<Format> {
        TABLE.iter().map(|spec| spec.format).find(|format| !self.common(Formats::only(*format)).is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::json::{MAX_KNOWN_DEPTH, MAX_TEXT_BYTES};

    #[test]
    fn a_path_means_the_same_to_all_formats() {
        let mut meaning: HashMap<_, Field> = HashMap::new();
        for spec in TABLE {
            for (path, row) in spec.rows() {
                if let Row::Field(field) = row {
                    assert_eq!(*meaning.entry(path.clone()).or_insert(field), field, "{path:?} in {}", spec.name);
                }
            }
        }
    }

    #[test]
    fn requests_are_known_by_the_longest_end_of_their_path() {
        for (path, format) in [
            ("/v1/chat/completions", Some(Format::OpenAiChat)),
            ("/openai/deployments/d/chat/completions", Some(Format::OpenAiChat)),
            ("/v1/chat/completions/batch", Some(Format::OpenAiChat)),
            ("/v1/completions", Some(Format::OpenAiCompletions)),
            ("/v1/embeddings", Some(Format::OpenAiEmbeddings)),
            ("/v1/responses", Some(Format::OpenAiResponses)),
            ("/v1/responses/compact", Some(Format::OpenAiResponses)),
            ("/v1/messages", Some(Format::Anthropic)),
            ("/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict", Some(Format::Anthropic)),
            ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", Some(Format::Gemini)),
            ("/v1beta/interactions", Some(Format::GeminiInteractions)),
            ("/v2/chat", Some(Format::CohereV2)),
            ("/v1/chat", Some(Format::CohereV1)),
            ("/api/chat", Some(Format::Ollama)),
            ("/model/m/converse-stream", Some(Format::BedrockConverse)),
            ("/model/m/invoke", Some(Format::BedrockInvoke)),
            ("/v1/images/generations", Some(Format::OpenAiImages)),
            ("/openai/deployments/d/images/edits", Some(Format::OpenAiImages)),
            ("/v1beta/models/imagen-4.0-generate-001:predict", Some(Format::VertexImages)),
            ("/v1/projects/p/locations/l/publishers/google/models/imagen-3.0-fast:predict", Some(Format::VertexImages)),
            ("/v1/projects/imagen/locations/l/publishers/google/models/text-embedding-005:predict", None),
            ("/v1/projects/p/locations/l/endpoints/123:predict", None),
            ("/v1/models", None),
            ("/chat", None),
            ("", None),
        ] {
            assert_eq!(by_request_path(path).map(|spec| spec.format), format, "{path}");
        }
    }

    #[test]
    fn every_path_is_within_the_depth_that_the_scanner_keeps() {
        for (path, _) in TABLE.iter().flat_map(|spec| spec.rows()) {
            let arrays = path.iter().filter(|key| key.ends_with("[]")).count();
            // One more for an array around everything.
            assert!(path.len() + arrays < MAX_KNOWN_DEPTH, "{path:?}");
            assert!(path.iter().all(|key| key.len() < MAX_TEXT_BYTES), "{path:?}");
        }
    }

    #[test]
    fn formats_have_names_of_their_own_and_stand_in_the_table_once() {
        for (at, spec) in TABLE.iter().enumerate() {
            assert!(std::ptr::eq(*spec, spec.format.spec()), "{}", spec.name);
            assert!(TABLE.iter().skip(at + 1).all(|other| other.name != spec.name), "{}", spec.name);
        }
    }
}
