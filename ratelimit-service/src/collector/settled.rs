//! Which of the entries that wait in the spool are settled already.

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::Mutex;

use crate::spool::Place;

/// Whether a call was settled when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Told {
    /// It was.
    Settled,
    /// No: nothing is known of a reservation, or it was not tried. To settle it once more does nothing for a minute, as the
    /// counters remember.
    #[default]
    No,
    /// The counters did not answer then, and may have settled it by now. Who asks later than they remember is told so.
    InDoubt(Instant),
}

/// What is known of each entry, by where it stands.
#[derive(Debug, Default)]
pub(super) struct Settled(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of entries that were appended together, in order; where none is settled or in doubt, nothing.
    told: BTreeMap<Place, Box<[Told]>>,
    /// Those before are not waiting any more.
    taken_until: Place,
}

impl Settled {
    /// Tells of the entries at a place.
    pub(super) fn tell(&self, place: Place, told: Vec<Told>) {
        let mut state = self.0.lock();
        if place >= state.taken_until && told.iter().any(|told| *told != Told::No) {
            state.told.insert(place, told.into());
        }
    }

    /// What is known of the entries at a place. Those at earlier places are not asked for again.
    pub(super) fn take(&self, place: Place) -> Box<[Told]> {
        let mut state = self.0.lock();
        let mut rest = state.told.split_off(&place);
        let told = rest.remove(&place);
        state.told = rest;
        state.taken_until = state.taken_until.max(place.after());
        told.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_once_and_kept_only_while_they_are_waited_for() {
        let [first, second, third] = [0, 10, 20].map(Place::at);
        let settled = Settled::default();
        settled.tell(second, vec![Told::Settled, Told::No]);
        settled.tell(first, vec![Told::No]);
        assert_eq!(*settled.take(first), []);
        settled.tell(first, vec![Told::Settled]);
        assert_eq!(*settled.take(second), [Told::Settled, Told::No]);
        settled.tell(second, vec![Told::Settled]);
        assert!(settled.0.lock().told.is_empty());
        let in_doubt = Told::InDoubt(Instant::now());
        settled.tell(third, vec![in_doubt]);
        assert_eq!(*settled.take(third), [in_doubt]);
    }
}
