//! What becomes of an invoice.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Bill;

/// How far an invoice is. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It may still be drafted anew.
    Draft,
    /// It is what is to be paid.
    Finalised {
        /// Since when it does not change.
        finalised_at_ms: u64,
    },
    /// It is paid.
    Paid {
        /// Since when it does not change.
        finalised_at_ms: u64,
        /// When that was.
        paid_at_ms: u64,
    },
    /// It does not count any more.
    Void {
        /// Since when it does not change.
        finalised_at_ms: u64,
        /// When it was voided.
        voided_at_ms: u64,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Draft => "draft",
            State::Finalised { .. } => "finalised",
            State::Paid { .. } => "paid",
            State::Void { .. } => "void",
        })
    }
}

/// A step that an invoice cannot take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransitionError {
    /// Where it is.
    pub from: State,
    /// What was asked of it.
    pub to: &'static str,
}

impl fmt::Display for TransitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TransitionError { from, to } = self;
        write!(f, "an invoice that is {from} cannot be {to}: a draft is drafted anew or finalised, ")?;
        write!(f, "and what is finalised is paid or voided, once")
    }
}

impl std::error::Error for TransitionError {}

/// A bill, and how far it is. What is no draft any more keeps its bill: late usage is an
/// [`Adjustment`](super::Adjustment).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    #[serde(flatten)]
    state: State,
    #[serde(flatten)]
    bill: Bill,
}

impl Invoice {
    /// A draft of the bill.
    pub fn draft(bill: Bill) -> Invoice {
        Invoice { state: State::Draft, bill }
    }

    /// How far it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// What it says.
    pub fn bill(&self) -> &Bill {
        &self.bill
    }

    /// A draft with another bill in the place of its own.
    ///
    /// # Errors
    /// When it is no draft.
    pub fn redrafted(&self, bill: Bill) -> Result<Invoice, TransitionError> {
        match self.state {
            State::Draft => Ok(Invoice::draft(bill)),
            from => Err(TransitionError { from, to: "drafted anew" }),
        }
    }

    /// The draft as what is to be paid.
    ///
    /// # Errors
    /// When it is no draft.
    pub fn finalised(&self, now_ms: u64) -> Result<Invoice, TransitionError> {
        match self.state {
            State::Draft => Ok(self.at(State::Finalised { finalised_at_ms: now_ms })),
            from => Err(TransitionError { from, to: "finalised" }),
        }
    }

    /// Paid.
    ///
    /// # Errors
    /// When it is not finalised, or no longer open.
    pub fn paid(&self, now_ms: u64) -> Result<Invoice, TransitionError> {
        match self.state {
            State::Finalised { finalised_at_ms } => Ok(self.at(State::Paid { finalised_at_ms, paid_at_ms: now_ms })),
            from => Err(TransitionError { from, to: "paid" }),
        }
    }

    /// Void.
    ///
    /// # Errors
    /// When it is not finalised, or no longer open.
    pub fn voided(&self, now_ms: u64) -> Result<Invoice, TransitionError> {
        match self.state {
            State::Finalised { finalised_at_ms } => Ok(self.at(State::Void { finalised_at_ms, voided_at_ms: now_ms })),
            from => Err(TransitionError { from, to: "voided" }),
        }
    }

    fn at(&self, state: State) -> Invoice {
        Invoice { state, bill: self.bill.clone() }
    }
}
