//! Errors as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::accounts::AccountsError;
use crate::billing::BillingError;
use crate::collector::RETRY_AFTER_S;
use crate::counters::Unavailable;
use crate::database::DatabaseError;
use crate::ledger::LedgerError;
use crate::limiter::Refusal;
use crate::spool::SpoolError;

/// What a [`Problem`] is written in.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// When a tenant's invoices may be changed again, in seconds.
const BUSY_S: u64 = 5;

/// What went wrong with a request.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// Where waiting helps.
    retry_after_s: Option<u64>,
    /// How to say who asks, where that is missing (RFC 6750).
    challenge: Option<&'static str>,
}

/// Why a request is refused (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, and where.
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), retry_after_s: None, challenge: None }
    }

    /// It may be tried again after so many seconds.
    pub(super) fn retry_after(self, seconds: u64) -> Problem {
        Problem { retry_after_s: Some(seconds), ..self }
    }

    /// A key is asked for.
    pub(super) fn challenge(self) -> Problem {
        Problem { challenge: Some("Bearer realm=\"tollgate\""), ..self }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let mut response = (self.status, Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl From<AccountsError> for Problem {
    fn from(error: AccountsError) -> Problem {
        let status = match &error {
            AccountsError::NotFound { .. } => StatusCode::NOT_FOUND,
            AccountsError::Exists { .. } | AccountsError::InUse { .. } | AccountsError::TooMany { .. } => {
                StatusCode::CONFLICT
            }
            AccountsError::Conflict { .. } => StatusCode::PRECONDITION_FAILED,
            AccountsError::Invalid(_) | AccountsError::NoTenant(_) => StatusCode::BAD_REQUEST,
            AccountsError::OutOfScope => StatusCode::FORBIDDEN,
            AccountsError::Closed | AccountsError::Database(_) => {
                tracing::error!(%error, "the accounts do not answer");
                return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the accounts do not answer; try again later");
            }
        };
        Problem::new(status, error.to_string())
    }
}

impl From<BillingError> for Problem {
    fn from(error: BillingError) -> Problem {
        let status = match error {
            BillingError::Accounts(error) => return error.into(),
            BillingError::Ledger(error) => return error.into(),
            BillingError::NoMonth { .. } | BillingError::NotBegun => StatusCode::BAD_REQUEST,
            BillingError::Transition(_) | BillingError::NotOver(_) | BillingError::Billed(_) => StatusCode::CONFLICT,
            // What was agreed on, or what the accounts have, is for the operator to mend.
            BillingError::Invoice(_) | BillingError::Agreement { .. } | BillingError::Calendar(_) => {
                StatusCode::CONFLICT
            }
            BillingError::Busy => return Problem::new(StatusCode::CONFLICT, error.to_string()).retry_after(BUSY_S),
            BillingError::Unreadable { .. } => {
                tracing::error!(%error, "an invoice cannot be read");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Problem::new(status, error.to_string())
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Problem {
        tracing::error!(%error, "the ledger cannot be read");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer; try again later")
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Problem {
        tracing::error!(%error, "the database does not answer");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer; try again later")
    }
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Problem {
        tracing::error!(%error, "limits cannot be read");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the counters do not answer; try again later")
    }
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Problem {
        let status = match error {
            SpoolError::Full => StatusCode::TOO_MANY_REQUESTS,
            SpoolError::Closed | SpoolError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, format!("nothing is kept: {error}; send it again later")).retry_after(RETRY_AFTER_S)
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Problem {
        Problem::new(rejection.status(), rejection.body_text())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        Problem::bad_request(match refusal {
            Refusal::UnknownTier => "plan_tier: no plan has this name",
            Refusal::Suspended => "tenant_id: the tenant is suspended",
            Refusal::ContextExceeded(_) => "estimated_tokens: more than the plan's context",
        })
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Problem {
        Problem::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::new(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        Problem::new(rejection.status(), rejection.body_text())
    }
}
