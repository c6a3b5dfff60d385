//! Tables of prices: the one that comes with the program, those of others, and how they differ.
//!
//! - [`shipped`]: providers' list prices, in force where neither a tenant nor the operator has a price.
//! - [`import`]: public tables, read as prices; [`diff`]: what they would change.
//! - [`asked`]: the prices in force that are asked for.
//! - [`row`]: one price in columns, as in CSV, in a configuration, and in a JSON document.
//!
//! What a price is, and which one holds, is `tollgate-domain`'s. Money is read from its digits: no float comes between.

pub mod diff;
pub mod import;
pub mod row;
mod shipped;

use tollgate_domain::{Day, Pattern, Quote, TenantPrices};

pub use shipped::shipped;

/// The prices in force on `day` that are asked for, in the order in which they are looked up: of this provider alone, and the
/// one that a call to this model has; or, where a `*` stands for anything, those whose model is named so.
pub fn asked<'p>(prices: TenantPrices<'p>, provider: Option<&str>, model: Option<&str>, day: Day) -> Vec<Quote<'p>> {
    let models = match model {
        Some(name) if !name.contains('*') => return prices.at(provider, model, day).into_iter().collect(),
        pattern => pattern.map(Pattern::new),
    };
    let is_asked = |quote: &Quote<'_>| {
        let price = quote.price();
        provider.is_none_or(|provider| price.provider() == Some(provider))
            && models.as_ref().is_none_or(|models| models.matches(&price.model().to_string()))
    };
    prices.in_force(day).filter(is_asked).collect()
}
