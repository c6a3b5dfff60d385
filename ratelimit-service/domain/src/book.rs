//! A tenant's reservations: open, then settled or expired, then forgotten.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::counter::{Counter, Rule};
use crate::decision::Ask;
use crate::limit::CounterId;

/// How long a settled reservation's id is remembered: a late admission of it takes nothing, and a second settlement does
/// nothing.
pub const SETTLED_KEPT_MS: u64 = 60_000;

/// How long an expired reservation can still be corrected by its usage event.
pub const EXPIRED_KEPT_MS: u64 = 24 * 3_600_000;

/// After how long an expired reservation is offered again, when nobody said that it was posted.
pub const OFFER_AGAIN_MS: u64 = 30_000;

/// What is known of a call before it is made, kept for the record should its usage never come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldCall {
    /// The plan's name.
    pub tier: String,
    /// The model asked for.
    pub model: Option<String>,
    /// The API called.
    pub api: Option<String>,
    /// Which of the tenant's keys the caller showed.
    pub key: Option<String>,
    /// As estimated.
    pub input_tokens: u64,
    /// The request's cap, or as estimated.
    pub output_tokens: u64,
    /// Images that were asked for.
    pub images: u64,
}

/// A reservation to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Unique, and the usage event's.
    pub id: String,
    /// After so long without a usage event it expires.
    pub timeout_ms: u64,
    /// The call.
    pub call: HeldCall,
}

/// Reservations of calls that are yet to come, each as a [`Hold`] of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lend {
    /// The calls' ids; as many of the first ones are reserved for as there is room.
    pub ids: Vec<String>,
    /// After so long without a usage event each expires.
    pub timeout_ms: u64,
    /// What each call asks for at most.
    pub call: HeldCall,
}

/// A reservation that ran out, to be posted to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The reservation's.
    pub id: String,
    /// When it was made.
    pub started_at_ms: u64,
    /// When it ran out.
    pub expired_at_ms: u64,
    /// The call.
    pub call: HeldCall,
}

/// What a reservation holds of one counter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) counter: CounterId,
    pub(crate) amount: u64,
    pub(crate) kind: Kind,
}

/// What of a limit's rule is needed after it may have changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Refilled { capacity: u64, window_ms: u64, most_spent: u64 },
    Calendar { begun_at_ms: u64 },
    Slots,
}

impl Line {
    pub(crate) fn new(ask: &Ask<'_>, counter: &Counter) -> Line {
        let kind = match ask.rule {
            Rule::Refilled { capacity, window_ms, .. } => {
                Kind::Refilled { capacity, window_ms, most_spent: ask.most_spent() }
            }
            Rule::Calendar { .. } => Kind::Calendar { begun_at_ms: counter.at_ms },
            Rule::Slots { .. } => Kind::Slots,
        };
        Line { counter: ask.limit.counter(), amount: ask.amount, kind }
    }
}

/// All of a tenant's reservations that are remembered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    entries: HashMap<Arc<str>, Entry>,
    /// When each changes by itself.
    due: BTreeSet<(u64, Arc<str>)>,
    /// When each expired one that is not known to be in the ledger may be offered.
    offers: BTreeSet<(u64, Arc<str>)>,
}

#[derive(Debug, Clone)]
struct Entry {
    state: State,
    due_ms: u64,
    started_at_ms: u64,
    /// Shared by what was lent together, as the call is.
    lines: Arc<[Line]>,
    call: Option<Arc<HeldCall>>,
}

/// What became of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    Expired {
        at_ms: u64,
        /// `None` once it is known to be in the ledger.
        offer_ms: Option<u64>,
    },
    Settled,
}

impl Book {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When something is to run out or to be forgotten; `u64::MAX` for never.
    pub(crate) fn next_due_ms(&self) -> u64 {
        self.due.first().map_or(u64::MAX, |(due_ms, _)| *due_ms)
    }

    pub(crate) fn state(&self, id: &str) -> Option<State> {
        self.entries.get(id).map(|entry| entry.state)
    }

    /// Reserves for each of `ids`.
    pub(crate) fn open<'i>(
        &mut self,
        ids: impl IntoIterator<Item = &'i str>,
        timeout_ms: u64,
        call: &HeldCall,
        lines: Vec<Line>,
        now_ms: u64,
    ) {
        let due_ms = now_ms.saturating_add(timeout_ms);
        let call = Some(Arc::new(call.clone()));
        let entry = Entry { state: State::Open, due_ms, started_at_ms: now_ms, lines: lines.into(), call };
        for id in ids {
            self.insert(id.into(), entry.clone());
        }
    }

    /// Forgets an open reservation that nothing was made of. Gives when it was made, and what it held.
    pub(crate) fn forget(&mut self, id: &str) -> Option<(u64, Arc<[Line]>)> {
        if self.state(id) != Some(State::Open) {
            return None;
        }
        let (id, entry) = self.entries.remove_entry(id)?;
        self.due.remove(&(entry.due_ms, id));
        Some((entry.started_at_ms, entry.lines))
    }

    /// Settles a reservation, known or not; gives what it held.
    pub(crate) fn settle(&mut self, id: &str, now_ms: u64) -> Arc<[Line]> {
        let (id, lines) = match self.entries.remove_entry(id) {
            Some((id, entry)) => {
                self.due.remove(&(entry.due_ms, Arc::clone(&id)));
                if let State::Expired { offer_ms: Some(offer_ms), .. } = entry.state {
                    self.offers.remove(&(offer_ms, Arc::clone(&id)));
                }
                (id, entry.lines)
            }
            None => (id.into(), Arc::default()),
        };
        let (due_ms, lines_left, call) = (now_ms + SETTLED_KEPT_MS, Arc::default(), None);
        self.insert(id, Entry { state: State::Settled, due_ms, started_at_ms: now_ms, lines: lines_left, call });
        lines
    }

    /// Lets run out or forgets what is due: what the next one that ran out had held, until there is none.
    pub(crate) fn expire_next(&mut self, now_ms: u64) -> Option<Arc<[Line]>> {
        while self.next_due_ms() <= now_ms {
            let (_, id) = self.due.pop_first()?;
            let entry = self.entries.get_mut(&id)?;
            match entry.state {
                State::Open => {
                    entry.state = State::Expired { at_ms: now_ms, offer_ms: Some(now_ms) };
                    entry.due_ms = now_ms + EXPIRED_KEPT_MS;
                    let lines = Arc::clone(&entry.lines);
                    self.due.insert((entry.due_ms, Arc::clone(&id)));
                    self.offers.insert((now_ms, id));
                    return Some(lines);
                }
                State::Expired { offer_ms: Some(_), .. } => {
                    entry.due_ms = now_ms + EXPIRED_KEPT_MS;
                    self.due.insert((entry.due_ms, id));
                }
                State::Expired { .. } | State::Settled => {
                    self.entries.remove(&id);
                }
            }
        }
        None
    }

    /// Knows of a reservation that ran out before a restart and is in the ledger.
    pub(crate) fn restore(&mut self, expired: &Expired, lines: Vec<Line>) {
        let state = State::Expired { at_ms: expired.expired_at_ms, offer_ms: None };
        let (due_ms, started_at_ms) = (expired.expired_at_ms.saturating_add(EXPIRED_KEPT_MS), expired.started_at_ms);
        self.insert(
            expired.id.as_str().into(),
            Entry { state, due_ms, started_at_ms, lines: lines.into(), call: None },
        );
    }

    /// What open ones hold that are to run out by now.
    pub(crate) fn running_out(&self, now_ms: u64) -> impl Iterator<Item = &Line> {
        let due = self.due.iter().take_while(move |(due_ms, _)| *due_ms <= now_ms);
        let open = due.filter_map(|(_, id)| self.entries.get(id)).filter(|entry| entry.state == State::Open);
        open.flat_map(|entry| entry.lines.iter())
    }

    /// Expired reservations that may be offered now, `most` at most; first those that could be for longest.
    pub(crate) fn offer(&mut self, most: usize, now_ms: u64) -> Vec<Expired> {
        let mut offered = Vec::new();
        while offered.len() < most
            && self.next_offer_ms() <= now_ms
            && let Some((_, id)) = self.offers.pop_first()
        {
            let Some(Entry { state: State::Expired { at_ms, offer_ms }, started_at_ms, call: Some(call), .. }) =
                self.entries.get_mut(&id)
            else {
                continue;
            };
            let (again_ms, started_at_ms, expired_at_ms) = (now_ms + OFFER_AGAIN_MS, *started_at_ms, *at_ms);
            *offer_ms = Some(again_ms);
            offered.push(Expired { id: id.to_string(), started_at_ms, expired_at_ms, call: HeldCall::clone(call) });
            self.offers.insert((again_ms, id));
        }
        offered
    }

    /// When the next expired one may be offered; `u64::MAX` for never.
    pub(crate) fn next_offer_ms(&self) -> u64 {
        self.offers.first().map_or(u64::MAX, |(offer_ms, _)| *offer_ms)
    }

    /// The expired reservation is in the ledger.
    pub(crate) fn posted(&mut self, id: &str) {
        if let Some(entry) = self.entries.get_mut(id)
            && let State::Expired { offer_ms, .. } = &mut entry.state
            && let Some(offer_ms) = offer_ms.take()
        {
            entry.call = None;
            self.offers.remove(&(offer_ms, id.into()));
        }
    }

    fn insert(&mut self, id: Arc<str>, entry: Entry) {
        self.due.insert((entry.due_ms, Arc::clone(&id)));
        self.entries.insert(id, entry);
    }
}
