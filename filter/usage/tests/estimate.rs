//! How near the estimate of a text's tokens comes to what `o200k_base` counts, by language. The weights were not fitted to any
//! of these texts.

use std::fs;
use std::path::Path;

use tiktoken_rs::{CoreBPE, o200k_base};
use tollgate_usage::TextEstimate;

const LANGUAGES: [&str; 11] =
    ["english", "code", "json", "german", "chinese", "japanese", "arabic", "russian", "hindi", "korean", "emoji"];
/// Of the relative errors over a language's passages.
const MAX_MEDIAN: f64 = 0.15;
const MAX_PERCENTILE_95: f64 = 0.35;

#[derive(Clone, Copy)]
enum Escapes {
    /// Only those that JSON needs.
    Few,
    /// All that is not ASCII.
    All,
}

#[test]
fn estimates_are_near_the_tokenizers_counts() {
    let tokenizer = o200k_base().unwrap();
    println!("{:<10}{:>10}{:>9}{:>9}{:>9}", "", "passages", "bias", "median", "95 %");
    let mut missed = Vec::new();
    for language in LANGUAGES {
        let passages = passages(language);
        assert!(passages.len() >= 20, "{language}");
        let mut errors: Vec<_> = passages.iter().map(|passage| error(&tokenizer, passage, Escapes::Few)).collect();
        let bias = errors.iter().sum::<f64>() / errors.len() as f64;
        errors.iter_mut().for_each(|error| *error = error.abs());
        errors.sort_by(f64::total_cmp);
        let (median, percentile_95) = (errors[errors.len() / 2], errors[(errors.len() * 95).div_ceil(100) - 1]);
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let columns = [bias, median, percentile_95].map(percent);
        println!("{language:<10}{:>10}{:>9}{:>9}{:>9}", errors.len(), columns[0], columns[1], columns[2]);
        if median >= MAX_MEDIAN || percentile_95 >= MAX_PERCENTILE_95 {
            missed.push(language);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn escapes_cost_what_their_characters_cost() {
    for passage in LANGUAGES.into_iter().flat_map(passages) {
        let (few, all) = (estimate(&passage, Escapes::Few), estimate(&passage, Escapes::All));
        assert_eq!(few, all, "{passage}");
    }
}

/// The relative error; a positive one is an estimate that is too high.
fn error(tokenizer: &CoreBPE, passage: &str, escapes: Escapes) -> f64 {
    let counted = tokenizer.encode_ordinary(passage).len() as f64;
    estimate(passage, escapes) as f64 / counted - 1.0
}

fn estimate(passage: &str, escapes: Escapes) -> u64 {
    let mut json = serde_json::to_string(passage).unwrap();
    if let Escapes::All = escapes {
        let mut units = [0; 2];
        let escaped = |unit: &u16| format!("\\u{unit:04x}");
        json = json
            .chars()
            .map(|character| match character {
                '\0'..='\x7f' => character.to_string(),
                _ => character.encode_utf16(&mut units).iter().map(escaped).collect(),
            })
            .collect();
    }
    let mut estimate = TextEstimate::default();
    estimate.feed(&json.as_bytes()[1..json.len() - 1]);
    estimate.tokens()
}

fn passages(language: &str) -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/texts").join(language);
    fs::read_dir(dir).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}
