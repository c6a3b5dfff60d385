//! Changes of records: each with its audit record, and all of them in a row.

use super::engine::{Access, Failure, Scope, Transaction, Value};
use super::error::{AccountsError, Invalid};
use super::journal::Action;
use super::kinds::Tenant;
use super::record::{Json, Kind, MAX_DOCUMENT_BYTES, Record, check_name, check_size};
use super::{Accounts, columns, raise, read, select};

/// Who makes a change, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By<'a> {
    /// The name under which they are known to the service.
    pub actor: &'a str,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// One audit record, to be.
struct Entry<'a> {
    action: Action,
    kind: &'static str,
    id: &'a str,
    tenant: Option<&'a str>,
    was: Option<Json>,
    became: Option<Json>,
}

impl Accounts {
    /// Makes a record.
    ///
    /// # Errors
    /// When the id is taken, a field may not be so, its tenant is not known, or the database failed: then there is
    /// none.
    pub async fn create<T: Kind>(&self, by: &By<'_>, id: &str, value: T) -> Result<Record<T>, AccountsError> {
        check_name("id", id)?;
        let document = self.document(id, &value)?;
        let (mut transaction, revision) = self.begin_change(by).await?;
        let record = Record { id: id.to_owned(), version: 1, created_at_ms: by.at_ms, updated_at_ms: by.at_ms, value };
        let tenant = record.value.tenant(id);
        check_number::<T>(transaction.as_mut(), tenant).await?;
        let mut values: Vec<Value> = vec![id.into(), tenant.into(), 1.into(), by.at_ms.into(), by.at_ms.into()];
        values.push(document.text().into());
        values.extend(record.value.columns().into_iter().map(Value::from));
        let columns = columns::<T>();
        let numbers: Vec<_> = (1..=values.len()).map(|number| format!("${number}")).collect();
        let insert = format!(
            "INSERT INTO {} (id, tenant, version, created_at_ms, updated_at_ms, document{columns}) VALUES ({})",
            T::TABLE,
            numbers.join(", ")
        );
        transaction.execute(&insert, &values).await.map_err(|failure| refused::<T>(failure, id, tenant))?;
        let entry = Entry { action: Action::Create, kind: T::NAME, id, tenant, was: None, became: Some(document) };
        self.end_change(transaction, revision, by, entry).await?;
        Ok(record)
    }

    /// Changes a record that has this version.
    ///
    /// # Errors
    /// When there is none, it has another version, a field may not be so, or the database failed: then it is as it was.
    pub async fn update<T: Kind>(
        &self,
        by: &By<'_>,
        id: &str,
        version: u64,
        value: T,
    ) -> Result<Record<T>, AccountsError> {
        let document = self.document(id, &value)?;
        let (mut transaction, revision) = self.begin_change(by).await?;
        let found = self.expected::<T>(transaction.as_mut(), id, version).await?;
        if found.value.tenant(id) != value.tenant(id) {
            return Err(Invalid::new("tenant", "a record stays its tenant's").into());
        }
        found.value.check_change(&value)?;
        let was = as_json(&found.value)?;
        let record = Record { version: version.saturating_add(1), updated_at_ms: by.at_ms, value, ..found };
        let mut values: Vec<Value> = vec![id.into(), record.version.into(), by.at_ms.into(), document.text().into()];
        values.extend(record.value.columns().into_iter().map(Value::from));
        let columns: String =
            T::COLUMNS.iter().zip(5..).map(|(column, number)| format!(", {column} = ${number}")).collect();
        let update =
            format!("UPDATE {} SET version = $2, updated_at_ms = $3, document = $4{columns} WHERE id = $1", T::TABLE);
        let tenant = record.value.tenant(id);
        transaction.execute(&update, &values).await.map_err(|failure| refused::<T>(failure, id, tenant))?;
        let entry = Entry { action: Action::Update, kind: T::NAME, id, tenant, was: Some(was), became: Some(document) };
        self.end_change(transaction, revision, by, entry).await?;
        Ok(record)
    }

    /// Deletes a record that has this version.
    ///
    /// # Errors
    /// When there is none, it has another version, other records need it, or the database failed: then it is still
    /// there.
    pub async fn delete<T: Kind>(&self, by: &By<'_>, id: &str, version: u64) -> Result<(), AccountsError> {
        let (mut transaction, revision) = self.begin_change(by).await?;
        let found = self.expected::<T>(transaction.as_mut(), id, version).await?;
        found.value.check_deletion()?;
        if T::IS_TIER && is_tier_of_any(transaction.as_mut(), id).await? {
            return Err(AccountsError::InUse { kind: T::NAME, id: id.to_owned() });
        }
        let delete = format!("DELETE FROM {} WHERE id = $1", T::TABLE);
        transaction.execute(&delete, &[id.into()]).await.map_err(|failure| match failure {
            Failure::Reference => AccountsError::InUse { kind: T::NAME, id: id.to_owned() },
            failure => failure.into(),
        })?;
        let (tenant, was) = (found.value.tenant(id), as_json(&found.value)?);
        let entry = Entry { action: Action::Delete, kind: T::NAME, id, tenant, was: Some(was), became: None };
        self.end_change(transaction, revision, by, entry).await
    }

    /// What is kept of a value that may be so and is in scope.
    fn document<T: Kind>(&self, id: &str, value: &T) -> Result<Json, AccountsError> {
        let tenant = value.tenant(id);
        if let Scope::Tenant(own) = &self.scope
            && tenant != Some(own)
        {
            return Err(AccountsError::OutOfScope);
        }
        tenant.iter().try_for_each(|tenant| check_name("tenant", tenant))?;
        value.check()?;
        let document = as_json(value)?;
        check_size("document", document.text(), MAX_DOCUMENT_BYTES)?;
        Ok(document)
    }

    /// Waits for all changes that are under way, and gives the revision that this one makes. So what is read after this
    /// is as it stays until the end of the change.
    async fn begin_change(&self, by: &By<'_>) -> Result<(Box<dyn Transaction>, u64), AccountsError> {
        check_name("actor", by.actor)?;
        let mut transaction = self.begin(Access::Write).await?;
        let raised = transaction.rows("UPDATE revision SET value = value + 1 RETURNING value", &[]).await?;
        let revision = raised.into_iter().next().map(|mut row| row.integer()).transpose()?;
        let revision = revision.ok_or_else(|| AccountsError::Database("the revision is gone".to_owned()))?;
        Ok((transaction, revision))
    }

    async fn expected<T: Kind>(
        &self,
        transaction: &mut dyn Transaction,
        id: &str,
        expected: u64,
    ) -> Result<Record<T>, AccountsError> {
        let found = self.find::<T>(transaction, id).await?;
        let found = found.ok_or_else(|| AccountsError::NotFound { kind: T::NAME, id: id.to_owned() })?;
        match found.version {
            version if version == expected => Ok(found),
            current => Err(AccountsError::Conflict { kind: T::NAME, id: id.to_owned(), expected, current }),
        }
    }

    async fn end_change(
        &self,
        mut transaction: Box<dyn Transaction>,
        revision: u64,
        by: &By<'_>,
        entry: Entry<'_>,
    ) -> Result<(), AccountsError> {
        let insert = "INSERT INTO audit (revision, at_ms, actor, action, object_kind, object_id, tenant, was, became) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let [was, became] = [&entry.was, &entry.became].map(|document| document.as_ref().map(Json::text).into());
        let mut values: Vec<Value> = vec![revision.into(), by.at_ms.into(), by.actor.into()];
        values.extend([entry.action.name().into(), entry.kind.into(), entry.id.into(), entry.tenant.into()]);
        values.extend([was, became]);
        transaction.execute(insert, &values).await?;
        transaction.commit().await?;
        raise(&self.shared.revision, revision);
        Ok(())
    }
}

/// Whether there may be one more of them. Who changes anything waits for all who do, so nobody makes one meanwhile.
async fn check_number<T: Kind>(transaction: &mut dyn Transaction, tenant: Option<&str>) -> Result<(), AccountsError> {
    let Some(most) = T::MOST_OF_ONE else { return Ok(()) };
    let (of, values) = tenant.map_or(("IS NULL", Vec::new()), |tenant| ("= $1", vec![tenant.into()]));
    let count = format!("SELECT count(*) FROM {} WHERE tenant {of}", T::TABLE);
    let counted = transaction.rows(&count, &values).await?.into_iter().next();
    match counted.map(|mut row| row.integer()).transpose()? {
        Some(number) if number >= most as u64 => Err(AccountsError::TooMany { kind: T::NAME, most }),
        _ => Ok(()),
    }
}

/// Whether a tenant is on this tier: without it, the tenant's calls would choose one.
async fn is_tier_of_any(transaction: &mut dyn Transaction, tier: &str) -> Result<bool, AccountsError> {
    for row in transaction.rows(&select::<Tenant>(), &[]).await? {
        if read::<Tenant>(row)?.value.tier.as_deref() == Some(tier) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn as_json(value: &impl Kind) -> Result<Json, Invalid> {
    Json::of(value).map_err(|error| Invalid::new("document", error.to_string()))
}

/// Why a record was not written.
fn refused<T: Kind>(failure: Failure, id: &str, tenant: Option<&str>) -> AccountsError {
    match failure {
        Failure::Duplicate => AccountsError::Exists { kind: T::NAME, id: id.to_owned() },
        Failure::Reference => AccountsError::NoTenant(tenant.unwrap_or_default().to_owned()),
        failure => failure.into(),
    }
}
