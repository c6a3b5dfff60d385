//! Who pays, and who calls: a call's tenant, tier and key, out of what Envoy knows of it.

use std::borrow::Cow;
use std::fmt;

use regex_lite::Regex;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tollgate_wire::usage_event::MAX_NAME_BYTES;

use crate::config::Identity;
use crate::headers::Request;

/// The longest value that a pattern is tried on: what is longer is refused.
const MAX_VALUE_BYTES: usize = 4096;
/// Envoy's namespace for the claims of a token that it has verified
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/jwt_authn_filter>).
const JWT_NAMESPACE: [&str; 3] = ["metadata", "filter_metadata", "envoy.filters.http.jwt_authn"];
/// Envoy's header with the certificates of the proxies that a request came through
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert>).
const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";

/// A place where a name may stand, and which part of it is the name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSource")]
pub struct Source {
    /// The place.
    pub origin: Origin,
    /// The name is what the first group captures, or all that matches where there is no group. Else nothing exists.
    pub pattern: Option<Pattern>,
}

/// A place where a name may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A request header.
    Header(String),
    /// A claim of a verified token: the path below Envoy's namespace `envoy.filters.http.jwt_authn`, of which the first
    /// segment is the provider's `payload_in_metadata`. The claim has to be a text.
    JwtClaim(Vec<String>),
    /// The certificate of the client's connection, as far as the listener has verified it.
    PeerCertificate(CertificateField),
    /// The last certificate of `x-forwarded-client-cert`: the one that the nearest proxy put there.
    ForwardedClientCert(CertificateField),
}

/// A part of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateField {
    /// The first URI of the subject's alternative names: the SPIFFE id.
    Uri,
    /// The first DNS name of the subject's alternative names.
    Dns,
    /// The subject.
    Subject,
}

/// A regular expression that can be compared.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refusal = |error| D::Error::custom(format_args!("`{text}` is no regular expression: {error}"));
        Ok(Pattern(Regex::new(&text).map_err(refusal)?))
    }
}

/// A source as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    header: Option<String>,
    jwt_claim: Option<Vec<String>>,
    peer_certificate: Option<CertificateField>,
    forwarded_client_cert: Option<CertificateField>,
    #[serde(rename = "match")]
    pattern: Option<Pattern>,
}

impl TryFrom<RawSource> for Source {
    type Error = &'static str;

    fn try_from(raw: RawSource) -> Result<Source, Self::Error> {
        let origins = [
            raw.header.map(Origin::Header),
            raw.jwt_claim.map(Origin::JwtClaim),
            raw.peer_certificate.map(Origin::PeerCertificate),
            raw.forwarded_client_cert.map(Origin::ForwardedClientCert),
        ];
        let mut given = origins.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(Origin::JwtClaim(path)), None) if path.is_empty() => Err("`jwt_claim` names no claim"),
            (Some(origin), None) => Ok(Source { origin, pattern: raw.pattern }),
            _ => Err("exactly one of `header`, `jwt_claim`, `peer_certificate` and `forwarded_client_cert` is needed"),
        }
    }
}

/// Why a call has no usable identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No source has a tenant.
    Missing(String),
    /// What this source has is no name.
    Invalid(String),
}

impl Identity {
    /// The call's tenant and tier, which is empty where no source has one and there is no default.
    pub(crate) fn of(&self, request: &impl Request) -> Result<(String, String), Refusal> {
        let tenant = first(&self.tenant, request)?.or_else(|| self.default_tenant.clone());
        let tenant = tenant.ok_or_else(|| {
            let places: Vec<_> = self.tenant.iter().map(|source| source.origin.to_string()).collect();
            Refusal::Missing(places.join(" or "))
        })?;
        let tier = first(&self.tier, request)?.or_else(|| self.default_tier.clone()).unwrap_or_default();
        Ok((tenant, tier))
    }

    /// The name of the key that calls; `Err` where there is something that is none. No limit depends on it, so that a call
    /// without it goes on.
    pub(crate) fn key(&self, request: &impl Request) -> Result<Option<String>, Refusal> {
        first(&self.key, request)
    }
}

/// What the first source has that has anything.
fn first(sources: &[Source], request: &impl Request) -> Result<Option<String>, Refusal> {
    let found = sources.iter().find_map(|source| match source.read(request) {
        Ok(None) => None,
        Ok(Some(name)) => Some(Ok(name)),
        Err(()) => Some(Err(Refusal::Invalid(source.origin.to_string()))),
    });
    found.transpose()
}

impl Source {
    pub(crate) fn of_header(header: &str) -> Source {
        Source { origin: Origin::Header(header.to_owned()), pattern: None }
    }

    /// The name; `Err` when there is something that is none.
    fn read(&self, request: &impl Request) -> Result<Option<String>, ()> {
        let Some(value) = self.origin.read(request)? else { return Ok(None) };
        if value.len() > MAX_VALUE_BYTES {
            return Err(());
        }
        let value = std::str::from_utf8(&value).map_err(|_| ())?;
        let captured = match &self.pattern {
            None => Some(value),
            Some(Pattern(pattern)) => {
                let group = usize::from(pattern.captures_len() > 1);
                pattern.captures(value).and_then(|groups| groups.get(group)).map(|name| name.as_str())
            }
        };
        captured.map(|name| is_name(name).then(|| name.to_owned()).ok_or(())).transpose()
    }
}

/// A tenant's, tier's or key's name: 1 to [`MAX_NAME_BYTES`] bytes of printable UTF-8.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}

impl Origin {
    /// The value that stands there; `Err` when there are several, or it is not to be read.
    fn read<'a>(&self, request: &'a impl Request) -> Result<Option<Cow<'a, [u8]>>, ()> {
        let owned = |value: Option<Vec<u8>>| value.filter(|value| !value.is_empty()).map(Cow::Owned);
        match self {
            Origin::Header(name) => Ok(only(request.all(name))?.map(Cow::Borrowed)),
            Origin::JwtClaim(claim) => {
                let path: Vec<&str> = JWT_NAMESPACE.into_iter().chain(claim.iter().map(String::as_str)).collect();
                Ok(request.property(&path).map(Cow::Owned))
            }
            Origin::PeerCertificate(field) => Ok(owned(request.property(&["connection", field.property()]))),
            Origin::ForwardedClientCert(field) => {
                let header = only(request.all(FORWARDED_CLIENT_CERT))?;
                Ok(header.map_or(Ok(None), |header| forwarded(header, field.key()))?.map(Cow::Owned))
            }
        }
    }
}

/// Of a header that came twice nobody knows which one the operator's own proxy has set.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, ()> {
    let value = values.next();
    values.next().map_or(Ok(value), |_| Err(()))
}

impl CertificateField {
    /// Envoy's attribute of the connection.
    fn property(self) -> &'static str {
        match self {
            CertificateField::Uri => "uri_san_peer_certificate",
            CertificateField::Dns => "dns_san_peer_certificate",
            CertificateField::Subject => "subject_peer_certificate",
        }
    }

    /// The key in `x-forwarded-client-cert`.
    fn key(self) -> &'static str {
        match self {
            CertificateField::Uri => "URI",
            CertificateField::Dns => "DNS",
            CertificateField::Subject => "Subject",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Header(name) => write!(f, "the header `{name}`"),
            Origin::JwtClaim(path) => write!(f, "the token's claim `{}`", path.get(1..).unwrap_or_default().join(".")),
            Origin::PeerCertificate(_) => f.write_str("the client's certificate"),
            Origin::ForwardedClientCert(_) => write!(f, "the header `{FORWARDED_CLIENT_CERT}`"),
        }
    }
}

/// The first value of `key` in the last element of an `x-forwarded-client-cert`: elements are divided by commas, pairs by
/// semicolons; a value may stand in quotes, inside which a backslash escapes. `Err` for anything else: a quote that is left
/// open would swallow the element that the operator's own proxy has put behind.
fn forwarded(header: &[u8], key: &str) -> Result<Option<Vec<u8>>, ()> {
    let mut found: Option<Vec<u8>> = None;
    let (mut name, mut value, mut at) = (Vec::new(), Vec::new(), Place::Name);
    for byte in header.iter().copied().chain([b';']) {
        at = match (at, byte) {
            (Place::Quoted, b'\\') => Place::Escaped,
            (Place::Quoted, b'"') => Place::Closed,
            (Place::Quoted | Place::Escaped, _) => {
                value.push(byte);
                Place::Quoted
            }
            (_, b',' | b';') => {
                if found.is_none() && !value.is_empty() && name.trim_ascii().eq_ignore_ascii_case(key.as_bytes()) {
                    found = Some(value.clone());
                }
                if byte == b',' {
                    found = None;
                }
                name.clear();
                value.clear();
                Place::Name
            }
            (Place::Value, b'"') if value.is_empty() => Place::Quoted,
            (Place::Closed, _) | (_, b'"') => return Err(()),
            (Place::Name, b'=') => Place::Value,
            (Place::Name, _) => {
                name.push(byte);
                Place::Name
            }
            (Place::Value, _) => {
                value.push(byte);
                Place::Value
            }
        };
    }
    match at {
        Place::Name => Ok(found),
        _ => Err(()),
    }
}

/// Where in an `x-forwarded-client-cert` a byte stands.
#[derive(Clone, Copy)]
enum Place {
    Name,
    Value,
    Quoted,
    Escaped,
    /// Behind the closing quote.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::headers::Headers;

    #[derive(Default)]
    struct Fake {
        headers: Vec<(&'static str, &'static [u8])>,
        properties: Vec<(&'static str, &'static [u8])>,
    }

    impl Headers for Fake {
        fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
            self.headers.iter().copied()
        }
    }

    impl Request for Fake {
        fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
            let path = path.join("/");
            self.properties.iter().find(|(key, _)| *key == path).map(|(_, value)| value.to_vec())
        }
    }

    fn tenant(sources: &str, request: &Fake) -> Result<String, Refusal> {
        let config = format!(r#"{{"identity":{{"tenant":{sources}}}}}"#);
        Config::parse(config.as_bytes()).unwrap().identity.of(request).map(|(tenant, _)| tenant)
    }

    fn header(name: &'static str, value: &'static str) -> Fake {
        Fake { headers: vec![(name, value.as_bytes())], ..Fake::default() }
    }

    #[test]
    fn the_first_source_that_exists_wins() {
        let sources = r#"[{"jwt_claim":["payload","org","id"]},{"header":"x-a"},{"header":"x-b"}]"#;
        let mut request = Fake { headers: vec![("x-b", b"b"), ("x-a", b"a")], ..Fake::default() };
        assert_eq!(tenant(sources, &request).unwrap(), "a");
        request.properties = vec![("metadata/filter_metadata/envoy.filters.http.jwt_authn/payload/org/id", b"jwt")];
        assert_eq!(tenant(sources, &request).unwrap(), "jwt");
        let missing = Refusal::Missing("the token's claim `org.id` or the header `x-a` or the header `x-b`".to_owned());
        assert_eq!(tenant(sources, &Fake::default()), Err(missing));
    }

    #[test]
    fn a_pattern_captures_and_where_it_does_not_match_nothing_exists() {
        let sources = r#"[{"header":"x-a","match":"^org-([a-z]+)$"},{"header":"x-a","match":"[0-9]+"}]"#;
        assert_eq!(tenant(sources, &header("x-a", "org-acme")).unwrap(), "acme");
        assert_eq!(tenant(sources, &header("x-a", "team 42")).unwrap(), "42");
        assert!(matches!(tenant(sources, &header("x-a", "org-")), Err(Refusal::Missing(_))));
    }

    #[test]
    fn what_is_no_name_is_refused_and_not_passed_over() {
        let sources = r#"[{"header":"x-a"},{"header":"x-b"}]"#;
        let long: &'static str = Box::leak("x".repeat(MAX_NAME_BYTES + 1).into_boxed_str());
        for value in ["", "a\tb", long] {
            let mut request = header("x-a", value);
            request.headers.push(("x-b", b"b"));
            assert_eq!(tenant(sources, &request), Err(Refusal::Invalid("the header `x-a`".to_owned())), "{value:?}");
        }
        let twice = Fake { headers: vec![("x-a", b"a"), ("x-a", b"b")], ..Fake::default() };
        assert!(matches!(tenant(sources, &twice), Err(Refusal::Invalid(_))));
        let bytes = Fake { headers: vec![("x-a", b"\xff")], ..Fake::default() };
        assert!(matches!(tenant(sources, &bytes), Err(Refusal::Invalid(_))));
        assert_eq!(tenant(sources, &header("x-a", "Ünïcode & co")).unwrap(), "Ünïcode & co");
    }

    #[test]
    fn certificates_name_tenants() {
        let spiffe = r#"[{"peer_certificate":"uri","match":"^spiffe://prod/ns/([^/]+)/"}]"#;
        let property = ("connection/uri_san_peer_certificate", b"spiffe://prod/ns/acme/sa/app".as_slice());
        assert_eq!(tenant(spiffe, &Fake { properties: vec![property], ..Fake::default() }).unwrap(), "acme");
        assert!(matches!(tenant(spiffe, &Fake::default()), Err(Refusal::Missing(_))));
    }

    #[test]
    fn a_group_that_takes_no_part_captures_nothing() {
        let sources = r#"[{"header":"x-a","match":"^team-|^org-([a-z]+)$"}]"#;
        assert_eq!(tenant(sources, &header("x-a", "org-acme")).unwrap(), "acme");
        assert!(matches!(tenant(sources, &header("x-a", "team-acme")), Err(Refusal::Missing(_))));
    }

    #[test]
    fn what_a_client_left_open_does_not_hide_what_stands_behind_it() {
        let uri = r#"[{"forwarded_client_cert":"uri"}]"#;
        for value in [
            "URI=spiffe://victim;Subject=\",By=x;URI=spiffe://mallory",
            "URI=spiffe://victim;Subject=\",By=x;Subject=\"CN=mallory\";URI=spiffe://mallory",
            "URI=spiffe://victim;Subject=\",By=x;Subject=\"\";URI=spiffe://mallory",
            "URI=spiffe://victim;Subject=\"\\,By=x;Subject=\"CN=\\\"m\\\"\";URI=spiffe://mallory",
            "URI=spiffe://victim;Subject=a\",By=x;URI=spiffe://mallory",
            "\"URI=spiffe://victim,By=x;URI=spiffe://mallory",
        ] {
            assert!(matches!(tenant(uri, &header(FORWARDED_CLIENT_CERT, value)), Err(Refusal::Invalid(_))), "{value}");
        }
    }

    #[test]
    fn the_last_forwarded_certificate_counts() {
        let uri = r#"[{"forwarded_client_cert":"uri"}]"#;
        let subject = r#"[{"forwarded_client_cert":"subject"}]"#;
        let cases = [
            (uri, "By=x;Hash=1;URI=spiffe://a,By=y;uri=spiffe://b;URI=spiffe://c", Some("spiffe://b")),
            (uri, "URI=spiffe://a,Hash=2", None),
            (uri, "URI=;Subject=\"URI=x\"", None),
            (subject, "Hash=1;Subject=\"/C=US;CN=\\\"a,b\\\"\";URI=spiffe://a", Some("/C=US;CN=\"a,b\"")),
            (subject, "", None),
        ];
        for (sources, value, expected) in cases {
            assert_eq!(tenant(sources, &header(FORWARDED_CLIENT_CERT, value)).ok().as_deref(), expected, "{value}");
        }
    }
}
