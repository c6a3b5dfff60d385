//! What all kinds of records have in common.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tollgate_wire::usage_event::MAX_NAME_BYTES;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType};
use utoipa::{PartialSchema, ToSchema};

use super::error::Invalid;

/// The longest document of a record, and the longest content of an invoice, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// The longest metadata of a tenant, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 16 << 10;

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// Unique among those of its kind. Never changes.
    pub id: String,
    /// 1 when it is made, and one more with each change: its ETag.
    pub version: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When it was changed last.
    pub updated_at_ms: u64,
    /// What it says.
    pub value: T,
}

/// A kind of record. As JSON it may be shown and audited, for what is secret or large is no part of that: it has
/// columns of its own.
pub trait Kind: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What errors and the audit log call one: a stable name.
    const NAME: &'static str;
    /// Where they are kept.
    const TABLE: &'static str;
    /// The columns of that table beside those that all have.
    const COLUMNS: &'static [&'static str] = &[];
    /// Whether tenants name theirs as their tier.
    const IS_TIER: bool = false;
    /// How many of them one tenant has at most, and the operator; `None`: any number.
    const MOST_OF_ONE: Option<usize> = None;

    /// Whose it is; `None` for the operator's.
    fn tenant<'a>(&'a self, id: &'a str) -> Option<&'a str>;

    /// # Errors
    /// When a field may not be so.
    fn check(&self) -> Result<(), Invalid>;

    /// # Errors
    /// When it may not be changed to `next`.
    fn check_change(&self, _next: &Self) -> Result<(), Invalid> {
        Ok(())
    }

    /// # Errors
    /// When it may not be deleted.
    fn check_deletion(&self) -> Result<(), Invalid> {
        Ok(())
    }

    /// What goes into [`Kind::COLUMNS`], in their order.
    fn columns(&self) -> Vec<String> {
        Vec::new()
    }

    /// Takes back from there what is no part of its JSON.
    fn restore(&mut self, _columns: Vec<String>) {}
}

/// A JSON document, kept as it came: to the last digit of its numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// `null`.
    pub fn null() -> Json {
        Json(RawValue::NULL.to_owned())
    }

    /// A text that is JSON; `null` if it is none.
    pub(super) fn text_of(text: &'static str) -> Json {
        Json::parse(text.to_owned()).unwrap_or_else(|_| Json::null())
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// When it has keys that are no texts, or the like.
    pub fn of(value: &impl Serialize) -> Result<Json, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Json)
    }

    /// A text of JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: String) -> Result<Json, serde_json::Error> {
        RawValue::from_string(text).map(Json)
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// What it says.
    ///
    /// # Errors
    /// When it says something else than a `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text())
    }
}

/// Any JSON.
impl PartialSchema for Json {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(SchemaType::AnyValue).into()
    }
}

impl ToSchema for Json {}

/// By their texts.
impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Json {}

/// A name, or an id: 1 to [`MAX_NAME_BYTES`] bytes without control characters, which not all databases keep.
pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), Invalid> {
    match name.len() {
        1..=MAX_NAME_BYTES if !name.contains(char::is_control) => Ok(()),
        1..=MAX_NAME_BYTES => Err(Invalid::new(field, "has control characters")),
        bytes => Err(Invalid::new(field, format!("has {bytes} bytes; a name has 1 to {MAX_NAME_BYTES}"))),
    }
}

/// Some names, each once.
pub(super) fn check_names(field: &'static str, names: &[String], most: usize) -> Result<(), Invalid> {
    if names.len() > most {
        return Err(Invalid::new(field, format!("has {} entries; at most {most} are kept", names.len())));
    }
    names.iter().try_for_each(|name| check_name(field, name))?;
    let is_again = |(index, name): &(usize, &String)| names[..*index].contains(name);
    match names.iter().enumerate().find(is_again) {
        Some((_, name)) => Err(Invalid::new(field, format!("has `{name}` twice"))),
        None => Ok(()),
    }
}

/// A text or document of at most so many bytes.
pub(super) fn check_size(field: &'static str, text: &str, most: usize) -> Result<(), Invalid> {
    match text.len() {
        bytes if bytes > most => Err(Invalid::new(field, format!("has {bytes} bytes; at most {most} are kept"))),
        _ => Ok(()),
    }
}
