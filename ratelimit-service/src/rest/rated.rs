//! What calls cost whose models had no price when they came: what they come to by the prices that there are now, as on an invoice.
//!
//! The ledger's entries stay as they are. Such calls are few, or a price is missing: so they are rated when they are asked for.

use std::collections::HashMap;

use super::Shared;
use crate::ledger::{LedgerError, MAX_COST_NANOUSD, Page, Pages, Point, Series};

/// The most calls that are rated for one answer, the earliest ones. Later ones still count as calls without a cost there.
const MAX_RATED: usize = 100_000;

/// How many are read at a time.
const PAGE: usize = 1_000;

impl Shared {
    /// As [`Ledger::series`](crate::ledger::Ledger::series), with the cost of calls whose price came later.
    pub(super) async fn series(&self, series: &Series<'_>) -> Result<Vec<Point>, LedgerError> {
        let mut points = self.ledger.series(series).await?;
        let unpriced = points.iter().filter(|point| point.usage.requests_without_cost > 0);
        let mut starts_ms = unpriced.map(|point| point.start_ms);
        let Some(from_ms) = starts_ms.next() else { return Ok(points) };
        let to_ms = series.grain.end_ms(starts_ms.next_back().unwrap_or(from_ms));
        let place = |(at, point): (usize, &Point)| ((point.start_ms, point.label.clone()), at);
        let places: HashMap<_, _> = points.iter().enumerate().map(place).collect();
        let mut pages = Pages::from(Page { tenant: series.tenant, from_ms, to_ms, after: None, limit: PAGE });
        for _ in 0..MAX_RATED / PAGE {
            let Some(page) = pages.next() else { break };
            let mut events = self.ledger.unpriced(&page).await?;
            pages.read(&events);
            for event in &mut events {
                // By what it is summed under, which rating may add to.
                let label = series.by.and_then(|dimension| dimension.label(event));
                let place = places.get(&(series.grain.start_ms(event.started_at_ms), label));
                self.limiter.rate(event);
                if let (Some(point), Some(cost)) = (place.and_then(|at| points.get_mut(*at)), event.cost_nanousd) {
                    let usage = &mut point.usage;
                    usage.cost_nanousd = usage.cost_nanousd.saturating_add(cost.min(MAX_COST_NANOUSD));
                    usage.requests_without_cost = usage.requests_without_cost.saturating_sub(1);
                }
            }
        }
        Ok(points)
    }
}
