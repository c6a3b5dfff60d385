//! What tenants and models use, in Prometheus' words: OpenTelemetry's GenAI histograms, and counters for each tenant.
//!
//! Invariants:
//! - What is observed is a call that was settled by its event, once. Estimates of calls that nobody settled are the ledger's alone:
//!   they may still be corrected, and a counter never goes down.
//! - Tenants and models come from outside: of each no more than [`LabelCaps`] says have labels of their own, the first ones; all
//!   others are told together as `other`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tollgate_wire::usage_event::{Finish, UsageEvent, UsageSource};

/// What tenants and models are called that have no label of their own.
const OTHER: &str = "other";

/// The conventions' buckets of `gen_ai.client.token.usage`: powers of four.
const TOKEN_BUCKETS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Of `gen_ai.server.request.duration`, in seconds.
const DURATION_BUCKETS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Of `gen_ai.server.time_to_first_token`, in seconds.
const FIRST_TOKEN_BUCKETS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The most that have labels of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelCaps {
    /// Of tenants.
    pub tenants: usize,
    /// Of models, each with its operation and provider.
    pub models: usize,
}

type Labels<const N: usize> = [(&'static str, String); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;
type Usd = Counter<f64, AtomicU64>;

/// Counts what is used; clones count together.
#[derive(Clone)]
pub struct UsageMetrics {
    families: Arc<Families>,
    known: Arc<Mutex<Known>>,
}

struct Families {
    caps: LabelCaps,
    tokens: Histograms<4>,
    durations: Histograms<3>,
    first_tokens: Histograms<3>,
    requests: Family<Labels<1>, Counter>,
    tenant_tokens: Family<Labels<2>, Counter>,
    cost: Family<Labels<1>, Usd>,
}

/// Handles by their labels, so that a call makes no labels.
#[derive(Default)]
struct Known {
    tenants: HashMap<String, Tenant>,
    models: HashMap<String, Model>,
    /// What a model is looked up by: its operation, provider and name, each behind a NUL.
    key: String,
}

#[derive(Clone)]
struct Tenant {
    requests: Counter,
    input: Counter,
    output: Counter,
    cost: Usd,
}

#[derive(Clone)]
struct Model {
    input: Histogram,
    output: Histogram,
    duration: Histogram,
    first_token: Histogram,
}

impl UsageMetrics {
    /// New metrics, and the registry that shows them. Their names are whole: the registry has no prefix.
    pub fn new(caps: LabelCaps) -> (UsageMetrics, Registry) {
        let families = Families {
            caps,
            tokens: Family::new_with_constructor(|| Histogram::new(TOKEN_BUCKETS)),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            first_tokens: Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN_BUCKETS)),
            requests: Family::default(),
            tenant_tokens: Family::default(),
            cost: Family::default(),
        };
        let registry = families.registered();
        (UsageMetrics { families: Arc::new(families), known: Arc::default() }, registry)
    }

    /// Counts a call that the ledger has stored and did not have before.
    pub fn observe(&self, event: &UsageEvent) {
        if event.usage_source == UsageSource::Unsettled {
            return;
        }
        let mut known = self.known.lock();
        known.tenant(&self.families, &event.tenant).observe(event);
        // A call that was refused was no request of a model.
        if event.usage_source != UsageSource::None || event.finish != Finish::LocalReply {
            known.model(&self.families, event).observe(event);
        }
    }
}

impl Families {
    fn registered(&self) -> Registry {
        let mut registry = Registry::default();
        registry.register("gen_ai_client_token_usage", "Tokens that calls used", self.tokens.clone());
        registry.register(
            "gen_ai_server_request_duration_seconds",
            "Time from a call's first byte to the last of its answer",
            self.durations.clone(),
        );
        registry.register(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a call's first byte to the first of its answer, of those that succeeded",
            self.first_tokens.clone(),
        );
        registry.register("tollgate_tenant_requests", "Calls, by tenant", self.requests.clone());
        registry.register("tollgate_tenant_tokens", "Tokens that calls used, by tenant", self.tenant_tokens.clone());
        registry.register("tollgate_tenant_cost_usd", "What calls cost, by tenant, about", self.cost.clone());
        registry
    }

    fn tenant(&self, tenant: &str) -> Tenant {
        let label = || ("tenant", tenant.to_owned());
        let tokens = |kind: &str| self.tenant_tokens.get_or_create_owned(&[label(), ("type", kind.to_owned())]);
        Tenant {
            requests: self.requests.get_or_create_owned(&[label()]),
            input: tokens("input"),
            output: tokens("output"),
            cost: self.cost.get_or_create_owned(&[label()]),
        }
    }

    fn model(&self, [operation, provider, model]: [&str; 3]) -> Model {
        let labels = || {
            [
                ("gen_ai_operation_name", operation.to_owned()),
                ("gen_ai_provider_name", provider.to_owned()),
                ("gen_ai_request_model", model.to_owned()),
            ]
        };
        let tokens = |kind: &str| {
            let [operation, provider, model] = labels();
            self.tokens.get_or_create_owned(&[operation, provider, model, ("gen_ai_token_type", kind.to_owned())])
        };
        Model {
            input: tokens("input"),
            output: tokens("output"),
            duration: self.durations.get_or_create_owned(&labels()),
            first_token: self.first_tokens.get_or_create_owned(&labels()),
        }
    }
}

impl Known {
    fn tenant(&mut self, families: &Families, tenant: &str) -> &Tenant {
        // `OTHER` itself is beyond the cap.
        let is_own = self.tenants.contains_key(tenant) || self.tenants.len() < families.caps.tenants;
        let tenant = if is_own { tenant } else { OTHER };
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.to_owned(), families.tenant(tenant));
        }
        &self.tenants[tenant]
    }

    fn model(&mut self, families: &Families, event: &UsageEvent) -> &Model {
        let names =
            [event.operation.as_deref(), event.provider.as_deref(), event.model()].map(Option::unwrap_or_default);
        self.name(names);
        let is_own = self.models.contains_key(&self.key) || self.models.len() < families.caps.models;
        let names = if is_own { names } else { [OTHER; 3] };
        self.name(names);
        if !self.models.contains_key(&self.key) {
            self.models.insert(self.key.clone(), families.model(names));
        }
        &self.models[&self.key]
    }

    fn name(&mut self, names: [&str; 3]) {
        self.key.clear();
        for name in names {
            self.key.push_str(name);
            self.key.push('\0');
        }
    }
}

impl Tenant {
    fn observe(&self, event: &UsageEvent) {
        self.requests.inc();
        self.input.inc_by(event.tokens.input);
        self.output.inc_by(event.tokens.output);
        if let Some(cost) = event.cost_nanousd.filter(|cost| *cost > 0) {
            self.cost.inc_by(cost as f64 / 1e9);
        }
    }
}

impl Model {
    fn observe(&self, event: &UsageEvent) {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        self.duration.observe(seconds(event.duration_ms));
        if event.usage_source != UsageSource::None {
            self.input.observe(event.tokens.input as f64);
            self.output.observe(event.tokens.output as f64);
        }
        if let Some(waited_ms) = event.time_to_first_token_ms.filter(|_| (200..300).contains(&event.status)) {
            self.first_token.observe(seconds(waited_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use tollgate_wire::usage_event::TokenCounts;

    use super::*;

    fn call(tenant: &str, model: &str) -> UsageEvent {
        UsageEvent {
            tenant: tenant.into(),
            operation: Some("chat".into()),
            provider: Some("openai".into()),
            request_model: Some(model.into()),
            duration_ms: 1500,
            time_to_first_token_ms: Some(30),
            status: 200,
            tokens: TokenCounts { input: 20, output: 5, ..TokenCounts::default() },
            cost_nanousd: Some(250_000_000),
            usage_source: UsageSource::Reported,
            ..UsageEvent::default()
        }
    }

    fn told(caps: LabelCaps, events: &[UsageEvent]) -> String {
        let (metrics, registry) = UsageMetrics::new(caps);
        events.iter().for_each(|event| metrics.observe(event));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    const MANY: LabelCaps = LabelCaps { tenants: 10, models: 10 };

    #[test]
    fn calls_are_told_in_the_conventions_words() {
        let text = told(MANY, &[call("acme", "gpt-4o"), call("acme", "gpt-4o")]);
        let call = "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-4o\"";
        let lines = [
            format!("gen_ai_client_token_usage_sum{{{call},gen_ai_token_type=\"input\"}} 40.0"),
            format!("gen_ai_client_token_usage_bucket{{le=\"16.0\",{call},gen_ai_token_type=\"input\"}} 0"),
            format!("gen_ai_client_token_usage_bucket{{le=\"64.0\",{call},gen_ai_token_type=\"input\"}} 2"),
            format!("gen_ai_client_token_usage_sum{{{call},gen_ai_token_type=\"output\"}} 10.0"),
            format!("gen_ai_server_request_duration_seconds_sum{{{call}}} 3.0"),
            format!("gen_ai_server_time_to_first_token_seconds_bucket{{le=\"0.02\",{call}}} 0"),
            format!("gen_ai_server_time_to_first_token_seconds_bucket{{le=\"0.04\",{call}}} 2"),
            "tollgate_tenant_requests_total{tenant=\"acme\"} 2".to_owned(),
            "tollgate_tenant_tokens_total{tenant=\"acme\",type=\"input\"} 40".to_owned(),
            "tollgate_tenant_tokens_total{tenant=\"acme\",type=\"output\"} 10".to_owned(),
            "tollgate_tenant_cost_usd_total{tenant=\"acme\"} 0.5".to_owned(),
        ];
        for line in lines {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
    }

    #[test]
    fn labels_are_capped_and_those_that_are_known_stay() {
        let caps = LabelCaps { tenants: 2, models: 1 };
        let events = ["a", "b", "c", "d", "a"].map(|tenant| call(tenant, tenant));
        let text = told(caps, &events);
        let requests = text.lines().filter(|line| line.starts_with("tollgate_tenant_requests_total"));
        let mut requests: Vec<_> = requests.map(|line| line.rsplit_once("tenant=").unwrap().1).collect();
        requests.sort_unstable();
        assert_eq!(requests, ["\"a\"} 2", "\"b\"} 1", "\"other\"} 2"]);
        let counts = text.lines().filter(|line| line.starts_with("gen_ai_server_request_duration_seconds_count"));
        let mut counts: Vec<_> = counts.map(|line| line.rsplit_once("model=").unwrap().1).collect();
        counts.sort_unstable();
        assert_eq!(counts, ["\"a\"} 2", "\"other\"} 3"]);
        assert!(told(LabelCaps { tenants: 0, models: 0 }, &events).contains("total{tenant=\"other\"} 5"));
    }

    #[test]
    fn an_estimate_is_not_observed_and_a_refused_call_is_no_request_of_a_model() {
        let unsettled = UsageEvent { usage_source: UsageSource::Unsettled, ..call("acme", "gpt-4o") };
        let refused = UsageEvent {
            usage_source: UsageSource::None,
            finish: Finish::LocalReply,
            tokens: TokenCounts::default(),
            ..call("acme", "gpt-4o")
        };
        let text = told(MANY, &[unsettled, refused]);
        assert!(text.contains("tollgate_tenant_requests_total{tenant=\"acme\"} 1"), "{text}");
        assert!(!text.contains("gpt-4o"), "{text}");
    }

    #[test]
    fn an_error_tells_its_duration_and_no_tokens() {
        let error = UsageEvent {
            usage_source: UsageSource::None,
            finish: Finish::UpstreamError,
            status: 500,
            tokens: TokenCounts::default(),
            ..call("acme", "gpt-4o")
        };
        let text = told(MANY, &[error]);
        let count =
            |name: &str| text.lines().find(|line| line.starts_with(name)).and_then(|line| line.rsplit(' ').next());
        assert_eq!(count("gen_ai_server_request_duration_seconds_count"), Some("1"));
        assert_eq!(count("gen_ai_server_time_to_first_token_seconds_count"), Some("0"));
        assert_eq!(count("gen_ai_client_token_usage_count"), Some("0"));
    }
}
