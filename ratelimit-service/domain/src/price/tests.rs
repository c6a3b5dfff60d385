use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::amount::{MAX_AMOUNT, Side, Tokens};

fn day(number: i32) -> Day {
    Day::from_number(number)
}

/// A price of so much for each token of input, and five times that of output.
fn price(model: &str, input_picousd: u64) -> Price {
    let per_token = [(TokenClass::Input, input_picousd), (TokenClass::Output, input_picousd * 5)];
    Price::new(Pattern::new(model), per_token.into_iter().collect())
}

fn by(provider: &str) -> Option<String> {
    Some(provider.to_owned())
}

fn prices(operator: Vec<Price>, shipped: Vec<Price>) -> Prices {
    Prices::new(operator, Arc::new(PriceTable::new(shipped)))
}

/// Calls that use tokens alone.
fn calls(requests: u64, tokens: Tokens) -> Calls {
    Calls { requests, ..Calls::one(tokens) }
}

/// What a token of input costs by the version that holds.
fn input_at(table: &PriceTable, provider: Option<&str>, model: &str, at: i32) -> Option<u64> {
    table.at(provider, Some(model), day(at)).and_then(|price| price.per_token().given(TokenClass::Input))
}

#[test]
fn a_cost_is_exact_and_rounded_up_once() {
    // $0.15 and $0.60 a million tokens.
    let per_token = [(TokenClass::Input, 150_000), (TokenClass::Output, 600_000)];
    let small = Price::new(Pattern::new("gpt-4o-mini*"), per_token.into_iter().collect()).with_per_request_nanousd(7);
    let cached = [(TokenClass::CacheRead, 1)].into_iter().collect();
    let prices = prices(vec![small, Price::new(Pattern::new("*"), cached)], Vec::new());
    let cost = |model, requests, tokens: &Tokens| {
        prices.with_own(None).at(None, Some(model), day(0)).map(|quote| quote.cost_nanousd(&calls(requests, *tokens)))
    };
    let mut tokens = Tokens::plain(10, 3);
    tokens.add(Side::Input, 1, &[(TokenClass::CacheRead, 1)]);
    assert_eq!(cost("gpt-4o-mini", 1, &tokens), Some(11 * 150 + 3 * 600 + 7));
    assert_eq!(cost("other", 0, &tokens), Some(1), "a thousandth, rounded up");
    assert_eq!(Prices::default().with_own(None).at(None, Some("other"), day(0)), None);
}

#[test]
fn the_latest_version_of_the_first_pattern_in_force_holds() {
    let versions = [("gpt-4o-mini*", 3, 10), ("gpt-4o*", 1, 20), ("gpt-4o-mini*", 2, 20), ("*", 9, 30)];
    let versions = versions.map(|(model, input, from)| price(model, input).with_from(day(from)));
    let table = PriceTable::new(versions.to_vec());
    let mini: Vec<_> = [9, 10, 19, 20, 40].map(|at| input_at(&table, None, "gpt-4o-mini", at)).into();
    assert_eq!(mini, [None, Some(3), Some(3), Some(2), Some(2)]);
    let large: Vec<_> = [10, 19, 20].map(|at| input_at(&table, None, "gpt-4o", at)).into();
    assert_eq!(large, [None, None, Some(1)], "a version that is not in force yet hides nothing");
    assert_eq!((input_at(&table, None, "o3", 29), input_at(&table, None, "o3", 30)), (None, Some(9)));
    assert_eq!(table.at(None, Some("gpt-4o-mini"), day(20)).unwrap().version(), "gpt-4o-mini*@1970-01-21");
    assert_eq!(input_at(&PriceTable::new(vec![price("a", 1), price("a", 2)]), None, "a", 0), Some(1));
}

#[test]
fn a_providers_price_is_for_its_calls_alone() {
    let theirs = price("gpt-4o", 1).with_provider(by("openai"));
    let table = PriceTable::new(vec![theirs, price("gpt-4o", 2).with_provider(by("azure.ai.openai")), price("*", 3)]);
    let at = |provider| input_at(&table, provider, "gpt-4o", 0);
    assert_eq!([at(Some("openai")), at(Some("azure.ai.openai")), at(Some("other"))], [Some(1), Some(2), Some(3)]);
    assert_eq!(at(None), Some(1), "whose call it is, is not known yet");
}

#[test]
fn the_tenants_layer_goes_before_the_operators_and_that_before_the_shipped_one() {
    let own = PriceTable::new(vec![price("a", 1).with_from(day(5))]);
    let prices = prices(vec![price("a", 2).with_from(day(3))], vec![price("*", 4)]);
    let layers = prices.with_own(Some(&own));
    let at = |model, at| layers.at(None, Some(model), day(at)).map(|quote| quote.layer()).unwrap();
    assert_eq!(
        [at("a", 5), at("a", 3), at("a", 2), at("b", 9)],
        [Layer::Tenant, Layer::Operator, Layer::Shipped, Layer::Shipped]
    );
}

#[test]
fn prices_in_force_are_those_that_hold_for_some_call_in_their_order() {
    let own = PriceTable::new(vec![price("a", 1).with_from(day(5))]);
    let theirs = price("c", 4).with_provider(by("openai"));
    let operator = vec![price("b*", 2), price("b-1", 9), theirs, price("c", 5), price("d", 6).with_from(day(9))];
    let prices = prices(operator, vec![price("a", 7), price("d", 8), price("d", 10).with_from(day(1))]);
    let in_force = |at| {
        let quotes = prices.with_own(Some(&own)).in_force(day(at));
        quotes.map(|quote| quote.price().unit_picousd(TokenClass::Input, 0)).collect::<Vec<_>>()
    };
    assert_eq!(in_force(0), [2, 4, 5, 7, 8]);
    assert_eq!(in_force(8), [1, 2, 4, 5, 10], "a price that another goes before holds for no call");
    assert_eq!(in_force(9), [1, 2, 4, 5, 6]);
}

#[test]
fn a_long_prompt_prices_all_tokens_of_its_call() {
    let long = [(TokenClass::Input, 20), (TokenClass::CacheRead, 2)].into_iter().collect();
    let per_token = [(TokenClass::Input, 10), (TokenClass::CacheWrite, 7), (TokenClass::Output, 50)];
    let price = Price::new(Pattern::new("a"), per_token.into_iter().collect())
        .with_long_context(Some(LongContext { above_tokens: 200, per_token: long }));
    let prices = prices(vec![price], Vec::new());
    let quote = prices.with_own(None).at(None, Some("a"), day(0)).unwrap();
    let mut tokens = Tokens::plain(0, 1);
    tokens.add(Side::Input, 200, &[(TokenClass::CacheRead, 50)]);
    assert_eq!(quote.cost_picousd(&Calls::one(tokens)), 200 * 10 + 50, "cached tokens cost as plain ones");
    tokens.add(Side::Input, 2, &[(TokenClass::AudioInput, 1), (TokenClass::CacheWrite, 1)]);
    assert_eq!(
        quote.cost_picousd(&Calls::one(tokens)),
        150 * 20 + 50 * 2 + 20 + 7 + 50,
        "what has no other price keeps its own"
    );
    assert_eq!(quote.cost_picousd(&calls(2, tokens)), 201 * 10 + 7 + 50, "two calls of about a hundred");
}

#[test]
fn a_mark_up_is_rounded_up_for_each_unit_and_leaves_a_tenants_own_price() {
    let own = PriceTable::new(vec![price("own", 10)]);
    let prices = prices(vec![price("a", 10).with_per_request_nanousd(1)], Vec::new());
    let quote = |model| {
        let quote = prices.with_own(Some(&own)).at(None, Some(model), day(0)).unwrap();
        quote.with_mark_up(MarkUp::from_ppm(1_250_000))
    };
    let rated = quote("a").rate(&Calls::one(Tokens::plain(4, 2)));
    let part = |quantity, unit_picousd| Part { quantity, unit_picousd };
    assert_eq!(rated.tokens, [(TokenClass::Input, part(4, 13)), (TokenClass::Output, part(2, 63))]);
    assert_eq!((rated.requests, rated.version.as_str()), (part(1, 1250), "a@1970-01-01"));
    assert_eq!((rated.picousd(), rated.nanousd()), (52 + 126 + 1250, 2));
    assert_eq!(quote("own").cost_picousd(&Calls::one(Tokens::plain(4, 2))), 140);
}

#[test]
fn nothing_overflows() {
    let all = TokenClass::ALL.map(|class| (class, u64::MAX)).into_iter().collect();
    let price = Price::new(Pattern::new("*"), all).with_per_request_nanousd(u64::MAX).with_per_image_nanousd(u64::MAX);
    let prices = prices(vec![price], Vec::new());
    let quote = prices.with_own(None).at(None, None, day(i32::MIN)).or_else(|| {
        prices.with_own(None).at(None, None, day(i32::MAX)).map(|quote| quote.with_mark_up(MarkUp::from_ppm(u32::MAX)))
    });
    let quote = quote.unwrap();
    let most = |tokens| Calls { requests: u64::MAX, images: u64::MAX, tokens };
    assert_eq!(quote.cost_nanousd(&most(Tokens::plain(u64::MAX, u64::MAX))), MAX_AMOUNT);
    assert_eq!(quote.rate(&most(Tokens::plain(u64::MAX, 1))).nanousd(), MAX_AMOUNT);
}

#[test]
fn an_image_costs_its_price_beside_tokens_and_the_call() {
    let drawn = price("draw", 10).with_per_image_nanousd(40_000_000).with_per_request_nanousd(5);
    let prices = prices(vec![drawn, price("chat", 10)], Vec::new());
    let quote = |model| prices.with_own(None).at(None, Some(model), day(0)).unwrap();
    let calls = Calls { requests: 1, images: 3, tokens: Tokens::plain(7, 0) };
    let rated = quote("draw").with_mark_up(MarkUp::from_ppm(1_500_000)).rate(&calls);
    assert_eq!(rated.images, Part { quantity: 3, unit_picousd: 60_000_000_000 });
    assert_eq!(rated.nanousd(), 3 * 60_000_000 + 8, "7.5 for the call, and 0.105 for its tokens");
    assert_eq!(quote("chat").rate(&calls).images.picousd(), 0, "most models have no price for them");
}

#[test]
fn only_models_whose_prices_tell_are_compared() {
    let shipped = vec![
        price("chat", 1),
        price("dear", 1).with_per_image_nanousd(9),
        price("draw", 1).with_per_image_nanousd(8),
        Price::new(Pattern::new("only"), PerToken::default()).with_per_image_nanousd(7),
    ];
    let prices = prices(Vec::new(), shipped);
    let names = |images| -> Vec<String> {
        let asked = Comparison::of(day(0), Tokens::default());
        let asked = Comparison { calls: Calls { images, ..asked.calls }, ..asked };
        let compared = prices.with_own(None).compare(&asked);
        compared.iter().map(|one| one.quote.price().model().to_string()).collect()
    };
    assert_eq!(
        (names(1), names(0)),
        (vec!["only".into(), "draw".into(), "dear".into()], ["chat", "dear", "draw"].map(String::from).into())
    );
}

#[test]
fn models_are_compared_by_cost_and_then_by_name() {
    let shipped = vec![
        price("mini", 3).with_provider(by("openai")),
        price("mini-*", 3).with_provider(by("openai")),
        price("opus", 7).with_provider(by("anthropic")),
        price("opus", 5).with_provider(by("anthropic")).with_from(day(10)),
        price("haiku", 3).with_provider(by("anthropic")),
        price("later", 0).with_from(day(11)),
    ];
    let prices = prices(vec![price("mini", 9)], shipped);
    let layers = prices.with_own(None);
    let asked = Comparison::of(day(10), Tokens::plain(1, 0));
    let names = |asked: &Comparison<'_>| -> Vec<(String, u128)> {
        let compared = layers.compare(asked);
        assert_eq!(compared.first(), layers.cheapest(asked).as_ref());
        compared.iter().map(|one| (one.quote.price().model().to_string(), one.picousd)).collect()
    };
    let named =
        |names: &[(&str, u128)]| -> Vec<_> { names.iter().map(|(name, cost)| ((*name).to_owned(), *cost)).collect() };
    assert_eq!(names(&asked), named(&[("haiku", 3), ("mini-*", 3), ("opus", 5), ("mini", 9)]));
    let theirs = Comparison { provider: Some("anthropic"), mark_up: MarkUp::from_ppm(2_000_000), ..asked.clone() };
    assert_eq!(names(&theirs), named(&[("haiku", 6), ("opus", 10)]));
    let minis =
        Comparison { models: Some(Pattern::new("mini*")), calls: calls(0, asked.calls.tokens), ..asked.clone() };
    assert_eq!(names(&minis), named(&[("mini-*", 3), ("mini", 9)]));
    assert_eq!(names(&Comparison { provider: Some("nobody"), ..asked }), []);
}

fn any_price() -> impl Strategy<Value = Price> {
    let models = prop::sample::select(vec!["a", "ab", "a*", "*b", "*"]);
    let providers = prop::option::of(prop::sample::select(vec!["x", "y"]));
    (models, providers, 0..6, any::<u32>(), prop::option::of((0..100u64, any::<u32>()))).prop_map(
        |(model, provider, from, input, long)| {
            let long = long.map(|(above_tokens, input)| LongContext {
                above_tokens,
                per_token: [(TokenClass::Input, input.into())].into_iter().collect(),
            });
            let price = price(model, input.into()).with_provider(provider.map(str::to_owned));
            price.with_from(day(from)).with_long_context(long)
        },
    )
}

proptest! {
    /// By the words of the rule, one after the other.
    #[test]
    fn a_table_finds_what_its_rule_says(
        versions in prop::collection::vec(any_price(), 0..8),
        model in prop::sample::select(vec!["a", "ab", "b", "c"]),
        provider in prop::option::of(prop::sample::select(vec!["x", "y", "z"])),
        at in 0..6,
    ) {
        let table = PriceTable::new(versions.clone());
        let mut expected: Option<&Price> = None;
        for first in &versions {
            let is_theirs = first.provider().is_none() || provider.is_none() || first.provider() == provider;
            if first.model().matches(model) && is_theirs && first.from() <= day(at) {
                for other in &versions {
                    let is_same = other.model() == first.model() && other.provider() == first.provider();
                    let is_later = expected.is_none_or(|found| other.from() > found.from());
                    if is_same && other.from() <= day(at) && is_later {
                        expected = Some(other);
                    }
                }
                break;
            }
        }
        prop_assert_eq!(table.at(provider, Some(model), day(at)), expected);
    }

    #[test]
    fn parts_sum_up_to_the_cost(
        price in any_price(),
        per_request_nanousd in 0..1_000_000_000u64,
        per_image_nanousd in 0..1_000_000_000u64,
        ppm in 0..3_000_000u32,
        requests in 0..3u64,
        images in 0..5u64,
        input in any::<u64>(),
        cached in any::<u64>(),
        output in any::<u64>(),
    ) {
        let price = price.with_per_request_nanousd(per_request_nanousd).with_per_image_nanousd(per_image_nanousd);
        let prices = prices(vec![price], Vec::new());
        let mut tokens = Tokens::default();
        tokens.add(Side::Input, input, &[(TokenClass::CacheRead, cached)]);
        tokens.add(Side::Output, output, &[]);
        let quote = prices.with_own(None).at(None, Some("ab"), day(9));
        prop_assume!(quote.is_some());
        let listed = quote.unwrap();
        let quote = listed.with_mark_up(MarkUp::from_ppm(ppm));
        let calls = Calls { requests, images, tokens };
        let rated = quote.rate(&calls);
        let parts: u128 = rated.tokens.iter().map(|(_, part)| part.picousd()).sum();
        prop_assert_eq!(rated.picousd(), parts + rated.images.picousd() + rated.requests.picousd());
        prop_assert_eq!(rated.picousd(), quote.cost_picousd(&calls));
        prop_assert_eq!((rated.images.quantity, rated.requests.quantity), (images, requests));
        let counted: u64 = rated.tokens.iter().map(|(_, part)| part.quantity).sum();
        prop_assert_eq!(counted, tokens.by_class().map(|(_, count)| count).sum::<u64>());
        // A mark-up is right to one unit's rounding for each that is counted.
        let exact = listed.cost_picousd(&calls) * u128::from(ppm);
        let units = u128::from(counted + images + requests);
        prop_assert!(rated.picousd() * 1_000_000 >= exact);
        prop_assert!(rated.picousd() * 1_000_000 < exact + units.max(1) * 1_000_000);
    }
}
