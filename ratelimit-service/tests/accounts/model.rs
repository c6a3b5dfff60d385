//! Every engine does what a map does, with generated histories.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::runtime::Runtime;
use tollgate::accounts::{Accounts, AccountsError, Json, Page, PriceRow, Record};

use crate::engines::Engine;
use crate::records::{by, make_tenants};

/// In the order of their bytes, which is no language's.
const IDS: [&str; 6] = ["!", "A", "B", "_", "a", "é"];
const TENANTS: [Option<&str>; 3] = [None, Some("Acme"), Some("acme")];

#[derive(Debug, Clone)]
enum Step {
    Create(usize, usize, u32),
    /// With a version that is so far off.
    Update(usize, u64, u32),
    Delete(usize, u64),
    /// Of so many, after this id, of this tenant.
    List(usize, usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..IDS.len();
    let off = prop::sample::select(vec![0, 0, 0, 1]);
    prop_oneof![
        3 => (id.clone(), 0..TENANTS.len(), any::<u32>()).prop_map(|(id, tenant, to)| Step::Create(id, tenant, to)),
        3 => (id.clone(), off.clone(), any::<u32>()).prop_map(|(id, off, to)| Step::Update(id, off, to)),
        1 => (id.clone(), off).prop_map(|(id, off)| Step::Delete(id, off)),
        2 => (id, 0..TENANTS.len(), 1..5_usize).prop_map(|(after, tenant, limit)| Step::List(after, tenant, limit)),
    ]
}

fn row(tenant: Option<&str>, position: u32) -> PriceRow {
    PriceRow { tenant: tenant.map(str::to_owned), position, price: Json::of(&position).unwrap() }
}

struct World {
    accounts: Accounts,
    model: BTreeMap<&'static str, Record<PriceRow>>,
    changes: u64,
    now_ms: u64,
}

impl World {
    async fn open(engine: &Engine) -> World {
        let accounts = engine.open().await;
        make_tenants(&accounts, &["Acme", "acme"]).await;
        World { accounts, model: BTreeMap::new(), changes: 2, now_ms: 10 }
    }

    /// Takes what the model has back out of the engine, so that the next history finds nothing.
    async fn clear(&mut self) {
        for (id, record) in std::mem::take(&mut self.model) {
            self.accounts.delete::<PriceRow>(&by(self.now_ms), id, record.version).await.unwrap();
            self.changes += 1;
        }
    }

    async fn take(&mut self, step: &Step) {
        self.now_ms += 1;
        let by = by(self.now_ms);
        match *step {
            Step::Create(id, tenant, to) => {
                let (id, value) = (IDS[id], row(TENANTS[tenant], to));
                let created = self.accounts.create(&by, id, value.clone()).await;
                if self.model.contains_key(id) {
                    assert_eq!(created, Err(AccountsError::Exists { kind: "price", id: id.to_owned() }));
                    return;
                }
                let (created_at_ms, updated_at_ms) = (by.at_ms, by.at_ms);
                let record = Record { id: id.to_owned(), version: 1, created_at_ms, updated_at_ms, value };
                assert_eq!(created, Ok(record.clone()));
                self.model.insert(id, record);
            }
            Step::Update(id, off, to) => {
                let (id, known) = (IDS[id], self.model.get_mut(IDS[id]));
                let version = known.as_ref().map_or(1, |known| known.version) + off;
                let tenant = known.as_ref().and_then(|known| known.value.tenant.clone());
                let updated = self.accounts.update(&by, id, version, row(tenant.as_deref(), to)).await;
                match known {
                    Some(known) if off == 0 => {
                        known.value = row(tenant.as_deref(), to);
                        (known.version, known.updated_at_ms) = (version + 1, by.at_ms);
                        assert_eq!(updated.as_ref(), Ok(&*known));
                    }
                    known => return assert_eq!(updated, Err(refused(id, known.map(|known| known.version), version))),
                }
            }
            Step::Delete(id, off) => {
                let known = self.model.get(IDS[id]).map(|known| known.version);
                let version = known.unwrap_or(1) + off;
                let deleted = self.accounts.delete::<PriceRow>(&by, IDS[id], version).await;
                if known.is_none() || off > 0 {
                    return assert_eq!(deleted, Err(refused(IDS[id], known, version)));
                }
                assert_eq!(deleted, Ok(()));
                self.model.remove(IDS[id]);
            }
            Step::List(after, tenant, limit) => {
                let (after, tenant) = (IDS[after], TENANTS[tenant]);
                let page = Page { tenant, after: Some(after), limit };
                let is_listed = |record: &&Record<PriceRow>| {
                    record.id.as_str() > after && (tenant.is_none() || record.value.tenant.as_deref() == tenant)
                };
                let expected: Vec<_> = self.model.values().filter(is_listed).take(limit).cloned().collect();
                return assert_eq!(self.accounts.list(&page).await, Ok(expected));
            }
        }
        self.changes += 1;
        assert_eq!(self.accounts.revision().await, Ok(self.changes));
    }
}

fn refused(id: &str, current: Option<u64>, expected: u64) -> AccountsError {
    let id = id.to_owned();
    match current {
        None => AccountsError::NotFound { kind: "price", id },
        Some(current) => AccountsError::Conflict { kind: "price", id, expected, current },
    }
}

#[test]
fn engines_do_what_a_map_does() {
    let runtime = Runtime::new().unwrap();
    for engine in runtime.block_on(Engine::all()) {
        let world = std::cell::RefCell::new(runtime.block_on(World::open(&engine)));
        let histories = prop::collection::vec(step(), 1..30);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 24,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let run = |history: Vec<Step>| {
            let mut world = world.borrow_mut();
            runtime.block_on(async {
                for step in &history {
                    world.take(step).await;
                }
                world.clear().await;
            });
            Ok(())
        };
        runner.run(&histories, run).unwrap();
    }
}
