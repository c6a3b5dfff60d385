//! What a response has told so far, and which format it has.
//!
//! The format is settled at the end of the first document that bears a format's mark; from then on only that format's
//! values count, and a document that can have none of them may be passed by unread. Since both happen only between
//! documents, the result does not depend on how the bytes were cut.

use crate::format::{Counts, EndsWith, Field, Format, Formats, Text, TokenUsage};
use crate::json::{Sink, Span, Value, Want, decode};
use crate::places::Leaf;
use crate::signals::{self, Signals};

/// More finish reasons than these are not kept.
pub(crate) const MAX_FINISH_REASONS: usize = 16;
/// A greater number is no count: 2^53, up to where every JSON reader agrees on integers.
const MAX_COUNT: u64 = 1 << 53;
/// A number with more digits is no count.
const MAX_NUMBER_BYTES: usize = 32;

/// What a response has told so far.
#[derive(Debug)]
pub(crate) struct Facts {
    counts: Counts,
    pub(crate) model: Option<String>,
    pub(crate) response_id: Option<String>,
    pub(crate) finish_reasons: Vec<String>,
    /// The formats whose mark was seen.
    marked: Formats,
    /// The formats that agree with all counts that were seen.
    counted: Formats,
    /// The format, once it is settled, by its signals.
    settled: Option<&'static Signals>,
    stream: Stream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Open,
    Done,
}

impl Default for Facts {
    fn default() -> Self {
        Facts {
            counts: Counts::default(),
            model: None,
            response_id: None,
            finish_reasons: Vec::new(),
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
        self.settled = self.settled.or_else(|| self.marked.first().and_then(signals::of));
    }

    /// The stream said that nothing follows.
    pub(crate) fn stream_done(&mut self) {
        self.stream = Stream::Done;
    }

    /// Whether a stream has told all that it had to: it said so, or what its format ends with was seen.
    pub(crate) fn are_complete(&self, format: Option<Format>) -> bool {
        let is_told = |format: Format| match format.spec().ends_with {
            EndsWith::Usage => true,
            EndsWith::UsageAndReason => !self.finish_reasons.is_empty(),
        };
        self.stream == Stream::Done || (self.usage(format).is_some() && format.is_some_and(is_told))
    }

    /// The format. Where counts alone were seen it is the one that the request's path speaks for, or else the first of
    /// those that they fit.
    pub(crate) fn format(&self, hinted: Formats) -> Option<Format> {
        let counted = || match self.counted {
            Formats::ALL => None,
            counted => counted.common(hinted).first().or(counted.first()),
        };
        self.settled.map(|signals| signals.format).or(self.marked.first()).or_else(counted)
    }

    /// The tokens, if enough was seen.
    pub(crate) fn usage(&self, format: Option<Format>) -> Option<TokenUsage> {
        (format?.spec().usage)(&self.counts)
    }

    /// Whether reading this document would change nothing. May be false where it would not.
    pub(crate) fn are_untouched_by(&self, document: &[u8]) -> bool {
        let Some(signals) = self.settled else { return false };
        !signals::any(&signals.always, document)
            && (self.model.is_some() || !signals::any(&signals.model, document))
            && (self.response_id.is_some() || !signals::any(&signals.response_id, document))
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
}

impl Sink for Facts {
    type Place = Leaf;

    fn wants(&self, leaf: Leaf) -> Want {
        let active = self.settled.map_or(Formats::ALL, |signals| Formats::only(signals.format));
        let is_wanted = !leaf.formats.common(active).is_empty()
            && match leaf.field {
                Field::Count(_) => true,
                Field::Text(Text::Model) => self.model.is_none(),
                Field::Text(Text::ResponseId) => self.response_id.is_none(),
                Field::Text(Text::FinishReason) => self.finish_reasons.len() < MAX_FINISH_REASONS,
                Field::Mark => self.settled.is_none(),
            };
        if is_wanted { Want::Kept } else { Want::No }
    }

    fn value(&mut self, leaf: Leaf, value: Value<'_>, _: Span) {
        match (leaf.field, value) {
            (Field::Count(count), Value::Number(number)) => {
                if let Some(number) = whole_number(number) {
                    self.counts.set(count, number);
                    let agreeing = self.counted.common(leaf.formats);
                    self.counted = if agreeing.is_empty() { self.counted } else { agreeing };
                }
            }
            (Field::Text(text), Value::Text(raw)) => self.keep_text(text, raw),
            (Field::Mark, Value::Null) => {}
            (Field::Mark, _) => self.marked = self.marked.and(leaf.formats),
            _ => {}
        }
    }
}

/// A count: a number from 0 to [`MAX_COUNT`], rounded up. Anything else is none.
fn whole_number(number: &[u8]) -> Option<u64> {
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
    use crate::format::TABLE;
    use crate::json::Scanner;
    use crate::places::tree;

    /// A document with one value, at this path.
    fn document(path: &[&str], value: &str) -> String {
        path.iter().rev().fold(value.to_owned(), |value, key| match key.strip_suffix("[]") {
            Some(key) => format!("{{\"{key}\":[{value}]}}"),
            None => format!("{{\"{key}\":{value}}}"),
        })
    }

    #[test]
    fn every_row_of_the_tables_is_reached() {
        for spec in TABLE {
            for (path, field) in spec.rows() {
                let mut facts = Facts::default();
                let value = if matches!(field, Field::Count(_)) { "7" } else { "\"x\"" };
                Scanner::new().feed(document(&path, value).as_bytes(), tree(), &mut facts);
                let x = Some("x");
                let is_reached = match field {
                    Field::Count(count) => facts.counts.get(count) == Some(7),
                    Field::Text(Text::Model) => facts.model.as_deref() == x,
                    Field::Text(Text::ResponseId) => facts.response_id.as_deref() == x,
                    Field::Text(Text::FinishReason) => facts.finish_reasons == ["x"],
                    Field::Mark => !facts.marked.common(Formats::only(spec.format)).is_empty(),
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
