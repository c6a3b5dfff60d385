//! The whole: client → Envoy → stand-in, with the service beside.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::artifacts;
use super::bootstrap::Bootstrap;
use super::envoy::Envoy;
use super::http::Request;
use super::run_dir::RunDir;
use super::service::Service;
use super::wait::{PATIENCE, eventually};
use crate::standin::{Options, Recording, Standin};

/// All pieces, running. They stop when it is dropped.
#[derive(Debug)]
pub struct Stack {
    /// The proxy under test.
    pub envoy: Envoy,
    /// The limiter and collector under test.
    pub service: Service,
    /// The provider's stand-in.
    pub standin: Standin,
    // Last, so that it outlives those who write into it.
    _dir: RunDir,
}

/// What is different from the reference.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    filter_config: Value,
    service_config: Value,
    limiter: Limiter,
    /// Who is asked and told in our service's place.
    rate_limit_service: Option<SocketAddr>,
    /// Merged into the cluster of whoever that is.
    service_cluster: Value,
    bodies: Bodies,
    route: Value,
    connection_manager: Value,
    /// Where clients speak TLS: its `common_tls_context`.
    client_certificates: Option<Value>,
    /// HTTP filters around ours, in the order of the request's way.
    filters_before: Vec<Value>,
    filters_behind: Vec<Value>,
}

/// Whether Envoy hands bodies over while their headers are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bodies {
    /// As the reference has it.
    Handed,
    /// As Envoy does by default, and Istio's WasmPlugin.
    HeldBack,
}

/// Which of Envoy's filters limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limiter {
    /// Ours.
    Tollgate,
    /// Envoy's own rate limit filter, asking our service, as `envoy/native-ratelimit.yaml` has it.
    NativeRatelimit,
}

impl Builder {
    /// Merges `patch` into the filter's config.
    pub fn filter_config(mut self, patch: Value) -> Builder {
        self.filter_config = patch;
        self
    }

    /// Merges `patch` into the service's config.
    pub fn service_config(mut self, patch: Value) -> Builder {
        self.service_config = patch;
        self
    }

    /// Chooses Envoy's filter.
    pub fn limiter(mut self, limiter: Limiter) -> Builder {
        self.limiter = limiter;
        self
    }

    /// Merges `patch` into the route's action.
    pub fn route(mut self, patch: Value) -> Builder {
        self.route = patch;
        self
    }

    /// Merges `patch` into the HTTP connection manager.
    pub fn connection_manager(mut self, patch: Value) -> Builder {
        self.connection_manager = patch;
        self
    }

    /// Lets clients speak TLS, by this `common_tls_context`, and each must have a certificate.
    pub fn client_certificates(mut self, common_tls_context: Value) -> Builder {
        self.client_certificates = Some(common_tls_context);
        self
    }

    /// Puts an HTTP filter in front of ours.
    pub fn filter_before(mut self, filter: Value) -> Builder {
        self.filters_before.push(filter);
        self
    }

    /// Puts an HTTP filter behind ours.
    pub fn filter_behind(mut self, filter: Value) -> Builder {
        self.filters_behind.push(filter);
        self
    }

    /// Lets request bodies wait for their headers to go on.
    pub fn hold_bodies_back(mut self) -> Builder {
        self.bodies = Bodies::HeldBack;
        self
    }

    /// Has another rate limit service asked, and told of usage, in our service's place.
    pub fn rate_limit_service(mut self, addr: SocketAddr) -> Builder {
        self.rate_limit_service = Some(addr);
        self
    }

    /// Merges `patch` into Envoy's cluster of the service.
    pub fn service_cluster(mut self, patch: Value) -> Builder {
        self.service_cluster = patch;
        self
    }

    /// Starts everything, and waits until it takes requests.
    ///
    /// # Errors
    /// When a piece does not come up. The logs are kept then, and the error says where.
    pub async fn start(self) -> anyhow::Result<Stack> {
        let dir = RunDir::create()?;
        match self.start_in(&dir).await {
            Ok((standin, service, envoy)) => Ok(Stack { envoy, service, standin, _dir: dir }),
            Err(error) => Err(error.context(format!("all logs are kept in {}", dir.keep().display()))),
        }
    }

    async fn start_in(self, dir: &RunDir) -> anyhow::Result<(Standin, Service, Envoy)> {
        let options = Options {
            replay_dir: Some(artifacts::repository().join("tests/fixtures")),
            recording: Recording::RecentCalls,
        };
        let standin = Standin::start(options).await?;
        let service = Service::start(dir.path(), &self.service_config).await?;
        let mut bootstrap = match self.limiter {
            Limiter::Tollgate => {
                let mut bootstrap = Bootstrap::reference()?;
                // A busy machine answers late, and only a test that sets its own timeout is about that.
                bootstrap.configure_filter(&json!({"admission": {"timeout_ms": 10_000}}))?;
                bootstrap.configure_filter(&self.filter_config)?;
                bootstrap
            }
            Limiter::NativeRatelimit => Bootstrap::native_ratelimit()?,
        };
        bootstrap.cluster("llm", standin.addr())?;
        bootstrap.cluster("tollgate", self.rate_limit_service.unwrap_or(service.grpc()))?;
        bootstrap.configure_cluster("tollgate", &self.service_cluster)?;
        if self.bodies == Bodies::HeldBack {
            bootstrap.hold_bodies_back()?;
        }
        bootstrap.configure_route(&self.route)?;
        bootstrap.configure_connection_manager(&self.connection_manager)?;
        if let Some(common_tls_context) = &self.client_certificates {
            bootstrap.require_client_certificates(common_tls_context)?;
        }
        // Last: until here the first filter is ours.
        bootstrap.surround_filter(&self.filters_before, &self.filters_behind)?;
        let envoy = Envoy::start("envoy", dir.path(), &bootstrap).await?;
        Ok((standin, service, envoy))
    }
}

impl Stack {
    /// The reference, to be changed where a test needs it.
    pub fn builder() -> Builder {
        Builder {
            filter_config: json!({}),
            service_config: json!({}),
            limiter: Limiter::Tollgate,
            rate_limit_service: None,
            service_cluster: json!({}),
            bodies: Bodies::Handed,
            route: json!({}),
            connection_manager: json!({}),
            client_certificates: None,
            filters_before: Vec::new(),
            filters_behind: Vec::new(),
        }
    }

    /// A chat completion through Envoy, paid by `tenant`.
    pub fn chat(&self, tenant: &str) -> Request {
        self.chat_at(self.envoy.listener()).header("x-tenant-id", tenant)
    }

    /// The same past Envoy.
    pub fn chat_direct(&self) -> Request {
        self.chat_at(self.standin.addr())
    }

    fn chat_at(&self, addr: SocketAddr) -> Request {
        let body =
            json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How does a tollgate count?"}]});
        Request::post(addr, "/v1/chat/completions", &body)
    }

    /// The same as a stream that tells its usage.
    pub fn chat_stream(&self, tenant: &str) -> Request {
        self.chat(tenant).json(&json!({
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "How does a tollgate count?"}],
            "stream": true,
            "stream_options": {"include_usage": true},
        }))
    }

    /// What the service's REST API has at `path`.
    ///
    /// # Errors
    /// When it does not answer 200 with JSON.
    pub async fn rest_get(&self, path: &str) -> anyhow::Result<Value> {
        let reply = Request::get(self.service.rest(), path).send().await?;
        ensure!(reply.status == StatusCode::OK, "GET {path}: {}: {}", reply.status, reply.text());
        reply.json()
    }

    /// Waits until the service has counted `requests` calls of `tenant` this month, and gives the tenant's usage.
    ///
    /// # Errors
    /// When it has not within `bound`, or has counted more.
    pub async fn usage_after(&self, tenant: &str, requests: u64, bound: Duration) -> anyhow::Result<Value> {
        let usage = eventually(&format!("{requests} calls of {tenant}"), bound, async || {
            let usage = self.rest_get(&format!("/api/v1/usage/{tenant}?period=month")).await?;
            let counted = usage["requests"].as_u64().with_context(|| format!("no requests in {usage}"))?;
            ensure!(counted >= requests, "counted {counted}: {usage}");
            Ok(usage)
        })
        .await?;
        ensure!(usage["requests"] == requests, "more than {requests} calls of {tenant}: {usage}");
        Ok(usage)
    }

    /// Waits until the service has counted `calls` calls of `tenant`, and gives their events, oldest first.
    ///
    /// # Errors
    /// When it has not in time, or has counted more.
    pub async fn events(&self, tenant: &str, calls: u64) -> anyhow::Result<Vec<Value>> {
        self.usage_after(tenant, calls, PATIENCE).await?;
        self.service.events(tenant)
    }
}
