//! What the same call would cost by other models.

use super::{Calls, MarkUp, Price, Quote, TenantPrices};
use crate::amount::{Pattern, Tokens};
use crate::calendar::Day;

/// A question about what calls would cost, and by which models.
#[derive(Debug, Clone)]
pub struct Comparison<'a> {
    /// The day on which prices are in force.
    pub day: Day,
    /// The calls. Models whose prices do not tell what these would cost are left out: those without a price of an image where
    /// images are made, and those that have nothing but one where none are.
    pub calls: Calls,
    /// The plan's.
    pub mark_up: MarkUp,
    /// Prices of this provider's models alone.
    pub provider: Option<&'a str>,
    /// Of the models that are named so alone. A price for several models goes by its pattern, as if that were a name.
    pub models: Option<Pattern>,
}

impl Comparison<'_> {
    /// About one call with these tokens, by any model on any list, without a mark-up.
    pub fn of(day: Day, tokens: Tokens) -> Comparison<'static> {
        Comparison { day, calls: Calls::one(tokens), mark_up: MarkUp::NONE, provider: None, models: None }
    }
}

/// What calls would cost by a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared<'p> {
    /// The price, with its mark-up.
    pub quote: Quote<'p>,
    /// In 1e-12 US dollars, exact.
    pub picousd: u128,
}

impl<'p> TenantPrices<'p> {
    /// What calls would cost by every model that has a price, the cheapest first; of the same cost, by the model's and
    /// the provider's name. A price that another one goes before is not among them, as it holds for no call.
    pub fn compare(self, asked: &Comparison<'_>) -> Vec<Compared<'p>> {
        let mut compared: Vec<_> = self.compared(asked).map(|compared| (order(&compared), compared)).collect();
        compared.sort_by(|(a, _), (b, _)| a.cmp(b));
        compared.into_iter().map(|(_, compared)| compared).collect()
    }

    /// The first of [`TenantPrices::compare`].
    pub fn cheapest(self, asked: &Comparison<'_>) -> Option<Compared<'p>> {
        self.compared(asked).min_by_key(order)
    }

    fn compared(self, asked: &Comparison<'_>) -> impl Iterator<Item = Compared<'p>> {
        let is_asked = |quote: &Quote<'_>, model: &str| {
            asked.provider.is_none_or(|provider| quote.price().provider() == Some(provider))
                && tells(quote.price(), &asked.calls)
                && asked.models.as_ref().is_none_or(|models| models.matches(model))
        };
        self.in_force(asked.day).filter(move |quote| is_asked(quote, &quote.price().model().to_string())).map(|quote| {
            let quote = quote.with_mark_up(asked.mark_up);
            Compared { quote, picousd: quote.cost_picousd(&asked.calls) }
        })
    }
}

/// Whether the price tells what such calls would cost.
fn tells(price: &Price, calls: &Calls) -> bool {
    match calls.images {
        0 => !price.per_token().is_empty() || price.per_request_nanousd() > 0,
        _ => price.per_image_nanousd() > 0,
    }
}

fn order<'p>(compared: &Compared<'p>) -> (u128, String, Option<&'p str>) {
    let price = compared.quote.price();
    (compared.picousd, price.model().to_string(), price.provider())
}
