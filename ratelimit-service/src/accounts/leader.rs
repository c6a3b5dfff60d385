//! Who does what only one replica may do at a time.

use super::engine::Access;
use super::record::check_name;
use super::{Accounts, AccountsError};

impl Accounts {
    /// Whether `holder` leads in what is called `name`: it does so for `ttl_ms` from `now_ms` on, and may ask again to
    /// go on. Another one leads only once that is over, or after [`Accounts::resign`].
    ///
    /// Replicas' clocks may differ: `ttl_ms` has to be much more than they do, and work that may take longer than what
    /// is left of it has to be such that doing it twice does no harm.
    ///
    /// # Errors
    /// When the database failed: then nobody knows, and one should not lead.
    pub async fn try_lead(&self, name: &str, holder: &str, now_ms: u64, ttl_ms: u64) -> Result<bool, AccountsError> {
        self.check_operator()?;
        check_name("name", name)?;
        check_name("holder", holder)?;
        let lead = "INSERT INTO leaders (name, holder, until_ms) VALUES ($1, $2, $3) \
                    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms \
                    WHERE leaders.holder = excluded.holder OR leaders.until_ms <= $4";
        let until_ms = now_ms.saturating_add(ttl_ms);
        let mut transaction = self.begin(Access::Write).await?;
        let written = transaction.execute(lead, &[name.into(), holder.into(), until_ms.into(), now_ms.into()]).await?;
        transaction.commit().await?;
        Ok(written > 0)
    }

    /// Lets another one lead at once, where `holder` does.
    ///
    /// # Errors
    /// When the database failed: then it leads until its time is over.
    pub async fn resign(&self, name: &str, holder: &str) -> Result<(), AccountsError> {
        self.check_operator()?;
        let resign = "DELETE FROM leaders WHERE name = $1 AND holder = $2";
        let mut transaction = self.begin(Access::Write).await?;
        transaction.execute(resign, &[name.into(), holder.into()]).await?;
        Ok(transaction.commit().await?)
    }
}
