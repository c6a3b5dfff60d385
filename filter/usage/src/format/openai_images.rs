//! OpenAI images, and what is compatible with them: a body has them in a list, a stream an event for each that is finished, with
//! partial ones before it. Only some models (gpt-image) tell tokens. Source: OpenAI's API reference, "Images" and "Image
//! Streaming".

use super::{Count, Counts, EndsWith, Field, Format, Spec, Text};

pub(crate) static SPEC: Spec = Spec {
    format: Format::OpenAiImages,
    name: "openai-images",
    // OpenTelemetry has no name for it.
    operation: "image_generation",
    provider: "openai",
    endpoints: &["/images/generations", "/images/edits", "/images/variations"],
    ends_with: EndsWith::Image,
    usage_at: &[&[]],
    counts: &[
        (&["usage", "input_tokens"], Count::Input),
        (&["usage", "output_tokens"], Count::Output),
        (&["usage", "input_tokens_details", "cached_tokens"], Count::CacheRead),
    ],
    details: &[
        (&["data"], Field::Images),
        (&["data[]"], Field::Image),
        (&["data[]", "b64_json"], Field::Picture),
        (&["data[]", "url"], Field::Picture),
        (&["type"], Field::ImageEvent),
    ],
    texts: &[(&["model"], Text::Model)],
    // A list of addresses may be anything's.
    marks: &[&["data[]", "b64_json"], &["data[]", "revised_prompt"], &["b64_json"]],
    content_at: &[],
    content: &[],
    usage: Counts::with_images,
};
