//! From a month's entries in the ledger to charges.

use std::collections::{BTreeMap, HashMap};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tollgate_domain::MarkUp;
use tollgate_domain::invoice::{Basis, BillingMonth, Charge, Meter, UnitPrice};
use tollgate_wire::usage_event::{UsageEvent, UsageSource};

use super::hex;
use crate::entry::TrackedEvent;
use crate::ledger::{Grain, Ledger, LedgerError, Page, Pages, Series, Usage};
use crate::limiter::{self, Policy};

/// The most models that a month's charges are told apart by. What others used is charged all the same, without a name:
/// clients choose the names, and neither memory nor an invoice may grow with them.
pub const MAX_MODELS: usize = 128;

/// The most types of tracked events that are told apart; the rest is of no type.
pub const MAX_EVENT_TYPES: usize = 256;

/// The most tiers of calls whose mark-ups are remembered.
const MAX_TIERS: usize = 64;

/// How many entries are read at once.
const PAGE: usize = 2000;

const DAY_MS: u64 = 86_400_000;

/// What, beside versions of prices, usage was rated by. An invoice remembers it, so that what comes late is rated as
/// the rest of its month was, whatever was agreed on since.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Rates {
    /// Mark-ups in parts per million, by the tier that calls named.
    mark_ups: BTreeMap<String, u32>,
    /// Prices of tracked events, by type.
    events: BTreeMap<String, UnitPrice>,
}

impl Rates {
    /// Of today.
    pub(super) fn new(events: BTreeMap<String, UnitPrice>) -> Rates {
        Rates { mark_ups: BTreeMap::new(), events }
    }

    /// These, and those of today for what is not remembered.
    pub(super) fn or(mut self, events: &BTreeMap<String, UnitPrice>) -> Rates {
        for (of, price) in events {
            self.events.entry(of.clone()).or_insert_with(|| price.clone());
        }
        self
    }

    /// Whether an event of this type has a price.
    pub(super) fn has_event(&self, of: &str) -> bool {
        self.events.contains_key(of)
    }

    fn mark_up(&mut self, policy: &Policy, event: &UsageEvent) -> MarkUp {
        if let Some(ppm) = self.mark_ups.get(&event.tier) {
            return MarkUp::from_ppm(*ppm);
        }
        let plan = limiter::used_plan(policy, &event.tenant, &event.tier);
        let mark_up = plan.map_or(MarkUp::NONE, |plan| plan.mark_up);
        if self.mark_ups.len() < MAX_TIERS {
            self.mark_ups.insert(event.tier.clone(), mark_up.ppm());
        }
        mark_up
    }
}

/// A month's usage, rated.
pub(super) struct Charges {
    pub(super) charges: Vec<Charge>,
    /// Calls that used something and that no price is known for.
    pub(super) calls_without_price: u64,
    /// What it was rated by.
    pub(super) rates: Rates,
}

/// Reads and rates all entries of a tenant's month, page by page. Each call is rated by the prices of its day, and at
/// the tenant's own mark-up; what used nothing is not charged.
pub(super) async fn read(
    ledger: &dyn Ledger,
    policy: &Policy,
    tenant: &str,
    month: &BillingMonth,
    rates: Rates,
) -> Result<Charges, LedgerError> {
    let mut rating =
        Rating { policy, rates, calls_without_price: 0, calls: Named::default(), events: Named::default() };
    let page = Page { tenant, from_ms: month.start_ms, to_ms: month.end_ms, after: None, limit: PAGE };
    let mut pages = Pages::from(page);
    while let Some(page) = pages.next() {
        let calls = ledger.events(&page).await?;
        calls.iter().for_each(|event| rating.call(event));
        pages.read(&calls);
    }
    let mut pages = Pages::from(page);
    while let Some(page) = pages.next() {
        let tracked = ledger.tracked_events(&page).await?;
        tracked.iter().for_each(|event| rating.event(event));
        pages.read(&tracked);
    }
    Ok(rating.charges())
}

struct Rating<'p> {
    policy: &'p Policy,
    rates: Rates,
    calls_without_price: u64,
    /// By model.
    calls: Named<MAX_MODELS, (Meter, Option<UnitPrice>, Basis)>,
    /// By type.
    events: Named<MAX_EVENT_TYPES, Option<UnitPrice>>,
}

impl Rating<'_> {
    fn call(&mut self, event: &UsageEvent) {
        let basis = match event.usage_source {
            UsageSource::None => return,
            UsageSource::Reported => Basis::Reported,
            UsageSource::Partial | UsageSource::Estimated | UsageSource::Unsettled => Basis::Estimated,
        };
        let used = limiter::used_by(event);
        let model = event.model();
        let Some(quote) = limiter::event_quote(self.policy, None, event) else {
            self.calls_without_price = self.calls_without_price.saturating_add(1);
            let tokens = used.tokens.by_class().map(|(class, quantity)| (Meter::Tokens(class), quantity));
            let counted = tokens.chain([(Meter::Images, used.images)]);
            for (meter, quantity) in counted.filter(|(_, quantity)| *quantity > 0) {
                self.calls.add(model, (meter, None, basis), quantity.into());
            }
            return;
        };
        let rated = quote.with_mark_up(self.rates.mark_up(self.policy, event)).rate(&used);
        let price = |picousd| Some(UnitPrice::picousd(rated.version.clone(), picousd));
        for (class, part) in &rated.tokens {
            let of = (Meter::Tokens(*class), price(part.unit_picousd), basis);
            self.calls.add(model, of, part.quantity.into());
        }
        if rated.images.unit_picousd > 0 && rated.images.quantity > 0 {
            let of = (Meter::Images, price(rated.images.unit_picousd), basis);
            self.calls.add(model, of, rated.images.quantity.into());
        }
        // That there was a call is known, however its tokens are.
        if rated.requests.unit_picousd > 0 {
            let of = (Meter::Requests, price(rated.requests.unit_picousd), Basis::Reported);
            self.calls.add(model, of, rated.requests.quantity.into());
        }
    }

    fn event(&mut self, event: &TrackedEvent) {
        let price = self.rates.events.get(&event.event_type).cloned();
        self.events.add(Some(&event.event_type), price, event.quantity_micros.into());
    }

    fn charges(self) -> Charges {
        let of_calls = self.calls.sums().map(|(model, (meter, price, basis), quantity)| Charge {
            meter,
            model,
            price,
            quantity,
            basis,
        });
        let of_events = self.events.sums().map(|(of, price, quantity)| Charge {
            meter: Meter::Event(of.unwrap_or_default()),
            model: None,
            price,
            quantity,
            basis: Basis::Reported,
        });
        let charges = of_calls.chain(of_events).collect();
        Charges { charges, calls_without_price: self.calls_without_price, rates: self.rates }
    }
}

/// Quantities by name and key, with the first `MOST` names in their order; the rest has no name. Whatever order they
/// come in, the sums are the same: a name that goes is the last of more than `MOST`, and will be so again.
struct Named<const MOST: usize, K> {
    named: BTreeMap<String, HashMap<K, u128>>,
    rest: HashMap<K, u128>,
}

impl<const MOST: usize, K> Default for Named<MOST, K> {
    fn default() -> Self {
        Named { named: BTreeMap::new(), rest: HashMap::new() }
    }
}

impl<const MOST: usize, K: Eq + std::hash::Hash> Named<MOST, K> {
    fn add(&mut self, name: Option<&str>, key: K, quantity: u128) {
        let Some(name) = name else { return add(&mut self.rest, key, quantity) };
        if let Some(sums) = self.named.get_mut(name) {
            return add(sums, key, quantity);
        }
        self.named.insert(name.to_owned(), HashMap::from([(key, quantity)]));
        if self.named.len() > MOST
            && let Some((_, sums)) = self.named.pop_last()
        {
            sums.into_iter().for_each(|(key, quantity)| add(&mut self.rest, key, quantity));
        }
    }

    fn sums(self) -> impl Iterator<Item = (Option<String>, K, u128)> {
        let named = self.named.into_iter().map(|(name, sums)| (Some(name), sums));
        let all = named.chain([(None, self.rest)]);
        all.flat_map(|(name, sums)| sums.into_iter().map(move |(key, quantity)| (name.clone(), key, quantity)))
    }
}

fn add<K: Eq + std::hash::Hash>(sums: &mut HashMap<K, u128>, key: K, quantity: u128) {
    let sum = sums.entry(key).or_default();
    *sum = sum.saturating_add(quantity);
}

/// What the ledger's sums of a month are: so it is known whether anything came since, and not all has to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    /// Calls; with those of the hours or days at the month's ends, where these are cut.
    calls: u64,
    /// Tracked events, likewise.
    events: u64,
    /// Of all sums. Another release may work it out otherwise: then the month is read again, and nothing has changed.
    digest: String,
}

impl Sums {
    /// Whether there is any usage.
    pub(super) fn has_any(&self) -> bool {
        self.calls > 0 || self.events > 0
    }

    /// Whether there is less than there was: entries were erased, and what they came to is owed all the same.
    pub(super) fn is_less_than(&self, before: &Sums) -> bool {
        self.calls < before.calls || self.events < before.events
    }
}

/// The ledger's sums of a month.
pub(super) async fn sums(ledger: &dyn Ledger, tenant: &str, month: &BillingMonth) -> Result<Sums, LedgerError> {
    let is_of_days = |at_ms: u64| at_ms.is_multiple_of(DAY_MS);
    let grain = if is_of_days(month.start_ms) && is_of_days(month.end_ms) { Grain::Day } else { Grain::Hour };
    let (from_ms, to_ms) = (grain.start_ms(month.start_ms), month.end_ms);
    let points = ledger.series(&Series { tenant, grain, from_ms, to_ms, by: None }).await?;
    let usage: Usage = points.iter().map(|point| &point.usage).sum();
    let tracked = ledger.tracked(tenant, Grain::Day.start_ms(month.start_ms), to_ms).await?;
    let mut by_type = BTreeMap::<&str, (u64, u128)>::new();
    for sum in &tracked {
        let (events, quantity) = by_type.entry(&sum.event_type).or_default();
        *events = events.saturating_add(sum.events);
        *quantity = quantity.saturating_add(sum.quantity_micros);
    }
    Ok(Sums {
        calls: usage.requests,
        events: tracked.iter().fold(0, |events, sum| events.saturating_add(sum.events)),
        digest: hex(digest(&SHA256, format!("{usage:?}{by_type:?}").as_bytes()).as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_of_entries_does_not_matter(
            entries in prop::collection::vec((prop::option::of("[a-f]"), 0..3_u8, 0..100_u128), 0..40),
        ) {
            let sums = |entries: &mut dyn Iterator<Item = &(Option<String>, u8, u128)>| {
                let mut named = Named::<3, u8>::default();
                for (name, key, quantity) in entries {
                    named.add(name.as_deref(), *key, *quantity);
                }
                named.sums().map(|(name, key, quantity)| ((name, key), quantity)).collect::<BTreeMap<_, _>>()
            };
            let forth = sums(&mut entries.iter());
            prop_assert_eq!(&forth, &sums(&mut entries.iter().rev()));
            let all = entries.iter().map(|(.., quantity)| quantity).sum::<u128>();
            prop_assert_eq!(forth.values().sum::<u128>(), all);
            let names = forth.keys().filter_map(|(name, _)| name.as_ref()).collect::<std::collections::BTreeSet<_>>();
            prop_assert!(names.len() <= 3);
        }
    }
}
