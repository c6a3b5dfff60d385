//! Requests that go out, to receivers that the operator names.
//!
//! Invariants:
//! - Redirects are not followed, and no proxy is used: what is sent goes where it was meant to go, or nowhere.
//! - A client that is kept to public addresses connects to no other, whatever a name resolves to and however often it changes.
//! - No more of an answer is read than [`MAX_ANSWER_BYTES`].
//! - Errors name no URL: its path may be a secret.

mod address;

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use address::PublicOnly;
pub use address::is_public;

/// The most of an answer's body that is read.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The longest that a receiver may ask to be left alone; a longer time counts as this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A connection is given up when it is not there after so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const NO_CERTIFICATE: &str = "holds no certificate, as PEM";

/// Whom a client may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Anyone.
    Any,
    /// Public addresses, see [`is_public`].
    Public,
}

/// What a client is known by to servers that ask, as PEM.
#[derive(Clone, Copy)]
pub struct ClientCertificate<'a> {
    /// The certificate, and behind it those that lead to an authority.
    pub certificate: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
}

/// A client that waits for a whole answer as long as `timeout`, and trusts `ca`, as PEM, or else the system's authorities.
///
/// # Errors
/// When `ca` holds no certificate.
pub fn client(reach: Reach, timeout: Duration, ca: Option<&[u8]>) -> Result<Client, String> {
    client_with(reach, timeout, ca, None)
}

/// As [`client`], with a certificate of its own.
///
/// # Errors
/// As [`client`], and when the certificate or its key is none, or they do not belong together.
pub fn client_with(
    reach: Reach,
    timeout: Duration,
    ca: Option<&[u8]>,
    own: Option<ClientCertificate<'_>>,
) -> Result<Client, String> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls(ca, own)?)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
    let builder = match reach {
        Reach::Any => builder,
        Reach::Public => builder.dns_resolver(Arc::new(PublicOnly)),
    };
    builder.build().map_err(|error| told(&error.without_url()))
}

/// What a connection trusts and shows.
fn tls(ca: Option<&[u8]>, own: Option<ClientCertificate<'_>>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            if roots.add_parsable_certificates(check_certificates(pem)?).0 == 0 {
                return Err(NO_CERTIFICATE.to_owned());
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let config = config.with_root_certificates(roots);
    let Some(ClientCertificate { certificate, key }) = own else { return Ok(config.with_no_client_auth()) };
    let chain = check_certificates(certificate).map_err(|error| format!("the client's certificate {error}"))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "the client's key is none, as PEM without a passphrase")?;
    config.with_client_auth_cert(chain, key).map_err(|error| format!("the client's certificate and key: {error}"))
}

/// The certificates in `pem`.
///
/// # Errors
/// When there is none.
pub fn check_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.ok().filter(|found| !found.is_empty()).ok_or_else(|| NO_CERTIFICATE.to_owned())
}

/// Reads a URL of HTTP. What is wrong is told without the URL.
///
/// # Errors
/// When it is none, or names a user: who sends says so by other means.
pub fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("is no URL of HTTP, such as https://example.com/path".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("names a user or password; leave it out".to_owned());
    }
    Ok(url)
}

/// Where a URL leads, without its path.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Whether a client of this reach may send to `url`, as far as that is known before it connects.
///
/// # Errors
/// When its host is an address that is not public.
pub fn check_reach(reach: Reach, url: &Url) -> Result<(), String> {
    // However it was written, it is written in one way here.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address: Option<IpAddr> = host.parse().ok();
    match (reach, address) {
        (Reach::Public, Some(address)) if !is_public(address) => Err(format!("{address} is no public address")),
        _ => Ok(()),
    }
}

/// The beginning of an answer's body.
///
/// # Errors
/// When it breaks off before its end and before [`MAX_ANSWER_BYTES`].
pub(crate) async fn body(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_ANSWER_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ANSWER_BYTES {
            break;
        }
    }
    Ok(body)
}

/// How long the answer asks to be left alone. A date is not read.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// An error with what is behind it.
pub(crate) fn told(error: &(dyn Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let what = error.to_string();
        if !told.ends_with(&what) {
            told.push_str(": ");
            told.push_str(&what);
        }
        cause = error.source();
    }
    told
}

/// As [`told`], of a request.
pub(crate) fn failure(error: reqwest::Error) -> String {
    told(&error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_http_and_name_no_user() {
        assert_eq!(origin(&url("https://a.example:8088/secret?x=1").unwrap()), "https://a.example:8088");
        for wrong in ["", "a.example", "ftp://a.example", "https://user@a.example", "unix:/tmp/a"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_checked_however_it_is_written() {
        for private in ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::ffff:10.0.0.1]/"] {
            assert!(check_reach(Reach::Public, &url(private).unwrap()).is_err(), "{private}");
            assert_eq!(check_reach(Reach::Any, &url(private).unwrap()), Ok(()));
        }
        assert_eq!(check_reach(Reach::Public, &url("http://8.8.8.8/").unwrap()), Ok(()));
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let client = |reach| client(reach, Duration::from_secs(30), None).unwrap();
        let error = failure(client(Reach::Public).get(&url).send().await.unwrap_err());
        assert!(error.contains("no public address") && !error.contains(&url), "{error}");
        let request = client(Reach::Any).get(&url).send();
        tokio::select! {
            accepted = listener.accept() => { accepted.unwrap(); }
            answer = request => panic!("nobody answers: {answer:?}"),
        }
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        assert!(client(Reach::Any, Duration::from_secs(1), Some(b"?")).is_err());
    }
}
