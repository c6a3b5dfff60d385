//! Why the accounts did not do as asked.

use super::engine::Failure;

/// Why a record was not read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountsError {
    /// There is none, or none that may be seen.
    #[error("there is no {kind} `{id}`")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// The id is taken; or an invoice's tenant and period are.
    #[error("{kind} `{id}`: there is one already")]
    Exists {
        /// What was to be made.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// Somebody else has changed it since it was read.
    #[error("{kind} `{id}` is at version {current}, and the change is to version {expected}: read it again")]
    Conflict {
        /// What was to be changed.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The version that was expected.
        expected: u64,
        /// The one that it has.
        current: u64,
    },
    /// A field may not be so.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It names a tenant that has no record.
    #[error("there is no tenant `{0}`: make it first")]
    NoTenant(String),
    /// There are as many as one may have.
    #[error("there are {most} of the kind {kind} already, and one has no more: delete one first")]
    TooMany {
        /// What was to be made.
        kind: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Other records name it.
    #[error("{kind} `{id}` has keys, budgets or other records: delete these first")]
    InUse {
        /// What was to be deleted.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// It is another tenant's, or the operator's.
    #[error("that is not this tenant's to do")]
    OutOfScope,
    /// It is closing.
    #[error("the accounts are closed")]
    Closed,
    /// The database said no, or did not answer.
    #[error("the accounts failed: {0}")]
    Database(String),
}

/// Which field of a record may not be so, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct Invalid {
    /// Its path in the record.
    pub field: &'static str,
    /// What is wrong.
    pub what: String,
}

impl Invalid {
    pub(super) fn new(field: &'static str, what: impl Into<String>) -> Invalid {
        Invalid { field, what: what.into() }
    }
}

/// Where no constraint can be at fault: those that can are told apart before.
impl From<Failure> for AccountsError {
    fn from(failure: Failure) -> AccountsError {
        match failure {
            Failure::Closed => AccountsError::Closed,
            Failure::Failed(what) => AccountsError::Database(what),
            Failure::Duplicate | Failure::Reference => AccountsError::Database("a constraint does not hold".to_owned()),
        }
    }
}
