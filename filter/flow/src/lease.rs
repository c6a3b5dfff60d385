//! Leases: calls that were reserved for ahead and go on without asking, and denials that hold for a while.
//!
//! Calls of one tenant, tier, model, API and key are of one kind. For a kind that is called often a lease is asked for, aside from its
//! calls, so that no client that leaves takes one along. It is spent here, call by call; while it lasts the next one is asked for,
//! and what is not used goes back among the events. A call that asks for more than a lease has for each asks for itself, and so does
//! one that makes images: these are few, slow and dear.
//!
//! Where the limiter says that all calls of a tenant are denied, and none of them is lent any more, that is known of the next ones by
//! their headers: see [`Leases::shut`].
//!
//! Nothing is decided here that the limiter has not reserved or denied: what is late, lost or unknown only means to ask.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::rc::Rc;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};
use tollgate_wire::admission::{AdmissionResponse, Decision, DeniedCalls, Lease};
use tollgate_wire::usage_event::LeaseReturned;

use crate::config::LeaseMode;
use crate::limit_headers::Limits;
use crate::metric::{Counter, Gauge, Recorder};
use demand::{Demand, SECOND_MS};
use denial::Denial;

pub(crate) use denial::Denied;

mod demand;
mod denial;

/// The most kinds of calls that are kept apart; calls of further ones are asked about.
pub const MAX_KINDS: usize = 4096;

/// A kind that is called less often is not worth a lease.
const HOT_CALLS_PER_S: u64 = 10;

/// The most leases of a kind: the one that is spent, and the next.
const MAX_LOANS: usize = 2;

/// The next lease is asked for when what is left lasts no longer: a few looks, so that its answer comes in time.
const AHEAD_MS: u64 = 300;

/// How often leases are looked after.
pub const LOOK_MS: u64 = 100;

/// A kind that was not called for so long is forgotten.
const IDLE_MS: u64 = 10_000;

/// Calls that share their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) tier: &'a str,
    pub(crate) model: Option<&'a str>,
    pub(crate) api: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
}

/// The kind of a question that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedKind {
    pub(crate) tenant: String,
    pub(crate) tier: String,
    pub(crate) model: Option<String>,
    pub(crate) api: Option<String>,
    pub(crate) key: Option<String>,
}

impl OwnedKind {
    pub(crate) fn borrowed(&self) -> Kind<'_> {
        let OwnedKind { tenant, tier, model, api, key } = self;
        Kind { tenant, tier, model: model.as_deref(), api: api.as_deref(), key: key.as_deref() }
    }
}

impl From<Kind<'_>> for OwnedKind {
    fn from(kind: Kind<'_>) -> OwnedKind {
        OwnedKind {
            tenant: kind.tenant.to_owned(),
            tier: kind.tier.to_owned(),
            model: kind.model.map(str::to_owned),
            api: kind.api.map(str::to_owned),
            key: kind.key.map(str::to_owned),
        }
    }
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amounts {
    pub(crate) input_tokens: u64,
    /// The cap, 0 where there is none; `None` where the answer has no tokens.
    pub(crate) output_tokens: Option<u64>,
    /// To be made; 0 where the call makes none.
    pub(crate) images: u64,
}

/// What becomes of a call.
#[derive(Debug)]
pub(crate) enum Way {
    /// It goes on, under this id, which is reserved for.
    Lent { id: String, limits: Rc<Limits> },
    /// It is denied as others were a moment ago.
    Denied(Rc<Denied>),
    /// The limiter is asked, with this [`LeaseRequest`](tollgate_wire::admission::LeaseRequest) for the case that it denies.
    Ask(Option<String>),
}

/// All leases of a worker.
#[derive(Debug)]
pub(crate) struct Leases {
    mode: LeaseMode,
    /// A question that takes longer has failed.
    timeout_ms: u64,
    kinds: HashTable<Slot>,
    /// Of the tenants and tiers all of whose calls are denied, the kind that has the denial.
    shut: HashTable<OwnedKind>,
    hasher: DefaultHashBuilder,
    returned: Vec<LeaseReturned>,
    /// As [`Gauge::CallsStranded`] was told last.
    stranded: i64,
}

#[derive(Debug)]
struct Slot {
    kind: OwnedKind,
    loans: VecDeque<Loan>,
    denial: Option<Denial>,
    demand: Demand,
    /// The question for a lease that is under way.
    asking: Option<Asking>,
}

#[derive(Debug, Clone, Copy)]
struct Asking {
    /// It is not waited for any longer.
    until_ms: u64,
    has_uncapped: bool,
}

#[derive(Debug)]
struct Loan {
    lease: Lease,
    used: u32,
    /// Whether it is for calls without a cap too.
    has_uncapped: bool,
    limits: Rc<Limits>,
}

impl Loan {
    fn left(&self) -> u32 {
        self.lease.calls.saturating_sub(self.used)
    }

    /// Whether each of its calls may ask for so much. One without a cap asks for what the lease has for each: the limiter knows
    /// how long such answers are.
    fn fits(&self, asked: &Amounts) -> bool {
        let output_fits = match asked.output_tokens {
            None => true,
            Some(0) => self.has_uncapped,
            Some(cap) => cap <= self.lease.output_tokens,
        };
        output_fits && asked.input_tokens <= self.lease.input_tokens
    }
}

impl Slot {
    fn new(kind: OwnedKind, now_ms: u64) -> Slot {
        Slot { kind, loans: VecDeque::new(), denial: None, demand: Demand::new(now_ms), asking: None }
    }

    /// Gives back what has expired.
    fn expire(&mut self, now_ms: u64, returned: &mut Vec<LeaseReturned>) {
        while let Some(loan) = self.loans.front()
            && (loan.left() == 0 || now_ms >= loan.lease.expires_at_ms)
        {
            if loan.left() > 0 {
                returned.push(self.kind.returned(&loan.lease, loan.used));
            }
            self.loans.pop_front();
        }
    }

    fn is_asking(&self, now_ms: u64) -> bool {
        self.asking.is_some_and(|asking| now_ms < asking.until_ms)
    }

    /// The denial that holds now. What is asked about already is not asked about by everyone.
    fn denial(&mut self, now_ms: u64) -> Option<&mut Denial> {
        let is_asking = self.is_asking(now_ms);
        self.denial.as_mut().filter(|denial| now_ms < denial.until_ms || is_asking)
    }

    fn lend(&mut self, asked: &Amounts) -> Option<Way> {
        let loan = self.loans.iter_mut().find(|loan| loan.left() > 0 && loan.fits(asked))?;
        let id = Lease::call_id(&loan.lease.id, loan.used);
        loan.used += 1;
        Some(Way::Lent { id, limits: Rc::clone(&loan.limits) })
    }
}

impl OwnedKind {
    fn is_of(&self, tenant: &str, tier: &str) -> bool {
        self.tenant == tenant && self.tier == tier
    }

    fn returned(&self, lease: &Lease, used: u32) -> LeaseReturned {
        let OwnedKind { tenant, tier, model, api, key } = self.clone();
        LeaseReturned { id: lease.id.clone(), tenant, tier, model, api, key, calls: lease.calls, used }
    }
}

/// A question for a lease alone.
#[derive(Debug)]
pub(crate) struct AskAhead {
    pub(crate) kind: OwnedKind,
    pub(crate) has_output: bool,
    pub(crate) metadata: String,
}

impl Leases {
    pub(crate) fn new(mode: LeaseMode, timeout_ms: u64) -> Leases {
        let hasher = DefaultHashBuilder::default();
        Leases {
            mode,
            timeout_ms,
            kinds: HashTable::new(),
            shut: HashTable::new(),
            hasher,
            returned: Vec::new(),
            stranded: 0,
        }
    }

    fn slot(&mut self, kind: Kind<'_>) -> Option<&mut Slot> {
        find(&mut self.kinds, &self.hasher, kind)
    }

    /// Decides about a call, as far as that is possible here.
    pub(crate) fn decide(&mut self, kind: Kind<'_>, asked: &Amounts, now_ms: u64, recorder: &impl Recorder) -> Way {
        if self.mode == LeaseMode::Off || asked.images > 0 {
            return Way::Ask(None);
        }
        let (hash, is_full) = (self.hasher.hash_one(kind), self.kinds.len() >= MAX_KINDS);
        let hasher = &self.hasher;
        let rehash = |slot: &Slot| hasher.hash_one(slot.kind.borrowed());
        let slot = match self.kinds.entry(hash, |slot| slot.kind.borrowed() == kind, rehash) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(_) if is_full => return Way::Ask(None),
            Entry::Vacant(room) => room.insert(Slot::new(kind.into(), now_ms)).into_mut(),
        };
        slot.demand.note(asked, now_ms);
        slot.expire(now_ms, &mut self.returned);
        if let Some(way) = slot.lend(asked) {
            recorder.add(Counter::CallsLeased, 1);
            return way;
        }
        let Some(denial) = slot.denial(now_ms).filter(|denial| denial.covers(asked)) else {
            return Way::Ask(Some(slot.demand.request(now_ms).encode()));
        };
        recorder.add(Counter::CallsDeniedFromCache, 1);
        // Others of the tenant's may be lent: that is looked at once a millisecond, as kinds may be many.
        let may_shut = denial.calls == DeniedCalls::All && denial.is_of_before(now_ms);
        let denied = denial.now(now_ms);
        if may_shut {
            self.shut(kind);
        }
        Way::Denied(denied)
    }

    /// The denial of all calls of a tenant and tier, where there is one and nothing is lent to them: no more has to be known of
    /// the call.
    pub(crate) fn deny_all(
        &mut self,
        tenant: &str,
        tier: &str,
        now_ms: u64,
        recorder: &impl Recorder,
    ) -> Option<Rc<Denied>> {
        if self.shut.is_empty() {
            return None;
        }
        let kind = self.shut.find(self.hasher.hash_one((tenant, tier)), |kind| kind.is_of(tenant, tier))?.borrowed();
        let slot = find(&mut self.kinds, &self.hasher, kind)?;
        // Whatever kind the call is of: the tenant's next lease is asked for by what all of them come to.
        slot.demand.note_alike(now_ms);
        let denied = slot.denial(now_ms)?.now(now_ms);
        recorder.add(Counter::CallsDeniedFromCache, 1);
        Some(denied)
    }

    /// All calls of the kind's tenant and tier are denied by the kind's denial, unless some are lent.
    fn shut(&mut self, kind: Kind<'_>) {
        let Kind { tenant, tier, .. } = kind;
        let is_lent = |slot: &Slot| slot.kind.is_of(tenant, tier) && slot.loans.iter().any(|loan| loan.left() > 0);
        if self.kinds.iter().any(is_lent) {
            return;
        }
        let hasher = &self.hasher;
        let hash = |kind: &OwnedKind| hasher.hash_one((kind.tenant.as_str(), kind.tier.as_str()));
        match self.shut.entry(hasher.hash_one((tenant, tier)), |kind| kind.is_of(tenant, tier), hash) {
            Entry::Occupied(mut shut) => *shut.get_mut() = kind.into(),
            Entry::Vacant(room) => drop(room.insert(kind.into())),
        }
    }

    /// Some calls of the tenant and tier are let through, or may be.
    fn open(&mut self, tenant: &str, tier: &str) {
        let hash = self.hasher.hash_one((tenant, tier));
        if let Ok(shut) = self.shut.find_entry(hash, |kind| kind.is_of(tenant, tier)) {
            shut.remove();
        }
    }

    /// The limiter answered a call of this kind that asked for so much.
    pub(crate) fn hear(&mut self, kind: Kind<'_>, asked: Amounts, answer: &AdmissionResponse, now_ms: u64) {
        if answer.decision == Decision::Admitted {
            self.open(kind.tenant, kind.tier);
        }
        let Some(slot) = self.slot(kind) else { return };
        match (answer.decision, answer.denial) {
            (Decision::Admitted, _) => slot.denial = None,
            (Decision::Denied, Some(told)) => {
                slot.denial = Some(Denial::new(asked, answer.clone(), now_ms, told));
            }
            (Decision::Denied, None) => {}
        }
    }

    /// The limiter answered a question for a lease; `None` when it failed.
    pub(crate) fn hear_ahead(
        &mut self,
        kind: &OwnedKind,
        answer: Option<AdmissionResponse>,
        now_ms: u64,
        recorder: &impl Recorder,
    ) {
        let asking = self.slot(kind.borrowed()).and_then(|slot| slot.asking.take());
        let Some(mut answer) = answer else { return };
        let lease = answer.lease.take();
        recorder.add(Counter::CallsLent, lease.as_ref().map_or(0, |lease| lease.calls.into()));
        self.hear(kind.borrowed(), Amounts::default(), &answer, now_ms);
        let Some(lease) = lease else { return };
        if let (Some(slot), Some(told)) = (self.slot(kind.borrowed()), answer.denial) {
            // There is nothing beyond the lease for calls as large as its.
            let answer = answer.clone().denied(told.until_ms.saturating_sub(now_ms));
            let output_tokens = match asking.as_ref().is_some_and(|asking| asking.has_uncapped) {
                true => Some(0),
                false => Some(lease.output_tokens).filter(|tokens| *tokens > 0),
            };
            let of = Amounts { input_tokens: lease.input_tokens, output_tokens, images: 0 };
            slot.denial = Some(Denial::new(of, answer, now_ms, told));
        }
        match (self.slot(kind.borrowed()), asking) {
            (Some(slot), Some(Asking { has_uncapped, .. })) if slot.loans.len() < MAX_LOANS => {
                let limits = Rc::new(Limits::new(answer.limits, now_ms));
                slot.loans.push_back(Loan { lease, used: 0, has_uncapped, limits });
            }
            _ => self.returned.push(kind.returned(&lease, 0)),
        }
    }

    /// Looks after all leases, every [`LOOK_MS`] or so: what is to be asked for.
    pub(crate) fn look(&mut self, now_ms: u64) -> Vec<AskAhead> {
        let mut asks = Vec::new();
        let (returned, timeout_ms) = (&mut self.returned, self.timeout_ms);
        let hot_calls_per_s = match self.mode {
            LeaseMode::Off => return asks,
            LeaseMode::Auto => HOT_CALLS_PER_S,
            LeaseMode::On => 1,
        };
        self.kinds.retain(|slot| {
            slot.expire(now_ms, returned);
            slot.demand.advance(now_ms);
            let calls_per_s = slot.demand.calls_per_s(now_ms);
            let ends_ms = now_ms.saturating_add(AHEAD_MS);
            let lasting = slot.loans.iter().filter(|loan| loan.lease.expires_at_ms > ends_ms);
            let left: u64 = lasting.map(|loan| u64::from(loan.left())).sum();
            let is_low = left <= calls_per_s.saturating_mul(AHEAD_MS) / SECOND_MS && slot.loans.len() < MAX_LOANS;
            // Before it ends, so that its end is not met by all who come then.
            let is_denied = slot.denial.as_ref().is_some_and(|denial| now_ms.saturating_add(LOOK_MS) < denial.until_ms);
            if is_low && !is_denied && calls_per_s >= hot_calls_per_s && !slot.is_asking(now_ms) {
                let request = slot.demand.request(now_ms);
                let until_ms = now_ms.saturating_add(timeout_ms);
                slot.asking = Some(Asking { until_ms, has_uncapped: request.has_uncapped });
                let (kind, has_output) = (slot.kind.clone(), slot.demand.has_output);
                asks.push(AskAhead { kind, has_output, metadata: request.encode() });
            }
            !slot.loans.is_empty() || now_ms.saturating_sub(slot.demand.last_call_ms) < IDLE_MS
        });
        let (kinds, hasher) = (&mut self.kinds, &self.hasher);
        self.shut.retain(|kind| find(kinds, hasher, kind.borrowed()).is_some_and(|slot| slot.denial(now_ms).is_some()));
        asks
    }

    /// What is given back since the last time.
    pub(crate) fn take_returned(&mut self, recorder: &impl Recorder) -> Vec<LeaseReturned> {
        let left: u64 = self.kinds.iter().flat_map(|slot| &slot.loans).map(|loan| u64::from(loan.left())).sum();
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        recorder.shift(Gauge::CallsStranded, left.saturating_sub(self.stranded));
        self.stranded = left;
        for returned in &self.returned {
            recorder.add(Counter::CallsReturned, returned.calls.saturating_sub(returned.used).into());
        }
        std::mem::take(&mut self.returned)
    }
}

/// Beside the leases' other parts, which may be borrowed.
fn find<'s>(kinds: &'s mut HashTable<Slot>, hasher: &DefaultHashBuilder, kind: Kind<'_>) -> Option<&'s mut Slot> {
    kinds.find_mut(hasher.hash_one(kind), |slot| slot.kind.borrowed() == kind)
}
