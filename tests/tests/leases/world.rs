//! Time, the network, and what may go wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use tollgate_domain::Window;
use tollgate_flow::{Counter, LOOK_MS, OwnedKind};

use crate::chance::Chance;
use crate::service::{Question, Service};
use crate::worker::{TIMEOUT_MS, Went, Worker};

/// 2026-11-23T12:00:00Z: no day ends while a world is played.
const START_MS: u64 = 1_795_435_200_000;
/// By then all is settled, or has run out.
const END_MS: u64 = START_MS + 1_200_000;
/// The service's own, for leases.
const LIFETIME_MS: u64 = 1_000;
/// Records are sent again so long after nobody acknowledged them.
const RETRY_MS: u64 = 700;

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) replicas: u64,
    pub(crate) proxies: u64,
    /// Of each proxy.
    pub(crate) workers: u64,
    /// Requests in each window.
    pub(crate) capacity: u64,
    pub(crate) burst: u64,
    pub(crate) window: Window,
    /// Calls at once.
    pub(crate) slots: Option<u64>,
    /// Of each worker.
    pub(crate) calls_per_s: u64,
    /// For how long calls come.
    pub(crate) seconds: u64,
    pub(crate) faults: Faults,
}

/// Each happens one time in so many; 0 for never.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    drops: u64,
    doubles: u64,
    deaths: u64,
    leaves: u64,
    longest_delay_ms: u64,
    clocks_ms: u64,
}

impl Faults {
    pub(crate) fn none() -> Faults {
        Faults { drops: 0, doubles: 0, deaths: 0, leaves: 0, longest_delay_ms: 3, clocks_ms: 0 }
    }

    pub(crate) fn any(chance: &mut Chance) -> Faults {
        let mut one_in = |least, most| if chance.below(2) == 0 { 0 } else { chance.between(least, most) };
        let (drops, doubles, deaths, leaves) = (one_in(3, 50), one_in(2, 20), one_in(20, 200), one_in(5, 50));
        let longest_delay_ms = [1, 20, 150, 900][chance.below(4) as usize];
        Faults { drops, doubles, deaths, leaves, longest_delay_ms, clocks_ms: chance.below(120_000) }
    }
}

/// What is to come. Workers that died are others than those in their place.
enum Event {
    Call { worker: usize },
    Look { worker: usize },
    Question { worker: usize, of: Of, question: Question },
    Answer { worker: usize, of: Of, answer: Option<Vec<u8>> },
    Leave { worker: usize, call: u64 },
    Respond { worker: usize, call: u64 },
    Records { worker: usize, sent: u64, records: Vec<Vec<u8>> },
    Acknowledged { worker: usize, sent: u64, many: usize },
    Sweep,
}

#[derive(Clone)]
enum Of {
    Call(u64),
    /// By a number, as Envoy tells by a token which question an answer is for. There is one answer for each.
    Lease(OwnedKind, u64),
}

pub(crate) struct World {
    setting: Setting,
    chance: Chance,
    now_ms: u64,
    service: Service,
    /// All there ever were; `None` for the dead.
    workers: Vec<Option<Worker>>,
    /// Records under way, by their worker: which, and until when their acknowledgement is waited for.
    sending: BTreeMap<usize, (u64, u64)>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    payloads: BTreeMap<u64, Event>,
    lease_questions: BTreeSet<u64>,
    calls: u64,
    /// When calls were let through.
    starts: Vec<u64>,
    ended: BTreeSet<String>,
    leased: u64,
}

impl World {
    pub(crate) fn new(setting: Setting, mut chance: Chance) -> World {
        let mut workers = Vec::new();
        for _ in 0..setting.proxies {
            let ahead_ms = if setting.faults.clocks_ms > 0 { chance.below(setting.faults.clocks_ms) } else { 0 };
            workers.extend((0..setting.workers).map(|_| Some(Worker::new(ahead_ms))));
        }
        let mut world = World {
            service: Service::new(&setting, START_MS),
            setting,
            chance,
            now_ms: START_MS,
            sending: BTreeMap::new(),
            events: BinaryHeap::new(),
            payloads: BTreeMap::new(),
            lease_questions: BTreeSet::new(),
            calls: 0,
            starts: Vec::new(),
            ended: BTreeSet::new(),
            leased: 0,
            workers: Vec::new(),
        };
        for worker in workers {
            world.live(worker);
        }
        world.after(1_000, Event::Sweep);
        world
    }

    fn live(&mut self, worker: Option<Worker>) {
        let at = self.workers.len();
        self.workers.push(worker);
        let (first_ms, look_ms) = (self.chance.below(1_000 / self.setting.calls_per_s + 1), self.chance.below(LOOK_MS));
        self.after(first_ms, Event::Call { worker: at });
        self.after(look_ms, Event::Look { worker: at });
    }

    fn after(&mut self, ms: u64, event: Event) {
        let number = self.chance.number();
        // Of what happens in the same millisecond, the order is chance.
        self.payloads.insert(number, event);
        self.events.push(Reverse((self.now_ms + ms, number)));
    }

    /// Over the network.
    fn send(&mut self, event: impl Fn() -> Event) {
        let Faults { drops, doubles, longest_delay_ms, .. } = self.setting.faults;
        let times = if self.chance.is_one_in(drops) { 0 } else { 1 + u64::from(self.chance.is_one_in(doubles)) };
        for _ in 0..times {
            let ms = self.chance.between(0, longest_delay_ms);
            self.after(ms, event());
        }
    }

    pub(crate) fn play(mut self) -> World {
        while let Some(Reverse((at_ms, number))) = self.events.pop() {
            if at_ms > END_MS {
                break;
            }
            self.now_ms = at_ms;
            self.service.at(at_ms);
            let event = self.payloads.remove(&number).unwrap();
            self.happen(event);
        }
        self
    }

    fn calls_come(&self) -> bool {
        self.now_ms < START_MS + self.setting.seconds * 1_000
    }

    fn happen(&mut self, event: Event) {
        let now_ms = self.now_ms;
        match event {
            Event::Call { worker } => self.call(worker),
            Event::Look { worker } => self.look(worker),
            Event::Question { worker, of, question } => {
                let replica = self.chance.below(self.setting.replicas);
                let answer = self.service.ask(replica, &question);
                self.send(|| Event::Answer { worker, of: of.clone(), answer: Some(answer.clone()) });
            }
            Event::Answer { worker, of, answer } => {
                let Some(Some(asked)) = self.workers.get_mut(worker) else { return };
                match of {
                    Of::Lease(_, number) if !self.lease_questions.remove(&number) => {}
                    Of::Lease(kind, _) => {
                        let clock = now_ms + asked.ahead_ms;
                        asked.shared.on_lease_answer(&kind, answer.as_deref(), clock, &asked.counts);
                    }
                    Of::Call(call) => {
                        let went = asked.hear(call, answer.as_deref(), now_ms);
                        self.went(worker, call, went);
                    }
                }
            }
            Event::Leave { worker, call } => {
                if let Some(Some(left)) = self.workers.get_mut(worker) {
                    left.leave(call, now_ms);
                }
            }
            Event::Respond { worker, call } => {
                let Some(Some(answered)) = self.workers.get_mut(worker) else { return };
                if let Some(id) = answered.respond(call, &mut self.chance, now_ms) {
                    assert!(self.ended.insert(id.clone()), "two calls have the id {id}");
                }
            }
            Event::Records { worker, sent, records } => {
                let replica = self.chance.below(self.setting.replicas);
                self.service.take(replica, &records);
                let many = records.len();
                self.send(|| Event::Acknowledged { worker, sent, many });
            }
            Event::Acknowledged { worker, sent, many } => {
                if self.sending.get(&worker).is_some_and(|(awaited, _)| *awaited == sent)
                    && let Some(Some(sender)) = self.workers.get_mut(worker)
                {
                    self.sending.remove(&worker);
                    sender.outbox.drain(..many);
                }
            }
            Event::Sweep => {
                self.service.post_unsettled();
                self.after(1_000, Event::Sweep);
            }
        }
    }

    fn call(&mut self, worker: usize) {
        if !self.calls_come() {
            return;
        }
        let (now_ms, call) = (self.now_ms, self.calls);
        let Some(Some(caller)) = self.workers.get_mut(worker) else { return };
        self.calls += 1;
        let before = caller.counts.of(Counter::CallsLeased);
        let went = caller.begin(call, &mut self.chance, now_ms);
        self.leased += caller.counts.of(Counter::CallsLeased) - before;
        self.went(worker, call, Some(went));
        let pause_ms = self.chance.between(0, 2_000 / self.setting.calls_per_s);
        self.after(pause_ms, Event::Call { worker });
    }

    fn went(&mut self, worker: usize, call: u64, went: Option<Went>) {
        match went {
            Some(Went::Through) => {
                self.starts.push(self.now_ms);
                let ms = self.chance.between(1, 1_500);
                self.after(ms, Event::Respond { worker, call });
            }
            Some(Went::Asks(question)) => {
                self.send(|| Event::Question { worker, of: Of::Call(call), question: question.clone() });
                self.after(TIMEOUT_MS, Event::Answer { worker, of: Of::Call(call), answer: None });
                if self.chance.is_one_in(self.setting.faults.leaves) {
                    let ms = self.chance.below(TIMEOUT_MS);
                    self.after(ms, Event::Leave { worker, call });
                }
            }
            Some(Went::Refused) | None => {}
        }
    }

    fn look(&mut self, worker: usize) {
        let now_ms = self.now_ms;
        let Some(Some(looked)) = self.workers.get_mut(worker) else { return };
        let (asks, outbox, ahead_ms) = (looked.tick(now_ms), looked.outbox.clone(), looked.ahead_ms);
        for ask in asks {
            let question = Question { message: ask.message, reservation_id: None, lease: Some(ask.lease) };
            let number = self.chance.number();
            self.lease_questions.insert(number);
            let of = Of::Lease(ask.kind, number);
            self.send(|| Event::Question { worker, of: of.clone(), question: question.clone() });
            self.after(TIMEOUT_MS, Event::Answer { worker, of, answer: None });
        }
        if !outbox.is_empty() && self.sending.get(&worker).is_none_or(|(_, until_ms)| *until_ms <= now_ms) {
            let sent = self.chance.number();
            self.sending.insert(worker, (sent, now_ms + RETRY_MS));
            self.send(|| Event::Records { worker, sent, records: outbox.clone() });
        }
        if self.calls_come() && self.chance.is_one_in(self.setting.faults.deaths) {
            self.workers[worker] = None;
            return self.live(Some(Worker::new(ahead_ms)));
        }
        // Until all is given back and told.
        if now_ms < START_MS + 600_000 {
            self.after(LOOK_MS, Event::Look { worker });
        }
    }

    pub(crate) fn calls_let_through(&self) -> u64 {
        self.starts.len() as u64
    }

    pub(crate) fn calls_leased(&self) -> u64 {
        self.leased
    }

    pub(crate) fn starts(&self) -> Vec<u64> {
        self.starts.clone()
    }

    /// The laws.
    pub(crate) fn check(&self) {
        self.check_limit();
        let service = &self.service;
        let settled: BTreeSet<String> = service.reserved.difference(&service.given_back).cloned().collect();
        assert!(service.given_back.is_subset(&service.reserved), "what was never lent is given back");
        assert!(self.ended.is_disjoint(&service.given_back), "a call went on that was given back");
        assert!(self.ended.is_subset(&service.reserved), "a call went on that nothing was reserved for");
        let ids = service.ids();
        assert_eq!(ids, settled, "each reservation is settled or posted, if it was not given back");
        let (requests, tokens, held) = service.day();
        assert_eq!(held, 0, "something is held still");
        assert_eq!(requests, settled.len() as u64 + service.unreserved(), "requests");
        assert_eq!(tokens, service.tokens(), "tokens");
    }

    /// No interval has more calls than one burst and what comes back in it; a call may begin so long after it was reserved for as
    /// a lease lasts.
    fn check_limit(&self) {
        let Setting { capacity, burst, .. } = self.setting;
        let window_ms = if self.setting.window == Window::Second { 1_000 } else { 60_000 };
        let late_ms = LIFETIME_MS.max(TIMEOUT_MS);
        let most = burst * window_ms + capacity * late_ms;
        let (mut level, mut at_ms) = (0, 0);
        for start_ms in &self.starts {
            level = u64::saturating_sub(level, capacity * (start_ms - at_ms)) + window_ms;
            at_ms = *start_ms;
            assert!(level <= most, "{} calls too many", (level - most).div_ceil(window_ms));
        }
    }
}
