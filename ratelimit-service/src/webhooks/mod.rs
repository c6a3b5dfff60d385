//! Webhooks.
mod endpoint;
mod metrics;
mod schedule;
mod signature;
mod outbox { pub(super) struct Delivery { pub(super) message_id: String, pub(super) body: String } }
pub use endpoint::EndpointSettings;
pub use metrics::WebhookMetrics;
pub use schedule::MAX_ATTEMPTS;
pub use signature::SigningKey;
