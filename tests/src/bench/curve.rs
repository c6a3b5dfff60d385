//! What a decision costs the embedded counters, by how many tenants there are: whether it is the same for many as for few.
//!
//! Each is of a tenant at random, on one thread: taken for good, or reserved and settled.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};
use tollgate::clock;
use tollgate::counters::{Counters, MAX_TENANTS, MemoryCounters, Unavailable};
use tollgate::metrics::Metrics;
use tollgate_domain::{Call, Extent, Hold, Limit, Plan, Quantities, Settles, Take, Tokens, Unit, Used, Window};

/// How many tenants there are.
const TENANTS: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

const DECISIONS: usize = 400_000;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Curve {
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    tenants: usize,
    decision_ns: u128,
    with_settlement_ns: u128,
}

/// Decides about calls of more and more tenants, four limits each.
pub(super) fn measure() -> anyhow::Result<Curve> {
    let limit = |unit, window| Limit::new(unit, Some(window), NonZeroU64::MIN.saturating_add(1 << 40));
    let limits = vec![
        limit(Unit::Requests, Window::Minute)?,
        limit(Unit::Tokens, Window::Minute)?,
        limit(Unit::Tokens, Window::Month)?,
        limit(Unit::Cost, Window::Day)?,
    ];
    let plan = Plan::new("bench".into(), 1, limits);
    let points = TENANTS.into_iter().map(|tenants| {
        eprintln!("decisions among {tenants} tenants");
        point(&plan, tenants)
    });
    Ok(Curve { points: points.collect::<anyhow::Result<_>>()? })
}

fn point(plan: &Plan, tenants: usize) -> anyhow::Result<Point> {
    let counters = MemoryCounters::new(MAX_TENANTS, clock::system(), Metrics::new().0);
    let names: Vec<Arc<str>> = (0..tenants).map(|number| format!("tenant-{number}").into()).collect();
    // Every tenant is known before.
    for name in &names {
        admit(&counters, plan, name, Take::ForGood)?;
    }
    let decision_ns = per_decision_ns(&names, |name, _| admit(&counters, plan, name, Take::ForGood))?;
    let with_settlement_ns = per_decision_ns(&names, |name, number| {
        let id = format!("0199d5a0-0000-7000-8000-{number:012}");
        let hold = Hold { id, timeout_ms: 600_000, call: Default::default() };
        admit(&counters, plan, name, Take::Hold(&hold))?;
        settle(&counters, plan, name, &hold.id)
    })?;
    Ok(Point { tenants, decision_ns, with_settlement_ns })
}

fn quantities() -> Quantities {
    Quantities { requests: 1, slots: 1, tokens: Tokens::plain(500, 300), cost_nanousd: 7000 }
}

fn admit(counters: &MemoryCounters, plan: &Plan, tenant: &str, take: Take<'_>) -> anyhow::Result<()> {
    let asks = plan.asks(&Call::default(), &quantities(), counters.now_ms());
    ready(counters.admit(tenant, &asks, take))
}

fn settle(counters: &MemoryCounters, plan: &Plan, tenant: &str, id: &str) -> anyhow::Result<()> {
    let now_ms = counters.now_ms();
    let asks = plan.asks(&Call::default(), &quantities(), now_ms);
    let (extent, settles) = (Extent::Something, Settles::All);
    let used = Used { asks: &asks, extent, started_at_ms: now_ms, ended_at_ms: now_ms, settles };
    ready(counters.settle(tenant, id, &used))
}

/// The embedded engine never waits, so that no runtime is measured along with it.
fn ready<T>(future: impl Future<Output = Result<T, Unavailable>>) -> anyhow::Result<()> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Ok(answer.map(drop)?),
        Poll::Pending => None.context("the embedded counters wait for something"),
    }
}

fn per_decision_ns(
    names: &[Arc<str>],
    mut decide: impl FnMut(&str, usize) -> anyhow::Result<()>,
) -> anyhow::Result<u128> {
    let begun = Instant::now();
    for number in 0..DECISIONS {
        // A linear congruential generator's upper bits: any tenant, each run the same.
        let random = (number as u64).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 33;
        decide(&names[random as usize % names.len()], number)?;
    }
    Ok(begun.elapsed().as_nanos() / DECISIONS as u128)
}

impl Curve {
    pub(super) fn json(&self) -> Value {
        let point = |Point { tenants, decision_ns, with_settlement_ns }: &Point| json!({"tenants": tenants, "decision_ns": *decision_ns as u64, "with_settlement_ns": *with_settlement_ns as u64});
        self.points.iter().map(point).collect()
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.points.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{:>9}  {:>11}  {:>22}", "tenants", "ns/decision", "with its settlement")?;
        for Point { tenants, decision_ns, with_settlement_ns } in &self.points {
            writeln!(f, "{tenants:>9}  {decision_ns:>11}  {with_settlement_ns:>22}")?;
        }
        Ok(())
    }
}
