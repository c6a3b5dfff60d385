//! Usage events as OTLP logs over HTTP: in protobuf or JSON, and answered in the same
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRef, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::read::MultiGzDecoder;
use prost::Message;
use tollgate_wire::proto::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use tonic::{Code, Status};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::otlp::{MAX_EXPORT_BYTES, RETRY_AFTER_S};
use super::{Collector, json};

/// The largest body that is read, in bytes as they come; what is unpacked has at most [`MAX_EXPORT_BYTES`].
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// What a body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// What takes exports.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Collector: FromRef<S>,
{
    OpenApiRouter::new().routes(routes!(export)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// An `ExportLogsServiceRequest`, as OpenTelemetry describes it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it tells of what `json` reads")]
struct ExportLogs {
    resource_logs: Option<Vec<serde_json::Map<String, serde_json::Value>>>,
}

/// An `ExportLogsServiceResponse`: what was not taken, if anything.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it tells of what `json` writes")]
struct ExportedLogs {
    partial_success: Option<PartialSuccess>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it tells of what `json` writes")]
struct PartialSuccess {
    /// A whole number.
    rejected_log_records: String,
    error_message: String,
}

/// A `google.rpc.Status`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it tells of what `json` writes")]
struct RpcStatus {
    code: i32,
    message: String,
    details: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// A message in protobuf.
struct Protobuf;

impl ToSchema for Protobuf {}

impl PartialSchema for Protobuf {
    fn schema() -> RefOr<Schema> {
        let bytes = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(bytes)).build().into()
    }
}

/// How an export is refused whose content is not at fault.
struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let refusals = [
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too long"),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is neither JSON nor protobuf, or is packed otherwise"),
            (StatusCode::TOO_MANY_REQUESTS, "Too much waits for the ledger; Retry-After tells when to come back"),
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing can be kept; Retry-After tells when to come back"),
        ];
        let content = |schema: RefOr<Schema>| ContentBuilder::new().schema(Some(schema)).build();
        let refusal = |(status, what): (StatusCode, &str)| {
            let response = ResponseBuilder::new()
                .description(what)
                .content("application/json", content(Ref::from_schema_name(RpcStatus::name()).into()))
                .content("application/x-protobuf", content(Ref::from_schema_name(Protobuf::name()).into()));
            (status.as_str().to_owned(), response.build().into())
        };
        refusals.into_iter().map(refusal).collect()
    }
}

/// Usage events as OpenTelemetry's logs
///
/// In JSON or protobuf, packed by gzip or not; the answer is in the same.
#[utoipa::path(post, path = "/v1/logs", tag = "events",
    request_body(content((ExportLogs = "application/json"), (Protobuf = "application/x-protobuf"))), responses(
        (status = 200, description = "The export is kept",
            content((ExportedLogs = "application/json"), (Protobuf = "application/x-protobuf"))),
        (status = 400, description = "The body is no export",
            content((RpcStatus = "application/json"), (Protobuf = "application/x-protobuf"))),
        Refused,
    ))]
async fn export(
    State(collector): State<Collector>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Some(encoding) = Encoding::of(&headers) else {
        let what = "content-type: application/x-protobuf or application/json is understood";
        return Encoding::Json.refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &Status::invalid_argument(what));
    };
    let request = match body {
        Ok(body) => unpacked(&headers, &body).and_then(|body| encoding.request(&body)),
        Err(rejection) => Err((rejection.status(), rejection.body_text())),
    };
    let request = match request {
        Ok(request) => request,
        Err((status, what)) => return encoding.refusal(status, &Status::invalid_argument(what)),
    };
    match collector.take(&request, peer.map(|Extension(ConnectInfo(peer))| peer)).await {
        Ok(response) => encoding.answer(StatusCode::OK, response.encode_to_vec(), || json::response(&response)),
        Err(status) => encoding.refusal(http_status(status.code()), &status),
    }
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The body as its sender wrote it.
fn unpacked(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, (StatusCode, String)> {
    match text(headers, header::CONTENT_ENCODING).as_deref() {
        None | Some("" | "identity") => Ok(body.clone()),
        Some("gzip") => {
            let mut unpacked = Vec::new();
            let most = MAX_EXPORT_BYTES as u64;
            let read = MultiGzDecoder::new(body.as_ref()).take(most + 1).read_to_end(&mut unpacked);
            read.map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is no gzip: {error}")))?;
            if unpacked.len() > MAX_EXPORT_BYTES {
                let what = format!("the body has more than {MAX_EXPORT_BYTES} bytes once it is unpacked");
                return Err((StatusCode::PAYLOAD_TOO_LARGE, what));
            }
            Ok(unpacked.into())
        }
        Some(_) => Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-encoding: gzip is understood".to_owned())),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_ascii_lowercase())
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Encoding> {
        let content_type = text(headers, header::CONTENT_TYPE)?;
        match content_type.split(';').next().unwrap_or_default().trim_end() {
            "application/x-protobuf" => Some(Encoding::Protobuf),
            "application/json" => Some(Encoding::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        })
    }

    fn request(self, body: &Bytes) -> Result<ExportLogsServiceRequest, (StatusCode, String)> {
        let refused = |error| (StatusCode::BAD_REQUEST, format!("the body is no ExportLogsServiceRequest: {error}"));
        match self {
            Encoding::Protobuf => {
                ExportLogsServiceRequest::decode(body.clone()).map_err(|error| refused(error.to_string()))
            }
            Encoding::Json => json::request(body).map_err(refused),
        }
    }

    fn answer(self, status: StatusCode, protobuf: Vec<u8>, json: impl FnOnce() -> serde_json::Value) -> Response {
        let body = match self {
            Encoding::Protobuf => protobuf,
            Encoding::Json => json().to_string().into_bytes(),
        };
        (status, [(header::CONTENT_TYPE, self.content_type())], body).into_response()
    }

    /// A `google.rpc.Status`.
    fn refusal(self, http: StatusCode, status: &Status) -> Response {
        let (code, message) = (status.code().into(), status.message().to_owned());
        let protobuf = match status.details() {
            [] => tonic_types::Status { code, message, details: Vec::new() }.encode_to_vec(),
            // They are the whole message (https://grpc.io/docs/guides/error/#richer-error-model).
            details => details.to_vec(),
        };
        let mut response = self.answer(http, protobuf, || json::status(status));
        if matches!(http, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}

#[cfg(test)]
mod tests;
