//! Requests that come again: the same request under the same key is done once, and answered the same.

use super::engine::{Access, Value};
use super::error::Invalid;
use super::record::{check_name, check_size};
use super::{Accounts, AccountsError};

/// How long an answer is kept after its request was begun, in milliseconds: a day.
pub const IDEMPOTENCY_KEPT_MS: u64 = 86_400_000;

/// After so long a request that has no answer counts as broken off, and may be begun again: a minute.
pub const TAKEN_OVER_AFTER_MS: u64 = 60_000;

/// The longest answer that is kept, in bytes.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What a request was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body. It should hold no secret: it is kept as it is.
    pub body: String,
}

/// What is known of a request that comes under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is new, and now begun: do it, then call [`Accounts::complete_request`].
    New,
    /// Another one is at it.
    UnderWay,
    /// It was done.
    Done(Answer),
    /// The key was used for another request.
    Other,
}

impl Accounts {
    /// Begins a request under a key that `actor` chose, unless it has begun already. `request_hash` tells requests
    /// apart.
    ///
    /// # Errors
    /// When a name may not be so, or the database failed.
    pub async fn begin_request(
        &self,
        actor: &str,
        key: &str,
        request_hash: &str,
        now_ms: u64,
    ) -> Result<Begun, AccountsError> {
        check_name("actor", actor)?;
        check_name("key", key)?;
        check_name("request_hash", request_hash)?;
        let mut transaction = self.begin(Access::Write).await?;
        let forget = format!("DELETE FROM idempotency_keys WHERE at_ms <= $1{}", self.of_tenant(2));
        let kept_since = now_ms.saturating_sub(IDEMPOTENCY_KEPT_MS);
        transaction.execute(&forget, &self.and_tenant(vec![kept_since.into()])).await?;
        // One statement, so that of two at once one is new.
        let begin = "INSERT INTO idempotency_keys (actor, name, tenant, request_hash, status, body, at_ms) \
                     VALUES ($1, $2, $3, $4, 0, '', $5) ON CONFLICT (actor, name) DO UPDATE SET at_ms = excluded.at_ms \
                     WHERE idempotency_keys.status = 0 AND idempotency_keys.request_hash = excluded.request_hash \
                     AND idempotency_keys.at_ms <= $6";
        let broken_off = now_ms.saturating_sub(TAKEN_OVER_AFTER_MS);
        let mut values: Vec<Value> = vec![actor.into(), key.into(), self.tenant().into(), request_hash.into()];
        values.extend([now_ms.into(), broken_off.into()]);
        if transaction.execute(begin, &values).await? > 0 {
            transaction.commit().await?;
            return Ok(Begun::New);
        }
        let query = "SELECT request_hash, status, body FROM idempotency_keys WHERE actor = $1 AND name = $2";
        let Some(mut row) = transaction.rows(query, &[actor.into(), key.into()]).await?.into_iter().next() else {
            return Err(AccountsError::Database(
                "a request under the same key was just forgotten: try again".to_owned(),
            ));
        };
        let (hash, status, body) = (row.text()?, row.integer()?, row.text()?);
        transaction.commit().await?;
        Ok(match u16::try_from(status) {
            _ if hash != request_hash => Begun::Other,
            Ok(status) if status > 0 => Begun::Done(Answer { status, body }),
            _ => Begun::UnderWay,
        })
    }

    /// Keeps the answer of a request that was begun.
    ///
    /// # Errors
    /// When it is too long, or has status 0, or the database failed.
    pub async fn complete_request(&self, actor: &str, key: &str, answer: &Answer) -> Result<(), AccountsError> {
        if answer.status == 0 {
            return Err(Invalid::new("status", "is zero").into());
        }
        check_size("body", &answer.body, MAX_ANSWER_BYTES)?;
        let complete = format!(
            "UPDATE idempotency_keys SET status = $3, body = $4 WHERE actor = $1 AND name = $2 AND status = 0{}",
            self.of_tenant(5)
        );
        let values = vec![actor.into(), key.into(), u64::from(answer.status).into(), answer.body.as_str().into()];
        let mut transaction = self.begin(Access::Write).await?;
        transaction.execute(&complete, &self.and_tenant(values)).await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets a request that was begun and changed nothing, so that it may be made again.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn abandon_request(&self, actor: &str, key: &str) -> Result<(), AccountsError> {
        let abandon =
            format!("DELETE FROM idempotency_keys WHERE actor = $1 AND name = $2 AND status = 0{}", self.of_tenant(3));
        let mut transaction = self.begin(Access::Write).await?;
        transaction.execute(&abandon, &self.and_tenant(vec![actor.into(), key.into()])).await?;
        Ok(transaction.commit().await?)
    }
}
