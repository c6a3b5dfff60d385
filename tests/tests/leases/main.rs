//! Leases in a world of chance: the filter's own state machine and the service's own limiter, between them a network that
//! delays, drops, doubles and reorders, workers that die, and clocks that differ.
//!
//! A failure names its seed, and `TOLLGATE_LEASE_SEED=<seed>` plays that one alone.

mod chance;
mod service;
mod worker;
mod world;

use chance::Chance;
use tollgate_domain::Window;
use world::{Faults, Setting, World};

const SEEDS: u64 = 2_000;

fn seeds(many: u64) -> Vec<u64> {
    match std::env::var("TOLLGATE_LEASE_SEED") {
        Ok(seed) => vec![seed.parse().expect("TOLLGATE_LEASE_SEED is a number")],
        Err(_) => (0..many).collect(),
    }
}

fn each_seed(many: u64, play: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds(many) {
        if let Err(panic) = std::panic::catch_unwind(|| play(seed)) {
            eprintln!("the seed was {seed}: play it alone by TOLLGATE_LEASE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Whatever happens: no limit is exceeded, every reservation is settled, posted or given back, each once, and the counters
/// have what that sums up to.
#[test]
fn nothing_is_exceeded_lost_or_counted_twice() {
    each_seed(SEEDS, |seed| {
        let mut chance = Chance::new(seed);
        let setting = Setting {
            replicas: chance.between(1, 3),
            proxies: chance.between(1, 3),
            workers: chance.between(1, 3),
            capacity: chance.between(20, 400),
            burst: chance.between(10, 400),
            window: [Window::Second, Window::Minute][chance.below(2) as usize],
            slots: (chance.below(3) == 0).then(|| chance.between(2, 200)),
            calls_per_s: chance.between(5, 150),
            seconds: 4,
            faults: Faults::any(&mut chance),
        };
        World::new(setting, chance).play().check();
    });
}

/// Eight workers that want so many percent of the capacity, and what it is in ten seconds.
fn eight_workers(seed: u64, wanted_percent: u64, windows: &[Window]) -> (World, u64) {
    let mut chance = Chance::new(seed);
    let capacity = chance.between(400, 1_000);
    let setting = Setting {
        replicas: chance.between(1, 2),
        proxies: 2,
        workers: 4,
        capacity,
        burst: capacity,
        window: windows[chance.below(windows.len() as u64) as usize],
        slots: None,
        calls_per_s: capacity * wanted_percent / 100 / 8,
        seconds: 10,
        faults: Faults::none(),
    };
    let usable = match setting.window {
        Window::Second => capacity * 10,
        _ => setting.burst + capacity / 6,
    };
    (World::new(setting, chance).play(), usable)
}

#[test]
fn nearly_all_of_the_capacity_can_be_used() {
    each_seed(60, |seed| {
        let (played, usable) = eight_workers(seed, 150, &[Window::Second, Window::Minute]);
        let used = played.calls_let_through();
        assert!(used * 100 >= usable * 95, "{used} of {usable} were used");
        played.check();
    });
}

#[test]
fn where_there_is_enough_for_all_nearly_all_go_on_by_a_lease() {
    each_seed(60, |seed| {
        let (played, _) = eight_workers(seed, 40, &[Window::Second]);
        let (all, leased) = (played.calls_let_through(), played.calls_leased());
        assert!(leased * 100 >= all * 85, "{leased} of {all} by a lease");
        played.check();
    });
}

#[test]
fn a_seed_replays_exactly() {
    let play = || {
        let mut chance = Chance::new(7);
        let setting = Setting {
            replicas: 2,
            proxies: 2,
            workers: 2,
            capacity: 100,
            burst: 100,
            window: Window::Second,
            slots: None,
            calls_per_s: 60,
            seconds: 3,
            faults: Faults::any(&mut chance),
        };
        World::new(setting, chance).play().starts()
    };
    let first = play();
    assert!(!first.is_empty());
    assert_eq!(play(), first);
}
