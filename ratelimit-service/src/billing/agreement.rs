//! What a plan's `billing` document says.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use tollgate_domain::invoice::{Allowance, BillingTerms, Cents, UnitPrice, UnitUsd, Volume};

use crate::entry::MAX_EVENT_TYPE_BYTES;

/// The most types of tracked events that a plan has prices for.
pub const MAX_EVENT_PRICES: usize = 256;

/// The highest price of one of what a tracked event counts: a million US dollars.
pub const MAX_EVENT_PRICE: UnitUsd = UnitUsd::from_parts(1_000_000_000_000_000_000);

/// How the tenants of a plan are billed: the terms, and what tracked events cost. Nothing of it has to be given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agreement {
    minimum: Cents,
    included: Vec<Allowance>,
    volume: Vec<Volume>,
    tax_ppm: u32,
    /// All that each tenant was ever granted: what its invoices have used of it is gone.
    credits: Cents,
    /// US dollars for one, by the events' type.
    events: BTreeMap<String, UnitUsd>,
}

/// Why a document is no agreement: `path: what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgreementError(String);

impl fmt::Display for AgreementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AgreementError {}

impl Agreement {
    /// What the JSON document says.
    ///
    /// # Errors
    /// When it has an unknown field, a value of the wrong kind, or one past its bounds; with the path of the field.
    pub fn read(json: &str) -> Result<Agreement, AgreementError> {
        // A list would be read as one of its fields.
        if !json.trim_start().starts_with('{') {
            return Err(AgreementError("is no JSON object".to_owned()));
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let agreement: Agreement =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| match error.path().to_string() {
                path if path == "." => AgreementError(error.into_inner().to_string()),
                path => AgreementError(format!("{path}: {}", error.into_inner())),
            })?;
        deserializer.end().map_err(|error| AgreementError(error.to_string()))?;
        agreement.terms(agreement.credits).check().map_err(|error| AgreementError(error.to_string()))?;
        agreement.check_events()?;
        Ok(agreement)
    }

    /// The terms, with what is left of the credits.
    pub(super) fn terms(&self, credits: Cents) -> BillingTerms {
        BillingTerms {
            minimum: self.minimum,
            included: self.included.clone(),
            volume: self.volume.clone(),
            tax_ppm: self.tax_ppm,
            credits,
        }
    }

    /// Whether something is to be paid for months without usage too.
    pub(super) fn has_minimum(&self) -> bool {
        self.minimum > Cents::ZERO
    }

    /// All that was ever granted.
    pub(super) fn credits(&self) -> Cents {
        self.credits
    }

    /// What tracked events cost, by type. Such a price's name is the plan's and the type's.
    pub(super) fn events(&self, plan: &str) -> BTreeMap<String, UnitPrice> {
        let price =
            |(of, each): (&String, &UnitUsd)| (of.clone(), UnitPrice { version: format!("{plan}:{of}"), each: *each });
        self.events.iter().map(price).collect()
    }

    fn check_events(&self) -> Result<(), AgreementError> {
        if self.events.len() > MAX_EVENT_PRICES {
            let what = format!("events: has {} entries; at most {MAX_EVENT_PRICES} are kept", self.events.len());
            return Err(AgreementError(what));
        }
        for (of, price) in &self.events {
            if of.is_empty() || of.len() > MAX_EVENT_TYPE_BYTES {
                let what = format!("events: `{of}` is no type; one has 1 to {MAX_EVENT_TYPE_BYTES} bytes");
                return Err(AgreementError(what));
            }
            if !(UnitUsd::ZERO..=MAX_EVENT_PRICE).contains(price) {
                return Err(AgreementError(format!("events.{of}: is from 0 to {MAX_EVENT_PRICE} dollars")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_to_be_agreed_on() {
        let nothing = Agreement::read("{}").unwrap();
        assert_eq!(nothing.terms(nothing.credits()), BillingTerms::default());
    }

    #[test]
    fn events_have_prices_by_type() {
        let agreement = Agreement::read(r#"{"events": {"image": "0.04"}, "credits": "10"}"#).unwrap();
        let price = &agreement.events("pro")["image"];
        assert_eq!((price.version.as_str(), price.each.to_string()), ("pro:image", "0.04".to_owned()));
        assert_eq!(agreement.credits(), Cents::from_parts(1000));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, expected) in [
            ("[]", "is no JSON object"),
            (r#"{"minimun": "1"}"#, "minimun: unknown field"),
            (r#"{"minimum": 1.5}"#, "minimum: invalid type"),
            (r#"{"minimum": "-1"}"#, "minimum: is from 0"),
            (r#"{"tax_ppm": 1000001}"#, "tax_ppm: is at most"),
            (r#"{"included": [{"meter": "tokens.in", "models": "*", "quantity": "1"}]}"#, "`tokens.in` is no meter"),
            (r#"{"events": {"image": "-0.1"}}"#, "events.image: is from 0"),
            (r#"{"events": {"": "1"}}"#, "events: `` is no type"),
            ("{} {}", "trailing characters"),
        ] {
            let error = Agreement::read(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
