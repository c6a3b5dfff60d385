//! How invoices are made, as it is written.

use serde::Deserialize;

use super::FIELD;
use super::scalar::Within;
use crate::billing::{BillingSettings, Closing};
use crate::invoices::Party;

/// The longest grace, in hours: a month.
const MAX_GRACE_H: u64 = 744;

/// The most lines of the seller's details.
pub const MAX_SELLER_LINES: usize = 16;

/// The longest of these lines, and the longest name, in bytes.
pub const MAX_LINE_BYTES: usize = 256;

/// The longest note, in bytes.
pub const MAX_NOTE_BYTES: usize = 4096;

const HOUR_MS: u64 = 3_600_000;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Billing {
    grace_h: Within<0, MAX_GRACE_H>,
    auto_finalise: bool,
    seller: Seller,
    note: Note,
}

impl Default for Billing {
    fn default() -> Billing {
        Billing { grace_h: Within(72), auto_finalise: false, seller: Seller::default(), note: Note::default() }
    }
}

impl Billing {
    pub(super) fn is_automatic(&self) -> bool {
        self.auto_finalise
    }

    pub(super) fn settings(self) -> BillingSettings {
        BillingSettings {
            grace_ms: self.grace_h.get() * HOUR_MS,
            closing: if self.auto_finalise { Closing::Automatic } else { Closing::ByHand },
            seller: self.seller.0,
            note: self.note.0,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Party")]
struct Seller(Party);

impl TryFrom<Party> for Seller {
    type Error = String;

    fn try_from(seller: Party) -> Result<Seller, String> {
        if seller.details.len() > MAX_SELLER_LINES {
            return Err(format!("{FIELD}details: has {} lines; at most {MAX_SELLER_LINES} fit", seller.details.len()));
        }
        let details = seller.details.iter().enumerate().map(|(at, line)| (format!("details[{at}]"), line));
        for (key, line) in [("name".to_owned(), &seller.name)].into_iter().chain(details) {
            if line.len() > MAX_LINE_BYTES {
                return Err(format!("{FIELD}{key}: has {} bytes; at most {MAX_LINE_BYTES} fit", line.len()));
            }
        }
        Ok(Seller(seller))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Note(String);

impl TryFrom<String> for Note {
    type Error = String;

    fn try_from(note: String) -> Result<Note, String> {
        match note.len() {
            0..=MAX_NOTE_BYTES => Ok(Note(note)),
            bytes => Err(format!("has {bytes} bytes; at most {MAX_NOTE_BYTES} fit")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::billing::Closing;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "t.yaml").map_err(|error| error.to_string())
    }

    #[test]
    fn drafts_wait_for_a_person_unless_it_is_said() {
        let billing = parse("{}").unwrap().billing;
        assert_eq!((billing.grace_ms, billing.closing), (259_200_000, Closing::ByHand));
        let text =
            "billing: { grace_h: 1, auto_finalise: true, seller: { name: Us, details: [Berlin] }, note: Thanks }";
        let billing = parse(text).unwrap().billing;
        assert_eq!((billing.grace_ms, billing.closing), (3_600_000, Closing::Automatic));
        assert_eq!((&*billing.seller.name, &*billing.seller.details[0], &*billing.note), ("Us", "Berlin", "Thanks"));
    }

    #[test]
    fn months_are_not_closed_by_the_ledger_of_one_replica_of_several() {
        let text = |ledger| {
            format!(
                "billing: {{ auto_finalise: true }}\naccounts: {{ postgres: {{ url: 'postgres://a@b/c' }} }}\n{ledger}"
            )
        };
        let error = parse(&text("")).unwrap_err();
        assert!(error.contains("billing.auto_finalise: with accounts.postgres it needs ledger.clickhouse"), "{error}");
        parse(&text("ledger: { clickhouse: { url: 'http://d' } }")).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(5000);
        for (text, expected) in [
            ("grace_h: 745", "billing.grace_h: 745 is not between 0 and 744".to_owned()),
            ("seller: { nam: Us }", "billing.seller".to_owned()),
            (&format!("note: {long}"), "billing.note: has 5000 bytes".to_owned()),
            (&format!("seller: {{ name: {long} }}"), "billing.seller.name: has 5000 bytes".to_owned()),
            (&format!("seller: {{ details: [a, {long}] }}"), "billing.seller.details[1]: has 5000 bytes".to_owned()),
        ] {
            let error = parse(&format!("billing: {{ {text} }}")).unwrap_err();
            assert!(error.contains(&expected), "{error}");
        }
    }
}
