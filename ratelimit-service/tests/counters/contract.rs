//! Every engine does to the last integer what the model does, over generated histories.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Range;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::{Builder, Runtime};
use tollgate::counters::{Counters, MAX_UNPOSTED};
use tollgate_domain::{
    Action, Anchor, Call, Expired, Extent, HeldCall, Hold, Lend, Limit, MAX_AMOUNT, Overlap, Pattern, Plan, Quantities,
    SETTLED_KEPT_MS, Scope, Settles, Take, TenantCounters, Tokens, Unit, Unused, Used, Window,
};
use tollgate_e2e::harness::redis::{Cluster, Redis};
use tollgate_e2e::harness::run_dir::RunDir;

use crate::engines::{Hand, memory, redis};

const CASES: u32 = 64;
const STEPS: usize = 150;
const TENANTS: [&str; 3] = ["acme", "", "a}{b %"];
const MODELS: [Option<&str>; 3] = [None, Some("gpt-4o"), Some("o3")];

#[derive(Debug, Clone)]
enum Step {
    Wait(i64),
    Admit { tenant: usize, plan: usize, asked: Asked, how: How },
    Settle { tenant: usize, plan: usize, asked: Asked, id: u8, began_ago_ms: u64, took_ms: u64, settles: Settles },
    Lend { tenant: usize, plan: usize, asked: Asked, ids: Range<u8>, timeout_ms: u64 },
    GiveBack { tenant: usize, plan: usize, asked: Asked, ids: Range<u8>, lent: u64 },
    Unposted,
    Posted { tenant: usize, id: u8 },
    Restore { tenant: usize, plan: usize, asked: Asked, overlap: Overlap },
    Reset(usize),
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    model: usize,
    requests: u64,
    tokens: u64,
    cost: u64,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Look,
    ForGood,
    Used,
    Hold { id: u8, timeout_ms: u64 },
}

/// Where a tenant changes between them, limits appear and vanish, and their capacities change.
fn plans() -> Vec<Plan> {
    let limit = |unit, window, capacity| Limit::new(unit, window, NonZeroU64::new(capacity).unwrap()).unwrap();
    let burst = |limit: Limit, burst| limit.with_burst(NonZeroU64::new(burst).unwrap()).unwrap();
    let scope = Scope { models: vec![Pattern::new("gpt-*")], ..Scope::default() };
    let (second, minute, hour) = (Some(Window::Second), Some(Window::Minute), Some(Window::Hour));
    let (day, month) = (Some(Window::Day), Some(Window::Month));
    let mut anchored = Plan::new(
        "anchored".into(),
        1,
        vec![
            limit(Unit::Requests, day, 9),
            limit(Unit::Tokens, month, 5_000),
            limit(Unit::Cost, day, 1_000),
            limit(Unit::Tokens, hour, 777).with_scope(scope.clone()),
            limit(Unit::Concurrency, None, 5),
        ],
    );
    anchored.anchor = Anchor::at(1_795_000_000_123);
    vec![
        Plan::new(
            "all".into(),
            1,
            vec![
                burst(limit(Unit::Requests, minute, 7), 3),
                limit(Unit::Tokens, minute, 997),
                limit(Unit::Tokens, month, 20_000),
                limit(Unit::Concurrency, None, 2),
            ],
        ),
        Plan::new(
            "other capacities".into(),
            1,
            vec![
                burst(limit(Unit::Requests, minute, 1_000), 2_000),
                limit(Unit::Tokens, minute, 13).with_action(Action::Warn),
                limit(Unit::OutputTokens, second, 61),
                burst(limit(Unit::InputTokens, minute, 300), 50).with_action(Action::Shadow),
                limit(Unit::Cost, month, 70_000).with_action(Action::Shadow),
            ],
        ),
        anchored,
        Plan::new(
            "huge".into(),
            1,
            vec![
                limit(Unit::Tokens, hour, MAX_AMOUNT),
                burst(limit(Unit::InputTokens, second, MAX_AMOUNT - 1), 1),
                burst(limit(Unit::OutputTokens, hour, 1), MAX_AMOUNT),
                limit(Unit::Tokens, month, MAX_AMOUNT),
                limit(Unit::Requests, hour, 3).with_scope(scope),
            ],
        ),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let tokens = prop_oneof![
        3 => Just(0),
        20 => 0..300u64,
        2 => 0..100_000u64,
        1 => MAX_AMOUNT - 2..=MAX_AMOUNT + 2,
        1 => 1 << 40..1u64 << 53,
    ];
    let requests = prop_oneof![1 => Just(0), 9 => Just(1), 1 => 2..5u64];
    (0..MODELS.len(), requests, tokens, 0..400u64).prop_map(|(model, requests, tokens, cost)| Asked {
        model,
        requests,
        tokens,
        cost: if tokens == 0 { 0 } else { cost },
    })
}

fn step() -> impl Strategy<Value = Step> {
    const DAY_MS: i64 = 86_400_000;
    let wait = prop_oneof![
        6 => 0..3_000i64,
        4 => 0..70_000i64,
        1 => 0..2 * DAY_MS,
        1 => 20 * DAY_MS..100 * DAY_MS,
        1 => -3_000..0i64,
        1 => -3 * DAY_MS..0,
    ];
    let how = prop_oneof![
        1 => Just(How::Look),
        2 => Just(How::ForGood),
        1 => Just(How::Used),
        6 => (0..40u8, prop_oneof![Just(1_000), Just(20_000), Just(600_000)])
            .prop_map(|(id, timeout_ms)| How::Hold { id, timeout_ms }),
    ];
    let (tenant, plan) = (0..TENANTS.len(), prop_oneof![5 => Just(0), 1 => 1..4usize]);
    let settles = prop_oneof![2 => Just(Settles::All), 1 => Just(Settles::Known)];
    let ids = || (0..40u8, 0..9u8).prop_map(|(first, many)| first..first + many);
    let ago = prop_oneof![3 => 0..5_000u64, 2 => 0..600_000u64, 1 => 0..200_000_000u64];
    prop_oneof![
        5 => wait.prop_map(Step::Wait),
        8 => (tenant.clone(), plan.clone(), asked(), how)
            .prop_map(|(tenant, plan, asked, how)| Step::Admit { tenant, plan, asked, how }),
        3 => (tenant.clone(), plan.clone(), asked(), ids(), prop_oneof![Just(1_000), Just(600_000)]).prop_map(
            |(tenant, plan, asked, ids, timeout_ms)| Step::Lend { tenant, plan, asked, ids, timeout_ms }
        ),
        2 => (tenant.clone(), plan.clone(), asked(), ids(), 0..12u64).prop_map(
            |(tenant, plan, asked, ids, lent)| Step::GiveBack { tenant, plan, asked, ids, lent }
        ),
        1 => (tenant.clone(), plan.clone(), asked(), prop_oneof![Just(Overlap::Nothing), Just(Overlap::Held)])
            .prop_map(|(tenant, plan, asked, overlap)| Step::Restore { tenant, plan, asked, overlap }),
        5 => (tenant.clone(), plan, asked(), 0..40u8, ago, 0..80_000u64, settles).prop_map(
            |(tenant, plan, asked, id, began_ago_ms, took_ms, settles)| {
                Step::Settle { tenant, plan, asked, id, began_ago_ms, took_ms, settles }
            }
        ),
        2 => Just(Step::Unposted),
        1 => (tenant.clone(), 0..40u8).prop_map(|(tenant, id)| Step::Posted { tenant, id }),
        1 => tenant.prop_map(Step::Reset),
    ]
}

fn quantities(asked: &Asked, slots: u64) -> Quantities {
    let tokens = Tokens::plain(asked.tokens, asked.tokens / 3);
    Quantities { requests: asked.requests, slots, tokens, cost_nanousd: asked.cost }
}

fn hold(id: u8, timeout_ms: u64) -> Hold {
    let model = id.is_multiple_of(2).then(|| "mödel \"o3\" \n".to_owned());
    let call = HeldCall {
        tier: "all".to_owned(),
        model,
        api: None,
        key: None,
        input_tokens: u64::from(id),
        output_tokens: u64::MAX,
        images: 3,
    };
    Hold { id: format!("id {id}"), timeout_ms, call }
}

/// The model of several tenants, beside the engine that has to do the same.
struct Pair<'e> {
    engine: &'e dyn Counters,
    hand: &'e Hand,
    plans: Vec<Plan>,
    model: BTreeMap<&'static str, TenantCounters>,
}

impl Pair<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now_ms = self.hand.now_ms();
        match step {
            Step::Wait(ms) => self.hand.step(*ms),
            Step::Admit { tenant, plan, asked, how } => self.admit(TENANTS[*tenant], *plan, asked, *how).await?,
            Step::Settle { tenant, plan, asked, id, began_ago_ms, took_ms, settles } => {
                let tenant = TENANTS[*tenant];
                let quantities = quantities(asked, 0);
                let call = Call { model: MODELS[asked.model], api: None, key: None };
                let asks = self.plans[*plan].asks(&call, &quantities, now_ms);
                let extent = if quantities.is_void() { Extent::Nothing } else { Extent::Something };
                let started_at_ms = now_ms.saturating_sub(*began_ago_ms);
                let ended_at_ms = started_at_ms + took_ms;
                let used = Used { asks: &asks, extent, started_at_ms, ended_at_ms, settles: *settles };
                let id = hold(*id, 0).id;
                let expected = self.model.entry(tenant).or_default().settle(&id, &used, now_ms);
                prop_assert_eq!(self.engine.settle(tenant, &id, &used).await.unwrap(), expected);
            }
            Step::Lend { tenant, plan, asked, ids, timeout_ms } => {
                let call = Call { model: MODELS[asked.model], api: None, key: None };
                let asks = self.plans[*plan].asks(&call, &quantities(asked, asked.requests.min(1)), now_ms);
                let Hold { timeout_ms, call, .. } = hold(ids.start, *timeout_ms);
                let lend = Lend { ids: ids.clone().map(|id| hold(id, 0).id).collect(), timeout_ms, call };
                let expected = self.model.entry(TENANTS[*tenant]).or_default().admit(&asks, Take::Lend(&lend), now_ms);
                let lent = self.engine.admit(TENANTS[*tenant], &asks, Take::Lend(&lend)).await.unwrap();
                prop_assert_eq!(lent, expected);
            }
            Step::GiveBack { tenant, plan, asked, ids, lent } => {
                let call = Call { model: MODELS[asked.model], api: None, key: None };
                let asks = self.plans[*plan].asks(&call, &quantities(asked, 0), now_ms);
                let ids: Vec<_> = ids.clone().map(|id| hold(id, 0).id).collect();
                let unused = Unused { ids: &ids, lent: *lent, asks: &asks };
                self.model.entry(TENANTS[*tenant]).or_default().give_back(&unused, now_ms);
                self.engine.give_back(TENANTS[*tenant], &unused).await.unwrap();
            }
            Step::Unposted => {
                let by_id = |(tenant, expired): &(String, Expired)| (tenant.clone(), expired.id.clone());
                let expected = self.model.iter_mut().flat_map(|(tenant, model)| {
                    model.unposted(MAX_UNPOSTED, now_ms).into_iter().map(|expired| ((*tenant).to_owned(), expired))
                });
                let mut expected: Vec<_> = expected.collect();
                let mut unposted = self.engine.unposted().await.unwrap();
                expected.sort_by_key(by_id);
                unposted.sort_by_key(by_id);
                prop_assert_eq!(unposted, expected);
                // An engine need not look at tenants that have nothing to offer; the model forgot what they had settled.
                for tenant in self.model.keys() {
                    self.engine.admit(tenant, &[], Take::ForGood).await.unwrap();
                }
            }
            Step::Posted { tenant, id } => {
                let (tenant, id) = (TENANTS[*tenant], hold(*id, 0).id);
                self.model.entry(tenant).or_default().posted(&id);
                self.engine.posted(tenant, &id).await.unwrap();
            }
            Step::Restore { tenant, plan, asked, overlap } => {
                let call = Call { model: MODELS[asked.model], ..Call::default() };
                let asks = self.plans[*plan].asks(&call, &quantities(asked, 0), now_ms);
                self.model.entry(TENANTS[*tenant]).or_default().restore(&asks, *overlap, now_ms);
                self.engine.restore(TENANTS[*tenant], &asks, *overlap).await.unwrap();
            }
            Step::Reset(tenant) => {
                self.model.entry(TENANTS[*tenant]).or_default().reset();
                self.engine.reset(TENANTS[*tenant], now_ms).await.unwrap();
            }
        }
        Ok(())
    }

    async fn admit(&mut self, tenant: &'static str, plan: usize, asked: &Asked, how: How) -> Result<(), TestCaseError> {
        let now_ms = self.hand.now_ms();
        prop_assert_eq!(self.engine.now_ms(), now_ms);
        let call = Call { model: MODELS[asked.model], api: None, key: None };
        let asks = self.plans[plan].asks(&call, &quantities(asked, asked.requests.min(1)), now_ms);
        let model = self.model.entry(tenant).or_default();
        let held;
        let take = match how {
            How::Look => Take::Nothing,
            How::ForGood => Take::ForGood,
            How::Used => Take::Used,
            How::Hold { id, timeout_ms } => {
                held = hold(id, timeout_ms);
                Take::Hold(&held)
            }
        };
        let expected = model.admit(&asks, take, now_ms);
        prop_assert_eq!(self.engine.admit(tenant, &asks, take).await.unwrap(), expected);
        Ok(())
    }

    /// The counters of all plans, whatever the history has shown of them.
    async fn compare(&mut self) -> Result<(), TestCaseError> {
        let nothing = Asked { model: 1, requests: 0, tokens: 0, cost: 0 };
        for tenant in TENANTS {
            for plan in 0..self.plans.len() {
                self.admit(tenant, plan, &nothing, How::Look).await?;
            }
        }
        Ok(())
    }
}

async fn follow(engine: &dyn Counters, hand: &Hand, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut pair = Pair { engine, hand, plans: plans(), model: BTreeMap::new() };
    for step in steps {
        pair.step(step).await?;
    }
    pair.compare().await
}

/// More is due at once than Redis's script lets run out in a call: what it says of the call's own id is right all the same,
/// and the next calls do the rest.
async fn follow_a_crowd(engine: &dyn Counters, hand: &Hand) -> Result<(), TestCaseError> {
    const CROWD: u8 = 250;
    let limit = |unit, window, capacity| Limit::new(unit, window, NonZeroU64::new(capacity).unwrap()).unwrap();
    let limits = vec![
        limit(Unit::Tokens, Some(Window::Minute), 9_000),
        limit(Unit::Tokens, Some(Window::Day), 9_000),
        limit(Unit::Concurrency, None, 1_000),
    ];
    let plans = vec![Plan::new("roomy".into(), 1, limits)];
    let mut pair = Pair { engine, hand, plans, model: BTreeMap::new() };
    let asked = |tokens| Asked { model: 0, requests: 1, tokens, cost: 0 };
    let settle = |id, tokens| {
        let (asked, settles) = (asked(tokens), Settles::All);
        Step::Settle { tenant: 0, plan: 0, asked, id, began_ago_ms: 0, took_ms: 0, settles }
    };
    let hold = |id| Step::Admit { tenant: 0, plan: 0, asked: asked(6), how: How::Hold { id, timeout_ms: 1_000 } };
    for id in 0..CROWD {
        pair.step(&hold(id)).await?;
    }
    pair.step(&Step::Wait(1_000)).await?;
    // By their ids these are the last to run out.
    for step in [settle(99, 20), settle(98, 0), settle(98, 0)] {
        pair.step(&step).await?;
    }
    pair.compare().await?;
    for id in 0..CROWD {
        pair.step(&settle(id, 5)).await?;
    }
    pair.step(&Step::Wait(SETTLED_KEPT_MS.cast_signed())).await?;
    for step in [settle(99, 20), hold(98), hold(97)] {
        pair.step(&step).await?;
    }
    pair.compare().await
}

fn histories(cases: u32, mut check: impl FnMut(&[Step]) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 3_000, ..Config::default() };
    let check = std::cell::RefCell::new(&mut check);
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 1..STEPS), |steps| (check.borrow_mut())(&steps))
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn memory_does_what_the_model_does() {
    let runtime = runtime();
    histories(CASES, |steps| {
        let hand = Hand::new();
        runtime.block_on(follow(&memory(&hand), &hand, steps))
    });
    let hand = Hand::new();
    runtime.block_on(follow_a_crowd(&memory(&hand), &hand)).unwrap();
}

#[test]
fn redis_does_what_the_model_does() {
    let (runtime, dir) = (runtime(), RunDir::create().unwrap());
    let server = runtime.block_on(Redis::start(dir.path())).unwrap();
    let mut case = 0;
    histories(CASES, |steps| {
        case += 1;
        let hand = Hand::new();
        runtime.block_on(async { follow(&redis(&server.url(), &format!("case-{case}"), &hand), &hand, steps).await })
    });
    let hand = Hand::new();
    runtime.block_on(async { follow_a_crowd(&redis(&server.url(), "crowd", &hand), &hand).await }).unwrap();
    const KEYS: &str = "local forever = 0
        for _, key in ipairs(redis.call('KEYS', '*')) do
            if redis.call('PTTL', key) < 0 then forever = forever + 1 end
        end
        return forever .. ' of ' .. (redis.call('DBSIZE') > 0 and 'some' or 'none')";
    let left = runtime.block_on(server.cli(&["EVAL", KEYS, "0"])).unwrap();
    assert_eq!(left, "0 of some", "every key has a time to live");
}

#[test]
fn a_cluster_does_what_the_model_does() {
    let (runtime, dir) = (runtime(), RunDir::create().unwrap());
    let cluster = runtime.block_on(Cluster::start(dir.path())).unwrap();
    let hosts: Vec<_> = cluster.nodes.iter().map(|node| node.addr().to_string()).collect();
    let url = format!("redis+cluster://{}", hosts.join(","));
    let mut case = 0;
    histories(8, |steps| {
        case += 1;
        let hand = Hand::new();
        runtime.block_on(async { follow(&redis(&url, &format!("case-{case}"), &hand), &hand, steps).await })
    });
}
