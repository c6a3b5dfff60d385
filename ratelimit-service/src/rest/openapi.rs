//! The API's description in OpenAPI 3.1. Each route is described where it is handled; here is what all have in common.
//!
//! Bounds stand in it as they are enforced: as numbers, where the attributes take no constants. The fuzz of the API sends what
//! lies on and past each.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi as _};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::problem;

/// Where the description is served.
const DOCUMENT: &str = "/openapi.json";

/// Where people read it.
const PAGE: &str = "/docs";

/// What the description begins with.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Tollgate",
        description = "Usage, limits and billable events of tenants. Amounts that must be exact are texts; moments \
                       are RFC 3339, and days, weeks and months are those of UTC. A refusal is an \
                       `application/problem+json`: 404 where nothing is served, 405 with `Allow` where a path does not \
                       take the method, and what each operation tells."
    ),
    components(schemas(problem::Body)),
    tags(
        (name = "usage", description = "What tenants used"),
        (name = "limits", description = "What tenants may still use"),
        (name = "events", description = "What is to be billed"),
        (name = "accounts", description = "Tenants, plans, limits, budgets, prices, keys and webhooks"),
        (name = "prices", description = "What models cost, and what calls would"),
        (name = "invoices", description = "What tenants have to pay"),
        (name = "admin", description = "What operators do"),
        (name = "service", description = "The service itself"),
    ),
    modifiers(&Keys)
)]
struct Head;

/// The scheme by which who asks is known.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("tg_…").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// The description without any route.
pub(super) fn head() -> OpenApi {
    Head::openapi()
}

/// The description, and the page that shows it. The page's scripts are ours: it loads nothing from elsewhere.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(document: OpenApi) -> Router<S> {
    // The validator would be a service in the internet that is told the description's address.
    let config = Config::from(DOCUMENT).validator_url("none");
    let document = Json(document);
    Router::new().route(DOCUMENT, get(async move || document)).merge(SwaggerUi::new(PAGE).config(config))
}

/// Says of every operation that it may be refused so.
pub(super) fn add_refusal(document: &mut OpenApi, status: StatusCode, refusal: &Response) {
    let paths = document.paths.paths.values_mut();
    let operations =
        paths.flat_map(|path| [&mut path.get, &mut path.post, &mut path.put, &mut path.patch, &mut path.delete]);
    for operation in operations.flatten() {
        refuse(operation, status, refusal);
    }
}

/// Says likewise of one.
pub(super) fn refuse(operation: &mut Operation, status: StatusCode, refusal: &Response) {
    match operation.responses.responses.entry(status.as_str().to_owned()) {
        // A route's own answer of this status stays beside it.
        Entry::Occupied(mut own) => {
            if let RefOr::T(own) = own.get_mut() {
                own.content.extend(refusal.content.clone());
                own.headers.extend(refusal.headers.clone());
            }
        }
        Entry::Vacant(none) => {
            none.insert(refusal.clone().into());
        }
    }
}

/// What every route that needs a key may answer.
pub(super) fn without_right() -> [(StatusCode, Response); 2] {
    let unknown = refusal("A key is needed, or the one that is shown is not known, has expired or was revoked");
    [(StatusCode::UNAUTHORIZED, unknown.build()), (StatusCode::FORBIDDEN, refusal("The key may not do that").build())]
}

/// A refusal as a [`Problem`](problem::Problem).
pub(super) fn refusal(what: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(what).content(problem::CONTENT_TYPE, content)
}

/// One that helps to wait for.
pub(super) fn refusal_for_now(what: &str) -> ResponseBuilder {
    let seconds = HeaderBuilder::new().schema(whole::<0, { u64::MAX }>()).description(Some("Seconds to wait"));
    refusal(what).header("retry-after", seconds.build())
}

type Responses = BTreeMap<String, RefOr<Response>>;

fn responses(refusals: impl IntoIterator<Item = (StatusCode, ResponseBuilder)>) -> Responses {
    let response =
        |(status, refusal): (StatusCode, ResponseBuilder)| (status.as_str().to_owned(), refusal.build().into());
    refusals.into_iter().map(response).collect()
}

/// The refusals of what is asked with parameters.
pub(super) struct Asked;

impl IntoResponses for Asked {
    fn responses() -> Responses {
        responses([
            (StatusCode::BAD_REQUEST, refusal("A parameter is not what it may be")),
            (StatusCode::SERVICE_UNAVAILABLE, refusal("A database does not answer")),
        ])
    }
}

/// The refusals of what is sent as JSON.
pub(super) struct Sent;

impl IntoResponses for Sent {
    fn responses() -> Responses {
        let refusals = [
            (StatusCode::BAD_REQUEST, refusal("The body is no JSON, or a parameter or field is not what it may be")),
            (StatusCode::PAYLOAD_TOO_LARGE, refusal("The body is too long")),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, refusal("The body is not said to be `application/json`")),
            (StatusCode::UNPROCESSABLE_ENTITY, refusal("The JSON has another shape")),
            (StatusCode::SERVICE_UNAVAILABLE, refusal("A database does not answer")),
        ];
        responses(refusals)
    }
}

/// The refusal of what is looked for by its id.
pub(super) struct Found;

impl IntoResponses for Found {
    fn responses() -> Responses {
        responses([(StatusCode::NOT_FOUND, refusal("There is none that may be seen"))])
    }
}

/// The refusals of what is changed by its version.
pub(super) struct Changed;

impl IntoResponses for Changed {
    fn responses() -> Responses {
        responses([
            (StatusCode::NOT_FOUND, refusal("There is none that may be seen")),
            (StatusCode::PRECONDITION_FAILED, refusal("It has another version by now")),
            (StatusCode::PRECONDITION_REQUIRED, refusal("If-Match is missing")),
        ])
    }
}

/// The refusals of what is kept for the ledger, besides those of its form.
pub(super) struct Kept;

impl IntoResponses for Kept {
    fn responses() -> Responses {
        responses([
            (StatusCode::TOO_MANY_REQUESTS, refusal_for_now("Too much waits for the ledger")),
            (StatusCode::SERVICE_UNAVAILABLE, refusal_for_now("Nothing can be kept")),
        ])
    }
}

/// A whole number of these bounds.
pub(super) fn whole<const LEAST: u64, const MOST: u64>() -> Object {
    let bound = |bound: u64| usize::try_from(bound).ok();
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    number.minimum(bound(LEAST)).maximum(bound(MOST)).build()
}

/// One of these texts.
pub(super) fn one_of<const N: usize>(names: [&'static str; N]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::{env, fs};

    use utoipa::openapi::OpenApi;

    use crate::rest;

    /// Beside this crate's manifest.
    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

    /// Set to write the file anew.
    const RENEW: &str = "TOLLGATE_RENEW_OPENAPI";

    fn document() -> OpenApi {
        rest::service().merge(rest::api()).into_openapi()
    }

    #[test]
    fn the_description_is_the_one_that_was_agreed_on() {
        let document = document().to_pretty_json().unwrap() + "\n";
        if env::var_os(RENEW).is_some() {
            fs::write(GOLDEN, &document).unwrap();
        }
        let golden = fs::read_to_string(GOLDEN).unwrap_or_default();
        let changed = document.lines().zip(golden.lines()).position(|(now, then)| now != then);
        assert!(
            document == golden,
            "the API's description differs from {GOLDEN} from line {} on; if that is meant, run this test with \
             {RENEW}=1 and look at the file's changes",
            changed.unwrap_or_else(|| document.lines().count().min(golden.lines().count())) + 1,
        );
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_a_summary_and_a_tag() {
        let document = serde_json::to_value(document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let operations: Vec<_> = paths.values().flat_map(|path| path.as_object().unwrap().values()).collect();
        let names: BTreeSet<_> =
            operations.iter().map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), operations.len(), "{names:?}");
        let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
        for operation in operations {
            assert!(operation["summary"].is_string() && tags.contains(&&operation["tags"][0]), "{operation}");
        }
    }
}
