//! How much memory the embedded counters take, by a counting allocator: alone in its process.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tollgate::counters::{Counters, MAX_TENANTS, MemoryCounters};
use tollgate::metrics::Metrics;
use tollgate_domain::{Call, Limit, Outcome, Plan, Quantities, Take, Tokens, Unit, Window};

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW_MS: u64 = 1_795_392_000_000;
const TENANTS: usize = 1_000_000;
/// The bar, in bytes.
const MOST_PER_TENANT: usize = 400;

#[tokio::test]
async fn a_million_tenants_with_four_limits_are_kept_in_less_than_400_bytes_each() {
    let limit = |unit, window| Limit::new(unit, Some(window), NonZeroU64::new(1_000_000).unwrap()).unwrap();
    let limits = [
        limit(Unit::Requests, Window::Minute),
        limit(Unit::Tokens, Window::Minute),
        limit(Unit::Tokens, Window::Month),
        limit(Unit::Cost, Window::Day),
    ];
    let plan = Plan::new("test".into(), 1, limits.to_vec());
    let quantities = Quantities { requests: 1, slots: 1, tokens: Tokens::plain(10, 10), cost_nanousd: 5 };
    let asks = plan.asks(&Call::default(), &quantities, NOW_MS);
    let metrics = Metrics::new().0;
    let before = ALLOCATED.load(Ordering::Relaxed);
    let counters = MemoryCounters::new(MAX_TENANTS, Arc::new(|| NOW_MS), metrics.clone());
    for number in 0..TENANTS {
        let tenant = format!("tenant-{number:08}");
        let verdict = counters.admit(&tenant, &asks, Take::ForGood).await.unwrap();
        assert_eq!(verdict.outcome, Outcome::Admitted);
    }
    let per_tenant = (ALLOCATED.load(Ordering::Relaxed) - before) / TENANTS;
    println!("{per_tenant} bytes for each of {TENANTS} tenants");
    assert_eq!((metrics.tenants.get(), metrics.tenants_untracked.get()), (TENANTS as i64, 0));
    assert!(per_tenant < MOST_PER_TENANT, "{per_tenant} bytes a tenant");
    // What the allocator rounds up to comes on top of it: 16 bytes for each of three blocks at most.
}
