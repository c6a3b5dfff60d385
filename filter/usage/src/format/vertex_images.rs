//! Imagen on Vertex and Gemini: `predict` is the endpoint of other models too, which answer something else. Source: Google's API
//! reference, "Imagen API".

use super::{Counts, EndsWith, Field, Format, Spec};

pub(crate) static SPEC: Spec = Spec {
    format: Format::VertexImages,
    name: "vertex-images",
    operation: "image_generation",
    provider: "gcp.vertex_ai",
    endpoints: &["/imagen*:predict"],
    ends_with: EndsWith::Image,
    usage_at: &[&[]],
    counts: &[],
    details: &[
        (&["predictions"], Field::Images),
        (&["predictions[]"], Field::Image),
        (&["predictions[]", "bytesBase64Encoded"], Field::Picture),
        (&["predictions[]", "gcsUri"], Field::Picture),
    ],
    texts: &[],
    marks: &[&["predictions[]", "bytesBase64Encoded"], &["predictions[]", "gcsUri"]],
    content_at: &[],
    content: &[],
    usage: Counts::with_images,
};
