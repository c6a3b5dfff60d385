//! Invoices: listed, shown as JSON, CSV, HTML or PDF, made and taken further.
//!
//! A tenant's key sees invoices of its own that are final, and no drafts: a draft is the operator's until it is what is
//! to be paid; what the tenant has used so far it is told by its usage. It changes none.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tollgate_domain::invoice::State as InvoiceState;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::listing::ListQuery;
use super::openapi::{Asked, Sent};
use super::problem::{self, Problem};
use super::{Shared, rfc3339, tenant};
use crate::accounts::{self, InvoiceStatus};
use crate::billing::{Billing, KIND, Kept, Step};
use crate::invoices;

/// The routes of invoices.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(list_invoices))
        .routes(routes!(get_invoice))
        .routes(routes!(generate_invoice))
        .routes(routes!(finalise_invoice))
        .routes(routes!(pay_invoice))
        .routes(routes!(void_invoice))
}

/// An invoice without its lines. Amounts are decimal numbers in US dollars.
#[derive(Debug, Serialize, ToSchema)]
struct InvoiceSummary {
    id: String,
    tenant_id: String,
    status: Status,
    /// One more with each change.
    version: u64,
    #[schema(format = DateTime)]
    period_start: String,
    #[schema(format = DateTime)]
    period_end: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    currency: &'static str,
    usage: String,
    adjustments: String,
    tax: String,
    credits_used: String,
    total: String,
    /// How much of the usage rests on estimates, exactly.
    estimated: String,
    /// Calls that no price is known for.
    calls_without_price: u64,
}

/// How far an invoice is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = InvoiceStatus)]
enum Status {
    /// It may still change.
    Draft,
    /// It is owed.
    Final,
    /// It is paid.
    Paid,
    /// It does not count any more.
    Void,
}

impl From<InvoiceState> for Status {
    fn from(state: InvoiceState) -> Status {
        match state {
            InvoiceState::Draft => Status::Draft,
            InvoiceState::Finalised { .. } => Status::Final,
            InvoiceState::Paid { .. } => Status::Paid,
            InvoiceState::Void { .. } => Status::Void,
        }
    }
}

impl From<&Kept> for InvoiceSummary {
    fn from(kept: &Kept) -> InvoiceSummary {
        let bill = kept.bill();
        let totals = &bill.totals;
        InvoiceSummary {
            id: kept.id.clone(),
            tenant_id: bill.tenant.clone(),
            status: kept.invoice.state().into(),
            version: kept.version,
            period_start: rfc3339(bill.month.start_ms),
            period_end: rfc3339(bill.month.end_ms),
            created_at: rfc3339(kept.created_at_ms),
            updated_at: rfc3339(kept.updated_at_ms),
            currency: invoices::CURRENCY,
            usage: totals.usage.to_string(),
            adjustments: totals.adjustments.to_string(),
            tax: totals.tax.to_string(),
            credits_used: totals.credits_used.to_string(),
            total: totals.total.to_string(),
            estimated: totals.estimated.to_string(),
            calls_without_price: kept.calls_without_price,
        }
    }
}

/// A page of invoices, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
struct InvoicePage {
    items: Vec<InvoiceSummary>,
    /// For `cursor`, where there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Invoices, without their lines
#[utoipa::path(get, path = "/api/v1/invoices", tag = "invoices", params(ListQuery),
    responses((status = 200, body = InvoicePage, description = "A page"), Asked))]
async fn list_invoices(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<InvoicePage>, Problem> {
    let Query(query) = query?;
    let (records, next_cursor) = query.read::<accounts::Invoice>(&caller, &shared.accounts).await?;
    let seen = records.into_iter().filter(|record| may_see(&caller, &record.value));
    let items = seen.map(|record| Ok(InvoiceSummary::from(&Billing::read(record)?))).collect::<Result<_, Problem>>()?;
    Ok(Json(InvoicePage { items, next_cursor }))
}

fn may_see(caller: &Caller, invoice: &accounts::Invoice) -> bool {
    invoice.kind == KIND && (caller.tenant().is_none() || invoice.status != InvoiceStatus::Draft)
}

/// An invoice's id.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Id {
    #[param(min_length = 1, max_length = 256)]
    id: String,
}

/// How an invoice is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = InvoiceFormat)]
enum Format {
    Json,
    Csv,
    Html,
    Pdf,
}

impl Format {
    const ALL: [(Format, &'static str); 4] = [
        (Format::Json, "application/json"),
        (Format::Csv, "text/csv"),
        (Format::Html, "text/html"),
        (Format::Pdf, "application/pdf"),
    ];

    /// The one that a header `Accept` likes best; of those that it likes as much, the first there.
    fn accepted(accept: &str) -> Option<Format> {
        let mut best: Option<(u32, Format)> = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let found = match media_type {
                "*/*" | "application/*" | "" => Some(Format::Json),
                "text/*" => Some(Format::Html),
                _ => Format::ALL.into_iter().find(|(_, name)| name.eq_ignore_ascii_case(media_type)).map(|(is, _)| is),
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
            let thousandths = (quality.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32;
            if let Some(found) = found.filter(|_| thousandths > best.map_or(0, |(most, _)| most)) {
                best = Some((thousandths, found));
            }
        }
        best.map(|(_, format)| format)
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FormatQuery {
    /// How it is written; else as `Accept` says, or as JSON.
    #[param(inline)]
    format: Option<Format>,
}

/// An invoice, with its lines
#[utoipa::path(get, path = "/api/v1/invoices/{id}", tag = "invoices", params(Id, FormatQuery), responses(
    (status = 200, description = "It", content(
        (serde_json::Value = "application/json"), (String = "text/csv"), (String = "text/html"),
        (Vec<u8> = "application/pdf"))),
    (status = 404, body = problem::Body, content_type = problem::CONTENT_TYPE,
        description = "There is none that may be seen"),
    (status = 406, body = problem::Body, content_type = problem::CONTENT_TYPE,
        description = "It is not written in what `Accept` asks for"),
    Asked))]
async fn get_invoice(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<Id>, PathRejection>,
    query: Result<Query<FormatQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (Path(Id { id }), Query(FormatQuery { format })) = (id?, query?);
    let accept = headers.get(header::ACCEPT).map(|accept| accept.to_str().unwrap_or_default());
    let format = format.or_else(|| accept.map_or(Some(Format::Json), Format::accepted));
    let format = format.ok_or_else(|| {
        let names = Format::ALL.map(|(_, name)| name).join(", ");
        Problem::new(StatusCode::NOT_ACCEPTABLE, format!("Accept: an invoice is written as {names}"))
    })?;
    let record = caller.accounts(&shared.accounts).get::<accounts::Invoice>(&id).await?;
    let record = record.filter(|record| may_see(&caller, &record.value));
    let record = record.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no invoice `{id}`")))?;
    let kept = Billing::read(record)?;
    // A long one takes its time.
    let written = tokio::task::spawn_blocking(move || written(&kept, format)).await;
    let written = written.map_err(anyhow::Error::from).and_then(|written| written).map_err(|error| {
        tracing::error!(invoice = id, %error, "an invoice cannot be written");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the invoice cannot be written")
    })?;
    let (_, media_type) = Format::ALL[format as usize];
    let media_type = if format == Format::Pdf { media_type.to_owned() } else { format!("{media_type}; charset=utf-8") };
    let headers = [
        (header::CONTENT_TYPE, media_type.as_str()),
        // It says what tenants have named; it needs nothing, and is nothing else.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, written).into_response())
}

fn written(kept: &Kept, format: Format) -> anyhow::Result<Vec<u8>> {
    let (invoice, parties) = (&kept.invoice, &kept.parties);
    match format {
        Format::Json => invoices::json(invoice, parties).map(String::into_bytes),
        Format::Csv => invoices::csv(invoice).map(String::into_bytes),
        Format::Html => invoices::html(invoice, parties).map(String::into_bytes),
        Format::Pdf => invoices::pdf(invoice, parties),
    }
}

/// Which invoice is to be drafted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GenerateRequest {
    /// Who pays.
    #[schema(min_length = 1, max_length = 256)]
    tenant_id: String,
    /// The year in which the tenant's month begins.
    #[schema(minimum = 1970, maximum = 9998)]
    year: i16,
    /// The month of the year in which it begins.
    #[schema(minimum = 1, maximum = 12)]
    month: i8,
}

/// Draft a month's invoice, or bring its draft up to date
#[utoipa::path(post, path = "/api/v1/invoices/generate", tag = "invoices", request_body = GenerateRequest, responses(
    (status = 200, body = InvoiceSummary, description = "The draft; its version is the same where nothing has changed"),
    (status = 409, body = problem::Body, content_type = problem::CONTENT_TYPE,
        description = "The month is billed already, what was agreed on cannot be billed by, or another change goes on"),
    Sent))]
async fn generate_invoice(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    request: Result<Json<GenerateRequest>, JsonRejection>,
) -> Result<Json<InvoiceSummary>, Problem> {
    let Json(GenerateRequest { tenant_id, year, month }) = request?;
    tenant::check("tenant_id", &tenant_id)?;
    let kept = shared.billing.draft(&caller.actor, &tenant_id, (year, month)).await?;
    Ok(Json(InvoiceSummary::from(&kept)))
}

/// Make an invoice final
///
/// Its month has to be over. The draft is brought up to date first.
#[utoipa::path(post, path = "/api/v1/invoices/{id}/finalise", tag = "invoices", params(Id), responses(Taken, Asked))]
async fn finalise_invoice(
    shared: State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<Id>, PathRejection>,
) -> Result<Json<InvoiceSummary>, Problem> {
    take(shared, caller, id, Step::Finalise).await
}

/// Note that an invoice is paid
#[utoipa::path(post, path = "/api/v1/invoices/{id}/pay", tag = "invoices", params(Id), responses(Taken, Asked))]
async fn pay_invoice(
    shared: State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<Id>, PathRejection>,
) -> Result<Json<InvoiceSummary>, Problem> {
    take(shared, caller, id, Step::Pay).await
}

/// Give up an invoice that is not paid
///
/// Its month can be billed again then.
#[utoipa::path(post, path = "/api/v1/invoices/{id}/void", tag = "invoices", params(Id), responses(Taken, Asked))]
async fn void_invoice(
    shared: State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<Id>, PathRejection>,
) -> Result<Json<InvoiceSummary>, Problem> {
    take(shared, caller, id, Step::Void).await
}

/// What comes of a step.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, clippy::large_enum_variant, reason = "it tells of answers")]
enum Taken {
    /// The invoice as it is now
    #[response(status = 200)]
    Done(#[to_schema] InvoiceSummary),
    /// There is none
    #[response(status = 404, content_type = "application/problem+json")]
    Missing(#[to_schema] problem::Body<'static>),
    /// It is too far or not far enough, or another change goes on
    #[response(status = 409, content_type = "application/problem+json")]
    Refused(#[to_schema] problem::Body<'static>),
    /// It was changed meanwhile
    #[response(status = 412, content_type = "application/problem+json")]
    Changed(#[to_schema] problem::Body<'static>),
}

async fn take(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Result<Path<Id>, PathRejection>,
    step: Step,
) -> Result<Json<InvoiceSummary>, Problem> {
    let Path(Id { id }) = id?;
    let kept = shared.billing.step(&caller.actor, &id, step).await?;
    Ok(Json(InvoiceSummary::from(&kept)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_chosen_by_what_is_liked_best() {
        for (accept, expected) in [
            ("*/*", Some(Format::Json)),
            ("application/pdf", Some(Format::Pdf)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(Format::Html)),
            ("application/json;q=0.5, text/csv", Some(Format::Csv)),
            ("text/csv;q=0", None),
            ("image/png", None),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }
}
