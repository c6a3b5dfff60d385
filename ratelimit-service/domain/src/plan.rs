//! What a tenant has bought: limits, and how long a prompt may be.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::amount::Quantities;
use crate::calendar::Anchor;
use crate::counter::Rule;
use crate::decision::{Ask, Role};
use crate::limit::{Action, Call, Limit, Unit, Window};
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
        self.limits.iter().chain(&self.tracked).any(|limit| limit.unit == Unit::Cost)
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

    /// The plan of a tenant with terms of its own: a limit replaces the one that counts the same, a budget only one that binds
    /// less.
    fn with(&self, terms: &Terms) -> Plan {
        let replaced = |limit: &&Limit| terms.limits.iter().all(|own| own.counter() != limit.counter());
        let mut limits: Vec<_> = self.limits.iter().filter(replaced).chain(&terms.limits).cloned().collect();
        for budget in &terms.budgets {
            match limits.iter_mut().find(|limit| limit.counter() == budget.counter()) {
                Some(limit) if limit.looseness() <= budget.looseness() => {}
                Some(limit) => *limit = budget.clone(),
                None => limits.push(budget.clone()),
            }
        }
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
    /// Beside all these, or instead of a looser one that counts the same.
    pub budgets: Vec<Limit>,
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

    /// Whose days or months are counted here that were not counted so `before`: also where their cost is limited, and prices
    /// are others, as calls may get a cost that had none.
    pub fn begun_since(&self, before: &Plans) -> Tenants {
        let of_default = before.tiers.get(&before.default_tier);
        let then = |tier: &str| before.tiers.get(tier).or(of_default);
        let is_repriced = self.prices != before.prices && self.all().any(Plan::limits_cost);
        if is_repriced || self.tiers.iter().any(|(tier, plan)| plan.begins_after(then(tier))) {
            return Tenants::All;
        }
        let has_begun = |name: &str, tenant: &Tenant| {
            let own = before.tenants.get(name);
            let is_repriced = own.map_or(&PriceTable::default(), |own| &own.prices) != &tenant.prices;
            is_repriced && tenant.plans.values().any(Plan::limits_cost)
                || tenant.plans.iter().any(|(tier, plan)| match own {
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
