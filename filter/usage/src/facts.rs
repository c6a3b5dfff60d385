//! What a response has told so far, and which format it has.
//!
//! The format is settled at the end of the first document that bears a format's mark; from then on only that format's
//! values count. Since that happens only between documents, the result does not depend on how the bytes were cut.

use crate::format::{Count, Counts, EndsWith, ErrorPart, Field, Format, Formats, Text, TokenUsage};
use crate::json::{Value, Want, decode};
use crate::places::Leaf;
use crate::written::Written;

/// More finish reasons than these are not kept.
pub(crate) const MAX_FINISH_REASONS: usize = 16;
/// A greater number is no count: 2^53, up to where every JSON reader agrees on integers.
const MAX_COUNT: u64 = 1 << 53;
/// Numbers of as many digits are below [`MAX_COUNT`].
const MAX_SHORT_BYTES: usize = 15;
/// A number with more digits is no count.
const MAX_NUMBER_BYTES: usize = 32;

/// The events of a stream with which an image is finished.
const IMAGE_EVENTS: [&[u8]; 2] = [b"image_generation.completed", b"image_edit.completed"];

/// The error of a response that says no more than that it failed: OpenTelemetry's word for it.
const OTHER_ERROR: &str = "_OTHER";

/// What a response has told so far.
#[derive(Debug)]
pub(crate) struct Facts {
    counts: Counts,
    pub(crate) model: Option<String>,
    pub(crate) response_id: Option<String>,
    pub(crate) finish_reasons: Vec<String>,
    /// The most telling part of the first error.
    error: Option<(ErrorPart, String)>,
    written: Written,
    /// Of the object with a modality that is being read.
    modality: Modality,
    /// Whether the object that may be an image is one.
    is_image: bool,
    /// The formats whose mark was seen.
    marked: Formats,
    /// The formats that agree with all counts that were seen.
    counted: Formats,
    /// The format, once it is settled.
    settled: Option<Format>,
    stream: Stream,
}

/// Tokens of one modality, as far as their object has been read.
#[derive(Debug, Default, Clone, Copy)]
struct Modality {
    is_audio: bool,
    tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Open,
    Done,
}

/// What had been told at some time, but for what was written: that has passed, whatever came of its document.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    counts: Counts,
    has_model: bool,
    has_response_id: bool,
    finish_reasons: usize,
    error: Option<(ErrorPart, String)>,
    marked: Formats,
    counted: Formats,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Facts::default().checkpoint()
    }
}

impl Default for Facts {
    fn default() -> Self {
        Facts {
            counts: Counts::default(),
            model: None,
            response_id: None,
            finish_reasons: Vec::new(),
            error: None,
            written: Written::default(),
            modality: Modality::default(),
            is_image: false,
            marked: Formats::NONE,
            counted: Formats::ALL,
            settled: None,
            stream: Stream::Open,
        }
    }
}

impl Facts {
    /// A document has ended.
    pub(crate) fn document_done(&mut self) {
        self.settled = self.settled.or_else(|| self.marked.first());
    }

    /// What has been told so far. Only a response that has failed makes this allocate.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            counts: self.counts,
            has_model: self.model.is_some(),
            has_response_id: self.response_id.is_some(),
            finish_reasons: self.finish_reasons.len(),
            error: self.error.clone(),
            marked: self.marked,
            counted: self.counted,
        }
    }

    /// Takes back what was told after the checkpoint. No document may have ended since.
    pub(crate) fn take_back(&mut self, before: &Checkpoint) {
        self.counts = before.counts;
        // The first of these stays.
        self.model.take_if(|_| !before.has_model);
        self.response_id.take_if(|_| !before.has_response_id);
        self.finish_reasons.truncate(before.finish_reasons);
        self.error.clone_from(&before.error);
        self.marked = before.marked;
        self.counted = before.counted;
    }

    /// Whether the format is settled.
    pub(crate) fn are_settled(&self) -> bool {
        self.settled.is_some()
    }

    /// The stream said that nothing follows.
    pub(crate) fn stream_done(&mut self) {
        self.stream = Stream::Done;
    }

    /// The response told of a failure beside its documents.
    pub(crate) fn failed(&mut self, kind: &[u8]) {
        self.keep_error(ErrorPart::Type, kind);
    }

    /// Whether a stream has told all that it had to: it said so, or what its format ends with was seen.
    pub(crate) fn are_complete(&self, format: Option<Format>) -> bool {
        let is_told = |format: Format| match format.spec().ends_with {
            EndsWith::Usage => true,
            EndsWith::UsageAndReason => !self.finish_reasons.is_empty(),
            EndsWith::Image => self.counts.get(Count::ImageEvents).is_some(),
        };
        self.stream == Stream::Done || (self.usage(format).is_some() && format.is_some_and(is_told))
    }

    /// The format. Where counts alone were seen it is the one that the request's path speaks for, or else the first of
    /// those that they fit. What may be images is some where the path speaks for them.
    pub(crate) fn format(&self, hinted: Formats) -> Option<Format> {
        let counted = || match self.counted {
            Formats::ALL => None,
            counted => counted.common(hinted).first().or(counted.first()),
        };
        let pictured = || self.counts.get(Count::Images).and(hinted.common(Formats::of_images()).first());
        self.settled.or(self.marked.first()).or_else(counted).or_else(pictured)
    }

    /// The tokens, if enough was seen.
    pub(crate) fn usage(&self, format: Option<Format>) -> Option<TokenUsage> {
        (format?.spec().usage)(&self.counts)
    }

    /// The error's kind, if the response told of one.
    pub(crate) fn error(&mut self) -> Option<String> {
        self.error.take().map(|(_, kind)| kind)
    }

    /// The tokens of the text that was generated, by its bytes.
    pub(crate) fn output_estimate(&self) -> u64 {
        self.written.tokens()
    }

    fn keep_text(&mut self, text: Text, raw: &[u8]) {
        if raw.is_empty() {
            return;
        }
        match text {
            Text::Model => self.model = Some(decode(raw)),
            Text::ResponseId => self.response_id = Some(decode(raw)),
            Text::FinishReason => {
                if !self.finish_reasons.iter().any(|known| known.as_bytes() == raw) {
                    self.finish_reasons.push(decode(raw));
                }
            }
        }
    }

    fn keep_error(&mut self, part: ErrorPart, raw: &[u8]) {
        if !raw.is_empty() && self.error.as_ref().is_none_or(|(known, _)| *known < part) {
            self.error = Some((part, decode(raw)));
        }
    }

    fn keep_count(&mut self, count: Count, number: &[u8], formats: Formats) {
        if let Some(number) = whole_number(number) {
            self.counts.set(count, number);
            let agreeing = self.counted.common(formats);
            self.counted = if agreeing.is_empty() { self.counted } else { agreeing };
        }
    }

    #[inline(always)]
    fn keep(&mut self, field: Field, value: Value<'_>, formats: Formats) {
        match (field, value) {
            (Field::Content(channel), Value::Piece(piece)) => self.written.feed(channel, piece),
            (Field::Content(channel), Value::PiecesEnd) => self.written.end(channel),
            (Field::Count(count), Value::Number(number)) => self.keep_count(count, number, formats),
            (Field::Sum(count), Value::Number(number)) => self.counts.add(count, whole_number(number).unwrap_or(0)),
            (Field::Passes, Value::Open) => {
                self.counts.set(Count::PassesInput, 0);
                self.counts.set(Count::PassesOutput, 0);
            }
            (Field::ByModality(_), Value::Open) => self.modality = Modality::default(),
            (Field::ByModality(count), Value::Close) => {
                if let Modality { is_audio: true, tokens: Some(tokens) } = self.modality {
                    self.counts.set(count, tokens);
                }
            }
            (Field::Modality, Value::Text(modality)) => {
                self.modality.is_audio = modality.eq_ignore_ascii_case(b"audio");
            }
            // The value of the API's enumeration, which some write instead of its name.
            (Field::Modality, Value::Number(number)) => self.modality.is_audio = number == b"4",
            (Field::ModalityTokens, Value::Number(number)) => self.modality.tokens = whole_number(number),
            (Field::Images, Value::Open) => self.counts.set(Count::Images, 0),
            (Field::Image, Value::Open) => self.is_image = false,
            (Field::Image, Value::Close) if self.is_image => self.counts.add(Count::Images, 1),
            (Field::Picture, Value::Text([_, ..])) => self.is_image = true,
            (Field::ImageEvent, Value::Text(kind)) if IMAGE_EVENTS.contains(&kind) => {
                self.counts.add(Count::ImageEvents, 1);
            }
            (Field::Text(text), Value::Text(raw)) => self.keep_text(text, raw),
            (Field::Error(ErrorPart::Any), Value::Text([_, ..]) | Value::Open) => {
                self.keep_error(ErrorPart::Any, OTHER_ERROR.as_bytes());
            }
            (Field::Error(ErrorPart::Message), Value::Text(_)) => {
                self.keep_error(ErrorPart::Message, OTHER_ERROR.as_bytes());
            }
            (Field::Error(ErrorPart::Any | ErrorPart::Message), _) => {}
            (Field::Error(part), Value::Text(raw) | Value::Number(raw)) => self.keep_error(part, raw),
            _ => {}
        }
    }
}

/// The values at known places.
impl Facts {
    /// Whether and how the value at a place is wanted. Once the format is settled, what is not wanted will never be.
    pub(crate) fn wants(&self, leaf: Leaf) -> Want {
        let active = self.settled.map_or(Formats::ALL, Formats::only);
        let is_active = !leaf.formats.common(active).is_empty();
        let want = leaf.field.filter(|_| is_active).map_or(Want::No, |field| self.want_field(field));
        match want {
            Want::No if self.settled.is_none() && !leaf.marks.is_empty() => Want::Kept,
            want => want,
        }
    }

    /// A value that is wanted, or a part of it.
    pub(crate) fn value(&mut self, leaf: Leaf, value: Value<'_>) {
        if self.settled.is_none() && value != Value::Null {
            self.marked = self.marked.and(leaf.marks);
        }
        if let Some(field) = leaf.field {
            self.keep(field, value, leaf.formats);
        }
    }

    /// The same as [`Facts::value`] of a place that was wanted after the format was settled, and may be no more.
    #[inline(always)]
    pub(crate) fn again(&mut self, field: Field, value: Value<'_>) {
        if self.want_field(field) != Want::No {
            self.keep(field, value, Formats::NONE);
        }
    }

    fn want_field(&self, field: Field) -> Want {
        match field {
            Field::Content(_) => Want::Pieces,
            Field::Error(ErrorPart::Message) if self.settled.is_none() => Want::No,
            Field::Text(Text::Model) if self.model.is_some() => Want::No,
            Field::Text(Text::ResponseId) if self.response_id.is_some() => Want::No,
            Field::Text(Text::FinishReason) if self.finish_reasons.len() >= MAX_FINISH_REASONS => Want::No,
            _ => Want::Kept,
        }
    }
}

/// A count: a number from 0 to [`MAX_COUNT`], rounded up. Anything else is none.
pub(crate) fn whole_number(number: &[u8]) -> Option<u64> {
    if number.len() <= MAX_SHORT_BYTES && number.iter().all(u8::is_ascii_digit) && !number.is_empty() {
        return Some(number.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
    }
    if number.len() > MAX_NUMBER_BYTES {
        return None;
    }
    let number = std::str::from_utf8(number).ok()?;
    let count = match number.parse::<u64>() {
        Ok(count) => count,
        Err(_) => {
            let fractional = number.parse::<f64>().ok()?.ceil();
            (fractional >= 0.0).then_some(fractional as u64)?
        }
    };
    (count <= MAX_COUNT).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{ALL_BELOW, Row, TABLE};
    use crate::json::Scanner;
    use crate::places::tree;
    use crate::shape::Shapes;

    /// A document with one value, at this path.
    fn document(path: &[&str], value: &str) -> String {
        path.iter().rev().fold(value.to_owned(), |value, key| match key.strip_suffix("[]") {
            Some(key) => format!("{{\"{key}\":[{value}]}}"),
            None if *key == ALL_BELOW => format!("[{{\"k\":[{value}]}}]"),
            None => format!("{{\"{key}\":{value}}}"),
        })
    }

    #[test]
    fn every_row_of_the_tables_is_reached() {
        for spec in TABLE {
            for (path, row) in spec.rows() {
                let settled = if row == Row::Mark { None } else { Some(spec.format) };
                let mut facts = Facts { settled, ..Facts::default() };
                let value = match row {
                    Row::Field(Field::Count(_) | Field::Sum(_) | Field::ModalityTokens) => "7",
                    Row::Field(Field::ByModality(_)) => "{\"tokenCount\":7,\"tokens\":7,\"modality\":\"AUDIO\"}",
                    Row::Field(Field::Passes | Field::Images) => "[]",
                    Row::Field(Field::Image) => "{\"url\":\"x\",\"gcsUri\":\"x\"}",
                    Row::Field(Field::ImageEvent) => "\"image_edit.completed\"",
                    _ => "\"x\"",
                };
                let mut shapes = Shapes::default();
                let mut learner = shapes.learner(None, &mut facts);
                Scanner::new().feed(document(&path, value).as_bytes(), tree(), &mut learner);
                let x = Some("x");
                let is_reached = match row {
                    Row::Field(Field::Count(count) | Field::Sum(count) | Field::ByModality(count)) => {
                        facts.counts.get(count) == Some(7)
                    }
                    Row::Field(Field::Passes) => facts.counts.get(Count::PassesOutput) == Some(0),
                    Row::Field(Field::Images) => facts.counts.get(Count::Images) == Some(0),
                    Row::Field(Field::Image | Field::Picture) => facts.counts.get(Count::Images) == Some(1),
                    Row::Field(Field::ImageEvent) => facts.counts.get(Count::ImageEvents) == Some(1),
                    Row::Field(Field::ModalityTokens) => facts.modality.tokens == Some(7),
                    Row::Field(Field::Modality) => true,
                    Row::Field(Field::Text(Text::Model)) => facts.model.as_deref() == x,
                    Row::Field(Field::Text(Text::ResponseId)) => facts.response_id.as_deref() == x,
                    Row::Field(Field::Text(Text::FinishReason)) => facts.finish_reasons == ["x"],
                    Row::Field(Field::Content(_)) => facts.output_estimate() > 0,
                    Row::Field(Field::Error(ErrorPart::Any | ErrorPart::Message)) => {
                        facts.error().as_deref() == Some(OTHER_ERROR)
                    }
                    Row::Field(Field::Error(_)) => facts.error().as_deref() == x,
                    Row::Mark => !facts.marked.common(Formats::only(spec.format)).is_empty(),
                };
                assert!(is_reached, "{path:?} in {}", spec.name);
            }
        }
    }

    #[test]
    fn counts_are_numbers_from_0_to_2_to_the_53rd() {
        for (number, count) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("12.0", Some(12)),
            ("12.2", Some(13)),
            ("1e3", Some(1000)),
            ("-0", Some(0)),
            ("-0.5", Some(0)),
            ("9007199254740992", Some(1 << 53)),
            ("9007199254740993", None),
            ("18446744073709551616", None),
            ("1e999", None),
            ("-1", None),
            ("-", None),
            ("1-2", None),
            ("nan", None),
            ("000000000000000000000000000000000000012", None),
        ] {
            assert_eq!(whole_number(number.as_bytes()), count, "{number}");
        }
    }
}
