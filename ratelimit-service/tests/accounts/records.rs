//! Records to be kept.

use tollgate::accounts::{
    Accounts, ApiKey, Budget, By, Enforcement, Invoice, InvoiceStatus, Json, KEY_RANDOM_BYTES, KeyRole, LimitOverrides,
    NewKey, Plan, PriceRow, Tenant, TenantStatus, WebhookEndpoint,
};
use tollgate::secret::Secret;

/// Who changes things in tests, at this time.
pub(crate) fn by(at_ms: u64) -> By<'static> {
    By { actor: "alice", at_ms }
}

/// A document that a detour over binary fractions, or another order of keys, would change.
pub(crate) fn exact() -> Json {
    Json::parse(
        "{ \"z\": 0.12345678901234567890, \"a\": \"\\u0000 é\", \"n\": 340282366920938463463374607431768211455 }"
            .to_owned(),
    )
    .unwrap()
}

pub(crate) fn tenant() -> Tenant {
    Tenant {
        display_name: Some("Acme – é'\"".to_owned()),
        tier: Some("pro".to_owned()),
        status: TenantStatus::Active,
        billing_anchor_ms: Some(1_706_688_000_000),
        time_zone: "Europe/Berlin".to_owned(),
        metadata: [("crm".to_owned(), exact())].into(),
    }
}

pub(crate) fn plan() -> Plan {
    Plan { context_tokens: 8192, limits: exact(), markup_ppm: 1_200_000, billing: exact() }
}

pub(crate) fn overrides() -> LimitOverrides {
    LimitOverrides { context_tokens: Some(100), limits: exact() }
}

pub(crate) fn budget(tenant: &str) -> Budget {
    Budget {
        tenant: tenant.to_owned(),
        key: Some("ci".to_owned()),
        amount_nanousd: tollgate_domain::MAX_AMOUNT,
        enforcement: Enforcement::Hard,
        thresholds: vec![50, 100],
    }
}

pub(crate) fn new_key(random: u8) -> NewKey {
    NewKey::new([random; KEY_RANDOM_BYTES])
}

pub(crate) fn key(tenant: Option<&str>, key: &NewKey) -> ApiKey {
    ApiKey {
        tenant: tenant.map(str::to_owned),
        name: "of the build".to_owned(),
        role: KeyRole::Viewer,
        scopes: vec!["usage".to_owned()],
        expires_at_ms: Some(u64::MAX),
        revoked_at_ms: None,
        hash: key.hash,
    }
}

pub(crate) fn webhook(tenant: Option<&str>) -> WebhookEndpoint {
    WebhookEndpoint {
        tenant: tenant.map(str::to_owned),
        event_kinds: vec!["budget.spent".to_owned()],
        url: Secret::new("https://example.com/hidden-path"),
        secret: Secret::new("whsec_hidden-secret"),
        allow_private_addresses: false,
    }
}

pub(crate) fn price(tenant: Option<&str>) -> PriceRow {
    PriceRow { tenant: tenant.map(str::to_owned), position: 3, price: exact() }
}

pub(crate) fn invoice(tenant: &str) -> Invoice {
    Invoice {
        tenant: tenant.to_owned(),
        first_day: "2026-11-01".parse().unwrap(),
        end_day: "2026-12-01".parse().unwrap(),
        kind: "usage".to_owned(),
        status: InvoiceStatus::Draft,
        finalised_at_ms: None,
        paid_at_ms: None,
        voided_at_ms: None,
        content: exact(),
    }
}

/// Makes tenants of these names.
pub(crate) async fn make_tenants(accounts: &Accounts, names: &[&str]) {
    for name in names {
        accounts.create(&by(1), name, tenant()).await.unwrap();
    }
}
