//! What the shell is told to do with a request.

use crate::headers::HeaderEdit;
use crate::reply::Reply;

/// What the shell does with a request now.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Changes of the request's headers, while these are held.
    pub headers: Vec<HeaderEdit>,
    /// What stands in the place of the bytes that came with this step.
    pub body: Option<Vec<u8>>,
    /// What becomes of the request.
    pub next: Next,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    Continue,
    /// It stays as it is: held, or passing.
    Wait,
    /// It is held until the limiter has been asked.
    Ask(Ask),
    /// The limiter is asked while it goes on: too much of it would have to be held.
    AskAndContinue(Ask),
    /// It is answered here.
    Reply(Reply),
}

/// A question to the limiter.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// The encoded `RateLimitRequest`.
    pub message: Vec<u8>,
    /// The reservation's id, for the gRPC metadata; `None` where nothing is to be reserved.
    pub reservation_id: Option<String>,
    /// Likewise, should such calls be denied: the encoded [`LeaseRequest`](tollgate_wire::admission::LeaseRequest).
    pub lease: Option<String>,
}

impl From<Next> for Step {
    fn from(next: Next) -> Step {
        Step { headers: Vec::new(), body: None, next }
    }
}
