//! Keys for the service's own API: `tg_` and 60 characters of `A-Z a-z 0-9 - _`, which are 9 bytes of a public id, 32
//! bytes of a secret, and a checksum by which a typing error is told without asking the database.
//!
//! Of a key only its SHA-256 is kept. A slow hash, as passwords need it, would add nothing: 32 random bytes can't be
//! guessed. A key is looked up by its id, which is no secret, and then compared in constant time, so that no answer's
//! time tells how much of a secret was right.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use super::error::Invalid;
use super::record::{Kind, check_name, check_names};
use crate::secret::Secret;

/// How many random bytes a key is made of.
pub const KEY_RANDOM_BYTES: usize = ID_BYTES + 32;

/// The most scopes of a key.
pub const MAX_SCOPES: usize = 32;

/// What every key begins with.
const PREFIX: &str = "tg_";
/// 3 bytes are 4 characters: so the id, and all of it, end between two characters.
const ID_BYTES: usize = 9;
const ID_CHARACTERS: usize = PREFIX.len() + ID_BYTES / 3 * 4;
const CHECKSUM_BYTES: usize = 4;

/// Who may use the service's API, and for what. Its id is what may be shown of the key: its first characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Whose; `None`: the operator's.
    pub tenant: Option<String>,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: KeyRole,
    /// With which parts of the API, by their names; none at all: with every one that its role and tenant have.
    pub scopes: Vec<String>,
    /// From when on it is refused, milliseconds since the Unix epoch; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// When it was revoked; it stays so.
    pub revoked_at_ms: Option<u64>,
    /// Of the whole key.
    #[serde(skip)]
    pub hash: KeyHash,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyRole {
    /// Read and change.
    Admin,
    /// Read.
    Viewer,
}

/// The SHA-256 of a key. The default is that of no key.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    fn of(key: &str) -> KeyHash {
        let mut hash = KeyHash::default();
        hash.0.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
        hash
    }
}

/// Shows nothing.
impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash")
    }
}

impl Kind for ApiKey {
    const NAME: &'static str = "api_key";
    const TABLE: &'static str = "api_keys";
    const COLUMNS: &'static [&'static str] = &["hash"];

    fn tenant<'a>(&'a self, _: &'a str) -> Option<&'a str> {
        self.tenant.as_deref()
    }

    fn check(&self) -> Result<(), Invalid> {
        check_name("name", &self.name)?;
        check_names("scopes", &self.scopes, MAX_SCOPES)
    }

    fn check_change(&self, next: &ApiKey) -> Result<(), Invalid> {
        if self.hash != next.hash {
            return Err(Invalid::new("hash", "a key keeps its secret: make another one"));
        }
        match self.revoked_at_ms.is_some() && self.revoked_at_ms != next.revoked_at_ms {
            true => Err(Invalid::new("revoked_at_ms", "a revoked key stays so: make another one")),
            false => Ok(()),
        }
    }

    fn columns(&self) -> Vec<String> {
        vec![URL_SAFE_NO_PAD.encode(self.hash.0)]
    }

    fn restore(&mut self, columns: Vec<String>) {
        let hash = columns.first().and_then(|hash| URL_SAFE_NO_PAD.decode(hash).ok());
        let hash = hash.and_then(|bytes| bytes.try_into().ok());
        self.hash = hash.map_or_else(KeyHash::default, KeyHash);
    }
}

/// A new key, as it is shown once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The id of its record, and what may be shown of it.
    pub id: String,
    /// The whole of it.
    pub text: Secret,
    /// What is kept of it.
    pub hash: KeyHash,
}

impl NewKey {
    /// A key of these bytes, which have to be random.
    pub fn new(random: [u8; KEY_RANDOM_BYTES]) -> NewKey {
        let mut bytes = [0; KEY_RANDOM_BYTES + CHECKSUM_BYTES];
        bytes[..KEY_RANDOM_BYTES].copy_from_slice(&random);
        bytes[KEY_RANDOM_BYTES..].copy_from_slice(&checksum(&random));
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        NewKey { id: text[..ID_CHARACTERS].to_owned(), hash: KeyHash::of(&text), text: Secret::new(text) }
    }
}

/// A key that somebody shows: it is well written, and no more is known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownKey {
    /// The id of its record, if there is one.
    pub id: String,
    hash: KeyHash,
}

impl ShownKey {
    /// # Errors
    /// [`KeyRefused::NoKey`] and [`KeyRefused::Mistyped`].
    pub fn parse(text: &str) -> Result<ShownKey, KeyRefused> {
        let bytes = text.strip_prefix(PREFIX).and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok());
        let bytes = bytes.filter(|bytes| bytes.len() == KEY_RANDOM_BYTES + CHECKSUM_BYTES).ok_or(KeyRefused::NoKey)?;
        let (random, sum) = bytes.split_at(KEY_RANDOM_BYTES);
        if checksum(random) != sum {
            return Err(KeyRefused::Mistyped);
        }
        Ok(ShownKey { id: text[..ID_CHARACTERS].to_owned(), hash: KeyHash::of(text) })
    }

    /// Whether it is the key of this record, and may be used at `now_ms`.
    ///
    /// # Errors
    /// [`KeyRefused::Unknown`], [`KeyRefused::Revoked`] and [`KeyRefused::Expired`].
    pub fn check(&self, key: &ApiKey, now_ms: u64) -> Result<(), KeyRefused> {
        if !bool::from(self.hash.0.ct_eq(&key.hash.0)) {
            return Err(KeyRefused::Unknown);
        }
        if key.revoked_at_ms.is_some() {
            return Err(KeyRefused::Revoked);
        }
        match key.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms) {
            true => Err(KeyRefused::Expired),
            false => Ok(()),
        }
    }
}

/// Why a key is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// It does not look like one.
    #[error("that is no key: one has {PREFIX} and 60 characters")]
    NoKey,
    /// Its checksum is wrong.
    #[error("the key is mistyped, or a part of it is missing")]
    Mistyped,
    /// There is no such key.
    #[error("the key is not known")]
    Unknown,
    /// It was revoked.
    #[error("the key was revoked")]
    Revoked,
    /// Its time is up.
    #[error("the key has expired")]
    Expired,
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32fast::hash(bytes).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(key: &NewKey) -> ApiKey {
        ApiKey {
            tenant: None,
            name: "ci".to_owned(),
            role: KeyRole::Admin,
            scopes: Vec::new(),
            expires_at_ms: None,
            revoked_at_ms: None,
            hash: key.hash,
        }
    }

    #[test]
    fn a_key_is_known_by_its_beginning_and_shows_nothing_else() {
        let key = NewKey::new([7; KEY_RANDOM_BYTES]);
        assert_eq!((key.id.as_str(), key.text.expose().len()), ("tg_BwcHBwcHBwcH", 63));
        let shown = ShownKey::parse(key.text.expose()).unwrap();
        assert_eq!(shown.id, key.id);
        let record = record(&key);
        let told = format!("{key:?} {shown:?} {record:?} {}", serde_json::to_string(&record).unwrap());
        assert!(!told.contains(key.text.expose()) && !told.contains(&record.columns()[0]), "{told}");
    }

    #[test]
    fn a_key_is_taken_until_it_expires_or_is_revoked() {
        let key = NewKey::new([1; KEY_RANDOM_BYTES]);
        let shown = ShownKey::parse(key.text.expose()).unwrap();
        let mut record = record(&key);
        assert_eq!(shown.check(&record, u64::MAX), Ok(()));
        record.expires_at_ms = Some(100);
        assert_eq!((shown.check(&record, 99), shown.check(&record, 100)), (Ok(()), Err(KeyRefused::Expired)));
        record.revoked_at_ms = Some(50);
        assert_eq!(shown.check(&record, 99), Err(KeyRefused::Revoked));
        let mut same_id = [1; KEY_RANDOM_BYTES];
        same_id[KEY_RANDOM_BYTES - 1] = 2;
        let other = ShownKey::parse(NewKey::new(same_id).text.expose()).unwrap();
        assert_eq!((other.id.as_str(), other.check(&record, 0)), (key.id.as_str(), Err(KeyRefused::Unknown)));
    }

    #[test]
    fn the_hash_of_no_key_is_no_keys() {
        let shown = ShownKey::parse(NewKey::new([0; KEY_RANDOM_BYTES]).text.expose()).unwrap();
        let mut lost = record(&NewKey::new([0; KEY_RANDOM_BYTES]));
        lost.restore(vec!["what is no hash".to_owned()]);
        assert_eq!(shown.check(&lost, 0), Err(KeyRefused::Unknown));
    }

    proptest! {
        #[test]
        fn a_typing_error_is_told(
            random in prop::array::uniform32(any::<u8>()),
            at in PREFIX.len()..63,
            typed in "[A-Za-z0-9_-]",
        ) {
            let mut bytes = [9; KEY_RANDOM_BYTES];
            bytes[..32].copy_from_slice(&random);
            let text = NewKey::new(bytes).text.expose().to_owned();
            let mut other = text.clone();
            other.replace_range(at..=at, &typed);
            prop_assume!(other != text);
            prop_assert_eq!(ShownKey::parse(&other), Err(KeyRefused::Mistyped));
        }

        #[test]
        fn no_text_is_trouble(text in "(tg_)?.{0,70}") {
            let _ = ShownKey::parse(&text);
        }
    }
}
