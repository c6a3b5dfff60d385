//! How the routes of records are told of in the API's description: alike for each kind, as they are handled alike.

use std::borrow::Cow;

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItemBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{
    ArrayBuilder, ComponentsBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::{
    ContentBuilder, HttpMethod, OpenApi, OpenApiBuilder, PathsBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::{Listed, Resource, Shown};
use crate::accounts::MAX_PAGE;
use crate::rest::openapi::{refusal, whole};

const TAG: &str = "accounts";

/// What is told of one kind's routes.
pub(super) fn of<T: Resource + ToSchema>() -> OpenApi {
    let [name, many] = [T::NAME, T::PATH.rsplit('/').next().unwrap_or(T::NAME)];
    let operation = |verb: &str, summary: &str| {
        OperationBuilder::new()
            .tag(TAG)
            .operation_id(Some(format!("{verb}_{}", many.replace('-', "_"))))
            .summary(Some(summary))
            .response("503", refusal("The accounts do not answer"))
    };
    let missing = || refusal(&format!("There is no such {name}, or none that may be seen"));
    let stale = || refusal("It has another version by now");
    let any = || ObjectBuilder::new().schema_type(Type::String);
    let text = |name: &str, what: &str, place: ParameterIn, required: Required, schema: ObjectBuilder| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(required)
            .description(Some(what))
            .schema(Some(schema.build()))
    };
    let limit = ParameterBuilder::new()
        .name("limit")
        .parameter_in(ParameterIn::Query)
        .schema(Some(whole::<1, { MAX_PAGE as u64 }>()))
        .description(Some("How many at most; 100 unless given"));
    let id =
        || text("id", "Its id", ParameterIn::Path, Required::True, any().min_length(Some(1)).max_length(Some(256)));
    let if_match = |what| text("If-Match", what, ParameterIn::Header, Required::False, etag());
    let list = operation("list", &format!("All of the {many}, in the order of their ids"))
        .parameter(text("tenant", "Those of this tenant alone", ParameterIn::Query, Required::False, any()))
        .parameter(text("cursor", "`next_cursor` of the page before", ParameterIn::Query, Required::False, any()))
        .parameter(limit)
        .response("200", shown::<Listed<T>>("A page"))
        .response("400", refusal("A parameter is not what it may be"));
    let read = operation("get", &format!("One of the {many}"))
        .parameter(id())
        .response("200", with_etag(shown::<Shown<T>>("It")))
        .response("400", refusal("The id is no text"))
        .response("404", missing());
    let put = operation("put", &format!("Makes or changes one of the {many}"))
        .parameter(id())
        .parameter(if_match("The ETag of the version that is changed; without it, one is made"))
        .request_body(Some(
            RequestBodyBuilder::new()
                .content("application/json", content::<T>())
                .required(Some(Required::True))
                .build(),
        ))
        .response("200", with_etag(shown::<Shown<T>>("It was changed")))
        .response("201", with_etag(shown::<Shown<T>>("It was made")))
        .response("400", refusal("A field is not what it may be"))
        .response("404", missing())
        .response("409", refusal("There is one already: name its version in If-Match to change it"))
        .response("412", stale())
        .response("413", refusal("The body is too long"))
        .response("415", refusal("The body is not said to be `application/json`"))
        .response("422", refusal("The JSON has another shape"));
    let delete = operation("delete", &format!("Deletes one of the {many}"))
        .parameter(id())
        .parameter(if_match("The ETag of the version that is deleted; it has to be named"))
        .response("204", ResponseBuilder::new().description("It is gone"))
        .response("400", refusal("If-Match is no version"))
        .response("404", missing())
        .response("409", refusal("Other records need it"))
        .response("412", stale())
        .response("428", refusal("If-Match is missing"));
    let all = PathItemBuilder::new().operation(HttpMethod::Get, list).build();
    let one = PathItemBuilder::new()
        .operation(HttpMethod::Get, read)
        .operation(HttpMethod::Put, put)
        .operation(HttpMethod::Delete, delete)
        .build();
    let mut schemas = Vec::new();
    <T as ToSchema>::schemas(&mut schemas);
    <Shown<T> as ToSchema>::schemas(&mut schemas);
    <Listed<T> as ToSchema>::schemas(&mut schemas);
    schemas.push((T::name().into_owned(), T::schema()));
    schemas.push((Shown::<T>::name().into_owned(), Shown::<T>::schema()));
    schemas.push((Listed::<T>::name().into_owned(), Listed::<T>::schema()));
    OpenApiBuilder::new()
        .paths(PathsBuilder::new().path(T::PATH, all).path(format!("{}/{{id}}", T::PATH), one).build())
        .components(Some(ComponentsBuilder::new().schemas_from_iter(schemas).build()))
        .build()
}

/// A record is shown with more beside its own fields, and has no others.
impl<T: ToSchema> PartialSchema for Shown<T> {
    fn schema() -> RefOr<Schema> {
        let moment = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .build();
        let version = whole::<1, { u64::MAX }>();
        beside::<T>([
            ("id", String::schema()),
            ("version", version.into()),
            ("created_at", moment.clone().into()),
            ("updated_at", moment.into()),
        ])
    }
}

impl<T: ToSchema> ToSchema for Shown<T> {
    fn name() -> Cow<'static, str> {
        format!("Shown{}", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
    }
}

impl<T: ToSchema> PartialSchema for Listed<T> {
    fn schema() -> RefOr<Schema> {
        let items = ArrayBuilder::new().items(Ref::from_schema_name(Shown::<T>::name())).build();
        let listed = ObjectBuilder::new().property("items", items).required("items");
        listed.property("next_cursor", String::schema()).build().into()
    }
}

impl<T: ToSchema> ToSchema for Listed<T> {
    fn name() -> Cow<'static, str> {
        format!("Listed{}", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Shown::<T>::name().into_owned(), Shown::<T>::schema()));
        Shown::<T>::schemas(schemas);
    }
}

/// The fields of `T`, and these.
pub(super) fn beside<T: PartialSchema>(more: impl IntoIterator<Item = (&'static str, RefOr<Schema>)>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = T::schema() else { return T::schema() };
    for (name, schema) in more {
        object.required.push(name.to_owned());
        object.properties.insert(name.to_owned(), schema);
    }
    Schema::Object(object).into()
}

fn content<T: ToSchema>() -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build()
}

fn shown<T: ToSchema>(what: &str) -> Response {
    ResponseBuilder::new().description(what).content("application/json", content::<T>()).build()
}

fn with_etag(response: Response) -> Response {
    let etag = HeaderBuilder::new().schema(String::schema()).description(Some("Its version")).build();
    let mut response = response;
    response.headers.insert("etag".to_owned(), etag);
    response
}

/// The id in a path, of what has routes of its own.
#[derive(IntoParams)]
#[into_params(names("id"), parameter_in = Path)]
#[allow(dead_code)] // It is there to be described.
pub(super) struct Id(String);

/// The version that is changed or deleted: the header `If-Match`.
#[derive(IntoParams)]
#[into_params(names("If-Match"), parameter_in = Header)]
#[allow(dead_code)] // It is there to be described.
pub(super) struct Version(#[param(schema_with = etag)] Option<String>);

/// A version, as it is told.
fn etag() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(r#"^"?[0-9]{1,18}"?$"#))
}
