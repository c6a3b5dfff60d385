//! Webhooks: messages to whom the operator names, as Standard Webhooks 1.0.
//!
//! Invariants:
//! - A message is put in with what it tells of, in one transaction ([`Webhooks::put`]): both are kept, or neither.
//! - Each endpoint has its own deliveries, which wait for no other's. Each is tried until a 2xx, [`MAX_ATTEMPTS`] times at most,
//!   also over restarts; a receiver tells copies by `webhook-id`, the same in all attempts.
//! - An endpoint that answers 410 is not called any more until it was left out of the configuration once.
//! - At most [`MAX_WAITING`] deliveries wait for an endpoint; what is beyond is dropped and counted.

mod endpoint;
mod metrics;
mod outbox;
mod schedule;
mod signature;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use endpoint::EndpointSettings;
pub use metrics::WebhookMetrics;
pub use outbox::MAX_WAITING;
pub use schedule::MAX_ATTEMPTS;
pub use signature::SigningKey;

use crate::chance;
use crate::clock::{Clock, rfc3339};
use crate::database::{Database, DatabaseError};
use endpoint::{Attempt, Endpoint, TIMEOUT};
use outbox::{Delivery, Next, Put};

/// How often it is looked what is due.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a delivery that was begun is left alone: longer than an attempt takes.
const CLAIM_MS: u64 = 4 * TIMEOUT.as_millis() as u64;

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    id: String,
    at_ms: u64,
    body: String,
}

impl Message {
    /// Of a type such as `limit.threshold_reached`, and what there is to say of it, which must be a JSON object.
    pub fn new(kind: &str, at_ms: u64, data: &impl Serialize) -> Message {
        #[derive(Serialize)]
        struct Body<'a, T> {
            r#type: &'a str,
            timestamp: String,
            data: &'a T,
        }
        let body = Body { r#type: kind, timestamp: rfc3339(at_ms), data };
        // What is said are texts and numbers: it cannot fail.
        let body = serde_json::to_string(&body).unwrap_or_default();
        Message { id: format!("msg_{}", chance::id()), at_ms, body }
    }

    /// With an id that is made of what it tells: should it be told twice, receivers know.
    #[must_use]
    pub fn with_id(self, id: &str) -> Message {
        Message { id: format!("msg_{id}"), ..self }
    }

    /// By which receivers know copies of it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Tells messages.
pub struct Webhooks {
    database: Arc<Database>,
    endpoints: Vec<Arc<Endpoint>>,
    clock: Clock,
    metrics: WebhookMetrics,
    wake: Notify,
}

impl Webhooks {
    /// Tells these endpoints, each of another URL.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(
        endpoints: &[EndpointSettings],
        database: Arc<Database>,
        clock: Clock,
        metrics: WebhookMetrics,
    ) -> Result<Webhooks, String> {
        let endpoints = endpoints.iter().cloned().map(|settings| Endpoint::new(settings).map(Arc::new));
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        Ok(Webhooks { database, endpoints, clock, metrics, wake: Notify::new() })
    }

    /// Puts in a message for every endpoint, as part of the caller's transaction. Once that is committed, [`Webhooks::wake`].
    ///
    /// # Errors
    /// When the database fails.
    pub fn put(&self, transaction: &Connection, message: &Message) -> rusqlite::Result<()> {
        for endpoint in &self.endpoints {
            match outbox::put(transaction, &endpoint.id, &message.id, &message.body, message.at_ms)? {
                Put::Waiting => {}
                Put::Void => {
                    self.metrics.void.inc();
                }
                Put::Dropped => {
                    self.metrics.dropped.inc();
                    tracing::error!(
                        endpoint = endpoint.origin,
                        "too much waits for a webhook; a message to it is dropped"
                    );
                }
            }
        }
        Ok(())
    }

    /// There is something new to tell.
    pub fn wake(&self) {
        self.wake.notify_waiters();
    }

    /// Tells what is due, as long as it is not dropped.
    pub async fn run(self: Arc<Webhooks>) {
        while let Err(error) = self.prepare().await {
            tracing::warn!(%error, "the webhooks' deliveries cannot be read; they will be again");
            tokio::time::sleep(INTERVAL).await;
        }
        let mut running = JoinSet::new();
        for at in 0..self.endpoints.len() {
            running.spawn(self.clone().run_endpoint(at));
        }
        while running.join_next().await.is_some() {}
    }

    /// Forgets endpoints that are no longer configured.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prepare(&self) -> Result<(), DatabaseError> {
        let ids: Vec<String> = self.endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let void = self.database.write(move |transaction| outbox::keep_only(transaction, &ids)).await?;
        self.metrics.void.inc_by(void);
        self.count().await?;
        if self.metrics.disabled.get() > 0 {
            tracing::warn!(
                "webhooks that answered 410 are not called; leave them out of `webhooks` once to call them again"
            );
        }
        Ok(())
    }

    async fn run_endpoint(self: Arc<Webhooks>, at: usize) {
        let endpoint = &self.endpoints[at];
        loop {
            let woken = self.wake.notified();
            match self.deliver_due(endpoint).await {
                Ok(0) => drop(tokio::time::timeout(INTERVAL, woken).await),
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
        let (id, now_ms) = (endpoint.id.clone(), (self.clock)());
        if !self.database.read(move |connection| outbox::is_due(connection, &id, now_ms)).await? {
            return Ok(0);
        }
        let (id, until_ms) = (endpoint.id.clone(), now_ms.saturating_add(CLAIM_MS));
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
        let (id, now_ms) = (endpoint.id.clone(), (self.clock)());
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
                    "a webhook answered 410 and is not called any more; leave it out of `webhooks`"
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
