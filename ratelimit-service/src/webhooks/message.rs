//! What is told.

use std::fmt::Write;

use ring::digest;
use serde::Serialize;

use crate::chance;
use crate::clock::rfc3339;

/// What messages are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A tenant nears a monthly limit of cost or a budget, or has passed it.
    BudgetThreshold,
    /// Likewise, a limit of anything else.
    LimitThreshold,
    /// An invoice was drafted.
    InvoiceCreated,
    /// An invoice is final.
    InvoiceFinalised,
    /// An invoice is paid.
    InvoicePaid,
    /// An invoice is void.
    InvoiceVoided,
    /// Somebody wants to see whether messages arrive: it goes to one endpoint, whatever that is told else.
    Test,
}

impl Event {
    /// Those that an endpoint can ask for.
    pub const ASKED_FOR: [Event; 6] = [
        Event::BudgetThreshold,
        Event::LimitThreshold,
        Event::InvoiceCreated,
        Event::InvoiceFinalised,
        Event::InvoicePaid,
        Event::InvoiceVoided,
    ];

    /// Its stable name, the `type` of its messages.
    pub fn name(self) -> &'static str {
        match self {
            Event::BudgetThreshold => "budget.threshold_reached",
            Event::LimitThreshold => "limit.threshold_reached",
            Event::InvoiceCreated => "invoice.created",
            Event::InvoiceFinalised => "invoice.finalized",
            Event::InvoicePaid => "invoice.paid",
            Event::InvoiceVoided => "invoice.voided",
            Event::Test => "webhook.test",
        }
    }

    /// Whether tenants are told of it, too. Drafts are the operator's: no tenant's key sees one.
    pub fn is_for_tenants(self) -> bool {
        self != Event::InvoiceCreated
    }
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) event: Event,
    /// Whose it is; `None` for the operator's own.
    pub(super) tenant: Option<String>,
    pub(super) id: String,
    pub(super) at_ms: u64,
    pub(super) body: String,
}

impl Message {
    /// Of an event of a tenant's, and what there is to say of it, which must be a JSON object.
    pub fn new(event: Event, tenant: Option<&str>, at_ms: u64, data: &impl Serialize) -> Message {
        #[derive(Serialize)]
        struct Body<'a, T> {
            r#type: &'a str,
            timestamp: String,
            data: &'a T,
        }
        let body = Body { r#type: event.name(), timestamp: rfc3339(at_ms), data };
        // What is said are texts and numbers: it cannot fail.
        let body = serde_json::to_string(&body).unwrap_or_default();
        Message { event, tenant: tenant.map(str::to_owned), id: format!("msg_{}", chance::id()), at_ms, body }
    }

    /// With an id that is made of what it tells: should it be told twice, as by two replicas, receivers know.
    #[must_use]
    pub fn with_id_of(self, what: &str) -> Message {
        Message { id: format!("msg_{}", hash(what)), ..self }
    }

    /// By which receivers know copies of it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// 16 bytes of a text's SHA-256, in hexadecimal.
pub(super) fn hash(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref()[..16].iter().fold(String::new(), |mut id, byte| {
        // Writing to a text cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}
