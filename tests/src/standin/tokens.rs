//! What an answer costs, known beforehand, whatever API it is asked by.
//!
//! **The rule**: the prompt has 3 tokens, and for each message 4 and one for each word of its text; the completion has
//! the script's number of chunks (8 if it says none), capped by the request. A quarter of the prompt, rounded down, counts
//! as read from the cache, a quarter of the completion as reasoning, where the API can say so.

use serde_json::Value;

/// A completion's length in tokens when nothing sets another.
pub const DEFAULT_COMPLETION_TOKENS: u32 = 8;

/// What the stand-in says, a token at a time, over and over.
const TOKENS: [&str; 12] =
    ["Every", " gate", " counts", " what", " passes", ",", " and", " lets", " it", " pass", ".", " "];

/// Under these members of a request lies its prompt.
const PROMPT: [&str; 12] = [
    "system",
    "system_instruction",
    "systemInstruction",
    "instructions",
    "prompt",
    "input",
    "message",
    "messages",
    "contents",
    "content",
    "parts",
    "text",
];

/// Where a request caps its completion.
const CAPS: [&str; 6] = [
    "/max_completion_tokens",
    "/max_tokens",
    "/max_output_tokens",
    "/generationConfig/maxOutputTokens",
    "/inferenceConfig/maxTokens",
    "/options/num_predict",
];

/// What a completion cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// All input.
    pub prompt_tokens: u32,
    /// Of the input, read from a cache.
    pub cached_tokens: u32,
    /// All output.
    pub completion_tokens: u32,
    /// Of the output, spent on reasoning.
    pub reasoning_tokens: u32,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Length,
}

impl Usage {
    /// A completion of `chunks` tokens, or as many as it has without a script, if `cap` allows so many.
    pub(super) fn new(prompt_tokens: u32, chunks: Option<u32>, cap: Option<u32>) -> Usage {
        let wanted = chunks.unwrap_or(DEFAULT_COMPLETION_TOKENS);
        let completion_tokens = wanted.min(cap.unwrap_or(u32::MAX));
        Usage {
            prompt_tokens,
            cached_tokens: prompt_tokens / 4,
            completion_tokens,
            reasoning_tokens: completion_tokens / 4,
            end: if wanted > completion_tokens { End::Length } else { End::Stop },
        }
    }

    /// What the answer to `request` costs, in whichever of the APIs' shapes it is.
    pub(super) fn of(request: &Value, chunks: Option<u32>) -> Usage {
        let cap = CAPS.iter().find_map(|cap| request.pointer(cap)?.as_u64());
        let lists = ["messages", "contents", "input"].iter().filter_map(|list| request[list].as_array());
        let messages = lists.map(Vec::len).next().unwrap_or(1);
        let prompt_tokens = 3 + 4 * messages as u32 + prompt_words(request);
        Usage::new(prompt_tokens, chunks, cap.map(|cap| u32::try_from(cap).unwrap_or(u32::MAX)))
    }

    /// The same where the API has no word for what was cached.
    pub(super) fn uncached(self) -> Usage {
        Usage { cached_tokens: 0, ..self }
    }

    /// The same where the API has no word for reasoning.
    pub(super) fn unreasoned(self) -> Usage {
        Usage { reasoning_tokens: 0, ..self }
    }

    /// Input and output together.
    pub fn total_tokens(&self) -> u32 {
        self.prompt_tokens + self.completion_tokens
    }

    /// Why it ended, by the API's words for a text that was at its end, and for one that was cut by the cap.
    pub(super) fn finish_reason(&self, stop: &'static str, length: &'static str) -> &'static str {
        match self.end {
            End::Stop => stop,
            End::Length => length,
        }
    }

    /// The completion, token by token.
    pub(super) fn tokens(&self) -> impl Iterator<Item = &'static str> + use<> {
        TOKENS.into_iter().cycle().take(self.completion_tokens as usize)
    }

    /// The completion.
    pub(super) fn text(&self) -> String {
        self.tokens().collect()
    }
}

/// How many words a text has.
pub(super) fn words(text: &str) -> u32 {
    text.split_ascii_whitespace().count() as u32
}

fn prompt_words(part: &Value) -> u32 {
    match part {
        Value::String(text) => words(text),
        Value::Array(parts) => parts.iter().map(prompt_words).sum(),
        Value::Object(members) => PROMPT.iter().filter_map(|name| members.get(*name)).map(prompt_words).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_apis_prompt_and_cap_are_found() {
        let ask = "two words";
        let requests = [
            json!({"system": "a b c", "max_tokens": 5, "messages": [{"role": "user", "content": ask}]}),
            json!({"system": [{"text": "a b c"}], "inferenceConfig": {"maxTokens": 5},
                "messages": [{"role": "user", "content": [{"text": ask}]}]}),
            json!({"systemInstruction": {"parts": [{"text": "a b c"}]}, "generationConfig": {"maxOutputTokens": 5},
                "contents": [{"role": "user", "parts": [{"text": ask}]}]}),
            json!({"instructions": "a b c", "input": ask, "max_output_tokens": 5}),
            json!({"system": "a b c", "prompt": ask, "options": {"num_predict": 5}}),
            json!({"message": "a b c two words", "max_tokens": 5, "model": "many words that do not count"}),
        ];
        for request in requests {
            let usage = Usage::of(&request, None);
            assert_eq!((usage.prompt_tokens, usage.completion_tokens), (3 + 4 + 5, 5), "{request}");
            assert_eq!(usage.finish_reason("stop", "length"), "length");
            assert_eq!(usage.text(), "Every gate counts what passes");
        }
    }
}
