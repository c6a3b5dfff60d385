//! Which codings an upstream may choose from, so that its answer can be read.

/// What stands for `*` here, RFC 9110's "any coding that is not listed".
const READABLE: [&str; 3] = ["gzip", "deflate", "identity"];

/// Narrows an `accept-encoding` (RFC 9110, section 12.5.3) to the codings that a [`Decoder`](crate::Decoder) reads, their
/// weights as they stand; `*` becomes those that are not listed. `None`: none is left that the client takes, and the
/// header has to go.
///
/// Nothing is added that the client did not accept.
pub fn readable_codings(accept_encoding: &str) -> Option<String> {
    let listed = || accept_encoding.split(',').map(Item::parse);
    let is_listed = |coding: &&str| listed().any(|item| item.is(coding));
    let mut readable: Vec<String> = Vec::new();
    let mut takes_any = false;
    for item in listed() {
        if item.is("*") && !item.is_refused() {
            takes_any = true;
            readable.extend(READABLE.iter().filter(|coding| !is_listed(coding)).map(|coding| item.weigh(coding)));
        } else if item.is("*") || item.is("x-gzip") || READABLE.iter().any(|coding| item.is(coding)) {
            takes_any |= !item.is_refused();
            readable.push(item.weigh(item.coding));
        }
    }
    takes_any.then(|| readable.join(", "))
}

/// A coding and its weight, if it has one: `;q=0.5`.
#[derive(Clone, Copy)]
struct Item<'a> {
    coding: &'a str,
    weight: &'a str,
}

impl<'a> Item<'a> {
    fn parse(item: &'a str) -> Item<'a> {
        let (coding, weight) = item.split_at(item.find(';').unwrap_or(item.len()));
        Item { coding: coding.trim(), weight: weight.trim_end() }
    }

    fn is(self, coding: &str) -> bool {
        self.coding.eq_ignore_ascii_case(coding)
    }

    /// A weight of 0 means that the client does not take it.
    fn is_refused(self) -> bool {
        let weight = self.weight.trim_start_matches([';', ' ', '\t']);
        let value = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="));
        // Not as a number: to parse one takes 15 KB of code and tables.
        value.is_some_and(|value| value.starts_with('0') && value.bytes().all(|byte| matches!(byte, b'0' | b'.')))
    }

    fn weigh(self, coding: &str) -> String {
        format!("{coding}{}", self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_stays_as_the_client_weighs_it() {
        for (accepted, readable) in [
            ("gzip, deflate, br, zstd", Some("gzip, deflate")),
            ("gzip;q=0.5, br;q=1.0, identity; q=0.1", Some("gzip;q=0.5, identity; q=0.1")),
            ("GZIP,x-gzip;q=0.9", Some("GZIP, x-gzip;q=0.9")),
            ("identity", Some("identity")),
            ("*", Some("gzip, deflate, identity")),
            ("br, *;q=0.1", Some("gzip;q=0.1, deflate;q=0.1, identity;q=0.1")),
            ("gzip;q=0, *", Some("gzip;q=0, deflate, identity")),
            ("gzip, *;q=0", Some("gzip, *;q=0")),
            ("br", None),
            ("", None),
            ("br, identity;q=0", None),
            ("gzip;q=0.000, *; q=0", None),
            (",;,q=1,;;", None),
        ] {
            assert_eq!(readable_codings(accepted).as_deref(), readable, "{accepted:?}");
            if let Some(readable) = readable {
                assert_eq!(readable_codings(readable).as_deref(), Some(readable));
            }
        }
    }
}
