//! What made-up tenants do on a day.

use tollgate_domain::{Calls, Day, MarkUp, Prices, TokenClass, Tokens};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};
use uuid::Builder;

use crate::entry::{Entry, EntryRecord, TrackedEvent};
use crate::prices::shipped;

const HOUR_MS: u64 = 3_600_000;

/// What made-up tenants are called.
const NAMES: [&str; 10] =
    ["Acorn", "Birch", "Cedar", "Dune", "Ember", "Fjord", "Grove", "Harbour", "Island", "Juniper"];

/// What they do.
const TRADES: [&str; 6] = ["Analytics", "Bank", "Clinics", "Legal", "Media", "Travel"];

/// A plan of made-up tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    Starter,
    Team,
    Enterprise,
}

impl Tier {
    pub(super) const ALL: [Tier; 3] = [Tier::Starter, Tier::Team, Tier::Enterprise];

    pub(super) fn name(self) -> &'static str {
        match self {
            Tier::Starter => "demo-starter",
            Tier::Team => "demo-team",
            Tier::Enterprise => "demo-enterprise",
        }
    }

    pub(super) fn context_tokens(self) -> u64 {
        match self {
            Tier::Starter => 32_768,
            Tier::Team => 131_072,
            Tier::Enterprise => 1_000_000,
        }
    }

    /// As a plan's record has them.
    pub(super) fn limits(self) -> &'static str {
        match self {
            Tier::Starter => {
                r#"[{"unit":"requests","capacity":60,"window":"minute"},{"unit":"tokens","capacity":5000000,"window":"month"}]"#
            }
            Tier::Team => {
                r#"[{"unit":"requests","capacity":600,"window":"minute"},{"unit":"tokens","capacity":50000000,"window":"month"}]"#
            }
            Tier::Enterprise => {
                r#"[{"unit":"requests","capacity":6000,"window":"minute"},{"unit":"tokens","capacity":1000000000,"window":"month"}]"#
            }
        }
    }

    pub(super) fn markup_ppm(self) -> u32 {
        match self {
            Tier::Starter => 1_200_000,
            Tier::Team => 1_100_000,
            Tier::Enterprise => 1_000_000,
        }
    }

    pub(super) fn budget_nanousd(self) -> u64 {
        match self {
            Tier::Starter => 20_000_000_000,
            Tier::Team => 200_000_000_000,
            Tier::Enterprise => 2_000_000_000_000,
        }
    }

    /// From so many calls a day to fewer than so many.
    fn calls(self) -> (u64, u64) {
        match self {
            Tier::Starter => (2, 9),
            Tier::Team => (8, 25),
            Tier::Enterprise => (20, 60),
        }
    }
}

/// A model that is called: its provider, name and format, and how long prompts and answers are mostly.
struct Model {
    provider: &'static str,
    name: &'static str,
    api: &'static str,
    input: u64,
    output: u64,
}

const MODELS: [Model; 6] = [
    Model { provider: "openai", name: "gpt-4o-mini", api: "openai.chat", input: 900, output: 250 },
    Model { provider: "openai", name: "gpt-4.1-2025-04-14", api: "openai.chat", input: 2500, output: 500 },
    Model { provider: "openai", name: "o3-2025-04-16", api: "openai.chat", input: 1800, output: 2200 },
    Model {
        provider: "anthropic",
        name: "claude-sonnet-4-5-20250929",
        api: "anthropic.messages",
        input: 6000,
        output: 900,
    },
    Model { provider: "gcp.gemini", name: "gemini-2.5-pro", api: "gemini.generate", input: 4000, output: 700 },
    // It has no price: such usage is to be seen too.
    Model { provider: "in-house", name: "in-house-7b", api: "openai.chat", input: 700, output: 200 },
];

/// How often each is called, of a hundred calls.
const SHARES: [u64; 6] = [45, 20, 8, 16, 9, 2];

/// Numbers that look like chance, from a seed: SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// In so many of a hundred cases.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Mostly around `middle`, at times several times that.
    fn around(&mut self, middle: u64) -> u64 {
        let half = middle / 2;
        let long = if self.percent(5) { middle * self.below(6) } else { 0 };
        1 + half + self.below(middle) + long
    }
}

/// Somebody who is not there.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: String,
    pub(super) display_name: String,
    pub(super) tier: Tier,
    seed: u64,
}

impl Tenant {
    pub(super) fn new(seed: u64, number: u16) -> Tenant {
        let mut chance = Chance(seed ^ (u64::from(number) << 32));
        // The first ones are of all tiers, however few there are.
        let tier = match number {
            0 => Tier::Enterprise,
            1 => Tier::Team,
            2 => Tier::Starter,
            _ => match chance.below(10) {
                0 => Tier::Enterprise,
                1..=3 => Tier::Team,
                _ => Tier::Starter,
            },
        };
        let place = usize::from(number);
        let display_name = format!("{} {}", NAMES[place % NAMES.len()], TRADES[place / NAMES.len() % TRADES.len()]);
        Tenant { id: format!("demo-{:04}", number + 1), display_name, tier, seed: chance.next() }
    }

    /// All of a UTC day; `since` days after its first one: usage grows.
    pub(super) fn day(&self, day: Day, since: i32) -> Vec<EntryRecord> {
        let mut chance = Chance(self.seed ^ u64::from(day.number().unsigned_abs()));
        let (fewest, most) = self.tier.calls();
        let grown = (fewest + chance.below(most - fewest)) * (100 + u64::from(since.unsigned_abs()) / 3) / 100;
        // The epoch was a Thursday.
        let is_weekend = matches!((day.number() + 3).rem_euclid(7), 5 | 6);
        let calls = if is_weekend { grown / 3 } else { grown };
        let mut entries: Vec<_> = (0..calls).map(|_| EntryRecord::from(&self.call(day, &mut chance))).collect();
        if chance.percent(10) {
            entries.push(EntryRecord::from(&self.page(day, &mut chance)));
        }
        entries
    }

    /// Mostly by day.
    fn moment(day: Day, chance: &mut Chance) -> u64 {
        let hours = if chance.percent(80) { 8 + chance.below(11) } else { chance.below(24) };
        day.start_ms() + hours * HOUR_MS + chance.below(HOUR_MS)
    }

    /// A UUIDv7 that is the same for the same seed.
    fn id(at_ms: u64, chance: &mut Chance) -> String {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&chance.next().to_be_bytes());
        random[8..].copy_from_slice(&chance.next().to_be_bytes()[..2]);
        Builder::from_unix_timestamp_millis(at_ms, &random).into_uuid().to_string()
    }

    fn call(&self, day: Day, chance: &mut Chance) -> Entry {
        let at_ms = Tenant::moment(day, chance);
        let mut share = chance.below(SHARES.iter().sum());
        let model = MODELS.iter().zip(SHARES).find(|(_, of)| share.checked_sub(*of).map(|left| share = left).is_none());
        let model = model.map_or(&MODELS[0], |(model, _)| model);
        let (input, output) = (chance.around(model.input), chance.around(model.output));
        let streaming = chance.percent(60);
        let (status, finish, usage_source) = match chance.below(100) {
            0..2 => (500, Finish::Complete, UsageSource::None),
            2..5 => (200, Finish::ClientGone, UsageSource::Estimated),
            _ => (200, Finish::Complete, UsageSource::Reported),
        };
        let cache_read = if chance.percent(30) { input / 2 } else { 0 };
        let tokens = match usage_source {
            UsageSource::None => TokenCounts::default(),
            _ => TokenCounts { input, output, cache_read, ..TokenCounts::default() },
        };
        let cost_nanousd = match usage_source {
            UsageSource::None => Some(0),
            _ => self.cost_nanousd(model, day, [input - cache_read, cache_read, output]),
        };
        let duration_ms = 200 + output * 8 + chance.below(800);
        Entry::Usage(UsageEvent {
            event_id: Tenant::id(at_ms, chance),
            tenant: self.id.clone(),
            tier: self.tier.name().to_owned(),
            key: Some(["web", "batch", "support"][chance.below(3) as usize].to_owned()),
            started_at_ms: at_ms,
            duration_ms,
            time_to_first_token_ms: Some(duration_ms.min(150 + chance.below(500))),
            api: Some(model.api.to_owned()),
            operation: Some("chat".to_owned()),
            provider: Some(model.provider.to_owned()),
            request_model: Some(model.name.to_owned()),
            response_model: Some(model.name.to_owned()),
            input_estimate: Some(input),
            streaming,
            status,
            error_type: (status == 500).then(|| "server_error".to_owned()),
            tokens,
            cost_nanousd,
            usage_source,
            finish,
            request_bytes: input * 4,
            response_bytes: output * 5,
            ..UsageEvent::default()
        })
    }

    /// At list prices: entries that are brought again are kept as they are, with the cost that they have.
    fn cost_nanousd(&self, model: &Model, day: Day, counts: [u64; 3]) -> Option<u64> {
        let classes = [TokenClass::Input, TokenClass::CacheRead, TokenClass::Output];
        let tokens: Tokens = classes.into_iter().zip(counts).collect();
        let prices = Prices::new(Vec::new(), shipped());
        let quote = prices.with_own(None).at(Some(model.provider), Some(model.name), day)?;
        Some(quote.with_mark_up(MarkUp::from_ppm(self.tier.markup_ppm())).cost_nanousd(&Calls::one(tokens)))
    }

    /// Something else that is billed.
    fn page(&self, day: Day, chance: &mut Chance) -> Entry {
        let at_ms = Tenant::moment(day, chance);
        Entry::Tracked(TrackedEvent {
            id: Tenant::id(at_ms, chance),
            tenant: self.id.clone(),
            event_type: "page".to_owned(),
            at_ms,
            quantity_micros: (1 + chance.below(40)) * 1_000_000,
            metadata: "{}".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn days(seed: u64) -> Vec<EntryRecord> {
        let tenants = (0..4).map(|number| Tenant::new(seed, number));
        tenants
            .flat_map(|tenant| (0..40).flat_map(move |day| tenant.day(Day::from_number(20_000 + day), day)))
            .collect()
    }

    #[test]
    fn the_same_seed_makes_up_the_same_and_each_id_once() {
        let entries = days(1);
        assert_eq!(serde_json::to_string(&entries).unwrap(), serde_json::to_string(&days(1)).unwrap());
        assert_ne!(serde_json::to_string(&entries).unwrap(), serde_json::to_string(&days(2)).unwrap());
        let all: Vec<Entry> = entries.into_iter().map(|record| Entry::try_from(record).unwrap()).collect();
        assert!(all.len() > 1000, "{}", all.len());
        let ids: BTreeSet<&str> = all.iter().map(Entry::id).collect();
        assert_eq!(ids.len(), all.len());
        let (first, end) = (Day::from_number(20_000), Day::from_number(20_040));
        assert!(all.iter().all(|entry| (first.start_ms()..end.start_ms()).contains(&entry.at_ms())));
    }

    #[test]
    fn every_model_is_called_and_most_are_priced() {
        let models: BTreeSet<_> = days(1)
            .into_iter()
            .filter_map(|record| match record {
                EntryRecord::Usage(record) => record.request_model,
                EntryRecord::Tracked(_) => None,
            })
            .collect();
        assert_eq!(models.len(), MODELS.len());
        let table = shipped();
        for model in &MODELS {
            let price = table.at(Some(model.provider), Some(model.name), Day::from_number(20_500));
            assert_eq!(price.is_none(), model.provider == "in-house", "{}", model.name);
        }
    }

    #[test]
    fn plans_have_limits_that_are_taken() {
        for tier in Tier::ALL {
            assert_eq!(crate::config::limits(tier.limits()).unwrap().len(), 2);
        }
    }
}
