//! Makes an OpenAI-style stream report usage, by edits of the request as it passes.
//!
//! OpenAI sends usage on a stream only for `"stream_options":{"include_usage":true}`. So, wherever the members stand:
//!
//! - `include_usage` that is any scalar but `true` becomes `true`, and stream options without it get it, at once: options are
//!   only allowed on streams, so on another request this changes nothing but the refused one's refusal.
//! - `null` in place of the options becomes options, if `stream` is known to be true by then. It is allowed on any request, so
//!   before that it stays, and the options are added at the end; of two members readers take the last.
//! - Where there are no options at all, they are added behind the last member when `stream` is true.
//! - Azure refuses options beside `data_sources`. There none are added, and null waits for the end.
//! - Of duplicate members each is treated so, up to [`MAX_EDITS`] edits; what would need more gets options at the end.
//! - Values of other types stay: the upstream refuses them.

use std::ops::Range;

use crate::endpoint::StreamOptions;
use crate::json::{OpenScalar, Span, Value, Want};

use super::places::Place;
use super::truth;

/// The most edits of one body beside the one at its end. No honest one needs more than two.
const MAX_EDITS: u8 = 16;

const TRUE: &str = "true";
const MEMBER: &str = "\"include_usage\":true";
const ANOTHER_MEMBER: &str = ",\"include_usage\":true";
const OPTIONS: &str = "{\"include_usage\":true}";
const OPTIONS_MEMBER: &str = ",\"stream_options\":{\"include_usage\":true}";

/// Bytes of a body, and what stands in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Offsets in the whole body as the client sent it.
    pub at: Range<u64>,
    /// What replaces these bytes.
    pub text: &'static str,
}

/// The bytes that stand at `offset` in a body, edited. The edits are in order, and all within these bytes.
pub fn apply(edits: &[Edit], bytes: &[u8], offset: u64) -> Vec<u8> {
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut edited = Vec::with_capacity(bytes.len().saturating_add(added));
    let index = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
    let mut done = 0;
    for edit in edits {
        edited.extend_from_slice(bytes.get(done..index(edit.at.start)).unwrap_or_default());
        edited.extend_from_slice(edit.text.as_bytes());
        done = done.max(index(edit.at.end));
    }
    edited.extend_from_slice(bytes.get(done..).unwrap_or_default());
    edited
}

/// The edits of one body.
#[derive(Debug)]
pub(super) struct Splice {
    mode: Mode,
    takes: StreamOptions,
    options: Options,
    /// The client itself asked for usage.
    asked: bool,
    /// The options that are open have a member.
    has_members: bool,
    /// The options that are open have this one.
    has_include_usage: bool,
    /// How many edits the body has had before its end.
    made: u8,
    /// Those that the bytes of the current piece have brought.
    edits: Vec<Edit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// No edits: not this kind of request.
    Off,
    /// Before the body.
    Due,
    /// In the body.
    On,
}

/// What the last stream options are, as the upstream gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Options {
    /// Absent, null, or past [`MAX_EDITS`].
    None,
    /// They ask for usage.
    Asking,
    /// Of another type, or about to be read.
    Other,
}

impl Splice {
    /// For an upstream that takes options so.
    pub(super) fn new(takes: StreamOptions) -> Splice {
        Splice {
            mode: if takes == StreamOptions::None { Mode::Off } else { Mode::Due },
            takes,
            options: Options::None,
            asked: false,
            has_members: false,
            has_include_usage: false,
            made: 0,
            edits: Vec::new(),
        }
    }

    /// How it wants the values at its places.
    pub(super) fn wants(&self) -> Want {
        if self.mode == Mode::Off { Want::No } else { Want::Kept }
    }

    /// Whether the client did not ask for usage, and the upstream is asked for it.
    pub(super) fn usage_is_ours(&self) -> bool {
        self.mode == Mode::On && self.options == Options::Asking && !self.asked
    }

    /// A value at one of its places.
    pub(super) fn value(&mut self, place: Place, value: Value<'_>, at: Span, stream: Option<bool>) {
        match (place, value) {
            (Place::Top, Value::Open) => {
                // A second top is one of an array's, which is no such request.
                self.mode = if self.mode == Mode::Due { Mode::On } else { Mode::Off };
            }
            (Place::DataSources, Value::Null) => {}
            (Place::DataSources, _) if self.takes == StreamOptions::TakenWithoutData => {
                self.takes = StreamOptions::None
            }
            (Place::Top, Value::Close) if self.lacks_options(stream) => {
                self.edits.push(before_end(at, OPTIONS_MEMBER));
                self.options = Options::Asking;
            }
            (Place::StreamOptions, Value::Open) => {
                (self.has_members, self.has_include_usage) = (false, false);
                (self.asked, self.options) = (false, Options::Other);
            }
            (Place::StreamOption, _) => self.has_members = true,
            (Place::StreamOptions, Value::Close) if !self.has_include_usage => {
                self.edit(before_end(at, if self.has_members { ANOTHER_MEMBER } else { MEMBER }));
            }
            (Place::StreamOptions, Value::Close) => {}
            (Place::StreamOptions, Value::Null) => {
                (self.asked, self.options) = (false, Options::None);
                if self.replaces_null(stream) {
                    self.edit(Edit { at: at.start..at.end, text: OPTIONS });
                }
            }
            (Place::StreamOptions, _) => (self.asked, self.options) = (false, Options::Other),
            (Place::IncludeUsage, value) => {
                (self.has_members, self.has_include_usage) = (true, true);
                match value {
                    Value::Bool(true) => (self.asked, self.options) = (true, Options::Asking),
                    Value::Bool(false) | Value::Null | Value::Number(_) | Value::Text(_) => {
                        self.asked = truth(value) == Some(true);
                        self.edit(Edit { at: at.start..at.end, text: TRUE });
                    }
                    _ => (self.asked, self.options) = (false, Options::Other),
                }
            }
            _ => {}
        }
    }

    /// The edits within the bytes from `start` to `end`, all of which have been scanned; `open` is the scalar that may go on
    /// behind them.
    pub(super) fn edits(
        &mut self,
        start: u64,
        end: u64,
        open: Option<OpenScalar<Place>>,
        stream: Option<bool>,
    ) -> Vec<Edit> {
        let mut edits = std::mem::take(&mut self.edits);
        // What began in an earlier piece was replaced there: its rest goes.
        for edit in &mut edits {
            if edit.at.start < start {
                *edit = Edit { at: start..edit.at.end, text: "" };
            }
        }
        if let Some(text) = open.and_then(|open| self.replacement(open.place, open.first, stream)) {
            let first = open.map_or(end, |open| open.start);
            edits.push(if first < start { Edit { at: start..end, text: "" } } else { Edit { at: first..end, text } });
        }
        edits.retain(|edit| !edit.at.is_empty() || !edit.text.is_empty());
        edits
    }

    fn lacks_options(&self, stream: Option<bool>) -> bool {
        let may_be_added = self.mode == Mode::On && self.takes != StreamOptions::None;
        may_be_added && stream == Some(true) && self.options == Options::None
    }

    /// Whether null may become options before all members are known.
    fn replaces_null(&self, stream: Option<bool>) -> bool {
        self.takes == StreamOptions::Taken && stream == Some(true)
    }

    /// What replaces the scalar at this place that begins so: the same as when its end has come.
    fn replacement(&self, place: Place, first: u8, stream: Option<bool>) -> Option<&'static str> {
        match (place, first) {
            _ if self.made == MAX_EDITS => None,
            (Place::IncludeUsage, b't') => None,
            (Place::IncludeUsage, _) => Some(TRUE),
            (Place::StreamOptions, b'n') if self.replaces_null(stream) => Some(OPTIONS),
            _ => None,
        }
    }

    /// Makes an edit, or leaves it to the one at the end.
    fn edit(&mut self, edit: Edit) {
        if self.made == MAX_EDITS {
            self.options = Options::None;
            return;
        }
        self.edits.push(edit);
        self.made += 1;
        self.options = Options::Asking;
    }
}

/// Adds a member to the object that ends here.
fn before_end(object: Span, text: &'static str) -> Edit {
    let bracket = object.end.saturating_sub(1);
    Edit { at: bracket..bracket, text }
}
