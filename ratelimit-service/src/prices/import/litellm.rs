//! LiteLLM's `model_prices_and_context_window.json`: an object of models, with US dollars for a token.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tollgate_domain::{Price, TokenClass};

use super::{Costs, Import, Terms, bounded, number, source};

/// The entry that explains the others.
const SAMPLE: &str = "sample_spec";

const OUTPUT: &str = "output_cost_per_token";

/// Where prices of tokens stand.
const CLASSES: [(&str, TokenClass); 8] = [
    ("input_cost_per_token", TokenClass::Input),
    ("cache_read_input_token_cost", TokenClass::CacheRead),
    ("cache_creation_input_token_cost", TokenClass::CacheWrite),
    ("cache_creation_input_token_cost_above_1hr", TokenClass::CacheWrite1h),
    ("input_cost_per_audio_token", TokenClass::AudioInput),
    (OUTPUT, TokenClass::Output),
    ("output_cost_per_reasoning_token", TokenClass::Reasoning),
    ("output_cost_per_audio_token", TokenClass::AudioOutput),
];

/// What a call costs, whatever its tokens.
const PER_REQUEST: &str = "input_cost_per_request";

/// What an image costs; where nothing but images is made and the first is missing, the second is the price of one of these.
const PER_IMAGE: [&str; 2] = ["output_cost_per_image", "input_cost_per_image"];

/// What a token of an image costs; where nothing but images is made and no other is given, it is the price of all output.
const OUTPUT_PER_IMAGE_TOKEN: &str = "output_cost_per_image_token";

/// The mode of models that make nothing but images.
const MAKES_IMAGES: &str = "image_generation";

/// Prices by several lengths of a prompt.
const TIERS: &str = "tiered_pricing";

/// Providers that OpenTelemetry calls otherwise. More than one of theirs may be one of its.
const PROVIDERS: [(&str, &str); 13] = [
    ("azure", "azure.ai.openai"),
    ("azure_ai", "azure.ai.inference"),
    ("bedrock", "aws.bedrock"),
    ("bedrock_converse", "aws.bedrock"),
    ("cohere_chat", "cohere"),
    ("fireworks_ai", "fireworks"),
    ("gemini", "gcp.gemini"),
    ("mistral", "mistral_ai"),
    ("text-completion-openai", "openai"),
    ("together_ai", "together"),
    ("watsonx", "ibm.watsonx.ai"),
    ("xai", "x_ai"),
    ("zai", "z_ai"),
];

/// Google's other platform has a provider for each kind of model there.
const VERTEX: &str = "vertex_ai";

type Entry<'t> = BTreeMap<String, &'t RawValue>;

/// Reads the table. Its prices have no days, and are all from [`Terms::from`] on.
///
/// # Errors
/// When it is no JSON object, or too long.
pub fn litellm(text: &str, terms: &Terms<'_>) -> Result<Import, String> {
    let models: BTreeMap<String, &RawValue> =
        serde_json::from_str(bounded(text)?).map_err(|error| format!("no table of LiteLLM's: {error}"))?;
    let mut import = Import::default();
    for (name, entry) in models.iter().filter(|(name, _)| *name != SAMPLE) {
        let Ok(entry) = serde_json::from_str::<Entry<'_>>(entry.get()) else {
            import.skip(name, "is no object");
            continue;
        };
        let Some(theirs) = text_of(&entry, "litellm_provider") else {
            import.skip(name, "has no litellm_provider");
            continue;
        };
        let provider = provider(&theirs);
        if !terms.wants(provider) {
            continue;
        }
        match row(name, &theirs, &entry, terms, &mut import) {
            Ok(price) => import.push(name, price),
            Err(why) => import.skip(name, why),
        }
    }
    Ok(import)
}

fn provider(theirs: &str) -> &str {
    if theirs.starts_with(VERTEX) {
        return "gcp.vertex_ai";
    }
    PROVIDERS.iter().find(|(known, _)| *known == theirs).map_or(theirs, |(_, ours)| ours)
}

fn row(name: &str, theirs: &str, entry: &Entry<'_>, terms: &Terms<'_>, import: &mut Import) -> Result<Price, String> {
    let model = model(name, theirs)?;
    if entry.contains_key(TIERS) {
        return Err("has prices by several lengths of a prompt; a row has one such step".to_owned());
    }
    if name.split('/').any(|part| part.contains("-x-")) {
        return Err("is for images of one size; a row has none".to_owned());
    }
    let makes_images = text_of(entry, "mode").as_deref() == Some(MAKES_IMAGES);
    let per_image = PER_IMAGE.iter().take(1 + usize::from(makes_images)).find(|key| entry.contains_key(**key));
    let mut costs = Costs::default();
    for (key, value) in entry.iter().filter(|(key, _)| key.contains("cost")) {
        let named = |why: String| format!("{key}: {why}");
        let (plain, above) = match key.as_str() {
            OUTPUT_PER_IMAGE_TOKEN if makes_images && !entry.contains_key(OUTPUT) => (OUTPUT, None),
            key => long(key),
        };
        if let Some((_, class)) = CLASSES.iter().find(|(known, _)| *known == plain) {
            let picousd = number::read(value.get(), 12).map_err(named)?;
            costs.add(*class, picousd, above).map_err(named)?;
        } else if key == PER_REQUEST {
            let nanousd = number::read(value.get(), 9).map_err(named)?;
            costs.per_request_nanousd = u64::try_from(nanousd).map_err(|_| named("is too large".to_owned()))?;
        } else if per_image.is_some_and(|per_image| per_image == key) {
            let nanousd = number::read(value.get(), 9).map_err(named)?;
            costs.per_image_nanousd = u64::try_from(nanousd).map_err(|_| named("is too large".to_owned()))?;
        } else {
            costs.has_other |= number::read(value.get(), 12) != Ok(0);
            import.left_out.insert(key.clone());
        }
    }
    let price = costs.price(model, provider(theirs), terms)?;
    Ok(price.with_source(source(text_of(entry, "source").as_deref()), Some(terms.seen)))
}

/// The name that the provider's API takes: the table puts some providers' before it.
fn model<'n>(name: &'n str, theirs: &str) -> Result<&'n str, String> {
    let family = theirs.split(['-', '/']).next().unwrap_or_default();
    let prefixes =
        [theirs, family, provider(theirs), theirs.trim_end_matches("_chat"), theirs.trim_end_matches("_converse")];
    let model = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)?.strip_prefix('/')).unwrap_or(name);
    // What is left of Bedrock's and Azure's is a region, or terms that were agreed on.
    if model.contains('/') && matches!(provider(theirs), "aws.bedrock" | "azure.ai.openai") {
        return Err("is for a region or for terms of its own".to_owned());
    }
    Ok(model)
}

/// A key without `_above_200k_tokens`, and those tokens.
fn long(key: &str) -> (&str, Option<u64>) {
    let stripped = key.strip_suffix("k_tokens").and_then(|key| key.rsplit_once("_above_"));
    let parsed = stripped.and_then(|(key, thousands)| Some((key, thousands.parse::<u32>().ok()?)));
    parsed.map_or((key, None), |(key, thousands)| (key, Some(u64::from(thousands) * 1000)))
}

fn text_of(entry: &Entry<'_>, key: &str) -> Option<String> {
    serde_json::from_str(entry.get(key)?.get()).ok()
}
