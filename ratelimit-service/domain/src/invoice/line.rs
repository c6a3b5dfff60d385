//! From charges to the lines of a period.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::InvoiceError;
use super::amounts::{Cents, ExactUsd, Quantity};
use super::charge::{Basis, Charge, Meter, UnitPrice};
use super::terms::{Allowance, BillingTerms, Step, Volume};

/// The factor of what costs its price.
pub const WHOLE_PPM: u32 = 1_000_000;

/// What a line is of. No two lines of a period are of the same, and they stand in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "item", rename_all = "snake_case")]
pub enum Item {
    /// Usage that has a price.
    Usage(Rated),
    /// What the period's usage lacks to the minimum.
    Minimum,
    /// Usage that no price is known of. It comes to nothing, until a price is found.
    Unpriced {
        /// What was counted.
        meter: Meter,
        /// Of which model.
        model: Option<String>,
    },
}

/// What usage is billed as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rated {
    /// Of which model.
    pub model: Option<String>,
    /// What was counted.
    pub meter: Meter,
    /// The price of one.
    #[serde(flatten)]
    pub price: UnitPrice,
    /// How an allowance bears on it.
    pub part: Part,
    /// The step of a volume discount that it lies in, from 1; 0 where there is none.
    pub step: usize,
    /// What one costs, in millionths of its price.
    pub factor_ppm: u32,
}

/// How an allowance bears on usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// There is none.
    Standard,
    /// It lies in one, and is free.
    Included,
    /// It lies beyond one.
    Overage,
}

/// So much of an item, and what that comes to. Negative where an adjustment takes back what was invoiced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Line {
    /// Of what.
    #[serde(flatten)]
    pub item: Item,
    /// How much.
    #[serde(flatten)]
    pub sums: Sums,
}

/// A line's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Sums {
    /// How much was used.
    pub quantity: Quantity,
    /// How much of that rests on estimates.
    pub estimated_quantity: Quantity,
    /// What it comes to, exactly.
    pub exact_usd: ExactUsd,
    /// How much of that rests on estimates.
    pub estimated_usd: ExactUsd,
    /// What it comes to, rounded once: half to even.
    #[serde(rename = "amount_usd")]
    pub cents: Cents,
}

impl Sums {
    pub(super) fn minus(self, other: Sums) -> Option<Sums> {
        Some(Sums {
            quantity: self.quantity.minus(other.quantity)?,
            estimated_quantity: self.estimated_quantity.minus(other.estimated_quantity)?,
            exact_usd: self.exact_usd.minus(other.exact_usd)?,
            estimated_usd: self.estimated_usd.minus(other.estimated_usd)?,
            cents: self.cents.minus(other.cents)?,
        })
    }
}

/// The lines that a period's charges come to under `terms`: those of usage, what lacks to the minimum, and what has no
/// price. The order of the charges does not matter.
///
/// Lines take what is included, and fill the steps of a volume discount, from the dearest on, by the price of one; of
/// the same price in the order of their items. In a line what was reported goes before what was estimated, so that what
/// is said to rest on estimates is rather too much.
///
/// # Errors
/// When the terms cannot be billed by, or an amount is too large.
pub fn rate(terms: &BillingTerms, charges: &[Charge]) -> Result<Vec<Line>, InvoiceError> {
    terms.check()?;
    let (mut priced, unpriced) = summed(charges)?;
    priced.sort_by_cached_key(|(used, _)| Reverse(used.price.each));
    let mut rating = Rating::new(terms);
    for (used, amount) in priced {
        rating.rate(&used, amount)?;
    }
    let mut lines = rating.lines;
    if let Some(sums) = lacking(terms, &lines)? {
        lines.insert(Item::Minimum, sums);
    }
    lines.extend(unpriced.into_iter().map(|((meter, model), amount)| {
        let sums = Sums { quantity: amount.all, estimated_quantity: amount.estimated, ..Sums::default() };
        (Item::Unpriced { meter, model }, sums)
    }));
    Ok(lines.into_iter().map(|(item, sums)| Line { item, sums }).collect())
}

/// What the usage lacks to the minimum.
fn lacking(terms: &BillingTerms, usage: &BTreeMap<Item, Sums>) -> Result<Option<Sums>, InvoiceError> {
    let cents = Cents::sum(usage.values().map(|sums| sums.cents)).and_then(|usage| terms.minimum.minus(usage));
    let Some(cents) = cents else { return Err(too_large("usage")) };
    if cents <= Cents::ZERO {
        return Ok(None);
    }
    let exact_usd = cents.exact().ok_or_else(|| too_large("minimum"))?;
    Ok(Some(Sums { exact_usd, cents, ..Sums::default() }))
}

fn too_large(of: impl ToString) -> InvoiceError {
    InvoiceError::TooLarge(of.to_string())
}

/// A quantity, and how much of it rests on estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Measured {
    all: Quantity,
    estimated: Quantity,
}

impl Measured {
    fn plus(self, other: Measured) -> Option<Measured> {
        Some(Measured { all: self.all.plus(other.all)?, estimated: self.estimated.plus(other.estimated)? })
    }

    /// Takes at most so much of it, what was reported first.
    fn take(&mut self, most: Quantity) -> Measured {
        let (all, estimated) = (self.all.parts(), self.estimated.parts());
        let taken = all.min(most.parts());
        let of_estimated = (taken - (all - estimated)).max(0);
        *self = Measured {
            all: Quantity::from_parts(all - taken),
            estimated: Quantity::from_parts(estimated - of_estimated),
        };
        Measured { all: Quantity::from_parts(taken), estimated: Quantity::from_parts(of_estimated) }
    }
}

/// What was used at a price.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    model: Option<String>,
    meter: Meter,
    price: UnitPrice,
}

type Priced = Vec<(Used, Measured)>;
type Unpriced = BTreeMap<(Meter, Option<String>), Measured>;

/// The charges of each thing together, those without a price apart. What is nothing is left out.
fn summed(charges: &[Charge]) -> Result<(Priced, Unpriced), InvoiceError> {
    let mut priced = BTreeMap::<Used, Measured>::new();
    let mut unpriced = Unpriced::new();
    for charge in charges.iter().filter(|charge| charge.quantity > 0) {
        let add = |sum: &mut Measured| {
            let all = charge.measured()?;
            let estimated = match charge.basis {
                Basis::Reported => Quantity::ZERO,
                Basis::Estimated => all,
            };
            *sum = sum.plus(Measured { all, estimated })?;
            Some(())
        };
        let (meter, model) = (charge.meter.clone(), charge.model.clone());
        let added = match charge.price.clone() {
            Some(price) => add(priced.entry(Used { model, meter, price }).or_default()),
            None => add(unpriced.entry((meter, model)).or_default()),
        };
        added.ok_or_else(|| too_large(&charge.meter))?;
    }
    Ok((priced.into_iter().collect(), unpriced))
}

/// What is left of allowances and steps, while lines are made.
struct Rating<'a> {
    included: Vec<(&'a Allowance, Quantity)>,
    volume: Vec<(&'a Volume, Quantity)>,
    lines: BTreeMap<Item, Sums>,
}

impl<'a> Rating<'a> {
    fn new(terms: &'a BillingTerms) -> Rating<'a> {
        Rating {
            included: terms.included.iter().map(|allowance| (allowance, allowance.quantity)).collect(),
            volume: terms.volume.iter().map(|volume| (volume, Quantity::ZERO)).collect(),
            lines: BTreeMap::new(),
        }
    }

    fn rate(&mut self, used: &Used, amount: Measured) -> Result<(), InvoiceError> {
        let mut rest = amount;
        let mut pieces = Vec::new();
        let has = |scope: &super::Scope| scope.has(&used.meter, used.model.as_deref());
        let mut beyond = Part::Standard;
        if let Some((_, left)) = self.included.iter_mut().find(|(allowance, _)| has(&allowance.scope)) {
            let taken = rest.take(*left);
            *left = left.minus(taken.all).unwrap_or_default();
            pieces.push((Part::Included, 0, 0, taken));
            beyond = Part::Overage;
        }
        match self.volume.iter_mut().find(|(volume, _)| has(&volume.scope)) {
            None => pieces.push((beyond, 0, WHOLE_PPM, rest)),
            Some((volume, filled)) => {
                for (step, number) in volume.steps.iter().zip(1..) {
                    let taken = rest.take(room(step, *filled));
                    *filled = filled.plus(taken.all).ok_or_else(|| too_large(&used.meter))?;
                    pieces.push((beyond, number, step.factor_ppm, taken));
                }
            }
        }
        for (part, step, factor_ppm, amount) in pieces.into_iter().filter(|(.., amount)| amount.all > Quantity::ZERO) {
            let sums = sums(amount, &used.price, factor_ppm).ok_or_else(|| too_large(&used.meter))?;
            let Used { model, meter, price } = used.clone();
            self.lines.insert(Item::Usage(Rated { model, meter, price, part, step, factor_ppm }), sums);
        }
        Ok(())
    }
}

/// What so much comes to; `None` where that is too large.
fn sums(amount: Measured, price: &UnitPrice, factor_ppm: u32) -> Option<Sums> {
    let usd = |quantity: Quantity| {
        let parts = quantity.parts().checked_mul(price.each.parts())?.checked_mul(factor_ppm.into())?;
        Some(ExactUsd::from_parts(parts))
    };
    let exact_usd = usd(amount.all)?;
    Some(Sums {
        quantity: amount.all,
        estimated_quantity: amount.estimated,
        exact_usd,
        estimated_usd: usd(amount.estimated)?,
        cents: exact_usd.rounded(),
    })
}

/// How much a step still takes when so much is filled.
fn room(step: &Step, filled: Quantity) -> Quantity {
    let left = step.up_to.map(|end| end.parts().saturating_sub(filled.parts()).max(0));
    Quantity::from_parts(left.unwrap_or(i128::MAX))
}
