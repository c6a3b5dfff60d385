//! What a tenant has bought: limits, and how long a prompt may be.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::amount::Quantities;
use crate::calendar::Anchor;
use crate::counter::Rule;
use crate::decision::{Ask, Role};
use crate::limit::{Action, Call, Limit, Window};
use crate::price::{MarkUp, Price, PriceTable, Prices, TenantPrices};

/// The most limits of a plan.
pub const MAX_LIMITS: usize = 32;

/// How much longer than its plan's context a prompt may seem, in percent of the context, before it is denied.
///
/// Its length is an estimate, whose error is 3 to 13 % in the median, and a prompt that fits should not be denied. What is
/// really too long for the model is refused by the provider.
pub const CONTEXT_TOLERANCE_PERCENT: u64 = 25;

/// What a tier's tenants get, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tier's name.
    pub tier: String,
    /// The longest prompt, in tokens; see [`Plan::check_context`].
    pub context_tokens: u64,
    /// At most one for each counter.
    pub limits: Vec<Limit>,
    /// Where days and months begin.
    pub anchor: Anchor,
    /// What its tenants pay of list prices.
    pub mark_up: MarkUp,
    tracked: Vec<Limit>,
}

impl Plan {
    /// A plan in UTC that stands alone, at list prices.
    pub fn new(tier: String, context_tokens: u64, limits: Vec<Limit>) -> Plan {
        Plan { tier, context_tokens, limits, anchor: Anchor::UTC, mark_up: MarkUp::NONE, tracked: Vec::new() }
    }

    /// Whether a prompt of an estimated `input_tokens` may go on to the limits. It may still take more than is left of
    /// them.
    ///
    /// # Errors
    /// When it exceeds `context_tokens` by more than [`CONTEXT_TOLERANCE_PERCENT`].
    pub fn check_context(&self, input_tokens: u64) -> Result<(), ContextExceeded> {
        let longest_percent = u128::from(self.context_tokens) * u128::from(100 + CONTEXT_TOLERANCE_PERCENT);
        if u128::from(input_tokens) * 100 > longest_percent { Err(ContextExceeded) } else { Ok(()) }
    }

    /// What a call asks of every limit that counts it, and of the days and months that other plans limit besides, since a
    /// tenant's tier may change. `now_ms` is the clock of the counters.
    pub fn asks(&self, call: &Call<'_>, quantities: &Quantities, now_ms: u64) -> Vec<Ask<'_>> {
        let own = self.limits.iter().map(|limit| (limit, Role::from(limit.action)));
        let tracked = self.tracked.iter().map(|limit| (limit, Role::Tracked));
        own.chain(tracked)
            .filter(|(limit, _)| limit.counts(call))
            .map(|(limit, role)| {
                let amount = limit.amount(call, quantities);
                Ask { limit, rule: self.rule(limit, now_ms), amount, role }
            })
            .collect()
    }

    /// The largest of `0..=most` for which `quantities` fits every binding limit of which nothing is taken; 0 where none
    /// does. More must not need less.
    pub fn most_held(&self, call: &Call<'_>, most: u64, quantities: impl Fn(u64) -> Quantities) -> u64 {
        let binding = self.limits.iter().filter(|limit| limit.action == Action::Enforce && limit.counts(call));
        let fits = |number| {
            let quantities = quantities(number);
            binding.clone().all(|limit| limit.amount(call, &quantities) <= limit.burst.get())
        };
        if fits(most) {
            return most;
        }
        let (mut held, mut too_many) = (0, most);
        while too_many - held > 1 {
            let middle = held.midpoint(too_many);
            *if fits(middle) { &mut held } else { &mut too_many } = middle;
        }
        held
    }

    /// The limits themselves, asked for nothing, whatever calls they count.
    pub fn questions(&self, now_ms: u64) -> Vec<Ask<'_>> {
        let ask = |limit| Ask { limit, rule: self.rule(limit, now_ms), amount: 0, role: Role::from(limit.action) };
        self.limits.iter().map(ask).collect()
    }

    /// Whether money is limited, so that a call's cost is to be known.
    pub fn limits_cost(&self) -> bool {
        self.limits.iter().chain(&self.tracked).any(|limit| limit.unit == crate::limit::Unit::Cost)
    }

    /// The windows of which a ledger can tell what was spent.
    pub fn has_calendar(&self, window: Window) -> bool {
        self.limits.iter().chain(&self.tracked).any(|limit| limit.is_calendar() && limit.window == Some(window))
    }

    fn rule(&self, limit: &Limit, now_ms: u64) -> Rule {
        let capacity = limit.capacity.get();
        match limit.window {
            None => Rule::Slots { capacity },
            Some(Window::Day) => Rule::Calendar { capacity, edges: self.anchor.days(now_ms) },
            Some(Window::Month) => Rule::Calendar { capacity, edges: self.anchor.months(now_ms) },
            Some(window) => {
                let window_ms = window.refilled_in_ms().unwrap_or(1);
                Rule::Refilled { capacity, burst: limit.burst.get(), window_ms }
            }
        }
    }

    /// The plan of a tenant with terms of its own: a limit replaces the one that counts the same.
    fn with(&self, terms: &Terms) -> Plan {
        let replaced = |limit: &&Limit| terms.limits.iter().all(|own| own.counter() != limit.counter());
        let limits = self.limits.iter().filter(replaced).chain(&terms.limits).cloned().collect();
        let context_tokens = terms.context_tokens.unwrap_or(self.context_tokens);
        let (tier, mark_up) = (self.tier.clone(), self.mark_up);
        Plan { tier, context_tokens, limits, anchor: terms.anchor, mark_up, tracked: Vec::new() }
    }

    fn counts(&self, limit: &Limit) -> bool {
        self.limits.iter().chain(&self.tracked).any(|own| own.counter() == limit.counter())
    }

    /// Whether it counts days or months that were not counted so before.
    fn begins_after(&self, before: Option<&Plan>) -> bool {
        let is_new = |limit: &Limit| before.is_none_or(|before| before.anchor != self.anchor || !before.counts(limit));
        self.limits.iter().chain(&self.tracked).any(|limit| limit.is_calendar() && is_new(limit))
    }

    fn track(&mut self, others: &[Limit]) {
        for limit in others {
            if !self.counts(limit) {
                self.tracked.push(limit.clone());
            }
        }
    }
}

/// A prompt is longer than its plan's context. Waiting does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextExceeded;

/// What a tenant has agreed on beside its tier.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// The tier that it is on, whatever its calls say.
    pub tier: Option<String>,
    /// Instead of the tier's.
    pub context_tokens: Option<u64>,
    /// Beside the tier's limits, or instead of those that count the same.
    pub limits: Vec<Limit>,
    /// Where its days and months begin.
    pub anchor: Anchor,
    /// What it pays for models' use, before all other prices.
    pub prices: Vec<Price>,
    /// Whether it may call.
    pub access: Access,
}

/// Whether a tenant may call at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// It may, within its limits.
    #[default]
    Open,
    /// It may not; what it has used counts on.
    Suspended,
}

/// What becomes of a call whose tier is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownTier {
    /// It is on the default tier.
    #[default]
    Default,
    /// It is denied.
    Deny,
}

/// All plans, and what they cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans {
    tiers: BTreeMap<String, Plan>,
    default_tier: String,
    unknown_tier: UnknownTier,
    tenants: HashMap<String, Tenant>,
    prices: Prices,
    given: Given,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tenant {
    tier: Option<String>,
    access: Access,
    plans: BTreeMap<String, Plan>,
    prices: PriceTable,
}

/// What plans and tenants' terms are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// One for each tier.
    pub plans: Vec<Plan>,
    /// Of the tenants that have any.
    pub terms: HashMap<String, Terms>,
    /// The operator's, that go before those that are known otherwise.
    pub prices: Vec<Price>,
}

/// A tier that is not among the plans, by the default or by a tenant's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingTier {
    /// The default tier.
    Default,
    /// This tenant's.
    Of(String),
}

/// A call's tier is not known, and such calls are denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierUnknown;

impl Plans {
    /// Of what is given; `default_tier` names the one for calls that name no tier.
    ///
    /// # Errors
    /// When no plan has the default tier or a tenant's.
    pub fn new(
        given: Given,
        default_tier: &str,
        unknown_tier: UnknownTier,
        prices: Prices,
    ) -> Result<Plans, MissingTier> {
        let Given { mut plans, terms, prices: own } = given.clone();
        let prices = if own.is_empty() { prices } else { prices.with(own) };
        let calendars = |limits: &[Limit]| limits.iter().filter(|limit| limit.is_calendar()).cloned().collect();
        let all: Vec<Limit> = plans.iter().flat_map(|plan| -> Vec<Limit> { calendars(&plan.limits) }).collect();
        let mut tenants = HashMap::with_capacity(terms.len());
        for (name, terms) in terms {
            if let Some(tier) = &terms.tier
                && plans.iter().all(|plan| plan.tier != *tier)
            {
                return Err(MissingTier::Of(name));
            }
            let own = plans.iter().map(|plan| {
                let mut own = plan.with(&terms);
                own.track(&all);
                (plan.tier.clone(), own)
            });
            let (plans, prices) = (own.collect(), PriceTable::new(terms.prices));
            tenants.insert(name, Tenant { tier: terms.tier, access: terms.access, plans, prices });
        }
        for plan in &mut plans {
            plan.track(&all);
        }
        let tiers: BTreeMap<_, _> = plans.into_iter().map(|plan| (plan.tier.clone(), plan)).collect();
        if !tiers.contains_key(default_tier) {
            return Err(MissingTier::Default);
        }
        Ok(Plans { tiers, default_tier: default_tier.to_owned(), unknown_tier, tenants, prices, given })
    }

    /// These with others beside them, or in the place of those of the same tier or tenant.
    ///
    /// # Errors
    /// When no plan has the default tier or a tenant's.
    pub fn with(&self, others: Given) -> Result<Plans, MissingTier> {
        let mut given = self.given.clone();
        given.plans.retain(|plan| others.plans.iter().all(|other| other.tier != plan.tier));
        given.plans.extend(others.plans);
        given.terms.extend(others.terms);
        given.prices = others.prices;
        Plans::new(given, &self.default_tier, self.unknown_tier, self.prices.clone())
    }

    /// Whether there is a plan of this tier.
    pub fn has(&self, tier: &str) -> bool {
        self.tiers.contains_key(tier)
    }

    /// Whether a tenant may call at all.
    pub fn access(&self, tenant: &str) -> Access {
        self.tenants.get(tenant).map_or(Access::Open, |tenant| tenant.access)
    }

    /// The plan of a tenant's call, and whether the tier that the call names is known.
    ///
    /// # Errors
    /// When it is not, and such calls are denied.
    pub fn plan(&self, tenant: &str, tier: Option<&str>) -> Result<Found<'_>, TierUnknown> {
        let own = self.tenants.get(tenant);
        let plans = own.map_or(&self.tiers, |own| &own.plans);
        let named = own.and_then(|own| own.tier.as_deref()).or(tier.filter(|tier| !tier.is_empty()));
        if let Some(plan) = plans.get(named.unwrap_or(&self.default_tier)) {
            return Ok(Found { plan, tier: Tier::Known });
        }
        match (self.unknown_tier, plans.get(&self.default_tier)) {
            (UnknownTier::Default, Some(plan)) => Ok(Found { plan, tier: Tier::Unknown }),
            _ => Err(TierUnknown),
        }
    }

    /// Whose days or months are counted here that were not counted so `before`.
    pub fn begun_since(&self, before: &Plans) -> Tenants {
        let of_default = before.tiers.get(&before.default_tier);
        let then = |tier: &str| before.tiers.get(tier).or(of_default);
        if self.tiers.iter().any(|(tier, plan)| plan.begins_after(then(tier))) {
            return Tenants::All;
        }
        let has_begun = |name: &str, tenant: &Tenant| {
            let own = before.tenants.get(name);
            tenant.plans.iter().any(|(tier, plan)| match own {
                Some(own) => plan.begins_after(own.plans.get(tier).or(own.plans.get(&before.default_tier))),
                None => plan.begins_after(then(tier)),
            })
        };
        let begun = self.tenants.iter().filter(|(name, tenant)| has_begun(name, tenant));
        Tenants::These(begun.map(|(name, _)| name.clone()).collect())
    }

    /// What models cost a tenant.
    pub fn prices(&self, tenant: &str) -> TenantPrices<'_> {
        self.prices.with_own(self.tenants.get(tenant).map(|tenant| &tenant.prices))
    }

    /// Tenants whose days and months do not begin in UTC, each with where they do.
    pub fn anchored(&self) -> impl Iterator<Item = (&str, Anchor)> {
        self.tenants.iter().filter_map(|(name, tenant)| {
            let anchor = tenant.plans.values().next()?.anchor;
            (anchor != Anchor::UTC).then_some((name.as_str(), anchor))
        })
    }

    /// Every plan, tenants' own ones too.
    pub fn all(&self) -> impl Iterator<Item = &Plan> {
        self.tiers.values().chain(self.tenants.values().flat_map(|tenant| tenant.plans.values()))
    }
}

/// Some tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// Those of these names.
    These(BTreeSet<String>),
    /// Every one.
    All,
}

impl Default for Tenants {
    /// None.
    fn default() -> Tenants {
        Tenants::These(BTreeSet::new())
    }
}

impl Tenants {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Tenants::These(names) if names.is_empty())
    }

    /// These and others.
    pub fn add(&mut self, others: Tenants) {
        match (&mut *self, others) {
            (Tenants::These(names), Tenants::These(others)) => names.extend(others),
            (Tenants::All, _) => {}
            (_, Tenants::All) => *self = Tenants::All,
        }
    }
}

/// The plan that holds for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'p> {
    /// The plan.
    pub plan: &'p Plan,
    /// Whether the call's own tier was found.
    pub tier: Tier,
}

/// Whether the tier that a call names is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// It is, or the call names none.
    Known,
    /// It is not: the plan is the default one.
    Unknown,
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::amount::{TokenClass, Tokens, Weight, Weights};
    use crate::limit::Unit;

    fn limit(unit: Unit, capacity: u64, window: Window) -> Limit {
        Limit::new(unit, Some(window), NonZeroU64::new(capacity).unwrap()).unwrap()
    }

    fn plan(tier: &str, limits: &[Limit]) -> Plan {
        Plan::new(tier.to_owned(), 1, limits.to_vec())
    }

    fn plans(plans: Vec<Plan>, unknown: UnknownTier, terms: HashMap<String, Terms>) -> Result<Plans, MissingTier> {
        Plans::new(Given { plans, terms, ..Given::default() }, "a", unknown, Prices::default())
    }

    fn capacities(asks: &[Ask<'_>]) -> Vec<(String, u64, Role)> {
        asks.iter().map(|ask| (ask.limit.name().to_owned(), ask.limit.capacity.get(), ask.role)).collect()
    }

    #[test]
    fn a_prompt_may_seem_a_quarter_longer_than_the_context() {
        let checked = |context_tokens, input_tokens| {
            Plan::new("a".to_owned(), context_tokens, Vec::new()).check_context(input_tokens)
        };
        for (context_tokens, longest) in [(1, 1), (3, 3), (4, 5), (100, 125), (u64::MAX / 5 * 4, u64::MAX)] {
            assert_eq!(checked(context_tokens, longest), Ok(()), "{longest} of {context_tokens}");
            if let Some(longer) = longest.checked_add(1) {
                assert_eq!(checked(context_tokens, longer), Err(ContextExceeded), "{longer} of {context_tokens}");
            }
        }
        assert_eq!(checked(u64::MAX / 5 * 4 - 1, u64::MAX), Err(ContextExceeded));
        assert_eq!((checked(u64::MAX, u64::MAX), checked(1, 0)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_plan_asks_its_own_limits_and_tracks_the_months_of_others() {
        let (minute, month) = (limit(Unit::Requests, 1, Window::Minute), limit(Unit::Tokens, 2, Window::Month));
        let (large, hour) = (limit(Unit::Requests, 3, Window::Minute), limit(Unit::Cost, 4, Window::Hour));
        let plans = vec![plan("a", &[minute]), plan("b", &[large, month, hour])];
        let plans = self::plans(plans, UnknownTier::Default, HashMap::new()).unwrap();
        let asks = |tier| {
            capacities(&plans.plan("acme", tier).unwrap().plan.asks(&Call::default(), &Quantities::default(), 0))
        };
        let name = |name: &str, capacity, role| (name.to_owned(), capacity, role);
        let tracked = name("tokens_per_month", 2, Role::Tracked);
        assert_eq!(asks(None), [name("requests_per_minute", 1, Role::Binding), tracked]);
        let [requests, tokens, cost] = [("requests_per_minute", 3), ("tokens_per_month", 2), ("cost_per_hour", 4)]
            .map(|(limit, capacity)| name(limit, capacity, Role::Binding));
        assert_eq!(asks(Some("b")), [requests, tokens, cost]);
    }

    #[test]
    fn whose_months_begin_with_another_policy_is_told() {
        let (minute, month) = (limit(Unit::Requests, 1, Window::Minute), limit(Unit::Cost, 2, Window::Month));
        let of = |limits: &[Limit], terms: &[(&str, Terms)]| {
            let terms = terms.iter().map(|(name, terms)| ((*name).to_owned(), terms.clone())).collect();
            plans(vec![plan("a", limits), plan("b", &[])], UnknownTier::Default, terms).unwrap()
        };
        let own = |limits: &[Limit]| Terms { limits: limits.to_vec(), ..Terms::default() };
        let nobody = || Tenants::default();
        let these = |name: &str| Tenants::These(BTreeSet::from([name.to_owned()]));
        let plain = of(std::slice::from_ref(&minute), &[]);
        let limited = of(&[minute.clone(), month.clone()], &[]);
        assert_eq!((plain.begun_since(&plain), plain.begun_since(&limited)), (nobody(), nobody()));
        assert_eq!(limited.begun_since(&plain), Tenants::All);
        let larger = of(&[minute.clone(), limit(Unit::Cost, 9, Window::Month)], &[]);
        assert_eq!(larger.begun_since(&limited), nobody(), "the counter is the same");
        let acme =
            of(std::slice::from_ref(&minute), &[("acme", own(std::slice::from_ref(&month))), ("bolt", own(&[]))]);
        assert_eq!((acme.begun_since(&plain), acme.begun_since(&acme)), (these("acme"), nobody()));
        let anchored = Terms { anchor: Anchor::at(1), ..own(std::slice::from_ref(&month)) };
        let anchored = of(&[minute], &[("acme", anchored)]);
        assert_eq!(anchored.begun_since(&acme), these("acme"), "its month is another");
        let mut all = these("acme");
        all.add(these("bolt"));
        assert_eq!(all, Tenants::These(["acme", "bolt"].map(str::to_owned).into()));
        all.add(Tenants::All);
        assert!(all == Tenants::All && !all.is_empty() && nobody().is_empty());
    }

    #[test]
    fn the_most_held_is_what_all_binding_limits_hold_when_they_are_empty() {
        let limits = [limit(Unit::Tokens, 1000, Window::Day), limit(Unit::OutputTokens, 400, Window::Minute)];
        let shadow = limit(Unit::Tokens, 1, Window::Hour).with_action(Action::Shadow);
        let plan = |limits: &[Limit]| Plan::new("a".into(), 1, [limits, std::slice::from_ref(&shadow)].concat());
        let quantities =
            |input| move |output| Quantities { tokens: Tokens::plain(input, output), ..Quantities::default() };
        let held = |limits: &[Limit], input, most| plan(limits).most_held(&Call::default(), most, quantities(input));
        assert_eq!((held(&limits, 10, 300), held(&limits, 10, 401)), (300, 400));
        assert_eq!((held(&limits[..1], 10, 5000), held(&limits[..1], 1000, 1)), (990, 0));
        assert_eq!((held(&limits[..1], 2000, 50), held(&[], 0, 1 << 50)), (0, 1 << 50));
        let weights = Weights::new(vec![(TokenClass::Output, Weight::from_thousandths(2500).unwrap())], Vec::new());
        let weighed = limits[0].clone().with_weights(weights).unwrap();
        assert_eq!(held(&[weighed], 10, 5000), 396);
    }

    #[test]
    fn an_unknown_tier_is_the_default_one_or_denied() {
        let of = |unknown| plans(vec![plan("a", &[]), plan("b", &[])], unknown, HashMap::new()).unwrap();
        let found = |plans: &Plans, tier| plans.plan("acme", tier).map(|found| (found.plan.tier.clone(), found.tier));
        let plans = of(UnknownTier::Default);
        assert_eq!(found(&plans, Some("c")), Ok(("a".into(), Tier::Unknown)));
        assert_eq!(found(&plans, Some("")), Ok(("a".into(), Tier::Known)));
        assert_eq!(found(&plans, Some("b")), Ok(("b".into(), Tier::Known)));
        let plans = of(UnknownTier::Deny);
        assert_eq!((found(&plans, Some("c")), found(&plans, None)), (Err(TierUnknown), Ok(("a".into(), Tier::Known))));
    }

    #[test]
    fn a_tenants_terms_replace_what_counts_the_same() {
        let terms = Terms {
            tier: Some("b".into()),
            limits: vec![limit(Unit::Requests, 9, Window::Minute), limit(Unit::Tokens, 8, Window::Day)],
            anchor: Anchor::at(5),
            context_tokens: Some(7),
            ..Terms::default()
        };
        let tiers = || {
            vec![
                plan("a", &[]),
                plan("b", &[limit(Unit::Requests, 1, Window::Minute), limit(Unit::Requests, 2, Window::Hour)]),
            ]
        };
        let given = plans(tiers(), UnknownTier::Deny, HashMap::from([("acme".to_owned(), terms.clone())])).unwrap();
        let own = given.plan("acme", Some("a")).unwrap().plan;
        assert_eq!((own.tier.as_str(), own.context_tokens, own.anchor), ("b", 7, Anchor::at(5)));
        let names: Vec<_> = own.limits.iter().map(|limit| (limit.name(), limit.capacity.get())).collect();
        assert_eq!(names, [("requests_per_hour", 2), ("requests_per_minute", 9), ("tokens_per_day", 8)]);
        assert_eq!(given.plan("other", Some("b")).unwrap().plan.limits.len(), 2);
        assert_eq!(given.anchored().collect::<Vec<_>>(), [("acme", Anchor::at(5))]);

        let lost = Terms { tier: Some("c".into()), ..terms };
        let refused = plans(tiers(), UnknownTier::Deny, HashMap::from([("acme".to_owned(), lost)]));
        assert_eq!(refused, Err(MissingTier::Of("acme".into())));
        assert_eq!(plans(vec![plan("b", &[])], UnknownTier::Deny, HashMap::new()), Err(MissingTier::Default));
    }
}
