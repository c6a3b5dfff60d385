use std::path::Path;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use tollgate_domain::invoice::{
    Allowance, Basis, Bill, BillingCalendar, BillingTerms, Cents, Charge, Decimal, Heading, Invoice, Meter, Scope,
    Step, UnitPrice, Volume, adjust,
};
use tollgate_domain::{Pattern, TokenClass};

use super::*;

/// 2026-11-15T12:00:00Z
const NOVEMBER_MS: u64 = 1_794_744_000_000;
const DAY_MS: u64 = 86_400_000;

fn charge(meter: Meter, model: &str, picousd: Option<u64>, quantity: u128) -> Charge {
    let price = picousd.map(|each| UnitPrice::picousd(format!("{model}*@2026-10-01"), each));
    let model = Some(model.to_owned()).filter(|model| !model.is_empty());
    Charge { meter, model, price, quantity, basis: Basis::Reported }
}

fn parties() -> Parties {
    Parties {
        seller: Party {
            name: "Gateway & Sons <GmbH>".into(),
            details: vec!["Torstraße 1".into(), "10119 Berlin".into(), "VAT DE123456789".into()],
        },
        buyer: Party { name: "Ακμή Łódź".into(), details: vec!["Улица 5".into()] },
        note: "Please pay within 30 days.\nIBAN DE00 0000 0000".into(),
    }
}

/// One of everything.
fn example() -> Invoice {
    let calendar = BillingCalendar::new(TimeZone::UTC, 1).unwrap();
    let input = || Meter::Tokens(TokenClass::Input);
    let output = || Meter::Tokens(TokenClass::Output);
    let all = |meter| Scope { meter, models: Pattern::new("*") };
    let quantity = |whole: i128| Decimal::from_parts(whole * 1_000_000);
    let step = |up_to: Option<i128>, factor_ppm| Step { up_to: up_to.map(quantity), factor_ppm };
    let terms = BillingTerms {
        minimum: Cents::from_parts(250_000),
        included: vec![Allowance { scope: all(input()), quantity: quantity(1_000_000) }],
        volume: vec![Volume {
            scope: all(output()),
            steps: vec![step(Some(100_000_000), 1_000_000), step(None, 875_000)],
        }],
        tax_ppm: 190_000,
        credits: Cents::from_parts(10_000),
    };
    let heading = |number: &str, month| Heading { number: number.into(), tenant: "=acme".into(), month };
    let october = calendar.month(NOVEMBER_MS - 31 * DAY_MS);
    let before = [charge(input(), "gpt-4o", Some(2_500_000), 3_000_000)];
    let earlier = Bill::new(heading("2026-0041", october), terms.clone(), &before, Vec::new()).unwrap();
    let late = charge(Meter::Requests, "gpt-4o", Some(1_000_000_000), 12_345);
    let [first] = before;
    let adjustments = adjust(&earlier, &[], &[first, late]).unwrap();
    let charges = [
        charge(input(), "gpt-4o", Some(2_500_000), 1_234_567_890),
        charge(output(), "gpt-4o", Some(10_000_000), 123_456_789),
        Charge { basis: Basis::Estimated, ..charge(output(), "gpt-4o", Some(10_000_000), 1_000) },
        charge(Meter::Tokens(TokenClass::CacheWrite1h), "claude-opus-4-5-20251101", Some(10_000_000), 7),
        charge(Meter::Event("gpu.seconds".into()), "", Some(350_000_000), 12_500_000),
        charge(output(), "model-of-tomorrow", None, 42),
    ];
    let bill = Bill::new(heading("2026-0042", calendar.month(NOVEMBER_MS)), terms, &charges, adjustments).unwrap();
    Invoice::draft(bill).finalised(NOVEMBER_MS + 18 * DAY_MS).unwrap()
}

/// Compares with a file of `golden/`; writes it instead where `GOLDEN=write` is set.
fn assert_golden(name: &str, written: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/invoices/golden").join(name);
    if std::env::var("GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(&path, written).unwrap();
    }
    let expected = std::fs::read(&path).unwrap();
    assert!(expected == written, "{name} changed; look at it, and write it anew by GOLDEN=write");
}

fn pdf_text(pdf: &[u8]) -> String {
    pdf_extract::extract_text_from_mem(pdf).unwrap()
}

#[test]
fn an_invoice_is_written_as_it_was() {
    let (invoice, parties) = (example(), parties());
    assert_golden("invoice.json", json(&invoice, &parties).unwrap().as_bytes());
    assert_golden("invoice.csv", csv(&invoice).unwrap().as_bytes());
    assert_golden("invoice.html", html(&invoice, &parties).unwrap().as_bytes());
    assert_golden("invoice.pdf", &pdf(&invoice, &parties).unwrap());
}

#[test]
fn json_is_read_as_the_invoice_that_it_is() {
    let text = json(&example(), &parties()).unwrap();
    assert_eq!(serde_json::from_str::<Invoice>(&text).unwrap(), example());
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["seller"]["name"], "Gateway & Sons <GmbH>");
}

#[test]
fn no_text_is_a_formula_or_a_tag() {
    let csv = csv(&example()).unwrap();
    assert!(csv.contains(",'=acme,") && !csv.contains(",=acme"), "{csv}");
    let html = html(&example(), &parties()).unwrap();
    assert!(!html.contains("<GmbH>"), "{html}");
    assert!(!html.contains("http") && !html.contains("<script") && !html.contains("src="), "needs nothing else");
}

/// Every text that people are shown stands in the PDF and can be copied from it.
#[test]
fn a_pdf_says_what_the_page_says() {
    // Lines may break anywhere.
    let solid = |text: &str| text.split_whitespace().collect::<String>();
    let text = solid(&pdf_text(&pdf(&example(), &parties()).unwrap()));
    let view = view::View::new(&example(), &parties());
    let parties = view.parties.iter().flat_map(|(_, party)| [&party.name].into_iter().chain(&party.details));
    let rows = view.tables.iter().flat_map(|table| &table.rows);
    let cells = rows.flat_map(|row| [&row.item, &row.detail].into_iter().chain(&row.cells));
    let totals = view.totals.iter().flat_map(|total| [&total.label, &total.amount]);
    for shown in [&view.title, &view.state, &view.month].into_iter().chain(parties).chain(cells).chain(totals) {
        assert!(text.contains(&solid(shown)), "{shown} is missing in {text}");
    }
    assert!(text.contains("Page1of1"), "{text}");
}

fn with_charges(charges: &[Charge], terms: BillingTerms) -> Invoice {
    let month = BillingCalendar::new(TimeZone::UTC, 1).unwrap().month(NOVEMBER_MS);
    let heading = Heading { number: "7".into(), tenant: "acme".into(), month };
    Invoice::draft(Bill::new(heading, terms, charges, Vec::new()).unwrap())
}

#[test]
fn a_long_table_goes_over_pages_with_its_headings() {
    let charges: Vec<_> =
        (0..100).map(|model| charge(Meter::Requests, &format!("m{model:03}"), Some(1_000_000_000), 1)).collect();
    let pdf = pdf(&with_charges(&charges, BillingTerms::default()), &parties()).unwrap();
    let pages = pdf_extract::extract_text_from_mem_by_pages(&pdf).unwrap();
    assert!(pages.len() >= 3, "{pages:?}");
    for (page, number) in pages.iter().zip(1..) {
        assert!(page.contains(&format!("Page {number} of {}", pages.len())), "{page}");
        assert_eq!(page.contains(": requests"), page.contains("Quantity"), "{page}");
    }
    let all = pages.concat();
    assert!((0..100).all(|model| all.matches(&format!("m{model:03}: requests")).count() == 1), "{all}");
}

#[test]
fn a_text_without_end_stays_on_its_page() {
    let parties = Parties { note: "x".repeat(100_000), ..parties() };
    let text = pdf_text(&pdf(&with_charges(&[], BillingTerms::default()), &parties).unwrap());
    assert!(text.contains('…') && text.contains("Page 1 of 1"), "{}", text.len());
}

fn charges() -> impl Strategy<Value = Vec<Charge>> {
    let meter = prop_oneof![
        Just(Meter::Requests),
        Just(Meter::Images),
        Just(Meter::Tokens(TokenClass::Output)),
        any::<String>().prop_map(Meter::Event),
    ];
    let price = prop::option::of((any::<String>(), 0..1_000_000_000_000_u64));
    let charge = (meter, prop::option::of(any::<String>()), price, 0..1_000_000_000_u128, any::<bool>());
    let charge = charge.prop_map(|(meter, model, price, quantity, is_estimated)| {
        let price = price.map(|(version, each)| UnitPrice::picousd(version, each));
        let basis = if is_estimated { Basis::Estimated } else { Basis::Reported };
        Charge { meter, model, price, quantity, basis }
    });
    prop::collection::vec(charge, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn amounts_of_a_csv_sum_up_to_the_total(
        charges in charges(),
        tax_ppm in 0..1_000_000_u32,
        credits in 0..100_000_i128,
    ) {
        let terms = BillingTerms { tax_ppm, credits: Cents::from_parts(credits), ..BillingTerms::default() };
        let invoice = with_charges(&charges, terms);
        let text = csv(&invoice).unwrap();
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        let at = reader.headers().unwrap().iter().position(|column| column == "amount").unwrap();
        let rows = reader.records().map(|row| row.unwrap());
        let amounts = rows.map(|row| row[at].to_owned()).filter(|amount| !amount.is_empty());
        let sum = amounts.map(|amount| amount.parse::<Cents>().unwrap().parts()).sum::<i128>();
        prop_assert_eq!(sum, invoice.bill().totals.total.parts());
    }

    #[test]
    fn any_text_can_be_written(charges in charges(), name in any::<String>(), note in any::<String>()) {
        let invoice = with_charges(&charges, BillingTerms::default());
        let party = || Party { name: name.clone(), details: vec![note.clone()] };
        let parties = Parties { seller: party(), buyer: party(), note: note.clone() };
        let html_text = html(&invoice, &parties).unwrap();
        prop_assert_eq!(html_text.matches("<h2>").count(), html_text.matches("<thead>").count());
        prop_assert_eq!(html_text, html(&invoice, &parties).unwrap());
        prop_assert_eq!(pdf(&invoice, &parties).unwrap(), pdf(&invoice, &parties).unwrap());
        let text = json(&invoice, &parties).unwrap();
        prop_assert_eq!(serde_json::from_str::<Invoice>(&text).unwrap(), invoice);
        let again = serde_json::from_str::<serde_json::Value>(&text).unwrap();
        prop_assert_eq!(again["note"].as_str(), Some(note.as_str()));
    }
}
