//! Lists by pages, in the order of ids.

use serde::Deserialize;
use utoipa::IntoParams;

use super::access::Caller;
use super::problem::Problem;
use crate::accounts::{Accounts, Kind, MAX_PAGE, Page, Record};

/// How many a page has, unless the request says so.
const PAGE: usize = 100;

/// Which page is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Those of this tenant alone.
    tenant: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many at most.
    #[serde(default = "page")]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
}

fn page() -> usize {
    PAGE
}

impl ListQuery {
    /// What of the page this caller may see, and for `next_cursor`, where there may be more.
    pub(super) async fn read<T: Kind>(
        &self,
        caller: &Caller,
        accounts: &Accounts,
    ) -> Result<(Vec<Record<T>>, Option<String>), Problem> {
        let limit = self.limit;
        if limit == 0 || limit > MAX_PAGE {
            return Err(Problem::bad_request(format!("limit: {limit} is not between 1 and {MAX_PAGE}")));
        }
        let page = Page { tenant: self.tenant.as_deref(), after: self.cursor.as_deref(), limit };
        let records = caller.accounts(accounts).list::<T>(&page).await?;
        // There may be no more after a full page; then the next one is empty.
        let next_cursor = records.last().filter(|_| records.len() == limit).map(|last| last.id.clone());
        Ok((records, next_cursor))
    }
}
