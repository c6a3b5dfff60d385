//! Response bytes to token usage: pure, incremental, bounded.

/// What is known about a response before its body: hints only, the content decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The response's `content-type`.
    pub content_type: Option<&'a str>,
    /// The request's path.
    pub path: Option<&'a str>,
}

/// A provider's way to report usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// OpenAI chat completions, and every provider that is compatible with them.
    OpenAiChat,
}

impl Format {
    /// The format's name: `openai-chat`.
    pub fn as_str(self) -> &'static str {
        "openai-chat"
    }

    /// OpenTelemetry's `gen_ai.operation.name`: `chat`.
    pub fn operation(self) -> &'static str {
        "chat"
    }
}

/// Tokens as OpenTelemetry counts them: each sub-count is part of its total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// All input tokens, cache reads and writes among them.
    pub input: u64,
    /// All output tokens, reasoning among them.
    pub output: u64,
    /// Input tokens that were read from the provider's cache.
    pub cache_read: u64,
    /// Input tokens that were written to the provider's cache.
    pub cache_creation: u64,
    /// Output tokens that the model spent on reasoning.
    pub reasoning: u64,
}

/// Whether a response was read to its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The format's own end was seen.
    Complete,
    /// The bytes ended before it.
    Cut,
}

/// What a response told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The format; `None` when no usage and nothing else that is known was seen.
    pub format: Option<Format>,
    /// The tokens; `None` when the response reported none.
    pub usage: Option<TokenUsage>,
    /// The model that answered.
    pub model: Option<String>,
    /// The provider's id of the response.
    pub response_id: Option<String>,
    /// Why the model stopped, once for each choice.
    pub finish_reasons: Vec<String>,
    /// Whether the response was read to its own end.
    pub end: End,
}

/// Reads one response as its bytes pass.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// A reader at the start of a response.
    pub fn new(_hints: Hints<'_>) -> Reader {
        Reader {}
    }

    /// Takes the next bytes, cut anywhere.
    pub fn feed(&mut self, _bytes: &[u8]) {}

    /// What was read.
    pub fn finish(self) -> Report {
        Report { format: None, usage: None, model: None, response_id: None, finish_reasons: Vec::new(), end: End::Cut }
    }
}
