//! A quick look at a whole document that can prove it holds nothing: no path of a format goes through it unless one of the
//! keys of that path stands in it, byte for byte, with a value that is not null.

use std::sync::OnceLock;

use memchr::memmem::Finder;

use crate::format::{Field, Format, Spec, TABLE, Text};
use crate::json::is_whitespace;

/// The keys of one format, in quotes.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) format: Format,
    /// For counts and finish reasons.
    pub(crate) always: Vec<Finder<'static>>,
    /// For the model.
    pub(crate) model: Vec<Finder<'static>>,
    /// For the response's id.
    pub(crate) response_id: Vec<Finder<'static>>,
}

/// The signals of a format, compiled on first use.
pub(crate) fn of(format: Format) -> Option<&'static Signals> {
    static ALL: OnceLock<Vec<Signals>> = OnceLock::new();
    let all = ALL.get_or_init(|| TABLE.iter().map(|spec| Signals::new(spec)).collect());
    all.iter().find(|signals| signals.format == format)
}

impl Signals {
    fn new(spec: &Spec) -> Signals {
        let of_text = |text| {
            let paths = spec.facts.iter().filter(|(_, field)| *field == Field::Text(text));
            paths.filter_map(|(path, _)| path.last()).map(|key| finder(key)).collect()
        };
        Signals {
            format: spec.format,
            always: spec.signals.iter().map(|key| finder(key)).collect(),
            model: of_text(Text::Model),
            response_id: of_text(Text::ResponseId),
        }
    }
}

fn finder(key: &str) -> Finder<'static> {
    Finder::new(format!("\"{key}\"").as_bytes()).into_owned()
}

/// Whether one of the keys stands in the document with a value that is not null.
pub(crate) fn any(keys: &[Finder<'_>], document: &[u8]) -> bool {
    keys.iter().any(|key| {
        let mut rest = document;
        while let Some(at) = key.find(rest) {
            rest = rest.get(at + key.needle().len()..).unwrap_or_default();
            if !is_null(rest) {
                return true;
            }
        }
        false
    })
}

/// Whether a key is followed by a colon and null.
fn is_null(after_key: &[u8]) -> bool {
    let value = skip_whitespace(after_key).strip_prefix(b":");
    value.is_some_and(|value| skip_whitespace(value).starts_with(b"null"))
}

fn skip_whitespace(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_whitespace(*byte)).unwrap_or(bytes.len());
    bytes.get(start..).unwrap_or_default()
}
