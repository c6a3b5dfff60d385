//! Plans and what a tenant has spent of them: pure rules, no clock and no I/O.
//!
//! Invariants:
//! - Time is an argument: `now_ms`, milliseconds since the Unix epoch. A clock that steps back gives nothing back.
//! - All limits of a call are decided together: it takes from all of them or from none.
//! - A call takes its request for good, and *holds* a slot, its estimated tokens and their cost. [`TenantCounters::settle`]
//!   gives back what is held and spends what was used, each reservation once, in whatever order things come; it may drive
//!   a limit into debt, from which it recovers by waiting. What nobody settles expires, and is spent as estimated.
//! - Counters know nothing of a plan's context: ask [`Plan::check_context`] before them.
//! - Amounts are exact integers up to [`MAX_AMOUNT`]. Nothing underflows, and sums saturate.
//!
//! [`TenantCounters`] is the model: engines keep the same numbers elsewhere, and are tested against it.

mod amount;
mod book;
mod calendar;
mod counter;
pub mod decimal;
mod decision;
mod history;
pub mod invoice;
mod lease;
mod limit;
mod plan;
mod price;
mod tenant;

pub use amount::{MAX_AMOUNT, Pattern, Quantities, Side, TokenClass, Tokens, Weight, Weights};
pub use book::{EXPIRED_KEPT_MS, Expired, HeldCall, Hold, Lend, OFFER_AGAIN_MS, SETTLED_KEPT_MS};
pub use calendar::{Anchor, Day, Edges, Period, Span};
pub use counter::{Counter, Rule, SLOT_RETRY_MS};
pub use decision::{Ask, Decision, Outcome, Role, Standing, Verdict};
pub use history::AnswerLengths;
pub use lease::{Beyond, LeaseTerms, Loan};
pub use limit::{Action, Call, CounterId, Limit, LimitError, Scope, Unit, Window};
pub use plan::{
    Access, CONTEXT_TOLERANCE_PERCENT, ContextExceeded, Found, Given, MAX_LIMITS, MissingTier, Plan, Plans, Tenants,
    Terms, Tier, TierUnknown, UnknownTier,
};
pub use price::{
    Calls, Compared, Comparison, Layer, LongContext, MarkUp, Part, PerToken, Price, PriceTable, Prices, Quote, Rated,
    TenantPrices,
};
pub use tenant::{Extent, Overlap, Settled, Settles, Take, TenantCounters, Unused, Used};
