//! Tells webhooks what becomes of invoices.
//!
//! Accounts may be in another database than what waits for webhooks. So an event is noted there together with its
//! messages, after the invoice has changed: it is told once by each database, and should the service end in between,
//! the scheduler tells it later. Copies have the same `webhook-id`.

use rusqlite::{Connection, params};
use serde::Serialize;
use tollgate_domain::invoice::{Cents, State};

use super::{Billing, Kept};
use crate::clock::rfc3339;
use crate::database::integer;
use crate::invoices::CURRENCY;
use crate::webhooks::{Event, Message};

/// What happened longer ago is not told any more.
pub(super) const TOLD_WITHIN_MS: u64 = 7 * 86_400_000;

/// What webhooks are told.
#[derive(Serialize)]
struct Data<'a> {
    invoice_id: &'a str,
    tenant_id: &'a str,
    period_start: String,
    period_end: String,
    currency: &'static str,
    total: Cents,
}

/// What has happened to an invoice, each with the time.
fn events(kept: &Kept) -> Vec<(Event, u64)> {
    let mut events = vec![(Event::InvoiceCreated, kept.created_at_ms)];
    match kept.invoice.state() {
        State::Draft => {}
        State::Finalised { finalised_at_ms } => events.push((Event::InvoiceFinalised, finalised_at_ms)),
        State::Paid { finalised_at_ms, paid_at_ms } => {
            events.extend([(Event::InvoiceFinalised, finalised_at_ms), (Event::InvoicePaid, paid_at_ms)]);
        }
        State::Void { finalised_at_ms, voided_at_ms } => {
            events.extend([(Event::InvoiceFinalised, finalised_at_ms), (Event::InvoiceVoided, voided_at_ms)]);
        }
    }
    events
}

fn message(kept: &Kept, event: Event, at_ms: u64) -> Message {
    let bill = kept.bill();
    let data = Data {
        invoice_id: &kept.id,
        tenant_id: &bill.tenant,
        period_start: rfc3339(bill.month.start_ms),
        period_end: rfc3339(bill.month.end_ms),
        currency: CURRENCY,
        total: bill.totals.total,
    };
    // A draft may be deleted and made again.
    let what = format!("{}\n{}\n{}", kept.id, kept.created_at_ms, event.name());
    Message::new(event, Some(&bill.tenant), at_ms, &data).with_id_of(&what)
}

/// Notes an event, and tells whether it is new.
fn note(connection: &Connection, message: &Message, now_ms: u64) -> rusqlite::Result<bool> {
    let mut insert = connection
        .prepare_cached("INSERT INTO invoice_events (message_id, at_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    Ok(insert.execute(params![message.id(), integer(now_ms)])? == 1)
}

impl Billing {
    /// Tells what has happened to an invoice and was not told. Where that fails, the scheduler does it.
    pub(super) async fn tell(&self, kept: &Kept) {
        let (webhooks, now_ms) = (self.webhooks.clone(), (self.clock)());
        let recent = events(kept).into_iter().filter(|(_, at_ms)| at_ms.saturating_add(TOLD_WITHIN_MS) > now_ms);
        let messages: Vec<_> = recent.map(|(event, at_ms)| message(kept, event, at_ms)).collect();
        if messages.is_empty() {
            return;
        }
        let noting = move |transaction: &rusqlite::Transaction<'_>| {
            for message in &messages {
                if note(transaction, message, now_ms)? {
                    webhooks.put(transaction, message)?;
                }
            }
            // They are remembered for longer than they are told.
            let before_ms = now_ms.saturating_sub(2 * TOLD_WITHIN_MS);
            transaction.execute("DELETE FROM invoice_events WHERE at_ms < ?1", [integer(before_ms)])
        };
        match self.database.write(noting).await {
            Ok(_) => self.webhooks.wake(),
            Err(error) => tracing::warn!(invoice = kept.id, %error, "what became of an invoice is told later"),
        }
    }
}
