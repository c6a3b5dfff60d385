//! What was changed: for good, and for who keeps a copy.

use super::engine::{Access, Row, Value};
use super::record::Json;
use super::{Accounts, AccountsError, MAX_PAGE, is_no_name, raise};

/// An audit record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Greater by 1 than that of the change before, of whatever it was.
    pub revision: u64,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who, by the name under which they are known to the service.
    pub actor: String,
    /// What was done.
    pub action: Action,
    /// To which kind of record, as errors call it too.
    pub kind: String,
    /// To which one.
    pub id: String,
    /// Whose that is; `None`: the operator's.
    pub tenant: Option<String>,
    /// The record's JSON before; `None` when it was made.
    pub was: Option<Json>,
    /// The record's JSON since; `None` when it was deleted.
    pub became: Option<Json>,
}

/// What is done to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
}

impl Action {
    const ALL: [Action; 3] = [Action::Create, Action::Update, Action::Delete];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        }
    }
}

impl Accounts {
    /// How many changes there were.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn revision(&self) -> Result<u64, AccountsError> {
        let mut transaction = self.begin(Access::Read).await?;
        let rows = transaction.rows("SELECT value FROM revision", &[]).await?;
        let revision = rows.into_iter().next().map(|mut row| row.integer()).transpose()?.unwrap_or(0);
        raise(&self.shared.revision, revision);
        Ok(revision)
    }

    /// Waits until there was a change after the one that made `revision`, and gives the latest revision that is known.
    /// With PostgreSQL that may have been another replica's change. No change is missed; several may be told as one.
    /// Once the accounts are closed there is no end to the wait.
    pub async fn wait_for_change(&self, revision: u64) -> u64 {
        let mut known = self.shared.revision.subscribe();
        // The sender lives as long as `self`.
        let later = known.wait_for(|known| *known > revision).await.map(|known| *known);
        later.unwrap_or(revision)
    }

    /// The changes after the one that made `revision`, oldest first: at most `limit`, and at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn changes_since(&self, revision: u64, limit: usize) -> Result<Vec<Change>, AccountsError> {
        let of_tenant = self.of_tenant(2);
        let rest = format!("revision > $1{of_tenant} ORDER BY revision LIMIT {}", limit.min(MAX_PAGE));
        self.changes(&rest, self.and_tenant(vec![revision.into()])).await
    }

    /// The changes before the one that made `revision` (`None`: all), newest first, of one tenant or all: at most
    /// `limit`, and at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn changes_before(
        &self,
        revision: Option<u64>,
        tenant: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Change>, AccountsError> {
        if tenant.is_some_and(is_no_name) {
            return Ok(Vec::new());
        }
        let mut rest = "revision < $1".to_owned();
        let mut values = vec![Value::from(revision.unwrap_or(u64::MAX))];
        for tenant in [self.tenant(), tenant].into_iter().flatten() {
            values.push(tenant.into());
            rest += &format!(" AND tenant = ${}", values.len());
        }
        rest += &format!(" ORDER BY revision DESC LIMIT {}", limit.min(MAX_PAGE));
        self.changes(&rest, values).await
    }

    async fn changes(&self, rest: &str, values: Vec<Value>) -> Result<Vec<Change>, AccountsError> {
        let query = format!(
            "SELECT revision, at_ms, actor, action, object_kind, object_id, tenant, was, became FROM audit WHERE {rest}"
        );
        let mut transaction = self.begin(Access::Read).await?;
        transaction.rows(&query, &values).await?.into_iter().map(change).collect()
    }
}

fn change(mut row: Row) -> Result<Change, AccountsError> {
    let (revision, at_ms, actor, action) = (row.integer()?, row.integer()?, row.text()?, row.text()?);
    let (kind, id, tenant) = (row.text()?, row.text()?, row.optional_text()?);
    let unreadable = || AccountsError::Database(format!("the audit record of revision {revision} cannot be read"));
    let action = Action::ALL.into_iter().find(|known| known.name() == action).ok_or_else(unreadable)?;
    let [was, became] = [row.optional_text()?, row.optional_text()?]
        .map(|document| document.map(Json::parse).transpose().map_err(|_| unreadable()));
    Ok(Change { revision, at_ms, actor, action, kind, id, tenant, was: was?, became: became? })
}
