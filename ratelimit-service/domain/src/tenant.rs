//! What one tenant has spent and reserved: the model that every engine of counters follows.

use crate::amount::MAX_AMOUNT;
use crate::book::{Book, Expired, Hold, Kind, Lend, Line, State};
use crate::counter::{Counter, Rule};
use crate::decision::{Ask, Outcome, Role, Verdict};
use crate::limit::{CounterId, Unit};

/// How the asked amounts are taken when all binding limits agree.
#[derive(Debug, Clone, Copy)]
pub enum Take<'a> {
    /// Not at all; nothing runs out by it either.
    Nothing,
    /// For good.
    ForGood,
    /// For good, whatever the limits say: it has been used.
    Used,
    /// Requests for good, and all else until the reservation is settled or expires. Where the id is known already, the
    /// answer is admission, and nothing is taken.
    Hold(&'a Hold),
    /// As [`Take::Hold`], for as many calls of these as there is room, each of which asks for this much. Those whose id is
    /// known already are among them, and take nothing.
    Lend(&'a Lend),
}

/// Calls that were lent to and are not to come.
#[derive(Debug, Clone, Copy)]
pub struct Unused<'a> {
    /// Their ids; those that have no open reservation are passed over.
    pub ids: &'a [String],
    /// How many calls were lent to together.
    pub lent: u64,
    /// What each asked for.
    pub asks: &'a [Ask<'a>],
}

/// What a call has used, by the limits that count it.
#[derive(Debug, Clone, Copy)]
pub struct Used<'a> {
    /// Each limit and how much of it.
    pub asks: &'a [Ask<'a>],
    /// Whether anything was used but the request.
    pub extent: Extent,
    /// When the call began.
    pub started_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: u64,
    /// Which calls are settled.
    pub settles: Settles,
}

/// Which calls a settlement settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Settles {
    /// Those whose reservation is known: a second settlement does nothing then, however often it is tried.
    Known,
    /// All. Of a call without a reservation, or whose reservation is forgotten, it has to be known that it is new.
    #[default]
    All,
}

/// What a ledger's sums and what is held may have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing: every call in the ledger is settled.
    Nothing,
    /// Calls: some in the ledger were not settled when the service died, and will be, or run out.
    Held,
}

/// Whether a call used anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Tokens or money.
    Something,
    /// Nothing was generated: what was held is given back.
    Nothing,
}

/// What a settlement met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// An open reservation: what was held is given back, what was used is spent.
    Posted,
    /// An expired one: the difference to its estimate is spent or given back.
    Corrected,
    /// None: all that was used is spent, its request too.
    Unreserved,
    /// A settlement of the same id: nothing is done.
    Repeated,
    /// None, and such calls are not settled now: nothing is done.
    Unknown,
}

/// What one tenant has spent and reserved.
#[derive(Debug, Clone, Default)]
pub struct TenantCounters {
    counters: Vec<(CounterId, Counter)>,
    /// There while there are reservations.
    book: Option<Box<Book>>,
    /// When all that is spent will have come back.
    drained_at_ms: u64,
}

impl TenantCounters {
    /// Decides about a call. All is taken, or nothing.
    pub fn admit(&mut self, asks: &[Ask<'_>], take: Take<'_>, now_ms: u64) -> Verdict {
        if matches!(take, Take::Nothing) {
            return self.look(asks, now_ms);
        }
        self.expire(now_ms);
        let Verdict { outcome, mut counters, .. } = self.judge(asks, now_ms);
        let (mut outcome, mut reserved) = (outcome, 0);
        match (take, outcome) {
            (Take::Hold(hold), _) if self.state(&hold.id).is_some() => (outcome, reserved) = (Outcome::Admitted, 1),
            (Take::Used, _) | (Take::ForGood, Outcome::Admitted) => {
                // Without a reservation nothing tells when a slot is free again.
                let spent = asks.iter().zip(&mut counters).filter(|(ask, _)| ask.limit.unit != Unit::Concurrency);
                for (ask, counter) in spent {
                    counter.spend(ask.amount, ask.most_spent());
                    self.keep(ask, *counter, now_ms);
                }
            }
            (Take::Hold(hold), Outcome::Admitted) => {
                let lines = self.reserve(asks, &mut counters, 1, now_ms);
                let ids = [hold.id.as_str()];
                self.book.get_or_insert_default().open(ids, hold.timeout_ms, &hold.call, lines, now_ms);
                reserved = 1;
            }
            (Take::Lend(lend), _) => {
                let (known, new): (Vec<_>, Vec<_>) =
                    lend.ids.iter().map(String::as_str).partition(|id| self.state(id).is_some());
                let fitting = asks.iter().zip(&counters).filter(|(ask, _)| ask.role == Role::Binding);
                let room = fitting.map(|(ask, counter)| counter.room(&ask.rule, ask.amount)).min().unwrap_or(u64::MAX);
                let calls = new.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                if calls > 0 {
                    let lines = self.reserve(asks, &mut counters, calls as u64, now_ms);
                    let ids = new.into_iter().take(calls);
                    self.book.get_or_insert_default().open(ids, lend.timeout_ms, &lend.call, lines, now_ms);
                }
                reserved = known.len() + calls;
                outcome = if reserved > 0 { Outcome::Admitted } else { Outcome::Denied };
            }
            (Take::Nothing, _) | (_, Outcome::Denied) => {}
        }
        Verdict { outcome, counters, reserved, now_ms }
    }

    /// Takes what so many calls ask for. Gives what each of them holds.
    fn reserve(&mut self, asks: &[Ask<'_>], counters: &mut [Counter], calls: u64, now_ms: u64) -> Vec<Line> {
        let mut lines = Vec::with_capacity(asks.len());
        for (ask, counter) in asks.iter().zip(counters) {
            let amount = ask.amount.saturating_mul(calls);
            if ask.limit.unit == Unit::Requests {
                counter.spend(amount, ask.most_spent());
            } else if ask.amount > 0 {
                counter.hold(amount);
                lines.push(Line::new(ask, counter));
            }
            self.keep(ask, *counter, now_ms);
        }
        lines
    }

    /// Gives back what was lent to calls that are not to come, and tells how many that were. Of their requests, what has
    /// drained since they were lent has come back already.
    pub fn give_back(&mut self, unused: &Unused<'_>, now_ms: u64) -> u64 {
        self.expire(now_ms);
        let (mut calls, mut lent_at_ms) = (0, now_ms);
        for id in unused.ids {
            let Some((started_at_ms, lines)) = self.book.as_mut().and_then(|book| book.forget(id)) else { continue };
            calls += 1;
            lent_at_ms = lent_at_ms.min(started_at_ms);
            for line in lines.iter() {
                self.change(line, now_ms, |counter| counter.release(line.amount));
            }
        }
        for ask in unused.asks.iter().filter(|ask| calls > 0 && ask.limit.unit == Unit::Requests) {
            let mut counter = self.advanced(ask, now_ms);
            let is_counted = !matches!(ask.rule, Rule::Calendar { .. }) || counter.at_ms <= lent_at_ms;
            if is_counted {
                let (back, of) = (ask.amount.saturating_mul(calls), ask.amount.saturating_mul(unused.lent));
                counter.refund(back, of, lent_at_ms, &ask.rule);
            }
            self.keep(ask, counter, now_ms);
        }
        calls
    }

    /// What [`TenantCounters::admit`] says to one who takes [`Take::Nothing`]. It copies no reservations.
    pub fn look(&self, asks: &[Ask<'_>], now_ms: u64) -> Verdict {
        let due = self.book.as_ref().filter(|book| book.next_due_ms() <= now_ms);
        let Some(book) = due else { return self.judge(asks, now_ms) };
        let mut run_out = TenantCounters { counters: self.counters.clone(), ..TenantCounters::default() };
        for line in book.running_out(now_ms) {
            run_out.post_estimate(line, now_ms);
        }
        run_out.judge(asks, now_ms)
    }

    /// Settles a call to what it has used.
    pub fn settle(&mut self, id: &str, used: &Used<'_>, now_ms: u64) -> Settled {
        self.expire(now_ms);
        let state = self.state(id);
        let settled = match state {
            Some(State::Settled) => return Settled::Repeated,
            Some(State::Open) => Settled::Posted,
            Some(State::Expired { .. }) => Settled::Corrected,
            None if used.settles == Settles::Known => return Settled::Unknown,
            None => Settled::Unreserved,
        };
        let lines = self.book.get_or_insert_default().settle(id, now_ms);
        for ask in used.asks {
            let line = lines.iter().find(|line| line.counter == ask.limit.counter());
            let mut counter = self.advanced(ask, now_ms);
            match (line, state) {
                (Some(line), _) if !line.is_counted_by(&counter) => {}
                (Some(line), Some(State::Expired { at_ms, .. })) => {
                    correct(line, &mut counter, ask.amount, used, at_ms)
                }
                (Some(line), _) => {
                    counter.release(line.amount);
                    spend(&mut counter, ask, used);
                }
                // It was taken for good.
                (None, Some(_)) if ask.limit.unit == Unit::Requests => {}
                (None, _) => spend(&mut counter, ask, used),
            }
            self.keep(ask, counter, now_ms);
        }
        // What is not asked any more keeps the estimate.
        let unasked = |line: &&Line| used.asks.iter().all(|ask| ask.limit.counter() != line.counter);
        for line in lines.iter().filter(unasked) {
            match (state, used.extent) {
                (Some(State::Open), Extent::Something) => self.post_estimate(line, now_ms),
                (Some(State::Open), Extent::Nothing) => {
                    self.change(line, now_ms, |counter| counter.release(line.amount))
                }
                (Some(State::Expired { at_ms, .. }), Extent::Nothing) => {
                    self.change(line, now_ms, |counter| correct(line, counter, 0, used, at_ms));
                }
                _ => {}
            }
        }
        settled
    }

    /// Brings counters to at least what a ledger says was used in the period that each is asked about, one ask for each: after a
    /// restart, or when a limit begins to count. What is held counts as used where it may be in that too. A counter whose period
    /// is another by now stays as it is.
    pub fn restore(&mut self, asks: &[Ask<'_>], overlap: Overlap, now_ms: u64) {
        for ask in asks {
            let mut counter = self.advanced(ask, now_ms);
            if let Rule::Calendar { edges: [_, begin_ms, ..], .. } = ask.rule
                && counter.at_ms == begin_ms
            {
                let known = match overlap {
                    Overlap::Nothing => counter.spent,
                    Overlap::Held => counter.used(),
                };
                counter.spend(ask.amount.saturating_sub(known), ask.most_spent());
                self.keep(ask, counter, now_ms);
            }
        }
    }

    /// Knows again of a reservation that had run out before a restart and is in the ledger, so that a late event corrects
    /// what [`TenantCounters::restore`] took of its estimate, the `asks`. What shorter windows were asked is forgotten.
    pub fn restore_expired(&mut self, expired: &Expired, asks: &[Ask<'_>], now_ms: u64) {
        if self.state(&expired.id).is_some() {
            return;
        }
        let mut lines = Vec::with_capacity(asks.len());
        for ask in asks.iter().filter(|ask| ask.limit.is_calendar() && ask.limit.unit != Unit::Requests) {
            let counter = self.advanced(ask, now_ms);
            // A period counts what began in it.
            if expired.started_at_ms >= counter.at_ms {
                lines.push(Line::new(ask, &counter));
            }
        }
        self.book.get_or_insert_default().restore(expired, lines);
    }

    /// Forgives what is spent. What is held stays: its calls are still going on.
    pub fn reset(&mut self) {
        for (_, counter) in &mut self.counters {
            (counter.spent, counter.fraction) = (0, 0);
        }
    }

    /// Reservations that ran out and are not known to be in the ledger, `most` at most; each is offered again after
    /// [`OFFER_AGAIN_MS`] until [`TenantCounters::posted`] is told of it.
    ///
    /// [`OFFER_AGAIN_MS`]: crate::OFFER_AGAIN_MS
    pub fn unposted(&mut self, most: usize, now_ms: u64) -> Vec<Expired> {
        self.expire(now_ms);
        self.book.as_mut().map_or_else(Vec::new, |book| book.offer(most, now_ms))
    }

    /// The expired reservation is in the ledger.
    pub fn posted(&mut self, id: &str) {
        if let Some(book) = &mut self.book {
            book.posted(id);
        }
    }

    /// When [`TenantCounters::unposted`] may have something to say, or something to forget; `u64::MAX` for never.
    pub fn next_due_ms(&self) -> u64 {
        self.book.as_ref().map_or(u64::MAX, |book| book.next_due_ms().min(book.next_offer_ms()))
    }

    /// Whether forgetting this tenant forgives it nothing: all that was spent has come back, and nothing is reserved or
    /// remembered.
    pub fn is_idle(&mut self, now_ms: u64) -> bool {
        self.expire(now_ms);
        self.book.is_none() && self.drained_at_ms <= now_ms
    }

    /// How many reservations are remembered, settled ones too.
    pub fn reservations(&self) -> usize {
        self.book.as_ref().map_or(0, |book| book.len())
    }

    /// What the limits say, and their counters before anything is taken.
    fn judge(&self, asks: &[Ask<'_>], now_ms: u64) -> Verdict {
        let counters: Vec<Counter> = asks.iter().map(|ask| self.advanced(ask, now_ms)).collect();
        let fits =
            |(ask, counter): (&Ask<'_>, &Counter)| ask.role != Role::Binding || counter.fits(&ask.rule, ask.amount);
        let all_fit = asks.iter().zip(&counters).all(fits);
        let outcome = if all_fit { Outcome::Admitted } else { Outcome::Denied };
        Verdict { outcome, counters, reserved: 0, now_ms }
    }

    fn state(&self, id: &str) -> Option<State> {
        self.book.as_ref()?.state(id)
    }

    /// Lets run out what is due: what was held is spent, and slots are free.
    fn expire(&mut self, now_ms: u64) {
        while let Some(lines) = self.book.as_mut().and_then(|book| book.expire_next(now_ms)) {
            for line in lines.iter() {
                self.post_estimate(line, now_ms);
            }
        }
        if self.book.as_ref().is_some_and(|book| book.len() == 0) {
            self.book = None;
        }
    }

    fn post_estimate(&mut self, line: &Line, now_ms: u64) {
        self.change(line, now_ms, |counter| {
            counter.release(line.amount);
            if !matches!(line.kind, Kind::Slots) {
                counter.spend(line.amount, line.most_spent());
            }
        });
    }

    /// Changes a counter by what a reservation knows of its limit, if it still counts what was held.
    fn change(&mut self, line: &Line, now_ms: u64, change: impl FnOnce(&mut Counter)) {
        let Some((_, counter)) = self.counters.iter_mut().find(|(id, _)| *id == line.counter) else { return };
        if !line.is_counted_by(counter) {
            return;
        }
        counter.advance(&line.rule(), now_ms);
        change(counter);
        // A calendar period's end was known when the reservation was made.
        if matches!(line.kind, Kind::Refilled { .. }) {
            let reset_ms = counter.reset_ms(&line.rule(), now_ms);
            self.drained_at_ms = self.drained_at_ms.max(now_ms.saturating_add(reset_ms));
        }
    }

    /// The counter that is asked, as it stands now.
    fn advanced(&self, ask: &Ask<'_>, now_ms: u64) -> Counter {
        let known = self.counters.iter().find(|(id, _)| *id == ask.limit.counter());
        let mut counter = known.map_or_else(Counter::default, |(_, counter)| *counter);
        counter.advance(&ask.rule, now_ms);
        counter
    }

    fn keep(&mut self, ask: &Ask<'_>, counter: Counter, now_ms: u64) {
        self.drained_at_ms = self.drained_at_ms.max(now_ms.saturating_add(counter.reset_ms(&ask.rule, now_ms)));
        match self.counters.iter_mut().find(|(id, _)| *id == ask.limit.counter()) {
            Some((_, kept)) => *kept = counter,
            None => self.counters.push((ask.limit.counter(), counter)),
        }
    }
}

impl Line {
    /// Whether the counter still has what is held here: a calendar period that is over took it along.
    fn is_counted_by(&self, counter: &Counter) -> bool {
        match self.kind {
            Kind::Calendar { begun_at_ms } => counter.at_ms == begun_at_ms,
            Kind::Refilled { .. } | Kind::Slots => true,
        }
    }

    /// See [`Ask::most_spent`].
    fn most_spent(&self) -> u64 {
        match self.kind {
            Kind::Refilled { most_spent, .. } => most_spent,
            Kind::Calendar { .. } | Kind::Slots => MAX_AMOUNT,
        }
    }

    fn rule(&self) -> Rule {
        match self.kind {
            Kind::Refilled { capacity, window_ms, .. } => Rule::Refilled { capacity, burst: 0, window_ms },
            Kind::Calendar { begun_at_ms } => Rule::Calendar { capacity: 0, edges: [begun_at_ms; 4] },
            Kind::Slots => Rule::Slots { capacity: 0 },
        }
    }
}

fn spend(counter: &mut Counter, ask: &Ask<'_>, used: &Used<'_>) {
    let amount = counter.still_counted(ask.amount, &ask.rule, used.started_at_ms, used.ended_at_ms);
    counter.spend(amount, ask.most_spent());
}

/// What was spent for an expired reservation becomes what was used.
fn correct(line: &Line, counter: &mut Counter, amount: u64, used: &Used<'_>, expired_at_ms: u64) {
    let rule = line.rule();
    if amount <= line.amount {
        counter.refund(line.amount - amount, line.amount, expired_at_ms, &rule);
    } else {
        let more = counter.still_counted(amount - line.amount, &rule, used.started_at_ms, used.ended_at_ms);
        counter.spend(more, line.most_spent());
    }
}
