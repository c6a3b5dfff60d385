//! The headers that a rate limit service wants on the client's response.

use crate::proto::envoy::config::core::v3::HeaderValue;

/// The most headers that are taken from an answer; the rest is left out.
pub const MAX_ADDED_HEADERS: usize = 16;
/// The longest header that is taken, name and value together, in bytes; a longer one is left out.
pub const MAX_ADDED_HEADER_BYTES: usize = 2048;

/// Headers that are not the rate limit service's to set, sorted: those that tell how a message is framed or what its body
/// is, those that belong to one connection (RFC 9110, section 7.6.1), and `set-cookie`, whose values can't be joined.
const RESERVED: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Those of `headers` that may be set, each name once and in lower case, in the order in which they first stand. The
/// values of a name that stands more than once are joined, as RFC 9110, section 5.2 has it.
pub(super) fn read(headers: Vec<HeaderValue>) -> Vec<(String, String)> {
    let mut taken: Vec<(String, String)> = Vec::new();
    for HeaderValue { key, value } in headers {
        let key = key.to_ascii_lowercase();
        if !may_be_set(&key, &value) {
            continue;
        }
        if let Some((_, values)) = taken.iter_mut().find(|(name, _)| *name == key) {
            let joined = format!("{values}, {value}");
            if key.len().saturating_add(joined.len()) <= MAX_ADDED_HEADER_BYTES {
                *values = joined;
            }
        } else if taken.len() < MAX_ADDED_HEADERS {
            taken.push((key, value));
        }
    }
    taken
}

fn may_be_set(name: &str, value: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_token_byte);
    let is_short = name.len().saturating_add(value.len()) <= MAX_ADDED_HEADER_BYTES;
    let is_value = value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
    is_name && is_short && is_value && RESERVED.binary_search(&name).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        read(headers.iter().map(|(key, value)| HeaderValue { key: (*key).into(), value: (*value).into() }).collect())
    }

    fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn headers_are_taken_in_lower_case_and_joined() {
        let headers = [("X-Tollgate-Warning", "tokens_per_day"), ("x-a", "1"), ("x-tollgate-warning", "concurrency")];
        assert_eq!(taken(&headers), owned(&[("x-tollgate-warning", "tokens_per_day, concurrency"), ("x-a", "1")]));
    }

    #[test]
    fn what_is_not_the_services_to_set_is_left_out() {
        assert!(RESERVED.is_sorted());
        for name in RESERVED.into_iter().chain([":status", "", "Content-Length", "x y", "x\r\ny", "é"]) {
            assert_eq!(taken(&[(name, "1"), ("x-a", "b")]), owned(&[("x-a", "b")]), "{name:?}");
        }
        for value in ["a\r\nx-b: c", "\0", "\x7f"] {
            assert_eq!(taken(&[("x-a", value)]), [], "{value:?}");
        }
        assert_eq!(taken(&[("x-a", "tab\tand é")]).len(), 1);
    }

    #[test]
    fn headers_are_bounded() {
        let names: Vec<_> = (0..MAX_ADDED_HEADERS + 1).map(|index| format!("x-{index}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(taken(&many), owned(&many[..MAX_ADDED_HEADERS]));
        let longest = "v".repeat(MAX_ADDED_HEADER_BYTES - 3);
        assert_eq!(taken(&[("x-a", &longest)]).len(), 1);
        assert_eq!(taken(&[("x-a", &(longest.clone() + "v"))]), []);
        assert_eq!(taken(&[("x-a", "1"), ("x-a", &longest)]), owned(&[("x-a", "1")]));
    }
}
