//! Headers as Envoy has them, and what else it knows of a request.

use std::borrow::Cow;

/// Headers of a request or a response, pseudo headers included, names in lower case.
pub trait Headers {
    /// Each header, as it was sent.
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])>;

    /// The values of the header `name`.
    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The first value of the header `name`.
    fn get<'a>(&'a self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }
}

/// A request: its headers, and what else Envoy knows of it.
pub trait Request: Headers {
    /// The attribute with this path, in Envoy's encoding
    /// (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>).
    fn property(&self, path: &[&str]) -> Option<Vec<u8>>;
}

/// A header that is to be set, or with `None` taken off.
pub type HeaderEdit = (Cow<'static, str>, Option<String>);

/// The header's first value where it is text.
pub(crate) fn text<'a>(headers: &'a impl Headers, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?).ok()
}
