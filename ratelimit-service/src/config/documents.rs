//! How the documents inside of records are told of in the API's description: limits, prices and terms of billing.
//!
//! What one field says of another has no words there: that concurrency has no window, say. Their readers check that.

use tollgate_domain::invoice::{MAX_SCOPES, MAX_STEPS, MAX_TAX_PPM};
use tollgate_domain::{MAX_LIMITS, TokenClass};
use tollgate_wire::usage_event::MAX_NAME_BYTES;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AdditionalProperties, Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType,
    Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::{MAX_LONG_CONTEXT_TOKENS, MAX_PATTERN_BYTES, MAX_SOURCE_BYTES};

/// Limits, in a record.
pub(crate) enum LimitsDocument {}

/// A price, in a record.
pub(crate) enum PriceDocument {}

/// Terms of billing, in a record.
pub(crate) enum TermsDocument {}

macro_rules! described {
    ($($document:ident: $schema:ident,)+) => {
        $(impl PartialSchema for $document {
            fn schema() -> RefOr<Schema> {
                $schema().into()
            }
        }

        impl ToSchema for $document {})+
    };
}

described! {
    LimitsDocument: limits,
    PriceDocument: price,
    TermsDocument: terms,
}

/// Limits, as a configuration's `limits` has them.
fn limits() -> Array {
    let pattern = || text("Models or APIs, with `*` for any characters", MAX_PATTERN_BYTES);
    let of = |what: &str, items: ObjectBuilder| list(what, items).min_items(Some(1));
    let scope = object("Which calls it counts; all where it is left out")
        .property("models", of("Models asked for", pattern()))
        .property("apis", of("APIs called", pattern()))
        .property("keys", of("Names of keys", text("A key's name", MAX_NAME_BYTES)));
    let weights = by_class(object("How often tokens count; once where nothing is said"), || {
        amount("By class of token, with at most 3 decimals")
    });
    let models = object("Of whole models, by pattern; the first that matches holds")
        .additional_properties(Some(AdditionalProperties::RefOr(Schema::Object(amount("A weight").build()).into())));
    let limit = object("A limit")
        .property("unit", one_of(&["requests", "tokens", "input_tokens", "output_tokens", "cost", "concurrency"]))
        .property("capacity", amount("What may be taken in a window; US dollars of cost"))
        .property(
            "window",
            one_of(&["second", "minute", "hour", "day", "month"]).description(Some("Not of concurrency")),
        )
        .property(
            "burst",
            amount("How much may be taken at once; the capacity unless given, and not of days and months"),
        )
        .property("action", one_of(&["enforce", "warn", "shadow"]))
        .property("match", scope)
        .property("weights", weights.property("models", models))
        .required("unit")
        .required("capacity");
    list("Limits that hold together", limit).max_items(Some(MAX_LIMITS)).build()
}

/// A version of a price, in US dollars: as texts, so that no digit is lost.
fn price() -> Object {
    let usd = || {
        let usd = text("US dollars for a million tokens", 16).pattern(Some(r"^[0-9]{1,7}(\.[0-9]{1,6})?$"));
        usd.examples(["0.15"])
    };
    let day = || {
        let day = SchemaFormat::KnownFormat(KnownFormat::Date);
        ObjectBuilder::new().schema_type(Type::String).format(Some(day))
    };
    let above = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1_u64));
    let above = above.maximum(usize::try_from(MAX_LONG_CONTEXT_TOKENS).ok());
    let long = by_class(object("Other prices for calls whose prompt is long"), usd)
        .property("above_tokens", above)
        .required("above_tokens");
    let each = |what: &str| text(what, 19).pattern(Some(r"^[0-9]{1,7}(\.[0-9]{1,9})?$"));
    by_class(object("A price from a day on; a class without one costs as plain input or output"), usd)
        .property("model", text("The models, with `*` for any characters", MAX_PATTERN_BYTES))
        .property(
            "provider",
            text("Whose calls, by OpenTelemetry's name; everybody's where it is left out", MAX_NAME_BYTES),
        )
        .property("from", day().description(Some("The first UTC day; always unless given")))
        .property("per_request", each("US dollars for each call"))
        .property("per_image", each("US dollars for each image"))
        .property("long_context", long)
        .property("source", text("Where it was read", MAX_SOURCE_BYTES).min_length(Some(0)))
        .property("seen", day().description(Some("When it was read there")))
        .required("model")
        .build()
}

/// How a plan's tenants are billed.
fn terms() -> Object {
    let usd = |what: &str| text(what, 16).pattern(Some(r"^[0-9]{1,13}(\.[0-9]{1,2})?$")).examples(["49.00"]);
    let quantity = || text("A number from 0 up", 40).pattern(Some(r"^[0-9]{1,20}(\.[0-9]{1,6})?$"));
    let ppm = |what: &str| ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_u64)).description(Some(what));
    let of = |what: &str| {
        object(what)
            .property("meter", text("`tokens.<class>`, `requests`, `images` or `event.<type>`", MAX_NAME_BYTES))
            .property("models", text("The models; `*` is also what has none", MAX_PATTERN_BYTES))
            .required("meter")
            .required("models")
    };
    let step = object("A part of the quantity")
        .property("up_to", quantity().description(Some("Where it ends; of all but the last")))
        .property("factor_ppm", ppm("What a unit costs in it, in millionths of its price"))
        .required("factor_ppm");
    let steps = list("From the first unit on that is not included", step).min_items(Some(1)).max_items(Some(MAX_STEPS));
    let included = of("A quantity that is free in every month").property("quantity", quantity()).required("quantity");
    let volume = of("What much usage costs less").property("steps", steps).required("steps");
    let price = text("US dollars for one", 30).pattern(Some(r"^[0-9]{1,7}(\.[0-9]{1,12})?$")).build();
    let events = object("Prices of tracked events, by type")
        .additional_properties(Some(AdditionalProperties::RefOr(Schema::Object(price).into())));
    object("What is agreed on beside the prices; nothing of it has to be given")
        .property("minimum", usd("The least that a month comes to"))
        .property("included", list("Of those that match, the first holds", included).max_items(Some(MAX_SCOPES)))
        .property("volume", list("Of those that match, the first holds", volume).max_items(Some(MAX_SCOPES)))
        .property("tax_ppm", ppm("Tax, in millionths of what is taxed").maximum(Some(MAX_TAX_PPM)))
        .property("credits", usd("All that each tenant was ever granted"))
        .property("events", events)
        .build()
}

fn object(what: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some(what))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

fn list(what: &str, items: ObjectBuilder) -> ArrayBuilder {
    ArrayBuilder::new().items(items).description(Some(what))
}

fn text(what: &str, most: usize) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(what));
    text.min_length(Some(1)).max_length(Some(most))
}

/// Numbers are read from their digits, wherever they stand.
fn amount(what: &str) -> ObjectBuilder {
    let number = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Number, Type::String]));
    number.minimum(Some(0_u64)).description(Some(what))
}

fn one_of(names: &[&'static str]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names.iter().copied()))
}

/// With a property for each class of token.
fn by_class(object: ObjectBuilder, each: impl Fn() -> ObjectBuilder) -> ObjectBuilder {
    TokenClass::ALL.into_iter().fold(object, |object, class| object.property(class.as_str(), each()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use tollgate_domain::{Action, Unit, Window};

    use super::*;
    use crate::billing::Agreement;
    use crate::config;

    /// A document has each field that is told of, and is read.
    fn has_all(schema: &Value, document: &Value) {
        let names = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(document), names(&schema["properties"]));
    }

    #[test]
    fn what_is_told_of_is_read() {
        let limit = json!({"unit": "tokens", "capacity": 10.0, "window": "minute", "burst": "20", "action": "warn",
            "match": {"models": ["gpt-*"], "apis": ["openai-*"], "keys": ["ci"]},
            "weights": {"input": 1, "cache_read": "0.1", "cache_write": 1.25, "cache_write_1h": 2, "audio_input": 1, "output": 1,
                "reasoning": 1, "audio_output": 1, "models": {"gpt-4*": 2}}});
        let schema = serde_json::to_value(limits()).unwrap();
        has_all(&schema["items"], &limit);
        has_all(&schema["items"]["properties"]["match"], &limit["match"]);
        has_all(&schema["items"]["properties"]["weights"], &limit["weights"]);
        config::limits(&json!([limit]).to_string()).unwrap();
        let limit = &schema["items"]["properties"];
        assert!(serde_json::from_value::<Vec<Unit>>(limit["unit"]["enum"].clone()).is_ok());
        assert!(serde_json::from_value::<Vec<Window>>(limit["window"]["enum"].clone()).is_ok());
        assert!(serde_json::from_value::<Vec<Action>>(limit["action"]["enum"].clone()).is_ok());

        let classes = TokenClass::ALL.map(|class| (class.as_str().to_owned(), json!("0.15")));
        let mut given = json!({"model": "gpt-*", "provider": "openai", "from": "2026-01-31", "per_request": "0.001", "per_image": "0.04", "source": "here",
            "seen": "2026-02-01"});
        let mut long = json!({"above_tokens": 200_000});
        for document in [&mut given, &mut long] {
            document.as_object_mut().unwrap().extend(classes.clone());
        }
        given["long_context"] = long;
        let schema = serde_json::to_value(price()).unwrap();
        has_all(&schema, &given);
        has_all(&schema["properties"]["long_context"], &given["long_context"]);
        config::price_from_json(given).unwrap();

        let given = json!({"minimum": "49.00", "tax_ppm": 190_000, "credits": "10", "events": {"image": "0.04"},
            "included": [{"meter": "tokens.input", "models": "*", "quantity": "1000000"}],
            "volume": [{"meter": "requests", "models": "*",
                "steps": [{"up_to": "1000", "factor_ppm": 1_000_000}, {"factor_ppm": 900_000}]}]});
        let schema = serde_json::to_value(terms()).unwrap();
        has_all(&schema, &given);
        for list in ["included", "volume"] {
            has_all(&schema["properties"][list]["items"], &given[list][0]);
        }
        Agreement::read(&given.to_string()).unwrap();
    }
}
