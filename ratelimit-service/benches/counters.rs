//! What a decision costs the embedded counters, by how many tenants there are: `cargo bench -p tollgate`.
//!
//! Each is of a tenant at random, on one thread: taken for good, or reserved and settled.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use tollgate::clock;
use tollgate::counters::{Counters, MAX_TENANTS, MemoryCounters};
use tollgate::metrics::Metrics;
use tollgate_domain::{Call, Extent, Hold, Limit, Plan, Quantities, Take, Tokens, Unit, Used, Window};

const DECISIONS: usize = 400_000;

fn main() {
    let limit = |unit, window| Limit::new(unit, Some(window), NonZeroU64::new(1 << 40).unwrap()).unwrap();
    let limits = vec![
        limit(Unit::Requests, Window::Minute),
        limit(Unit::Tokens, Window::Minute),
        limit(Unit::Tokens, Window::Month),
        limit(Unit::Cost, Window::Day),
    ];
    let plan = Plan::new("bench".into(), 1, limits);
    println!("{:>10}  {:>12}  {:>22}", "tenants", "ns/decision", "ns/decision+settlement");
    for tenants in [10, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let counters = MemoryCounters::new(MAX_TENANTS, clock::system(), Metrics::new().0);
        let names: Vec<Arc<str>> = (0..tenants).map(|number| format!("tenant-{number}").into()).collect();
        // Every tenant is known before.
        for name in &names {
            admit(&counters, &plan, name, Take::ForGood);
        }
        let decided_ns = per_decision_ns(&names, |name, _| admit(&counters, &plan, name, Take::ForGood));
        let settled_ns = per_decision_ns(&names, |name, number| {
            let hold = Hold {
                id: format!("0199d5a0-0000-7000-8000-{number:012}"),
                timeout_ms: 600_000,
                call: Default::default(),
            };
            admit(&counters, &plan, name, Take::Hold(&hold));
            settle(&counters, &plan, name, &hold.id);
        });
        println!("{tenants:>10}  {decided_ns:>12}  {settled_ns:>22}");
    }
}

fn quantities() -> Quantities {
    Quantities { requests: 1, slots: 1, tokens: Tokens::plain(500, 300), cost_nanousd: 7000 }
}

fn admit(counters: &MemoryCounters, plan: &Plan, tenant: &str, take: Take<'_>) {
    let asks = plan.asks(&Call::default(), &quantities(), counters.now_ms());
    ready(counters.admit(tenant, &asks, take));
}

fn settle(counters: &MemoryCounters, plan: &Plan, tenant: &str, id: &str) {
    let now_ms = counters.now_ms();
    let asks = plan.asks(&Call::default(), &quantities(), now_ms);
    let used = Used { asks: &asks, extent: Extent::Something, started_at_ms: now_ms, ended_at_ms: now_ms };
    ready(counters.settle(tenant, id, &used));
}

/// The embedded engine never waits.
fn ready<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(answer) => drop(answer.expect("it always answers")),
        std::task::Poll::Pending => unreachable!("it waits for nothing"),
    }
}

fn per_decision_ns(names: &[Arc<str>], mut decide: impl FnMut(&str, usize)) -> u128 {
    let begun = Instant::now();
    for number in 0..DECISIONS {
        // A linear congruential generator's upper bits: any tenant, each run the same.
        let random = (number as u64).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 33;
        decide(&names[random as usize % names.len()], number);
    }
    begun.elapsed().as_nanos() / DECISIONS as u128
}
