//! What the files hold, and what is served of it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use yasna::tags::TAG_UTCTIME;
use yasna::{ASN1Result, BERReader, Tag, parse_der};

use super::{MAX_PEM_BYTES, Protocol, TlsError, TlsSettings};
use crate::http::check_certificates;

const CERTIFICATE: &str = "certificate";
const PRIVATE_KEY: &str = "private_key";
const CLIENT_CA: &str = "client_ca";

/// The files' bytes. One of them is a key: they are shown to nobody.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What is served.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    /// The end of the certificate's life, in seconds since the Unix epoch.
    pub(super) not_after_s: i64,
}

impl Files {
    /// Reads all of them. That may wait for a disk.
    pub(super) fn read(settings: &TlsSettings) -> Result<Files, TlsError> {
        Ok(Files {
            certificate: read(CERTIFICATE, &settings.certificate)?,
            private_key: read(PRIVATE_KEY, &settings.private_key)?,
            client_ca: settings.client_ca.as_deref().map(|file| read(CLIENT_CA, file)).transpose()?,
        })
    }

    /// What can be served of them.
    pub(super) fn identity(&self, protocol: Protocol) -> Result<Identity, TlsError> {
        let refuse = |field| move |what: String| TlsError { field, what };
        let chain = check_certificates(&self.certificate).map_err(refuse(CERTIFICATE))?;
        let not_after_s = not_after_s(&chain).map_err(refuse(CERTIFICATE))?;
        let key = PrivateKeyDer::from_pem_slice(&self.private_key);
        let key = key.map_err(|_| {
            refuse(PRIVATE_KEY)("holds no private key, as PEM; one with a passphrase is none".to_owned())
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| refuse(CERTIFICATE)(error.to_string()))?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for authority in check_certificates(pem).map_err(refuse(CLIENT_CA))? {
                    roots.add(authority).map_err(|error| refuse(CLIENT_CA)(format!("holds no authority: {error}")))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                config.with_client_cert_verifier(verifier.map_err(|error| refuse(CLIENT_CA)(error.to_string()))?)
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                refuse(PRIVATE_KEY)("is not the key of the certificate".to_owned())
            }
            rustls::Error::InvalidCertificate(error) => refuse(CERTIFICATE)(format!("is of no use: {error}")),
            error => refuse(PRIVATE_KEY)(format!("is of no use: {error}")),
        })?;
        config.alpn_protocols = vec![protocol.alpn()];
        Ok(Identity { config: Arc::new(config), not_after_s })
    }
}

/// When the first certificate of a chain ends: ours.
fn not_after_s(chain: &[CertificateDer<'_>]) -> Result<i64, String> {
    let own = chain.first().and_then(|own| parse_der(own, read_not_after_s).ok());
    own.ok_or_else(|| "holds no X.509 certificate".to_owned())
}

/// Of a `Certificate`, whose first part is the `TBSCertificate` with its `Validity` (RFC 5280, section 4.1).
fn read_not_after_s(certificate: BERReader<'_, '_>) -> ASN1Result<i64> {
    certificate.read_sequence(|certificate| {
        let not_after_s = certificate.next().read_sequence(|signed| {
            let version = Tag::context(0);
            signed.read_optional(|next| next.read_tagged(version, |version| version.read_i64()))?;
            for _serial_number_signature_issuer in 0..3 {
                signed.next().read_der()?;
            }
            let not_after_s = signed.next().read_sequence(|validity| {
                validity.next().read_der()?;
                read_time_s(validity.next())
            })?;
            while signed.read_optional(|next| next.read_der())?.is_some() {}
            Ok(not_after_s)
        })?;
        while certificate.read_optional(|next| next.read_der())?.is_some() {}
        Ok(not_after_s)
    })
}

/// In seconds since the Unix epoch: up to 2049 it is written in one way, and from then on in another.
fn read_time_s(time: BERReader<'_, '_>) -> ASN1Result<i64> {
    Ok(match time.lookahead_tag()? {
        TAG_UTCTIME => time.read_utctime()?.datetime().unix_timestamp(),
        _ => time.read_generalized_time()?.datetime().unix_timestamp(),
    })
}

fn read(field: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    let refuse = |what: String| TlsError { field, what: format!("{} {what}", file.display()) };
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| refuse(format!("cannot be read: {error}")))?;
    match bytes.len() as u64 > MAX_PEM_BYTES {
        true => Err(refuse(format!("is longer than {MAX_PEM_BYTES} bytes, the most that is read"))),
        false => Ok(bytes),
    }
}
