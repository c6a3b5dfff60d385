//! Who is told, and of what: the endpoints that are configured, and those that the accounts have.

use super::endpoint::EndpointSettings;
use super::message::{Event, Message};
use crate::accounts::{Record, WebhookEndpoint};
use crate::http::Reach;

/// An endpoint, with what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub(super) id: String,
    pub(super) settings: EndpointSettings,
    /// Whose events alone; `None`: everybody's.
    tenant: Option<String>,
    /// Of which; none at all: of every one.
    events: Vec<Event>,
    /// When it was changed last: what it answered before is no word of it as it is now.
    pub(super) changed_at_ms: u64,
}

impl Recipient {
    /// One that is configured: it is told everything.
    pub fn configured(settings: EndpointSettings) -> Recipient {
        Recipient { id: settings.id(), settings, tenant: None, events: Vec::new(), changed_at_ms: 0 }
    }

    /// One that the accounts have, known by its record's id. A tenant's reaches public addresses alone.
    ///
    /// # Errors
    /// What is wrong, beginning with the field.
    pub fn agreed(record: &Record<WebhookEndpoint>) -> Result<Recipient, String> {
        let WebhookEndpoint { tenant, event_kinds, url, secret, allow_private_addresses } = &record.value;
        let reach = match (tenant, allow_private_addresses) {
            (None, true) => Reach::Any,
            _ => Reach::Public,
        };
        let settings = EndpointSettings::new(url.expose(), secret.clone(), reach)?;
        let event = |kind: &String| {
            let known = Event::ASKED_FOR.into_iter().find(|event| event.name() == kind);
            let known = known.ok_or_else(|| {
                let names = Event::ASKED_FOR.map(Event::name).join(", ");
                format!("event_kinds: `{kind}` is none of {names}")
            })?;
            match tenant.is_none() || known.is_for_tenants() {
                true => Ok(known),
                false => Err(format!("event_kinds: `{kind}` is told to operators alone, as drafts are theirs")),
            }
        };
        let events = event_kinds.iter().map(event).collect::<Result<_, _>>()?;
        let (id, tenant, changed_at_ms) = (record.id.clone(), tenant.clone(), record.updated_at_ms);
        Ok(Recipient { id, settings, tenant, events, changed_at_ms })
    }

    /// Whether it is a tenant's.
    pub(super) fn is_tenants(&self) -> bool {
        self.tenant.is_some()
    }

    /// Whether it is told this.
    pub(super) fn wants(&self, message: &Message) -> bool {
        let may_know = match &self.tenant {
            None => true,
            own => message.tenant == *own && message.event.is_for_tenants(),
        };
        may_know && (self.events.is_empty() || self.events.contains(&message.event))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::Secret;

    fn endpoint(tenant: Option<&str>, kinds: &[&str], url: &str) -> Record<WebhookEndpoint> {
        let value = WebhookEndpoint {
            tenant: tenant.map(str::to_owned),
            event_kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            url: Secret::new(url),
            secret: Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            allow_private_addresses: true,
        };
        Record { id: "wh_1".to_owned(), version: 1, created_at_ms: 5, updated_at_ms: 7, value }
    }

    #[test]
    fn a_tenant_is_told_its_own_events_and_the_operator_all_of_the_kinds_asked_for() {
        let of = |tenant, kinds: &[&str]| Recipient::agreed(&endpoint(tenant, kinds, "https://a.example")).unwrap();
        let wants =
            |recipient: &Recipient, event, tenant| recipient.wants(&Message::new(event, Some(tenant), 0, &json!({})));
        let (all, acme) = (of(None, &[]), of(Some("acme"), &[]));
        for event in Event::ASKED_FOR {
            assert!(wants(&all, event, "acme") && wants(&all, event, "bolt"));
            assert_eq!(wants(&acme, event, "acme"), event != Event::InvoiceCreated);
            assert!(!wants(&acme, event, "bolt"));
        }
        let paid = of(Some("acme"), &["invoice.paid", "budget.threshold_reached"]);
        assert!(wants(&paid, Event::InvoicePaid, "acme") && wants(&paid, Event::BudgetThreshold, "acme"));
        assert!(!wants(&paid, Event::InvoiceVoided, "acme") && !wants(&paid, Event::InvoicePaid, "bolt"));
        assert!(wants(&of(None, &["invoice.created"]), Event::InvoiceCreated, "acme"));
        assert!(!acme.wants(&Message::new(Event::LimitThreshold, None, 0, &json!({}))), "it is the operator's");
    }

    #[test]
    fn what_cannot_be_told_is_refused_with_its_field() {
        let refused = |tenant, kinds: &[&str], url: &str| Recipient::agreed(&endpoint(tenant, kinds, url)).unwrap_err();
        let private = "http://127.0.0.1:9/s3cret";
        assert!(Recipient::agreed(&endpoint(None, &[], private)).is_ok(), "the operator's may");
        for error in [refused(Some("acme"), &[], private), refused(Some("acme"), &[], "s3cret")] {
            assert!(error.starts_with("url: ") && !error.contains("s3cret"), "{error}");
        }
        assert!(refused(None, &["invoice.payed"], private).starts_with("event_kinds: `invoice.payed` is none of"));
        assert!(refused(Some("acme"), &["invoice.created"], "https://a.example").contains("operators alone"));
    }
}
