use tollgate_domain::Price;

use super::*;
use crate::period;
use crate::prices::row::{COLUMNS, cell};

const LITELLM: &str = include_str!("../../../tests/fixtures/prices/litellm.json");
const GENAI: &str = include_str!("../../../tests/fixtures/prices/genai-prices.json");

fn terms<'a>(providers: &'a [&'a str]) -> Terms<'a> {
    let day = |name| period::day(name).unwrap();
    Terms { from: day("2026-11-01"), seen: day("2026-11-26"), providers }
}

/// What a row says of costs, as `column value`.
fn costs(price: &Price) -> String {
    let costs = COLUMNS.iter().filter(|column| !matches!(**column, "provider" | "model" | "from" | "source" | "seen"));
    let given = costs.map(|column| (column, cell(price, column))).filter(|(_, text)| !text.is_empty());
    given.map(|(column, text)| format!("{column} {text}")).collect::<Vec<_>>().join(", ")
}

fn rows(import: &Import) -> Vec<(String, String, String)> {
    let provider = |price: &Price| price.provider().unwrap_or_default().to_owned();
    import.prices.iter().map(|price| (provider(price), price.version(), costs(price))).collect()
}

fn expected(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    rows.iter().map(|(provider, version, costs)| ((*provider).into(), (*version).into(), (*costs).into())).collect()
}

fn skipped(import: &Import) -> Vec<(&str, &str)> {
    import.skipped.iter().map(|skipped| (skipped.name.as_str(), skipped.why.as_str())).collect()
}

#[test]
fn litellms_table_is_read_exactly() {
    let import = litellm(LITELLM, &terms(&[])).unwrap();
    let rows_of_it = expected(&[
        (
            "anthropic",
            "claude-sonnet-4-5@2026-11-01",
            "input 3, cache_read 0.3, cache_write 3.75, cache_write_1h 6, output 15",
        ),
        ("gcp.gemini", "gemini-2.5-flash@2026-11-01", "input 0.3, cache_read 0.03, audio_input 1, output 2.5"),
        (
            "gcp.gemini",
            "gemini-2.5-pro@2026-11-01",
            "input 1.25, cache_read 0.125, output 10, long_above_tokens 200000, long_input 2.5, long_cache_read 0.25, \
             long_output 15",
        ),
        ("gcp.gemini", "imagen-3.0-generate-001@2026-11-01", "per_image 0.04"),
        ("openai", "gpt-4o-mini@2026-11-01", "input 0.15, cache_read 0.075, output 0.6"),
        ("openai", "gpt-image-1@2026-11-01", "input 5, cache_read 1.25, output 40"),
        ("mistral_ai", "mistral-large-latest@2026-11-01", "input 0.5, cache_read 0.05, output 1.5"),
        ("novita", "moonshotai/kimi-k2.6@2026-11-01", "input 0.8, cache_read 0.16, output 3.4"),
        ("perplexity", "pplx-70b-online@2026-11-01", "input 0, output 2.8, per_request 0.005"),
        ("aws.bedrock", "us.amazon.nova-lite-v1:0@2026-11-01", "input 0.06, cache_read 0.015, output 0.24"),
        ("x_ai", "grok-imagine-image@2026-11-01", "per_image 0.02"),
    ]);
    assert_eq!(rows(&import), rows_of_it);
    assert_eq!(import.prices[4].source(), "https://developers.openai.com/api/docs/pricing");
    assert_eq!(import.prices[4].seen(), period::day("2026-11-26"));
    let told = [
        ("bedrock/us-gov-west-1/amazon.nova-lite-v1:0", "is for a region or for terms of its own"),
        ("dashscope/qwen-flash", "has prices by several lengths of a prompt; a row has one such step"),
        ("gpt-transcribe", "has no price for tokens, calls or images"),
        ("low/1024-x-1024/gpt-image-1", "is for images of one size; a row has none"),
        ("morph/morph-dsv4flash", "cache_read_input_token_cost: 3.59375e-08 is finer than 1e-12 US dollars"),
    ];
    assert_eq!(skipped(&import), told);
    assert!(import.left_out.contains("output_cost_per_token_batches"), "{:?}", import.left_out);
    let openai = litellm(LITELLM, &terms(&["openai"])).unwrap();
    assert_eq!((openai.prices.len(), openai.skipped.len()), (2, 2));
}

#[test]
fn genai_prices_table_is_read_with_its_days_and_steps() {
    let import = genai_prices(GENAI, &terms(&["anthropic", "gcp.gemini", "perplexity", "deepseek"])).unwrap();
    let long = |step: &str| format!("input 5, cache_read 0.5, cache_write 6.25, cache_write_1h 10, output 25{step}",);
    let steps = ", long_above_tokens 200000, long_input 10, long_cache_read 1, long_cache_write 12.5, long_cache_write_1h 20, \
                 long_output 37.5";
    let rows = rows(&import);
    let of = |version: &str| rows.iter().find(|(_, named, _)| named == version).map(|(_, _, costs)| costs.clone());
    for model in ["claude-opus-4-6*", "claude-opus-4.6*", "claude-4-6-opus*", "claude-4.6-opus*"] {
        assert_eq!(of(&format!("{model}@1970-01-01")), Some(long(steps)), "{model}");
        assert_eq!(of(&format!("{model}@2026-03-13")), Some(long("")), "{model}");
    }
    assert_eq!(
        of("claude-haiku-5-5@2026-11-01").unwrap(),
        "input 0.1, cache_read 0.01, cache_write 0.125, cache_write_1h 0.2, output 0.5, long_above_tokens 100000, \
         long_input 0.5, long_cache_read 0.05, long_cache_write 0.625, long_cache_write_1h 1, long_output 2.5"
    );
    assert_eq!(of("gemini-4-argon@2026-12-01").unwrap(), "input 4, cache_read 0.2, output 20");
    assert_eq!(of("sonar@2026-11-01").unwrap(), "input 1, output 1, per_request 0.012");
    let told = [
        ("anthropic/claude-haiku-5-5", "names that match ^claude-haiku-5-5-\\d{8}$ have no pattern"),
        ("deepseek/deepseek-chat", "has prices by the time of day, from 00:30:00+00:00"),
        ("google/gemini-2.5-pro", "names that match several clauses at once have no pattern"),
        ("google/gemini-3.8-flash", "names that match several clauses at once have no pattern"),
        ("google/gemini-4-argon", "names that match ^gemini-4-argon-\\d have no pattern"),
    ];
    assert_eq!(skipped(&import), told);
    assert_eq!(import.left_out.iter().collect::<Vec<_>>(), ["web_searches_kcount"]);
    assert_eq!(import.prices[0].source(), "https://www.anthropic.com/pricing#api");
}

#[test]
fn what_cannot_be_a_row_is_told_and_the_rest_is_read() {
    let entry = |name: &str, costs: &str| format!(r#""{name}":{{"litellm_provider":"p"{costs}}}"#);
    let entries = [
        entry(
            "a",
            r#","input_cost_per_token":1e-06,"input_cost_per_token_above_128k_tokens":2e-06,"output_cost_per_token_above_200k_tokens":1e-6"#,
        ),
        entry("b", r#","input_cost_per_token":"1e-06""#),
        entry("c", r#","input_cost_per_token":2"#),
        entry("d", r#","input_cost_per_token":0,"output_cost_per_second":0.04"#),
        entry("e*f,g", r#","input_cost_per_token":1e-06"#),
        r#""h":[1],"i":{},"j":{"litellm_provider":3}"#.to_owned(),
        entry("k", r#","input_cost_per_token":0,"output_cost_per_image":0"#),
        entry("p/k", r#","input_cost_per_token":1e-06"#),
    ];
    let import = litellm(&format!("{{{}}}", entries.join(",")), &terms(&[])).unwrap();
    assert_eq!(rows(&import), expected(&[("p", "k@2026-11-01", "input 0")]));
    let told = [
        (
            "a",
            "output_cost_per_token_above_200k_tokens: has prices above 128000 and above 200000 tokens; a row has one such step",
        ),
        ("b", "input_cost_per_token: \"1e-06\" is no number from 0 up"),
        ("c", "input_cost_per_token: input costs more than 1000000 US dollars a million"),
        ("d", "is charged for by something else than tokens, calls and images"),
        ("e*f,g", "its name is no pattern of models"),
        ("h", "is no object"),
        ("i", "has no litellm_provider"),
        ("j", "has no litellm_provider"),
        ("p/k", "k@2026-11-01 is there already"),
    ];
    assert_eq!(skipped(&import), told);
    assert!(litellm("[]", &terms(&[])).unwrap_err().starts_with("no table of LiteLLM's: invalid type"));
    assert!(genai_prices("{}", &terms(&[])).unwrap_err().starts_with("no table of genai-prices: invalid type"));
}

#[test]
fn an_image_has_the_price_of_what_is_made() {
    let entry =
        |name: &str, mode: &str, costs: &str| format!(r#""{name}":{{"litellm_provider":"p","mode":"{mode}",{costs}}}"#);
    let (output, input) = (r#""output_cost_per_image":0.04"#, r#""input_cost_per_image":0.01"#);
    let tokens = r#""output_cost_per_image_token":4e-05"#;
    let entries = [
        entry("a", "image_generation", &format!("{input},{output}")),
        entry("b", "image_generation", input),
        entry("c", "chat", &format!(r#""input_cost_per_token":1e-06,{input},{tokens}"#)),
        entry("d", "image_edit", output),
        entry("e", "image_generation", &format!(r#"{tokens},"output_cost_per_token":1e-05"#)),
        entry("f", "image_generation", r#""output_cost_per_image":4e-10"#),
    ];
    let import = litellm(&format!("{{{}}}", entries.join(",")), &terms(&[])).unwrap();
    let of_it = [
        ("p", "a@2026-11-01", "per_image 0.04"),
        ("p", "b@2026-11-01", "per_image 0.01"),
        ("p", "c@2026-11-01", "input 1"),
        ("p", "d@2026-11-01", "per_image 0.04"),
        ("p", "e@2026-11-01", "output 10"),
    ];
    assert_eq!(rows(&import), expected(&of_it));
    assert_eq!(skipped(&import), [("f", "output_cost_per_image: 4e-10 is finer than 1e-9 US dollars")]);
}

#[test]
fn only_so_much_is_told() {
    let entries: Vec<_> = (0..MAX_SKIPPED_TOLD + 5).map(|number| format!("\"{number}\":0")).collect();
    let import = litellm(&format!("{{{}}}", entries.join(",")), &terms(&[])).unwrap();
    assert_eq!((import.skipped.len(), import.skipped_beyond), (MAX_SKIPPED_TOLD, 5));
    let long = " ".repeat(MAX_IMPORT_BYTES + 1);
    assert!(litellm(&long, &terms(&[])).unwrap_err().starts_with("the table has 33554433 bytes"));
}
