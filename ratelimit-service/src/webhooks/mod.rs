//! Webhooks: messages to whom the configuration and the accounts name, as Standard Webhooks 1.0.
//!
//! Invariants:
//! - Who is told is one copy ([`Webhooks::agree`]). A tenant's endpoint is told of that tenant alone, and reaches public addresses
//!   alone.
//! - A message is put in with what it tells of, in one transaction ([`Webhooks::put`]): both are kept, or neither.
//! - Each endpoint has its own deliveries, which wait for no other's. Each is tried until a 2xx, [`MAX_ATTEMPTS`] times at most,
//!   also over restarts; a receiver tells copies by `webhook-id`, the same in all attempts.
//!   Tenants' endpoints, though, take turns, so that those that hang hold no more than a few connections.
//! - An endpoint that answers 410 is not called any more until it was left out of the configuration once, or its record changed.
//! - At most [`MAX_WAITING`] deliveries wait for an endpoint; what is beyond is dropped and counted. What waits for one that is gone
//!   is gone, too.

mod endpoint;
mod message;
mod metrics;
mod outbox;
mod recipient;
mod schedule;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

pub use endpoint::EndpointSettings;
pub use message::{Event, Message};
pub use metrics::WebhookMetrics;
pub use outbox::MAX_WAITING;
pub use recipient::Recipient;
pub use schedule::MAX_ATTEMPTS;
pub use signature::SigningKey;

use crate::chance;
use crate::clock::Clock;
use crate::database::{Database, DatabaseError};
use endpoint::{Attempt, Clients, Endpoint, TIMEOUT};
use outbox::{Delivery, Next, Put};

/// The most endpoints that the accounts may have for all tenants and the operator together.
pub const MAX_AGREED: usize = 4096;

/// The most tenants' endpoints that are called at once, each with a few messages.
const MAX_TURNS: usize = 32;

/// So long a message to an endpoint that was just made may wait until it is known who is told.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked what is due.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a delivery that was begun is left alone: longer than an attempt takes.
const CLAIM_MS: u64 = 4 * TIMEOUT.as_millis() as u64;

/// All endpoints, by their ids.
type Endpoints = Arc<BTreeMap<String, Arc<Endpoint>>>;

/// What became of a message to try an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It is on its way, with this id.
    Put(String),
    /// The endpoint has answered 410 and is not called.
    Disabled,
    /// Too much waits for the endpoint.
    Full,
    /// There is no such endpoint, or it is not known yet.
    Unknown,
}

/// Tells messages.
pub struct Webhooks {
    database: Arc<Database>,
    configured: Vec<Recipient>,
    endpoints: watch::Sender<Endpoints>,
    clients: Clients,
    turns: Semaphore,
    clock: Clock,
    metrics: WebhookMetrics,
    wake: Notify,
}

impl Webhooks {
    /// Tells these endpoints, each of another URL, and those that are [agreed](Webhooks::agree) on.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(
        configured: &[EndpointSettings],
        database: Arc<Database>,
        clock: Clock,
        metrics: WebhookMetrics,
    ) -> Result<Webhooks, String> {
        let webhooks = Webhooks {
            database,
            configured: configured.iter().cloned().map(Recipient::configured).collect(),
            endpoints: watch::Sender::new(Endpoints::default()),
            clients: Clients::new()?,
            turns: Semaphore::new(MAX_TURNS),
            clock,
            metrics,
            wake: Notify::new(),
        };
        webhooks.agree(&[]);
        Ok(webhooks)
    }

    /// Tells these beside the configured ones from now on, and no others.
    pub fn agree(&self, agreed: &[Recipient]) {
        self.endpoints.send_if_modified(|endpoints| {
            let all = self.configured.iter().chain(agreed);
            let is_same = |recipient: &Recipient| {
                endpoints.get(&recipient.id).is_some_and(|endpoint| endpoint.recipient == *recipient)
            };
            if endpoints.len() == self.configured.len() + agreed.len() && all.clone().all(is_same) {
                return false;
            }
            let endpoint = |recipient: &Recipient| Arc::new(Endpoint::new(recipient.clone(), &self.clients));
            *endpoints = Arc::new(all.map(|recipient| (recipient.id.clone(), endpoint(recipient))).collect());
            true
        });
    }

    /// How many endpoints are agreed on.
    pub fn agreed(&self) -> usize {
        self.endpoints.borrow().len().saturating_sub(self.configured.len())
    }

    /// Puts in a message for every endpoint that wants it, as part of the caller's transaction. Once that is committed,
    /// [`Webhooks::wake`].
    ///
    /// # Errors
    /// When the database fails.
    pub fn put(&self, transaction: &Connection, message: &Message) -> rusqlite::Result<()> {
        let endpoints = self.endpoints.borrow().clone();
        for endpoint in endpoints.values().filter(|endpoint| endpoint.recipient.wants(message)) {
            self.put_for(endpoint, transaction, message)?;
        }
        Ok(())
    }

    fn put_for(&self, endpoint: &Endpoint, transaction: &Connection, message: &Message) -> rusqlite::Result<Put> {
        let put = outbox::put(transaction, endpoint.id(), &message.id, &message.body, message.at_ms)?;
        match put {
            Put::Waiting => {}
            Put::Void => {
                self.metrics.void.inc();
            }
            Put::Dropped => {
                self.metrics.dropped.inc();
                tracing::error!(endpoint = endpoint.origin, "too much waits for a webhook; a message to it is dropped");
            }
        }
        Ok(put)
    }

    /// Sends a message that tells nothing to one endpoint. One that was just made is waited for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn try_out(self: &Arc<Webhooks>, id: &str) -> Result<Tried, DatabaseError> {
        let mut endpoints = self.endpoints.subscribe();
        let known = endpoints.wait_for(|endpoints| endpoints.contains_key(id));
        let endpoint = match tokio::time::timeout(KNOWN_WITHIN, known).await {
            Ok(Ok(endpoints)) => endpoints.get(id).cloned(),
            _ => None,
        };
        let Some(endpoint) = endpoint else { return Ok(Tried::Unknown) };
        let message = Message::new(Event::Test, None, (self.clock)(), &json!({ "webhook_id": id }));
        let (webhooks, message_id) = (self.clone(), message.id.clone());
        let put = self.database.write(move |transaction| webhooks.put_for(&endpoint, transaction, &message)).await?;
        self.wake();
        Ok(match put {
            Put::Waiting => Tried::Put(message_id),
            Put::Void => Tried::Disabled,
            Put::Dropped => Tried::Full,
        })
    }

    /// There is something new to tell.
    pub fn wake(&self) {
        self.wake.notify_waiters();
    }

    /// Tells what is due, as long as it is not dropped.
    pub async fn run(self: Arc<Webhooks>) {
        let mut endpoints = self.endpoints.subscribe();
        let mut known = endpoints.borrow_and_update().clone();
        while let Err(error) = self.prepare(&known).await {
            tracing::warn!(%error, "the webhooks' deliveries cannot be read; they will be again");
            tokio::time::sleep(INTERVAL).await;
        }
        let (mut running, mut busy) = (JoinSet::new(), HashMap::new());
        loop {
            let woken = self.wake.notified();
            let now = endpoints.borrow_and_update().clone();
            match self.renew(&known, &now).await {
                Ok(()) => known = now,
                Err(error) => tracing::warn!(%error, "webhooks that are gone are not forgotten yet"),
            }
            while running.try_join_next().is_some() {}
            if let Err(error) = self.start_due(&mut running, &mut busy).await {
                tracing::warn!(%error, "the webhooks' deliveries wait for the database");
            }
            tokio::select! {
                () = woken => {}
                _ = endpoints.changed() => {}
                Some(_) = running.join_next() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Forgets endpoints that were told before, and are gone.
    ///
    /// # Errors
    /// When the database fails.
    async fn prepare(&self, endpoints: &Endpoints) -> Result<(), DatabaseError> {
        let endpoints = endpoints.clone();
        let forgetting = move |transaction: &Transaction<'_>| {
            let mut void = 0;
            for id in outbox::known(transaction)? {
                match endpoints.get(&id) {
                    Some(endpoint) => outbox::enable(transaction, &id, endpoint.recipient.changed_at_ms)?,
                    None => void += outbox::forget(transaction, &id)?,
                }
            }
            Ok(void)
        };
        self.metrics.void.inc_by(self.database.write(forgetting).await?);
        self.count().await?;
        if self.metrics.disabled.get() > 0 {
            tracing::warn!(
                "webhooks that answered 410 are not called; leave them out of `webhooks` once, or change their records, to \
                 call them again"
            );
        }
        Ok(())
    }

    /// Forgets endpoints that were told `before`, and are not `now`; those that changed may be called again. Others that have
    /// deliveries are another process's, which knows of them already.
    async fn renew(&self, before: &Endpoints, now: &Endpoints) -> Result<(), DatabaseError> {
        if Arc::ptr_eq(before, now) {
            return Ok(());
        }
        let gone: Vec<String> = before.keys().filter(|id| !now.contains_key(*id)).cloned().collect();
        let since = |endpoint: &Endpoint| endpoint.recipient.changed_at_ms;
        let has_changed = |endpoint: &&Arc<Endpoint>| {
            before.get(endpoint.id()).is_some_and(|before| since(before) != since(endpoint))
        };
        let changed = now.values().filter(has_changed).map(|endpoint| (endpoint.id().to_owned(), since(endpoint)));
        let changed: Vec<_> = changed.collect();
        if gone.is_empty() && changed.is_empty() {
            return Ok(());
        }
        let renewing = move |transaction: &Transaction<'_>| {
            for (id, changed_at_ms) in &changed {
                outbox::enable(transaction, id, *changed_at_ms)?;
            }
            gone.iter().try_fold(0, |void, id| Ok(void + outbox::forget(transaction, id)?))
        };
        self.metrics.void.inc_by(self.database.write(renewing).await?);
        self.count().await
    }

    /// Begins to tell those for whom something is due, but for those who are being told already.
    async fn start_due(
        self: &Arc<Webhooks>,
        running: &mut JoinSet<()>,
        busy: &mut HashMap<String, AbortHandle>,
    ) -> Result<(), DatabaseError> {
        let now_ms = (self.clock)();
        let due = self.database.read(move |connection| outbox::due(connection, now_ms)).await?;
        busy.retain(|_, task| !task.is_finished());
        let endpoints = self.endpoints.borrow().clone();
        for id in due {
            if endpoints.contains_key(&id) && !busy.contains_key(&id) {
                let task = running.spawn(self.clone().deliver(id.clone()));
                busy.insert(id, task);
            }
        }
        Ok(())
    }

    /// Tells one endpoint all that is due, as long as it is one.
    async fn deliver(self: Arc<Webhooks>, id: String) {
        loop {
            let endpoint = self.endpoints.borrow().get(&id).cloned();
            let Some(endpoint) = endpoint else { return };
            let _turn = match endpoint.recipient.is_tenants() {
                // It is never closed.
                true => self.turns.acquire().await.ok(),
                false => None,
            };
            match self.deliver_due(&endpoint).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(endpoint = endpoint.origin, %error, "a webhook's deliveries wait for the database");
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        }
    }

    /// Tries once what is due for one endpoint, and gives the number of attempts.
    async fn deliver_due(&self, endpoint: &Arc<Endpoint>) -> Result<usize, DatabaseError> {
        let (id, now_ms) = (endpoint.id().to_owned(), (self.clock)());
        if !self.database.read(move |connection| outbox::is_due(connection, &id, now_ms)).await? {
            return Ok(0);
        }
        let (id, until_ms) = (endpoint.id().to_owned(), now_ms.saturating_add(CLAIM_MS));
        let claimed = self.database.write(move |transaction| outbox::claim(transaction, &id, now_ms, until_ms)).await?;
        let number = claimed.len();
        let attempts = attempts(endpoint, claimed, now_ms).await;
        self.settle(endpoint, attempts).await?;
        self.count().await?;
        Ok(number)
    }

    /// Keeps what became of attempts.
    async fn settle(&self, endpoint: &Endpoint, attempts: Vec<(Delivery, Attempt)>) -> Result<(), DatabaseError> {
        let is_gone = attempts.iter().any(|(_, attempt)| *attempt == Attempt::Gone);
        let settled: Vec<_> =
            attempts.iter().map(|(delivery, attempt)| (delivery.row, self.next(delivery, attempt))).collect();
        let (id, now_ms) = (endpoint.id().to_owned(), (self.clock)());
        let settling = move |transaction: &Transaction<'_>| {
            for (row, next) in settled {
                outbox::settle(transaction, row, next)?;
            }
            if is_gone { outbox::disable(transaction, &id, now_ms) } else { Ok(0) }
        };
        let void = self.database.write(settling).await?;
        self.metrics.void.inc_by(void);
        for (delivery, attempt) in &attempts {
            self.tell(endpoint, delivery, attempt);
        }
        Ok(())
    }

    fn next(&self, delivery: &Delivery, attempt: &Attempt) -> Next {
        match attempt {
            Attempt::Delivered | Attempt::Gone => Next::Done,
            Attempt::Failed { asked_ms, .. } => {
                let wait_ms = schedule::wait_ms(delivery.attempts, *asked_ms, chance::number());
                wait_ms.map_or(Next::Done, |wait_ms| Next::At((self.clock)().saturating_add(wait_ms)))
            }
        }
    }

    fn tell(&self, endpoint: &Endpoint, delivery: &Delivery, attempt: &Attempt) {
        let (endpoint, id, attempts) = (&endpoint.origin, &delivery.message_id, delivery.attempts);
        match attempt {
            Attempt::Delivered => {
                self.metrics.delivered.inc();
            }
            Attempt::Gone => {
                self.metrics.void.inc();
                tracing::error!(
                    endpoint,
                    "a webhook answered 410 and is not called any more; leave it out of `webhooks`, or delete its record"
                );
            }
            Attempt::Failed { why, .. } if attempts >= MAX_ATTEMPTS => {
                self.metrics.failed.inc();
                self.metrics.given_up.inc();
                tracing::error!(
                    endpoint,
                    id,
                    attempts,
                    error = why,
                    "a message was not delivered to a webhook, and is given up"
                );
            }
            Attempt::Failed { why, .. } => {
                self.metrics.failed.inc();
                tracing::warn!(
                    endpoint,
                    id,
                    attempts,
                    error = why,
                    "a message was not delivered to a webhook; it will be tried again"
                );
            }
        }
    }

    async fn count(&self) -> Result<(), DatabaseError> {
        let counted =
            self.database.read(|connection| Ok((outbox::waiting(connection)?, outbox::disabled(connection)?)));
        let (waiting, disabled) = counted.await?;
        self.metrics.waiting.set(waiting);
        self.metrics.disabled.set(disabled);
        Ok(())
    }
}

/// Tries these at once, so that one that hangs holds up the others no longer than its own timeout.
async fn attempts(endpoint: &Arc<Endpoint>, claimed: Vec<Delivery>, now_ms: u64) -> Vec<(Delivery, Attempt)> {
    let mut attempts = JoinSet::new();
    for delivery in claimed {
        let endpoint = endpoint.clone();
        attempts.spawn(async move {
            let attempt = endpoint.attempt(&delivery, now_ms).await;
            (delivery, attempt)
        });
    }
    attempts.join_all().await
}
