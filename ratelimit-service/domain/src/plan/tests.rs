use std::num::NonZeroU64;

use super::*;
use crate::amount::{Pattern, TokenClass, Tokens, Weight, Weights};
use crate::price::PerToken;

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
    let asks =
        |tier| capacities(&plans.plan("acme", tier).unwrap().plan.asks(&Call::default(), &Quantities::default(), 0));
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
    let acme = of(std::slice::from_ref(&minute), &[("acme", own(std::slice::from_ref(&month))), ("bolt", own(&[]))]);
    assert_eq!((acme.begun_since(&plain), acme.begun_since(&acme)), (these("acme"), nobody()));
    let anchored = Terms { anchor: Anchor::at(1), ..own(std::slice::from_ref(&month)) };
    let anchored = of(std::slice::from_ref(&minute), &[("acme", anchored)]);
    assert_eq!(anchored.begun_since(&acme), these("acme"), "its month is another");
    let price = Price::new(Pattern::new("m"), PerToken::from_iter([(TokenClass::Input, 1)]));
    let cheap = Terms { prices: vec![price.clone()], ..own(std::slice::from_ref(&month)) };
    let repriced = of(std::slice::from_ref(&minute), &[("acme", cheap), ("bolt", own(&[]))]);
    assert_eq!((repriced.begun_since(&acme), acme.begun_since(&repriced)), (these("acme"), these("acme")));
    let with = |plans: &Plans, prices| plans.with(Given { prices, ..Given::default() }).unwrap();
    assert_eq!(with(&limited, vec![price.clone()]).begun_since(&limited), Tenants::All, "its cost is limited");
    assert_eq!(with(&plain, vec![price]).begun_since(&plain), nobody());
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
    let quantities = |input| move |output| Quantities { tokens: Tokens::plain(input, output), ..Quantities::default() };
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
fn a_budget_replaces_only_what_binds_less() {
    let cost = |capacity| limit(Unit::Cost, capacity, Window::Month);
    let soft = |capacity| cost(capacity).with_action(Action::Warn);
    for (of_tier, own, budgets, holds) in [
        (cost(100), None, vec![soft(50)], cost(100)),
        (cost(100), None, vec![cost(200)], cost(100)),
        (cost(100), None, vec![cost(50), cost(70), soft(10)], cost(50)),
        (cost(100), Some(cost(300)), vec![cost(200)], cost(200)),
        (cost(100), Some(cost(30)), vec![cost(200)], cost(30)),
        (soft(100), None, vec![soft(50)], soft(50)),
        (soft(10), None, vec![cost(50)], cost(50)),
    ] {
        let terms = Terms { limits: own.into_iter().collect(), budgets, ..Terms::default() };
        let given = plans(vec![plan("a", &[of_tier])], UnknownTier::Deny, HashMap::from([("acme".to_owned(), terms)]));
        assert_eq!(given.unwrap().plan("acme", None).unwrap().plan.limits, [holds]);
    }
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
