//! What a ledger should hold: the same, in memory, from the entries alone.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::entry::{Entry, TrackedEvent};
use tollgate::ledger::{Dimension, Grain, Point, Series, Spent, TrackedSum, Usage};
use tollgate_domain::{Period, Span};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

#[derive(Default)]
pub(crate) struct Model {
    real: BTreeMap<String, UsageEvent>,
    unsettled: BTreeMap<String, UsageEvent>,
    tracked: BTreeMap<(String, String), TrackedEvent>,
}

/// An unsettled event, as far as it is kept.
fn kept(event: &UsageEvent) -> UsageEvent {
    UsageEvent {
        event_id: event.event_id.clone(),
        reservation_id: Some(event.event_id.clone()),
        tenant: event.tenant.clone(),
        tier: event.tier.clone(),
        started_at_ms: event.started_at_ms,
        api: event.api.clone(),
        key: event.key.clone(),
        request_model: event.request_model.clone(),
        tokens: TokenCounts {
            input: event.tokens.input,
            output: event.tokens.output,
            images: event.tokens.images,
            ..TokenCounts::default()
        },
        cost_nanousd: event.cost_nanousd,
        usage_source: UsageSource::Unsettled,
        finish: Finish::Unknown,
        ..UsageEvent::default()
    }
}

fn start_ms(grain: Grain, at_ms: u64) -> u64 {
    match grain {
        Grain::Hour => at_ms / HOUR_MS * HOUR_MS,
        Grain::Day => at_ms / DAY_MS * DAY_MS,
        Grain::Month => Period::around(Span::Month, at_ms).first.start_ms(),
    }
}

fn label(event: &UsageEvent, by: Option<Dimension>) -> Option<String> {
    match by? {
        Dimension::Model => event.model().map(str::to_owned),
        Dimension::Provider => event.provider.clone(),
        Dimension::Api => event.api.clone(),
        Dimension::Key => event.key.clone(),
        Dimension::Tier => Some(event.tier.clone()),
        Dimension::Streaming => Some(event.streaming.to_string()),
        Dimension::Status => Some(event.status.to_string()),
    }
}

impl Model {
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Vec<bool> {
        let mut new = vec![false; entries.len()];
        for (entry, is_new) in entries.iter().zip(&mut new) {
            *is_new = match entry {
                Entry::Usage(event) if event.usage_source == UsageSource::Unsettled => false,
                Entry::Usage(event) => self.real.insert(event.event_id.clone(), event.clone()).is_none(),
                Entry::Tracked(event) => {
                    self.tracked.insert((event.tenant.clone(), event.id.clone()), event.clone()).is_none()
                }
            };
        }
        for (entry, is_new) in entries.iter().zip(&mut new) {
            if let Entry::Usage(event) = entry
                && event.usage_source == UsageSource::Unsettled
            {
                let is_known = self.real.contains_key(&event.event_id) || self.unsettled.contains_key(&event.event_id);
                *is_new = !is_known;
                if !is_known {
                    self.unsettled.insert(event.event_id.clone(), kept(event));
                }
            }
        }
        new
    }

    /// Unsettled calls whose event has not come.
    fn open(&self) -> impl Iterator<Item = &UsageEvent> {
        self.unsettled.values().filter(|event| !self.real.contains_key(&event.event_id))
    }

    fn calls(&self) -> impl Iterator<Item = &UsageEvent> {
        self.real.values().chain(self.open())
    }

    pub(crate) fn series(&self, series: &Series<'_>) -> Vec<Point> {
        let mut points: BTreeMap<(u64, Option<String>), Usage> = BTreeMap::new();
        for event in self.calls().filter(|event| event.tenant == series.tenant) {
            let start = start_ms(series.grain, event.started_at_ms);
            if (series.from_ms..series.to_ms).contains(&start) {
                points.entry((start, label(event, series.by))).or_default().add(&Usage::of(event));
            }
        }
        points.into_iter().map(|((start_ms, label), usage)| Point { start_ms, label, usage }).collect()
    }

    pub(crate) fn tenants(&self, from_ms: u64, to_ms: u64) -> Vec<String> {
        let calls = self.real.values().chain(self.unsettled.values());
        let calls = calls.map(|event| (&event.tenant, event.started_at_ms));
        let tracked = self.tracked.values().map(|event| (&event.tenant, event.at_ms));
        let all = calls.chain(tracked).filter(|(_, at_ms)| (from_ms..to_ms).contains(at_ms));
        all.map(|(tenant, _)| tenant.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(crate) fn events(&self, tenant: &str, from_ms: u64, to_ms: u64) -> Vec<UsageEvent> {
        let is_asked = |event: &&UsageEvent| event.tenant == tenant && (from_ms..to_ms).contains(&event.started_at_ms);
        let mut events: Vec<_> = self.calls().filter(is_asked).cloned().collect();
        events.sort_by_key(|event| (event.started_at_ms, event.event_id.clone()));
        events
    }

    pub(crate) fn tracked_events(&self, tenant: &str) -> Vec<TrackedEvent> {
        let mut events: Vec<_> = self.tracked.values().filter(|event| event.tenant == tenant).cloned().collect();
        events.sort_by_key(|event| (event.at_ms, event.id.clone()));
        events
    }

    pub(crate) fn tracked(&self, tenant: &str, from_ms: u64, to_ms: u64) -> Vec<TrackedSum> {
        let mut sums: BTreeMap<(u64, &str), (u64, u128)> = BTreeMap::new();
        for event in self.tracked.values().filter(|event| event.tenant == tenant) {
            let start = start_ms(Grain::Day, event.at_ms);
            if (from_ms..to_ms).contains(&start) {
                let (events, quantity) = sums.entry((start, &event.event_type)).or_default();
                (*events, *quantity) = (*events + 1, *quantity + u128::from(event.quantity_micros));
            }
        }
        let sum = |((start_ms, event_type), (events, quantity_micros)): ((u64, &str), _)| TrackedSum {
            start_ms,
            event_type: event_type.to_owned(),
            events,
            quantity_micros,
        };
        sums.into_iter().map(sum).collect()
    }

    /// Without histograms, in an order that tests can name.
    pub(crate) fn spent_since(&self, from_ms: u64, tenant: Option<&str>) -> Vec<Spent> {
        type Key = (String, String, Option<String>, Option<String>, Option<String>);
        let mut spent: BTreeMap<Key, Usage> = BTreeMap::new();
        for event in self.calls().filter(|event| event.started_at_ms >= from_ms) {
            if tenant.is_none_or(|tenant| tenant == event.tenant) {
                let model = event.model().map(str::to_owned);
                let (tenant, tier) = (event.tenant.clone(), event.tier.clone());
                let key = (tenant, tier, model, event.api.clone(), event.key.clone());
                spent.entry(key).or_default().add(&Usage::of(event));
            }
        }
        let spent = spent.into_iter().map(|((tenant, tier, model, api, key), usage)| Spent {
            tenant,
            tier,
            model,
            api,
            key,
            usage: plain(usage),
        });
        spent.collect()
    }

    pub(crate) fn unsettled_since(&self, from_ms: u64, limit: usize) -> Vec<UsageEvent> {
        let mut open: Vec<_> = self.open().filter(|event| event.started_at_ms >= from_ms).cloned().collect();
        open.sort_by_key(|event| std::cmp::Reverse(event.started_at_ms));
        open.truncate(limit);
        open
    }

    pub(crate) fn real(&self, event_id: &str) -> Option<UsageEvent> {
        self.real.get(event_id).cloned()
    }

    pub(crate) fn last_tier(&self, tenant: &str) -> Option<String> {
        let of_tenant = self.calls().filter(|event| event.tenant == tenant);
        of_tenant.max_by_key(|event| event.started_at_ms).map(|event| event.tier.clone())
    }

    pub(crate) fn purge(&mut self, tenant: &str) -> u64 {
        let before = self.real.len() + self.unsettled.len() + self.tracked.len();
        self.real.retain(|_, event| event.tenant != tenant);
        self.unsettled.retain(|_, event| event.tenant != tenant);
        self.tracked.retain(|_, event| event.tenant != tenant);
        (before - self.real.len() - self.unsettled.len() - self.tracked.len()) as u64
    }
}

/// Without histograms.
pub(crate) fn plain(usage: Usage) -> Usage {
    Usage { durations: Default::default(), first_tokens: Default::default(), ..usage }
}
