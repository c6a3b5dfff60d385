//! What must not be shown.

use std::fmt;

/// A password, token or key: shows nothing of itself, and is not written to logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for whom it is meant.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` as it may be shown, should it quote the secret.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, "…") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing() {
        let secret = Secret::new("s3cret");
        assert_eq!(format!("{secret:?}"), "Secret");
        assert_eq!(secret.hidden_in("token s3cret is wrong"), "token … is wrong");
        assert_eq!(Secret::new("").hidden_in("as it is"), "as it is");
    }
}
