//! Where in a request's body things stand: the paths of all formats in one tree, for where two formats have the same path
//! they mean the same by it.

use std::sync::OnceLock;

use crate::format::Format;
use crate::paths::Paths;

/// What a place in a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The body itself.
    Top,
    Model,
    Stream,
    /// The bound on output, in requests of these formats.
    OutputCap(&'static [Format]),
    Choices,
    /// Whether the answer is only begun.
    Background,
    /// The caller's own data, on which the answer rests.
    DataSources,
    StreamOptions,
    /// Any member of the stream options but the next.
    StreamOption,
    IncludeUsage,
    /// Text that the model reads.
    Text,
    /// JSON that the model reads: schemas, arguments, results.
    Json,
    /// A message, or one of several inputs: a text, tokens or a token.
    Message,
    /// A token by its number.
    Token,
    /// A tool that the model is told of.
    Tool,
    /// An image, audio, a document: encoded, or where it can be fetched.
    Media,
    /// How closely an image is looked at.
    Detail,
    /// What the model does not read: types, ids, signatures.
    Structure,
}

type Path = &'static [&'static str];

/// Who bounds output by `max_tokens`.
const MAX_TOKENS: &[Format] = &[
    Format::OpenAiChat,
    Format::OpenAiCompletions,
    Format::Anthropic,
    Format::CohereV1,
    Format::CohereV2,
    Format::BedrockInvoke,
];

/// Places of their own.
const PLACES: &[(Path, Place)] = &[
    (&[], Place::Top),
    (&["model"], Place::Model),
    (&["stream"], Place::Stream),
    (&["stream_options"], Place::StreamOptions),
    (&["stream_options", "include_usage"], Place::IncludeUsage),
    // On Bedrock: Claude, Mistral, Cohere; OpenAI; Llama; Titan; old Claude; Nova, before and now.
    (&["max_tokens"], Place::OutputCap(MAX_TOKENS)),
    (&["max_completion_tokens"], Place::OutputCap(&[Format::OpenAiChat, Format::BedrockInvoke])),
    (&["max_output_tokens"], Place::OutputCap(&[Format::OpenAiResponses])),
    (&["max_gen_len"], Place::OutputCap(&[Format::BedrockInvoke])),
    (&["textGenerationConfig", "maxTokenCount"], Place::OutputCap(&[Format::BedrockInvoke])),
    (&["max_tokens_to_sample"], Place::OutputCap(&[Format::BedrockInvoke])),
    (&["inferenceConfig", "max_new_tokens"], Place::OutputCap(&[Format::BedrockInvoke])),
    (&["inferenceConfig", "maxTokens"], Place::OutputCap(&[Format::BedrockConverse, Format::BedrockInvoke])),
    (&["generationConfig", "maxOutputTokens"], Place::OutputCap(&[Format::Gemini])),
    // Gemini reads the names of its fields in snake case too.
    (&["generation_config", "max_output_tokens"], Place::OutputCap(&[Format::GeminiInteractions, Format::Gemini])),
    (&["options", "num_predict"], Place::OutputCap(&[Format::Ollama])),
    (&["background"], Place::Background),
    (&["data_sources"], Place::DataSources),
    (&["n"], Place::Choices),
    (&["best_of"], Place::Choices),
    (&["num_generations"], Place::Choices),
    (&["generationConfig", "candidateCount"], Place::Choices),
    (&["generation_config", "candidate_count"], Place::Choices),
    (&["parameters", "sampleCount"], Place::Choices),
    // Texts, or lists of texts or tokens.
    (&["system"], Place::Text),
    (&["instructions"], Place::Text),
    (&["prompt"], Place::Message),
    (&["prompt[]"], Place::Message),
    (&["prompt[][]"], Place::Token),
    (&["input"], Place::Message),
    (&["input[]"], Place::Message),
    (&["input[][]"], Place::Token),
    (&["texts[]"], Place::Message),
    (&["documents[]"], Place::Message),
    (&["query"], Place::Message),
    (&["message"], Place::Message),
    (&["preamble"], Place::Text),
    (&["suffix"], Place::Text),
    (&["template"], Place::Text),
    (&["inputText"], Place::Message),
    (&["instances[]", "prompt"], Place::Message),
    (&["images[]"], Place::Media),
    (&["messages[]"], Place::Message),
    (&["contents[]"], Place::Message),
    (&["chat_history[]"], Place::Message),
    (&["chat_history[]", "role"], Place::Structure),
    (&["chat_history[]", "message"], Place::Text),
    (&["requests[]"], Place::Message),
    (&["requests[]", "model"], Place::Structure),
    (&["requests[]", "taskType"], Place::Structure),
    // Tools.
    (&["tools[]"], Place::Tool),
    (&["tools[]", "type"], Place::Structure),
    (&["tools[]", "cache_control"], Place::Structure),
    (&["tools[]", "cache_control", "type"], Place::Structure),
    (&["tools[]", "name"], Place::Text),
    (&["tools[]", "description"], Place::Text),
    (&["tools[]", "function", "name"], Place::Text),
    (&["tools[]", "function", "description"], Place::Text),
    (&["tools[]", "functionDeclarations[]"], Place::Tool),
    (&["tools[]", "function_declarations[]"], Place::Tool),
    (&["functions[]"], Place::Tool),
    (&["toolConfig", "tools[]"], Place::Tool),
    (&["toolConfig", "tools[]", "cachePoint", "type"], Place::Structure),
    (&["toolConfig", "tools[]", "toolSpec", "description"], Place::Text),
];

/// Places below which the model reads all that has no place of its own.
const READ_WHOLE: &[Path] = &[
    &["messages"],
    &["system"],
    &["prompt"],
    &["input"],
    &["inputs"],
    &["contents"],
    &["content"],
    &["requests"],
    &["chat_history"],
    &["systemInstruction"],
    &["system_instruction"],
    &["documents"],
    &["tools"],
    &["functions"],
    &["toolConfig", "tools"],
    // Schemas of what is to be written.
    &["response_format"],
    &["text"],
    &["format"],
    &["output_format"],
    &["generationConfig", "responseSchema"],
    &["generationConfig", "responseJsonSchema"],
    &["generation_config", "response_schema"],
];

/// Below each message.
const MESSAGES: &[Path] = &[&["messages[]"], &["input[]"]];
const MESSAGE: &[(Path, Place)] = &[
    (&["role"], Place::Structure),
    (&["type"], Place::Structure),
    (&["id"], Place::Structure),
    (&["status"], Place::Structure),
    (&["content"], Place::Text),
    (&["name"], Place::Text),
    (&["reasoning_content"], Place::Text),
    (&["thinking"], Place::Text),
    (&["refusal"], Place::Text),
    (&["images[]"], Place::Media),
    (&["tool_call_id"], Place::Structure),
    (&["tool_calls[]", "id"], Place::Structure),
    (&["tool_calls[]", "type"], Place::Structure),
    (&["tool_calls[]", "function", "name"], Place::Text),
    (&["tool_calls[]", "function", "arguments"], Place::Text),
    (&["call_id"], Place::Structure),
    (&["arguments"], Place::Text),
    (&["output"], Place::Text),
    (&["encrypted_content"], Place::Structure),
    // An input that is a part of a message itself.
    (&["text"], Place::Text),
    (&["image_url"], Place::Media),
    (&["detail"], Place::Detail),
    (&["data"], Place::Media),
    (&["mime_type"], Place::Structure),
    (&["uri"], Place::Media),
];

/// Below each part of a message: OpenAI, Anthropic, Cohere, Bedrock Converse and Interactions.
const PARTS: &[Path] = &[
    &["messages[]", "content[]"],
    &["messages[]", "content[]", "content[]"],
    &["messages[]", "content[]", "toolResult", "content[]"],
    &["input[]", "content[]"],
    &["input[]", "output[]"],
    &["input[]", "summary[]"],
    &["inputs[]", "content[]"],
    &["system[]"],
];
const PART: &[(Path, Place)] = &[
    (&["type"], Place::Structure),
    (&["id"], Place::Structure),
    (&["text"], Place::Text),
    (&["refusal"], Place::Text),
    (&["image_url"], Place::Media),
    (&["image_url", "url"], Place::Media),
    (&["image_url", "detail"], Place::Detail),
    (&["detail"], Place::Detail),
    (&["input_audio", "data"], Place::Media),
    (&["input_audio", "format"], Place::Structure),
    (&["file", "file_data"], Place::Media),
    (&["file", "file_id"], Place::Structure),
    (&["file_data"], Place::Media),
    (&["file_id"], Place::Structure),
    (&["file_url"], Place::Media),
    (&["source", "type"], Place::Structure),
    (&["source", "media_type"], Place::Structure),
    (&["source", "data"], Place::Media),
    (&["source", "url"], Place::Media),
    (&["source", "file_id"], Place::Structure),
    (&["cache_control", "type"], Place::Structure),
    (&["cache_control", "ttl"], Place::Structure),
    (&["tool_use_id"], Place::Structure),
    (&["name"], Place::Text),
    (&["content"], Place::Text),
    (&["thinking"], Place::Text),
    (&["signature"], Place::Structure),
    // Interactions' media, and Anthropic's thinking that is not shown.
    (&["data"], Place::Media),
    (&["mime_type"], Place::Structure),
    (&["uri"], Place::Media),
    (&["encrypted_content"], Place::Structure),
    (&["image", "format"], Place::Structure),
    (&["image", "source", "bytes"], Place::Media),
    (&["image", "source", "s3Location", "uri"], Place::Media),
    (&["document", "format"], Place::Structure),
    (&["document", "source", "bytes"], Place::Media),
    (&["video", "format"], Place::Structure),
    (&["video", "source", "bytes"], Place::Media),
    (&["cachePoint", "type"], Place::Structure),
    (&["toolUse", "toolUseId"], Place::Structure),
    (&["toolUse", "name"], Place::Text),
    (&["toolResult", "toolUseId"], Place::Structure),
    (&["toolResult", "status"], Place::Structure),
    (&["reasoningContent", "reasoningText", "text"], Place::Text),
    (&["reasoningContent", "reasoningText", "signature"], Place::Structure),
];

/// The same in Gemini's contents.
const GEMINI_CONTENTS: &[Path] =
    &[&["contents[]"], &["systemInstruction"], &["system_instruction"], &["content"], &["requests[]", "content"]];
const GEMINI_CONTENT: &[(Path, Place)] = &[
    (&["role"], Place::Structure),
    (&["parts[]", "text"], Place::Text),
    (&["parts[]", "inlineData", "mimeType"], Place::Structure),
    (&["parts[]", "inlineData", "data"], Place::Media),
    (&["parts[]", "inline_data", "mime_type"], Place::Structure),
    (&["parts[]", "inline_data", "data"], Place::Media),
    (&["parts[]", "fileData", "mimeType"], Place::Structure),
    (&["parts[]", "fileData", "fileUri"], Place::Media),
    (&["parts[]", "file_data", "mime_type"], Place::Structure),
    (&["parts[]", "file_data", "file_uri"], Place::Media),
    (&["parts[]", "thoughtSignature"], Place::Structure),
    (&["parts[]", "thought_signature"], Place::Structure),
    (&["parts[]", "functionCall", "id"], Place::Structure),
    (&["parts[]", "functionCall", "name"], Place::Text),
    (&["parts[]", "functionResponse", "id"], Place::Structure),
    (&["parts[]", "functionResponse", "name"], Place::Text),
];

/// The tree, built on first use.
pub(crate) fn tree() -> &'static Paths<Place> {
    static TREE: OnceLock<Paths<Place>> = OnceLock::new();
    TREE.get_or_init(|| {
        let mut paths = Paths::in_any_spelling();
        for (path, place) in PLACES {
            paths.insert(path, |_| *place);
        }
        for (tops, rows) in [(MESSAGES, MESSAGE), (PARTS, PART), (GEMINI_CONTENTS, GEMINI_CONTENT)] {
            for (top, (path, place)) in tops.iter().flat_map(|top| rows.iter().map(move |row| (top, row))) {
                paths.insert(&[*top, *path].concat(), |_| *place);
            }
        }
        for path in READ_WHOLE {
            paths.insert_subtree(path, |_| Place::Json);
        }
        paths.insert_subtree(&["stream_options"], |_| Place::StreamOption);
        paths
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::MAX_TEXT_BYTES;

    #[test]
    fn known_keys_are_read_whole_in_any_spelling() {
        const LONGEST_ESCAPE: usize = "\\u0061".len();
        let rows = [PLACES, MESSAGE, PART, GEMINI_CONTENT].concat();
        let paths = rows.iter().map(|(path, _)| *path).chain(READ_WHOLE.iter().copied());
        for key in paths.flatten() {
            assert!(key.len() * LONGEST_ESCAPE < MAX_TEXT_BYTES, "{key}");
        }
    }
}
