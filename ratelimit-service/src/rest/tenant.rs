//! The tenant that a path names.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::Deserialize;
use tollgate_wire::usage_event::MAX_NAME_BYTES;
use utoipa::IntoParams;

use super::problem::Problem;

/// `{tenant}` in a path: a name that a tenant may have.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Tenant {
    /// Who pays.
    #[param(min_length = 1, max_length = 256)]
    pub(super) tenant: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Tenant, Problem> {
        let Path(tenant) = Path::<Tenant>::from_request_parts(parts, state).await?;
        check("tenant", &tenant.tenant)?;
        Ok(tenant)
    }
}

/// Refuses what no tenant is called.
pub(super) fn check(key: &str, tenant: &str) -> Result<(), Problem> {
    match tenant.len() {
        0 => Err(Problem::bad_request(format!("{key}: is empty"))),
        1..=MAX_NAME_BYTES => Ok(()),
        bytes => Err(Problem::bad_request(format!("{key}: {bytes} bytes; a name has {MAX_NAME_BYTES} at most"))),
    }
}
