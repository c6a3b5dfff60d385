//! Images, audio and documents in a request, by rules of thumb: their encoded bytes are no text.
//!
//! What they are is told by a data URL's type or by the first bytes of the data, not by the fields beside them, which differ by
//! provider and may come later. Sizes in pixels or seconds are not looked for.

use crate::estimate::TextEstimate;
use crate::format::Format;

/// OpenAI: an image of 1024 × 1024 in high detail, 85 + 4 × 170 ("Images and vision", GPT-4o).
const OPENAI_IMAGE_TOKENS: u64 = 765;
/// OpenAI: any image in low detail (same page).
const LOW_DETAIL_TOKENS: u64 = 85;
/// Anthropic: the most that an image takes, about 1.15 megapixels ("Vision").
const ANTHROPIC_IMAGE_TOKENS: u64 = 1600;
/// Gemini 3: an image in its default resolution ("Media resolution"); before, 258 for each tile of 768 × 768.
const GEMINI_IMAGE_TOKENS: u64 = 1120;
/// MP3 at 128 kbit/s; what is coded less closely counts as longer than it is.
const AUDIO_BYTES_PER_SECOND: u64 = 16_000;
/// Gemini: "Understand audio". OpenAI's models take 10.
const AUDIO_TOKENS_PER_SECOND: u64 = 32;
/// MP4 at 2 Mbit/s.
const VIDEO_BYTES_PER_SECOND: u64 = 250_000;
/// Gemini: "Understand videos", a frame and the sound of a second.
const VIDEO_TOKENS_PER_SECOND: u64 = 300;
/// A page of a PDF, between one of text and a scanned one.
const PAGE_BYTES: u64 = 50_000;
/// Anthropic: "PDF support" has 1500 to 3000.
const PAGE_TOKENS: u64 = 2000;
/// Anthropic: the most pages of a request (same page).
const MAX_PAGES: u64 = 100;
/// English text.
const TEXT_BYTES_PER_TOKEN: u64 = 4;

/// The first bytes by which media are told.
const HEAD_BYTES: usize = 32;

/// The media of a request.
#[derive(Debug, Default)]
pub(super) struct Media {
    images: u64,
    low_detail: u64,
    /// Of all that is measured by its size.
    tokens: u64,
    head: [u8; HEAD_BYTES],
    /// Bytes of the current string, escapes' backslashes left out of the head.
    head_len: usize,
    len: u64,
    is_text: bool,
}

/// What a string at a medium's place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Audio,
    Video,
    /// PDF, or what is not known.
    Document,
    /// Text that is encoded.
    EncodedText,
    /// Text as it is.
    Text,
}

impl Media {
    /// Tokens of all media so far, as the format's provider counts them.
    pub(super) fn tokens(&self, format: Option<Format>) -> u64 {
        let each = match format {
            Some(Format::Anthropic | Format::BedrockConverse | Format::BedrockInvoke) => ANTHROPIC_IMAGE_TOKENS,
            Some(Format::Gemini | Format::GeminiInteractions) => GEMINI_IMAGE_TOKENS,
            _ => OPENAI_IMAGE_TOKENS,
        };
        let low = self.low_detail.min(self.images);
        let images = (self.images - low).saturating_mul(each).saturating_add(low.saturating_mul(LOW_DETAIL_TOKENS));
        self.tokens.saturating_add(images)
    }

    /// One of the images is looked at in low detail.
    pub(super) fn low_detail(&mut self) {
        self.low_detail = self.low_detail.saturating_add(1);
    }

    /// Takes a piece of a string at a medium's place; it goes to `text` if it turns out to be text.
    pub(super) fn feed(&mut self, raw: &[u8], text: &mut TextEstimate) {
        self.len = self.len.saturating_add(raw.len() as u64);
        let mut rest = raw;
        while let (Some((byte, more)), Some(slot)) = (rest.split_first(), self.head.get_mut(self.head_len)) {
            *slot = *byte;
            self.head_len += 1;
            rest = more;
            if self.head_len == HEAD_BYTES && self.kind() == Kind::Text {
                self.is_text = true;
                text.feed(&self.head);
            }
        }
        if self.is_text {
            text.feed(rest);
        }
    }

    /// The string has ended.
    pub(super) fn end(&mut self, text: &mut TextEstimate) {
        if self.head_len < HEAD_BYTES && self.kind() == Kind::Text {
            text.feed(self.head.get(..self.head_len).unwrap_or_default());
        }
        if self.len > 0 {
            self.count(self.kind());
        }
        text.end();
        (self.head_len, self.len, self.is_text) = (0, 0, false);
    }

    fn count(&mut self, kind: Kind) {
        // Four characters of base64 are three bytes.
        let bytes = self.len / 4 * 3;
        let tokens = match kind {
            Kind::Image => {
                self.images = self.images.saturating_add(1);
                return;
            }
            Kind::Text => return,
            Kind::Audio => bytes.saturating_mul(AUDIO_TOKENS_PER_SECOND) / AUDIO_BYTES_PER_SECOND,
            Kind::Video => bytes.saturating_mul(VIDEO_TOKENS_PER_SECOND) / VIDEO_BYTES_PER_SECOND,
            Kind::Document => (bytes.saturating_mul(PAGE_TOKENS) / PAGE_BYTES).min(MAX_PAGES * PAGE_TOKENS),
            Kind::EncodedText => bytes / TEXT_BYTES_PER_TOKEN,
        };
        self.tokens = self.tokens.saturating_add(tokens.max(1));
    }

    fn kind(&self) -> Kind {
        let mut head = [0; HEAD_BYTES];
        let mut len = 0;
        // Some writers escape slashes.
        let known = self.head.get(..self.head_len).unwrap_or_default().iter().filter(|byte| **byte != b'\\');
        for (slot, byte) in head.iter_mut().zip(known) {
            *slot = *byte;
            len += 1;
        }
        kind(head.get(..len).unwrap_or_default())
    }
}

fn kind(head: &[u8]) -> Kind {
    if let Some(mime) = head.strip_prefix(b"data:") {
        return of_mime(mime);
    }
    if head.windows(3).take(8).any(|three| three == b"://") {
        // What can be fetched mostly is an image.
        return Kind::Image;
    }
    if !head.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')) {
        return Kind::Text;
    }
    of_magic(head)
}

fn of_mime(mime: &[u8]) -> Kind {
    const TYPES: &[(&[u8], Kind)] =
        &[(b"image/", Kind::Image), (b"audio/", Kind::Audio), (b"video/", Kind::Video), (b"text/", Kind::EncodedText)];
    TYPES.iter().find(|(start, _)| mime.starts_with(start)).map_or(Kind::Document, |(_, kind)| *kind)
}

/// By the first bytes, in base64.
fn of_magic(head: &[u8]) -> Kind {
    const MAGIC: &[(&[u8], Kind)] = &[
        // PNG, JPEG, GIF, BMP, TIFF.
        (b"iVBORw", Kind::Image),
        (b"/9j/", Kind::Image),
        (b"_9j_", Kind::Image),
        (b"R0lGOD", Kind::Image),
        (b"Qk0", Kind::Image),
        (b"SUkqA", Kind::Image),
        // MP3 with and without a tag, Ogg, FLAC.
        (b"SUQz", Kind::Audio),
        (b"//s", Kind::Audio),
        (b"//u", Kind::Audio),
        (b"T2dnUw", Kind::Audio),
        (b"ZkxhQ", Kind::Audio),
        // MP4, WebM.
        (b"AAAA", Kind::Video),
        (b"GkXfo", Kind::Video),
    ];
    // RIFF, whose bytes 9 to 11 are those of WEBP or WAVE.
    if head.starts_with(b"UklGR") {
        return if head.get(12..16) == Some(b"RUJQ") { Kind::Image } else { Kind::Audio };
    }
    MAGIC.iter().find(|(start, _)| head.starts_with(start)).map_or(Kind::Document, |(_, kind)| *kind)
}
