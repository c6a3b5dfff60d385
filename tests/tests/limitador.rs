//! `settle: rls` against the engine of another rate limit service, Kuadrant's Limitador.
//!
//! Its server is not published as a library: [`Server`] is what lies between gRPC and the engine there. It hands all descriptors to
//! the limits' conditions, reads the request's amount alone, and takes 0 for 1.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::ensure;
use limitador::RateLimiter;
use limitador::limit::{Context, Limit};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tollgate_e2e::harness::stack::Stack;
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use tollgate_wire::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tonic::{Request, Response, Status};

const REQUESTS: &str = "requests";
const TOKENS: &str = "tokens";

struct Server(RateLimiter);

#[tonic::async_trait]
impl RateLimitService for &'static Server {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let entries = |descriptor: &RateLimitDescriptor| {
            descriptor.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
        };
        let descriptors: Vec<HashMap<String, String>> = request.descriptors.iter().map(entries).collect();
        let mut context = Context::default();
        context.list_binding("descriptors".to_owned(), descriptors);
        let amount = u64::from(request.hits_addend.max(1));
        let checked = self.0.check_rate_limited_and_update(&request.domain.into(), &context, amount);
        let checked = checked.map_err(|error| Status::unavailable(error.to_string()))?;
        let code = if checked.limited { Code::OverLimit } else { Code::Ok };
        Ok(Response::new(RateLimitResponse { overall_code: code.into(), ..Default::default() }))
    }
}

impl Server {
    /// What is left of the limit that is called so, once something was taken of it.
    fn remaining(&self, name: &str) -> Option<u64> {
        let counters = self.0.get_counters(&"tollgate".into()).unwrap();
        counters.iter().find(|counter| counter.limit().name() == Some(name))?.remaining()
    }
}

fn limit(name: &str, capacity: u64, counts: &str) -> Limit {
    const DAY_S: u64 = 86_400;
    let conditions = vec![counts.try_into().unwrap()];
    let variables = vec!["descriptors[0].tenant".try_into().unwrap()];
    let mut limit = Limit::new("tollgate", capacity, DAY_S, conditions, variables);
    limit.set_name(name.to_owned());
    limit
}

async fn start(tokens: u64) -> (&'static Server, Stack) {
    let engine = RateLimiter::new(100);
    engine.add_limit(limit(REQUESTS, 1_000, "descriptors[0].unit == 'requests'"));
    // A question has the unit of tokens second, and what tells tokens has nothing else.
    engine.add_limit(limit(TOKENS, tokens, "descriptors[size(descriptors) > 1 ? 1 : 0].unit != 'requests'"));
    let server: &'static Server = Box::leak(Box::new(Server(engine)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let service = tonic::transport::Server::builder().add_service(RateLimitServiceServer::new(server));
    tokio::spawn(service.serve_with_incoming(TcpListenerStream::new(listener)));
    let filter = json!({"admission": {"settle": "rls", "on_failure": "deny"}});
    let stack = Stack::builder().filter_config(filter).rate_limit_service(addr).start().await.unwrap();
    (server, stack)
}

#[tokio::test]
async fn limitador_counts_each_request_and_each_token_that_was_used() {
    const TOKENS_PER_DAY: u64 = 1_000_000;
    const CALLS: u64 = 5;
    let (server, stack) = start(TOKENS_PER_DAY).await;
    let mut used = 0;
    for _ in 0..CALLS {
        let reply = stack.chat("acme").send().await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        used += reply.json().unwrap()["usage"]["total_tokens"].as_u64().unwrap();
    }
    // A question takes one of each limit that has a say in it, for Limitador knows no question that takes nothing.
    let expected = (Some(1_000 - CALLS), Some(TOKENS_PER_DAY - used - CALLS));
    eventually("what was used", PATIENCE, async || {
        let left = (server.remaining(REQUESTS), server.remaining(TOKENS));
        ensure!(left == expected, "{left:?}, not {expected:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_tenant_whose_tokens_are_used_up_is_denied() {
    let (_, stack) = start(100).await;
    eventually("a denial", PATIENCE, async || {
        let reply = stack.chat("acme").send().await?;
        ensure!(reply.status == 429, "{}", reply.text());
        Ok(())
    })
    .await
    .unwrap();
    assert!(stack.standin.call_count() <= 100, "each call took one token at least");
}
