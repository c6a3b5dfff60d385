//! Signatures of Standard Webhooks 1.0, symmetric: <https://www.standardwebhooks.com>.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use crate::secret::Secret;

/// What a secret begins with; base64 follows.
const PREFIX: &str = "whsec_";

/// How many bytes a secret has.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs messages. Shows nothing of itself.
#[derive(Clone)]
pub struct SigningKey {
    key: hmac::Key,
    secret: Secret,
}

impl SigningKey {
    /// Of a secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(secret: Secret) -> Result<SigningKey, String> {
        let bytes = secret.expose().strip_prefix(PREFIX).and_then(|text| BASE64_STANDARD.decode(text).ok());
        match bytes {
            Some(bytes) if KEY_BYTES.contains(&bytes.len()) => {
                Ok(SigningKey { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), secret })
            }
            _ => Err(format!(
                "is no secret of Standard Webhooks: {PREFIX} and {} to {} bytes in base64",
                KEY_BYTES.start(),
                KEY_BYTES.end()
            )),
        }
    }

    /// A secret of these random bytes.
    pub fn secret(random: [u8; 32]) -> Secret {
        Secret::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(random)))
    }

    /// What goes along as `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &str) -> String {
        let tag = hmac::sign(&self.key, format!("{id}.{timestamp_s}.{body}").as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(tag))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &SigningKey) -> bool {
        self.secret == other.secret
    }
}

impl Eq for SigningKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_signed_as_the_specification_has_it() {
        let key = SigningKey::new(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{key:?}"), "SigningKey");
    }

    #[test]
    fn a_secret_is_made_of_random_bytes() {
        let secret = SigningKey::secret([7; 32]);
        let key = SigningKey::new(secret.clone()).unwrap();
        assert_eq!(key.sign("a", 1, "b"), SigningKey::new(secret).unwrap().sign("a", 1, "b"));
        assert_ne!(key, SigningKey::new(SigningKey::secret([8; 32])).unwrap());
    }

    #[test]
    fn what_is_no_secret_is_told_without_it() {
        for secret in ["", "s3cret", "whsec_", "whsec_s3cret", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ="] {
            let error = SigningKey::new(Secret::new(secret)).unwrap_err();
            assert!(error.starts_with("is no secret") && !error.contains("s3cret"), "{error}");
        }
    }
}
