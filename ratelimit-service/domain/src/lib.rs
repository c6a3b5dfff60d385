//! Plans and what a tenant has spent of them: pure rules, no clock and no I/O.
//!
//! Invariants:
//! - Time is an argument: `now_ms`, milliseconds since the Unix epoch. A clock that steps back gives nothing back.
//! - All limits of a call are decided together: it takes from all of them or from none.
//! - Counters know nothing of a plan's context: ask [`Plan::check_context`] before them.
//! - Admission takes requests and only *checks* tokens: while a token limit has something left (and room for the
//!   estimate, when there is one) the call goes on. [`TenantCounters::settle`] then takes the tokens that were used, and
//!   may drive a limit into debt, from which it recovers by waiting.
//! - Amounts are exact integers. Nothing underflows, and sums saturate.

mod bucket;
mod calendar;
mod counter;
mod counters;
mod decision;
mod plan;

pub use calendar::{Day, Period, Span};
pub use counters::TenantCounters;
pub use decision::{Amounts, Decision, Outcome, Settlement, Standing};
pub use plan::{CONTEXT_TOLERANCE_PERCENT, ContextExceeded, Limit, Plan, Plans, Unit, UnknownTier, Window};
