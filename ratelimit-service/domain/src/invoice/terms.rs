//! What a tenant has agreed to pay beside the prices.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::amounts::{Cents, Quantity};
use super::charge::Meter;
use crate::amount::Pattern;

/// The most allowances, and the most volume discounts, of a tenant.
pub const MAX_SCOPES: usize = 256;
/// The most steps of a volume discount.
pub const MAX_STEPS: usize = 32;
/// The largest minimum and the largest credit: a trillion US dollars.
pub const MAX_CENTS: Cents = Cents::from_parts(100_000_000_000_000);
/// The highest rate of tax: as much as is taxed.
pub const MAX_TAX_PPM: u32 = 1_000_000;

/// What a tenant has agreed to for a period, in US dollars. The default is to pay for what is used, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BillingTerms {
    /// The least that a period's usage comes to; what it lacks is a line of its own. From 0 to [`MAX_CENTS`].
    pub minimum: Cents,
    /// What is free in every period. Of those that match a line the first holds; what is beyond it is *overage*. At
    /// most [`MAX_SCOPES`].
    pub included: Vec<Allowance>,
    /// What much usage costs less (or more). Of those that match a line the first holds. At most [`MAX_SCOPES`].
    pub volume: Vec<Volume>,
    /// The tax, in millionths of what is taxed. At most [`MAX_TAX_PPM`].
    pub tax_ppm: u32,
    /// Money that the tenant has paid ahead or was granted; it is used up to what is due, tax included, and does not
    /// lessen what is taxed. From 0 to [`MAX_CENTS`].
    pub credits: Cents,
}

/// Usage of one meter by some models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// What is counted.
    pub meter: Meter,
    /// The models; `*` is also what has no model.
    #[serde(with = "pattern")]
    pub models: Pattern,
}

impl Scope {
    pub(super) fn has(&self, meter: &Meter, model: Option<&str>) -> bool {
        self.meter == *meter && self.models.matches(model.unwrap_or_default())
    }
}

mod pattern {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Pattern;

    pub(super) fn serialize<S: Serializer>(pattern: &Pattern, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(pattern)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        String::deserialize(deserializer).map(|text| Pattern::new(&text))
    }
}

/// A quantity that is free in every period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Of what.
    #[serde(flatten)]
    pub scope: Scope,
    /// How much; not negative.
    pub quantity: Quantity,
}

/// Graduated prices: each step's factor holds for the part of the quantity that lies in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Of what; its lines fill the steps together.
    #[serde(flatten)]
    pub scope: Scope,
    /// From the first unit on that is not included. At most [`MAX_STEPS`].
    pub steps: Vec<Step>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where it ends, counted from the beginning of the first: more than the step before. The last step, and no other,
    /// has no end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub up_to: Option<Quantity>,
    /// What a unit in it costs, in millionths of its price.
    pub factor_ppm: u32,
}

/// Terms that cannot be billed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermsError {
    path: String,
    problem: &'static str,
}

impl fmt::Display for TermsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl std::error::Error for TermsError {}

impl BillingTerms {
    /// Whether they can be billed by.
    ///
    /// # Errors
    /// When a bound is passed or the steps of a volume discount do not rise; with the path of the field.
    pub fn check(&self) -> Result<(), TermsError> {
        for (path, cents) in [("minimum", self.minimum), ("credits", self.credits)] {
            let in_range = (Cents::ZERO..=MAX_CENTS).contains(&cents);
            expect(in_range, || path.into(), "is from 0 to 1000000000000 dollars")?;
        }
        expect(self.tax_ppm <= MAX_TAX_PPM, || "tax_ppm".into(), "is at most 1000000: all that is taxed")?;
        for (path, count) in [("included", self.included.len()), ("volume", self.volume.len())] {
            expect(count <= MAX_SCOPES, || path.into(), "has at most 256 entries; join some by a pattern of models")?;
        }
        for (index, allowance) in self.included.iter().enumerate() {
            let path = || format!("included[{index}].quantity");
            expect(allowance.quantity >= Quantity::ZERO, path, "is not negative")?;
        }
        self.volume.iter().enumerate().try_for_each(|(index, volume)| volume.check(index))
    }
}

impl Volume {
    fn check(&self, index: usize) -> Result<(), TermsError> {
        let path = || format!("volume[{index}].steps");
        expect(self.steps.len() <= MAX_STEPS, path, "has at most 32 entries")?;
        let Some((last, before)) = self.steps.split_last() else {
            return expect(false, path, "is empty; give one step without `up_to` at least");
        };
        expect(last.up_to.is_none(), path, "ends; leave out `up_to` of the last step")?;
        let mut end = Quantity::ZERO;
        for (step, at) in before.iter().zip(0..) {
            let path = || format!("volume[{index}].steps[{at}].up_to");
            let Some(up_to) = step.up_to else {
                return expect(false, path, "is missing; only the last step has no end");
            };
            expect(up_to > end, path, "is more than that of the step before")?;
            end = up_to;
        }
        Ok(())
    }
}

fn expect(holds: bool, path: impl FnOnce() -> String, problem: &'static str) -> Result<(), TermsError> {
    if holds { Ok(()) } else { Err(TermsError { path: path(), problem }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope { meter: Meter::Requests, models: Pattern::new("*") }
    }

    fn volume(ends: &[Option<i128>]) -> Vec<Volume> {
        let step = |end: &Option<i128>| Step { up_to: end.map(Quantity::from_parts), factor_ppm: 1 };
        vec![Volume { scope: scope(), steps: ends.iter().map(step).collect() }]
    }

    #[test]
    fn what_is_wrong_is_named() {
        let terms = BillingTerms::default;
        let allowance = |parts| vec![Allowance { scope: scope(), quantity: Quantity::from_parts(parts) }];
        let many = allowance(0).into_iter().cycle().take(MAX_SCOPES + 1).collect();
        let cases = [
            (BillingTerms { minimum: Cents::from_parts(-1), ..terms() }, "minimum: is from 0"),
            (BillingTerms { credits: Cents::from_parts(i128::MAX), ..terms() }, "credits: is from 0"),
            (BillingTerms { tax_ppm: 1_000_001, ..terms() }, "tax_ppm: is at most 1000000"),
            (BillingTerms { included: allowance(-1), ..terms() }, "included[0].quantity: is not"),
            (BillingTerms { included: many, ..terms() }, "included: has at most 256"),
            (BillingTerms { volume: volume(&[]), ..terms() }, "volume[0].steps: is empty"),
            (BillingTerms { volume: volume(&[Some(1)]), ..terms() }, "volume[0].steps: ends"),
            (BillingTerms { volume: volume(&[None; 33]), ..terms() }, "volume[0].steps: has at most 32"),
            (BillingTerms { volume: volume(&[None, None]), ..terms() }, "volume[0].steps[0].up_to: is missing"),
            (BillingTerms { volume: volume(&[Some(2), Some(2), None]), ..terms() }, "steps[1].up_to: is more than"),
        ];
        for (terms, expected) in cases {
            let error = terms.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let good = BillingTerms { volume: volume(&[Some(1), Some(2), None]), included: allowance(0), ..terms() };
        assert_eq!(good.check(), Ok(()));
    }
}
