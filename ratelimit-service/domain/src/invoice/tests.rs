use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::amount::{Pattern, TokenClass};
use crate::calendar::Day;

fn heading(month: BillingMonth) -> Heading {
    Heading { number: "2026-0007".into(), tenant: "acme".into(), month }
}

fn november() -> BillingMonth {
    BillingCalendar::new(TimeZone::UTC, 1).unwrap().month(1_795_392_000_000)
}

fn bill(terms: &BillingTerms, charges: &[Charge]) -> Bill {
    Bill::new(heading(november()), terms.clone(), charges, Vec::new()).unwrap()
}

fn units(whole: i128) -> Quantity {
    Quantity::from_parts(whole * 1_000_000)
}

fn cents(cents: i128) -> Cents {
    Cents::from_parts(cents)
}

/// Output tokens at so many dollars a million.
fn output(model: &str, usd_per_million: u64, quantity: u128) -> Charge {
    Charge {
        meter: Meter::Tokens(TokenClass::Output),
        model: Some(model.into()),
        price: Some(UnitPrice::picousd(format!("{model}@2026-11-01"), usd_per_million * 1_000_000)),
        quantity,
        basis: Basis::Reported,
    }
}

fn estimated(charge: Charge) -> Charge {
    Charge { basis: Basis::Estimated, ..charge }
}

fn outputs() -> Scope {
    Scope { meter: Meter::Tokens(TokenClass::Output), models: Pattern::new("*") }
}

/// The part, the factor, the quantity, the part of it that is estimated, and the amount of each line of usage.
fn usage(bill: &Bill) -> Vec<(Part, u32, String, String, String)> {
    let of = |line: &Line| match &line.item {
        Item::Usage(rated) => {
            let Sums { quantity, estimated_quantity, cents, .. } = line.sums;
            Some((
                rated.part,
                rated.factor_ppm,
                quantity.to_string(),
                estimated_quantity.to_string(),
                cents.to_string(),
            ))
        }
        Item::Minimum | Item::Unpriced { .. } => None,
    };
    bill.lines.iter().filter_map(of).collect()
}

fn row(part: Part, factor_ppm: u32, texts: [&str; 3]) -> (Part, u32, String, String, String) {
    let [quantity, estimated, amount] = texts.map(str::to_owned);
    (part, factor_ppm, quantity, estimated, amount)
}

#[test]
fn the_dearest_is_included_first_and_the_estimated_last() {
    let terms = BillingTerms {
        included: vec![Allowance { scope: outputs(), quantity: units(3_000_000) }],
        ..BillingTerms::default()
    };
    let charges = [
        output("a", 1, 2_000_000),
        output("b", 10, 1_500_000),
        estimated(output("b", 10, 500_000)),
        estimated(output("a", 1, 2_000_000)),
    ];
    let bill = bill(&terms, &charges);
    let expected = [
        row(Part::Included, 0, ["1000000", "0", "0.00"]),
        row(Part::Overage, WHOLE_PPM, ["3000000", "2000000", "3.00"]),
        row(Part::Included, 0, ["2000000", "500000", "0.00"]),
    ];
    assert_eq!(usage(&bill), expected);
    assert_eq!(bill.totals.estimated.to_string(), "2");
}

#[test]
fn steps_are_filled_by_all_lines_of_their_scope() {
    let step = |end: Option<i128>, factor_ppm| Step { up_to: end.map(units), factor_ppm };
    let terms = BillingTerms {
        volume: vec![Volume {
            scope: outputs(),
            steps: vec![step(Some(1_000_000), 1_000_000), step(Some(3_000_000), 800_000), step(None, 333_333)],
        }],
        ..BillingTerms::default()
    };
    let bill = bill(&terms, &[output("a", 1, 2_000_000), output("b", 10, 2_000_000)]);
    let expected = [
        row(Part::Standard, 800_000, ["1000000", "0", "0.80"]),
        row(Part::Standard, 333_333, ["1000000", "0", "0.33"]),
        row(Part::Standard, 1_000_000, ["1000000", "0", "10.00"]),
        row(Part::Standard, 800_000, ["1000000", "0", "8.00"]),
    ];
    assert_eq!(usage(&bill), expected);
    assert_eq!(bill.lines[1].sums.exact_usd.to_string(), "0.333333");
}

#[test]
fn a_line_is_rounded_once() {
    // Half a cent each, in one line and in two.
    let third = output("a", 1, 5_000);
    let together = bill(&BillingTerms::default(), &[third.clone(), third.clone(), third.clone()]);
    assert_eq!(together.totals.total, cents(2), "1.5 to even");
    let apart = bill(&BillingTerms::default(), &[third, output("b", 1, 5_000), output("c", 1, 5_000)]);
    assert_eq!(apart.totals.total, cents(0), "each half to even");
}

#[test]
fn events_are_billed_by_millionths() {
    let charge = Charge {
        meter: Meter::Event("gpu.seconds".into()),
        model: None,
        price: Some(UnitPrice::picousd("gpu@2026-11-01".into(), 2_000_000_000_000)),
        quantity: 2_505_000,
        basis: Basis::Reported,
    };
    let bill = bill(&BillingTerms::default(), &[charge]);
    assert_eq!(usage(&bill), [row(Part::Standard, WHOLE_PPM, ["2.505", "0", "5.01"])]);
}

#[test]
fn what_has_no_price_is_listed_and_counted_apart() {
    let unpriced = |model: &str| Charge { price: None, ..output(model, 1, 7) };
    let terms =
        BillingTerms { included: vec![Allowance { scope: outputs(), quantity: units(10) }], ..BillingTerms::default() };
    let bill = bill(&terms, &[unpriced("new"), unpriced("new"), output("a", 1, 20_000), unpriced("newer")]);
    assert_eq!((bill.lines.len(), bill.totals.unpriced_lines), (4, 2));
    assert_eq!(bill.lines[2].sums, Sums { quantity: units(14), ..Sums::default() });
    assert_eq!(bill.totals.total, cents(2), "the allowance is left to what has a price");
}

#[test]
fn credits_pay_the_tax_too_and_what_is_left_stays() {
    let terms = |credits_cents| BillingTerms {
        minimum: cents(1_000),
        tax_ppm: 190_000,
        credits: cents(credits_cents),
        ..BillingTerms::default()
    };
    let totals = |credits| bill(&terms(credits), &[output("a", 1, 4_000_000)]).totals;
    let few = totals(100);
    assert_eq!((few.usage, few.minimum, few.subtotal, few.tax), (cents(400), cents(600), cents(1_000), cents(190)));
    assert_eq!((few.credits_used, few.credits_left, few.total), (cents(100), cents(0), cents(1_090)));
    let many = totals(5_000);
    assert_eq!((many.credits_used, many.credits_left, many.total), (cents(1_190), cents(3_810), cents(0)));
}

#[test]
fn what_the_tenant_gets_back_becomes_credit() {
    let terms = BillingTerms { tax_ppm: 100_000, credits: cents(5), ..BillingTerms::default() };
    let first = bill(&terms, &[output("a", 1, 4_000_000)]);
    let back = adjust(&first, &[], &[output("a", 1, 1_000_000)]).unwrap();
    let next = Bill::new(heading(november()), terms, &[], back).unwrap().totals;
    assert_eq!((next.subtotal, next.tax, next.total), (cents(-300), cents(-30), cents(0)));
    assert_eq!((next.credits_used, next.credits_left), (cents(-330), cents(335)));
}

#[test]
fn late_usage_below_the_minimum_costs_nothing() {
    let terms = BillingTerms { minimum: cents(5_000), ..BillingTerms::default() };
    let first = bill(&terms, &[output("a", 1, 30_000_000)]);
    let late = adjust(&first, &[], &[output("a", 1, 40_000_000)]).unwrap();
    let amounts: Vec<_> = late.iter().map(|adjustment| adjustment.line.sums.cents).collect();
    assert_eq!(amounts, [cents(1_000), cents(-1_000)], "more usage, less that lacks");
    assert_eq!(adjust(&first, &late, &[output("a", 1, 40_000_000)]), Ok(vec![]));
}

#[test]
fn a_price_that_is_found_later_is_an_adjustment() {
    let unpriced = Charge { price: None, ..output("a", 1, 1_000_000) };
    let first = bill(&BillingTerms::default(), &[unpriced]);
    let found = adjust(&first, &[], &[output("a", 1, 1_000_000)]).unwrap();
    let quantities: Vec<_> = found.iter().map(|found| (found.line.sums.quantity, found.line.sums.cents)).collect();
    assert_eq!(quantities, [(units(1_000_000), cents(100)), (units(-1_000_000), cents(0))]);
}

#[test]
fn what_is_too_large_is_an_error() {
    let terms = BillingTerms::default();
    let new = |charges: &[Charge]| Bill::new(heading(november()), terms.clone(), charges, Vec::new());
    for quantity in [u128::MAX, i128::MAX as u128, 1 << 100] {
        let error = new(&[output("a", 1_000_000, quantity)]).unwrap_err();
        assert!(error.to_string().starts_with("tokens.output: comes to more"), "{error}");
    }
    let most = output("a", 1, i128::MAX as u128 / 1_000_000_000_000_000_000);
    assert!(new(std::slice::from_ref(&most)).is_ok());
    assert!(new(&[most.clone(), most]).is_err());
    let bad = BillingTerms { tax_ppm: u32::MAX, ..terms.clone() };
    let error = Bill::new(heading(november()), bad, &[], Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("terms.tax_ppm: "), "{error}");
}

#[test]
fn an_invoice_goes_its_way_once() {
    let draft = Invoice::draft(bill(&BillingTerms::default(), &[output("a", 1, 1_000_000)]));
    let other = bill(&BillingTerms::default(), &[]);
    assert_eq!(draft.redrafted(other.clone()).unwrap().bill(), &other);
    let open = draft.finalised(1).unwrap();
    let paid = open.paid(2).unwrap();
    let void = open.voided(3).unwrap();
    assert_eq!(open.state(), State::Finalised { finalised_at_ms: 1 });
    assert_eq!(paid.state(), State::Paid { finalised_at_ms: 1, paid_at_ms: 2 });
    assert_eq!(void.state(), State::Void { finalised_at_ms: 1, voided_at_ms: 3 });
    assert!([&open, &paid, &void].iter().all(|invoice| invoice.bill() == draft.bill()));
    for invoice in [&open, &paid, &void] {
        let from = invoice.state();
        assert_eq!(invoice.redrafted(other.clone()), Err(TransitionError { from, to: "drafted anew" }));
        assert_eq!(invoice.finalised(9), Err(TransitionError { from, to: "finalised" }));
    }
    for invoice in [&draft, &paid, &void] {
        assert!(invoice.paid(9).is_err() && invoice.voided(9).is_err());
    }
    let error = paid.voided(9).unwrap_err().to_string();
    assert!(error.starts_with("an invoice that is paid cannot be voided"), "{error}");
}

fn meters() -> impl Strategy<Value = Meter> {
    let tokens = [TokenClass::Input, TokenClass::Output].map(Meter::Tokens);
    select([tokens.to_vec(), vec![Meter::Requests, Meter::Images, Meter::Event("image".into())]].concat())
}

fn models() -> impl Strategy<Value = Option<String>> {
    select(vec![None, Some("gpt-4o".to_owned()), Some("gpt-4o-mini".to_owned()), Some("claude".to_owned())])
}

fn charges(most: usize) -> impl Strategy<Value = Vec<Charge>> {
    let price = prop::option::weighted(0.9, (0..3_u64, 0..40_000_000_u64));
    let quantity = prop_oneof![0..100_u128, 0..10_000_000_000_u128];
    let basis = select(vec![Basis::Reported, Basis::Estimated]);
    let charge = (meters(), models(), price, quantity, basis).prop_map(|(meter, model, price, quantity, basis)| {
        let price = price.map(|(version, each)| UnitPrice::picousd(format!("v{version}"), each));
        Charge { meter, model, price, quantity, basis }
    });
    prop::collection::vec(charge, 0..most)
}

fn scopes() -> impl Strategy<Value = Scope> {
    let patterns = select(vec!["*", "gpt-4o*", "claude"]);
    (meters(), patterns).prop_map(|(meter, models)| Scope { meter, models: Pattern::new(models) })
}

fn terms() -> impl Strategy<Value = BillingTerms> {
    let allowance = (scopes(), 0..20_000_000_000_i128)
        .prop_map(|(scope, parts)| Allowance { scope, quantity: Quantity::from_parts(parts) });
    let ends = subsequence(vec![1_i128, 2_000_000, 1_000_000_000, 5_000_000_000_000_000], 0..4);
    let volume = (scopes(), ends, prop::collection::vec(0..2_000_000_u32, 5)).prop_map(|(scope, ends, factors)| {
        let ends = ends.into_iter().map(|end| Some(Quantity::from_parts(end))).chain([None]);
        let steps = ends.zip(factors).map(|(up_to, factor_ppm)| Step { up_to, factor_ppm });
        Volume { scope, steps: steps.collect() }
    });
    let amounts = (0..1_000_000_i128, 0..=MAX_TAX_PPM, 0..1_000_000_i128);
    let included = prop::collection::vec(allowance, 0..4);
    (amounts, included, prop::collection::vec(volume, 0..4)).prop_map(|(amounts, included, volume)| {
        let (minimum, tax_ppm, credits) = amounts;
        BillingTerms { minimum: cents(minimum), included, volume, tax_ppm, credits: cents(credits) }
    })
}

/// Millionths at a price in 1e-12 dollars, in 1e-24 dollars.
fn list_amount(charge: &Charge) -> i128 {
    let price = charge.price.as_ref().map_or(0, |price| price.each.parts());
    charge.measured().unwrap().parts() * price * i128::from(WHOLE_PPM)
}

type Sold = (Meter, Option<String>, Option<UnitPrice>);

/// Lines' and charges' quantities, by what they are of.
fn quantities<'a>(sold: impl Iterator<Item = (Sold, Quantity)> + 'a) -> BTreeMap<Sold, Quantity> {
    let mut sums = BTreeMap::<Sold, Quantity>::new();
    for (of, quantity) in sold.filter(|(_, quantity)| *quantity != Quantity::ZERO) {
        let sum = sums.entry(of).or_default();
        *sum = sum.plus(quantity).unwrap();
    }
    sums
}

proptest! {
    #[test]
    fn a_bill_sums_up(terms in terms(), charges in charges(30)) {
        let Bill { lines, totals, .. } = bill(&terms, &charges);
        let rounded = lines.iter().map(|line| line.sums.cents.parts()).sum::<i128>();
        prop_assert_eq!(rounded, totals.usage.parts() + totals.minimum.parts());
        prop_assert_eq!(rounded + totals.tax.parts() - totals.credits_used.parts(), totals.total.parts());
        prop_assert_eq!(totals.credits_used.parts() + totals.credits_left.parts(), terms.credits.parts());
        prop_assert!(totals.total >= Cents::ZERO && totals.subtotal >= terms.minimum);
        prop_assert!(totals.minimum == Cents::ZERO || totals.subtotal == terms.minimum);
        for line in &lines {
            prop_assert_eq!(line.sums.cents, line.sums.exact_usd.rounded());
            prop_assert!(line.sums.estimated_quantity <= line.sums.quantity);
            prop_assert!(line.sums.estimated_usd <= line.sums.exact_usd);
        }
        prop_assert!(lines.is_sorted_by(|a, b| a.item < b.item));
    }

    #[test]
    fn lines_are_their_charges(terms in terms(), charges in charges(30)) {
        let exact = |lines: &[Line]| lines.iter().map(|line| line.sums.exact_usd.parts()).sum::<i128>();
        let plain = rate(&BillingTerms::default(), &charges).unwrap();
        prop_assert_eq!(exact(&plain), charges.iter().map(list_amount).sum::<i128>());
        let of_charges = quantities(charges.iter().map(|charge| {
            ((charge.meter.clone(), charge.model.clone(), charge.price.clone()), charge.measured().unwrap())
        }));
        let lines = rate(&terms, &charges).unwrap();
        let of_lines = quantities(lines.iter().filter_map(|line| match &line.item {
            Item::Usage(Rated { model, meter, price, .. }) => {
                Some(((meter.clone(), model.clone(), Some(price.clone())), line.sums.quantity))
            }
            Item::Unpriced { meter, model } => Some(((meter.clone(), model.clone(), None), line.sums.quantity)),
            Item::Minimum => None,
        }));
        prop_assert_eq!(of_lines, of_charges);
    }

    #[test]
    fn an_allowance_is_used_up_before_anything_is_overage(terms in terms(), charges in charges(30)) {
        let lines = rate(&terms, &charges).unwrap();
        for (index, allowance) in terms.included.iter().enumerate() {
            let is_first = |meter: &Meter, model: Option<&str>| {
                terms.included.iter().position(|allowance| allowance.scope.has(meter, model)) == Some(index)
            };
            let of = |part: Part| {
                lines.iter().filter(move |line| match &line.item {
                    Item::Usage(rated) => rated.part == part && is_first(&rated.meter, rated.model.as_deref()),
                    Item::Minimum | Item::Unpriced { .. } => false,
                })
            };
            let included = of(Part::Included).map(|line| line.sums.quantity.parts()).sum::<i128>();
            prop_assert!(included <= allowance.quantity.parts());
            if of(Part::Overage).next().is_some() {
                prop_assert_eq!(included, allowance.quantity.parts());
            }
        }
    }

    #[test]
    fn the_order_of_charges_does_not_matter(
        terms in terms(),
        (charges, shuffled) in charges(12).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        late in charges(8),
    ) {
        let first = bill(&terms, &charges);
        prop_assert_eq!(&first, &bill(&terms, &shuffled));
        let adjustments = adjust(&first, &[], &[charges, late].concat()).unwrap();
        let reversed = adjustments.iter().rev().cloned().collect();
        let next = |adjustments| Bill::new(heading(november()), terms.clone(), &[], adjustments).unwrap();
        prop_assert_eq!(next(adjustments), next(reversed));
    }

    #[test]
    fn an_invoice_is_read_as_it_was_written(terms in terms(), charges in charges(12)) {
        let first = bill(&terms, &charges);
        let adjustments = adjust(&first, &[], &[]).unwrap();
        let bill = Bill::new(heading(november()), terms, &charges, adjustments).unwrap();
        for invoice in [Invoice::draft(bill.clone()), Invoice::draft(bill).finalised(7).unwrap().paid(8).unwrap()] {
            let written = serde_json::to_string(&invoice).unwrap();
            prop_assert_eq!(serde_json::from_str::<Invoice>(&written).unwrap(), invoice);
        }
    }

    #[test]
    fn a_history_is_invoiced_exactly(
        terms in terms(),
        usages in prop::collection::vec(usage_of_a_history(), 0..40),
        calendar in calendars(),
    ) {
        let charges_of = |month: &BillingMonth, known: u8| -> Vec<Charge> {
            let of = |usage: &&Usage| (month.start_ms..month.end_ms).contains(&usage.at_ms) && usage.known_in <= known;
            usages.iter().filter(of).map(Usage::charge).collect()
        };
        let mut months = vec![calendar.month(HISTORY_MS.start)];
        while months[months.len() - 1].end_ms < HISTORY_MS.end {
            months.push(calendar.month(months[months.len() - 1].end_ms));
        }
        let in_months: usize = months.iter().map(|month| charges_of(month, u8::MAX).len()).sum();
        prop_assert_eq!(in_months, usages.len(), "each lies in exactly one");

        let mut bills = Vec::<Bill>::new();
        let empty = calendar.month(months[months.len() - 1].end_ms);
        for (month, now) in months.iter().chain([&empty]).zip(0..) {
            let known = if *month == empty { u8::MAX } else { now };
            let issued: Vec<_> = bills.iter().flat_map(|bill| bill.adjustments.clone()).collect();
            let adjusted = bills.iter().map(|bill| adjust(bill, &issued, &charges_of(&bill.month, known)).unwrap());
            let adjustments = adjusted.flatten().collect();
            let charges = charges_of(month, known);
            bills.push(Bill::new(heading(month.clone()), terms.clone(), &charges, adjustments).unwrap());
        }
        for (month, bill) in months.iter().zip(&bills) {
            // What is left of the recomputation when all that was invoiced is taken off.
            let recomputed = rate(&terms, &charges_of(month, u8::MAX)).unwrap();
            let mut rest: BTreeMap<_, _> = recomputed.into_iter().map(|line| (line.item, line.sums)).collect();
            let adjustments = bills.iter().flat_map(|bill| &bill.adjustments).filter(|one| one.month == *month);
            for line in bill.lines.iter().chain(adjustments.map(|adjustment| &adjustment.line)) {
                let sums = rest.entry(line.item.clone()).or_default();
                *sums = sums.minus(line.sums).unwrap();
            }
            prop_assert!(rest.values().all(|sums| *sums == Sums::default()), "{rest:?}");
        }
    }
}

/// From 2023-12-15 to 2024-05-01: the end of a year, a leap day, and clocks that are set on.
const HISTORY_MS: std::ops::Range<u64> = 1_702_598_400_000..1_714_521_600_000;

/// Some usage, when it was, and in which month of the history it becomes known.
#[derive(Debug, Clone)]
struct Usage {
    at_ms: u64,
    known_in: u8,
    quantity: u128,
    basis: Basis,
}

impl Usage {
    /// The price changes on every tenth day.
    fn charge(&self) -> Charge {
        let since = Day::from_number(Day::of(self.at_ms).number() / 10 * 10);
        let price = UnitPrice::picousd(format!("a@{since}"), 1_000_003 + since.number() as u64);
        Charge { quantity: self.quantity, price: Some(price), basis: self.basis, ..output("gpt-4o", 1, 0) }
    }
}

fn usage_of_a_history() -> impl Strategy<Value = Usage> {
    let at_ms = prop_oneof![
        HISTORY_MS,
        select(vec![1_704_067_199_999, 1_704_067_200_000, 1_709_164_800_000, 1_709_251_199_999, 1_709_251_200_000_u64]),
    ];
    let basis = select(vec![Basis::Reported, Basis::Estimated]);
    (at_ms, 0..8_u8, 1..10_000_000_u128, basis).prop_map(|(at_ms, known_in, quantity, basis)| Usage {
        at_ms,
        known_in,
        quantity,
        basis,
    })
}

fn calendars() -> impl Strategy<Value = BillingCalendar> {
    let zones = ["UTC0", "EST5EDT,M3.2.0,M11.1.0", "NZST-12NZDT,M9.5.0,M4.1.0/3", "IST-5:30"];
    let zones = select(zones.map(|rules| TimeZone::posix(rules).unwrap()).to_vec());
    (zones, 1..=31_u8).prop_map(|(zone, day)| BillingCalendar::new(zone, day).unwrap())
}
