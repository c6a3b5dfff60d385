//! Which version of which price holds for a call.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Price, Quote};
use crate::calendar::Day;

/// Versions of prices, in an order that matters: of those for a call, the first one's pattern holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PriceTable {
    versions: Vec<Price>,
    /// The places of those of a single model, by its name: a long table is mostly of these.
    named: HashMap<String, Vec<usize>>,
    /// The places of all others.
    patterns: Vec<usize>,
}

impl PriceTable {
    /// In this order. Of two alike from the same day, the first holds; whoever reads a table should refuse the second.
    pub fn new(versions: Vec<Price>) -> PriceTable {
        let mut table = PriceTable::default();
        for (place, price) in versions.iter().enumerate() {
            match price.model().name() {
                Some(name) => table.named.entry(name).or_default().push(place),
                None => table.patterns.push(place),
            }
        }
        PriceTable { versions, ..table }
    }

    /// Every version.
    pub fn versions(&self) -> &[Price] {
        &self.versions
    }

    /// The price of a call to `model` of `provider` on `day`: the first in order that is of such calls and in force, or
    /// the latest version of it that is in force. A call of no known provider may be any one's.
    pub fn at(&self, provider: Option<&str>, model: Option<&str>, day: Day) -> Option<&Price> {
        let model = model.unwrap_or_default();
        let named = self.named.get(model).map_or(&[][..], Vec::as_slice);
        let first =
            |places: &[usize]| places.iter().copied().find(|place| self.versions[*place].holds(provider, model, day));
        let (name, pattern) = (first(named), first(&self.patterns));
        // What is alike stands in the same list.
        let (first, places) = match (name, pattern) {
            (Some(name), Some(pattern)) if pattern < name => (pattern, &self.patterns[..]),
            (Some(name), _) => (name, named),
            (None, pattern) => (pattern?, &self.patterns[..]),
        };
        let first = &self.versions[first];
        let alike = places.iter().map(|place| &self.versions[*place]).filter(|price| price.is_alike(first));
        let in_force = alike.filter(|price| price.from <= day);
        Some(in_force.fold(first, |latest, price| if price.from > latest.from { price } else { latest }))
    }
}

/// Who set a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// It is agreed on with the tenant, and no plan's mark-up is put on it.
    Tenant,
    /// The operator, for all tenants.
    Operator,
    /// It comes with the program: a provider's list price.
    Shipped,
}

impl Layer {
    /// As the API and its command line call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Tenant => "tenant",
            Layer::Operator => "operator",
            Layer::Shipped => "shipped",
        }
    }
}

/// What is the same for all tenants: the operator's prices, and those that come with the program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prices {
    operator: PriceTable,
    shipped: Arc<PriceTable>,
}

impl Prices {
    /// The operator's, in this order, before the shipped ones.
    pub fn new(operator: Vec<Price>, shipped: Arc<PriceTable>) -> Prices {
        Prices { operator: PriceTable::new(operator), shipped }
    }

    /// These, with others of the operator's before its own.
    #[must_use]
    pub fn with(&self, others: Vec<Price>) -> Prices {
        let operator = others.into_iter().chain(self.operator.versions.iter().cloned()).collect();
        Prices::new(operator, self.shipped.clone())
    }

    /// What a tenant with prices of its `own` pays.
    pub fn with_own<'p>(&'p self, own: Option<&'p PriceTable>) -> TenantPrices<'p> {
        TenantPrices { own, common: self }
    }
}

/// All layers of a tenant's prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantPrices<'p> {
    own: Option<&'p PriceTable>,
    common: &'p Prices,
}

impl<'p> TenantPrices<'p> {
    /// From the one that goes before all others to the one that holds where no other does.
    pub fn layers(self) -> impl Iterator<Item = (Layer, &'p PriceTable)> {
        let common = [(Layer::Operator, &self.common.operator), (Layer::Shipped, &*self.common.shipped)];
        self.own.map(|own| (Layer::Tenant, own)).into_iter().chain(common)
    }

    /// The price of a call, from the first layer that has one in force (see [`PriceTable::at`]), as it is listed;
    /// `None` where what the call costs is not known.
    pub fn at(self, provider: Option<&str>, model: Option<&str>, day: Day) -> Option<Quote<'p>> {
        self.layers().find_map(|(layer, table)| table.at(provider, model, day).map(|price| Quote::new(price, layer)))
    }

    /// The prices in force on `day`, as they are listed, in the order in which they are looked up. One that another goes
    /// before is not among them, as it holds for no call; a price for several models goes by its pattern, as if that were a
    /// name.
    pub fn in_force(self, day: Day) -> impl Iterator<Item = Quote<'p>> {
        self.layers().flat_map(|(_, table)| table.versions()).filter_map(move |price| {
            // One for all providers holds where no other is for the call's own, such as for one without a name.
            let provider = price.provider().or(Some(""));
            let quote = self.at(provider, Some(&price.model().to_string()), day);
            quote.filter(|quote| std::ptr::eq(quote.price(), price))
        })
    }
}
