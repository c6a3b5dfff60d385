//! Which of the entries that wait in the spool are settled already.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::spool::Place;

/// A flag for each entry, by where it stands. What is not known is as if it were not: to settle once more does nothing for a
/// minute, as the counters remember.
#[derive(Debug, Default)]
pub(super) struct Settled(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of entries that were appended together, in order; where none is settled, nothing.
    flags: BTreeMap<Place, Box<[bool]>>,
    /// Those before are not waiting any more.
    taken_until: Place,
}

impl Settled {
    /// Tells which of the entries at a place are settled.
    pub(super) fn tell(&self, place: Place, flags: Vec<bool>) {
        let mut state = self.0.lock();
        if place >= state.taken_until && flags.contains(&true) {
            state.flags.insert(place, flags.into());
        }
    }

    /// Whether an entry is settled. Those at earlier places are not asked for again.
    pub(super) fn take(&self, place: Place) -> Option<Box<[bool]>> {
        let mut state = self.0.lock();
        let mut rest = state.flags.split_off(&place);
        let flags = rest.remove(&place);
        state.flags = rest;
        state.taken_until = state.taken_until.max(place.after());
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_once_and_kept_only_while_they_are_waited_for() {
        let [first, second, third] = [0, 10, 20].map(Place::at);
        let settled = Settled::default();
        settled.tell(second, vec![true, false]);
        settled.tell(first, vec![false]);
        assert_eq!(settled.take(first), None);
        settled.tell(first, vec![true]);
        assert_eq!(settled.take(second).as_deref(), Some(&[true, false][..]));
        settled.tell(second, vec![true, true]);
        assert!(settled.0.lock().flags.is_empty());
        settled.tell(third, vec![true]);
        assert_eq!(settled.take(third).as_deref(), Some(&[true][..]));
    }
}
