//! Entries, page by page.

use tollgate_wire::usage_event::UsageEvent;

use crate::entry::{Entry, TrackedEvent};

/// A page of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Of the entries at or after this time, milliseconds since the Unix epoch,
    pub from_ms: u64,
    /// and before this,
    pub to_ms: u64,
    /// those after this one, by its time and id,
    pub after: Option<(u64, &'a str)>,
    /// and so many at most.
    pub limit: usize,
}

/// All pages of entries, from a first one on.
pub(crate) struct Pages<'a> {
    first: Page<'a>,
    last_read: Option<(u64, String)>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    /// From this page on, each with as many entries at most.
    pub(crate) fn from(first: Page<'a>) -> Pages<'a> {
        Pages { first, last_read: None, is_over: false }
    }

    /// The page to be read now; `None` when all are read.
    pub(crate) fn next(&self) -> Option<Page<'_>> {
        let after = self.last_read.as_ref().map(|(at_ms, id)| (*at_ms, id.as_str())).or(self.first.after);
        (!self.is_over).then_some(Page { after, ..self.first })
    }

    /// What [`Pages::next`] gave was read, and these entries are there.
    pub(crate) fn read(&mut self, entries: &[impl Placed]) {
        self.is_over = entries.len() < self.first.limit;
        if let Some(last) = entries.last() {
            let (at_ms, id) = last.place();
            self.last_read = Some((at_ms, id.to_owned()));
        }
    }
}

/// What stands in the order of entries.
pub(crate) trait Placed {
    /// Its time and id.
    fn place(&self) -> (u64, &str);
}

impl Placed for UsageEvent {
    fn place(&self) -> (u64, &str) {
        (self.started_at_ms, &self.event_id)
    }
}

impl Placed for TrackedEvent {
    fn place(&self) -> (u64, &str) {
        (self.at_ms, &self.id)
    }
}

impl Placed for Entry {
    fn place(&self) -> (u64, &str) {
        match self {
            Entry::Usage(event) => event.place(),
            Entry::Tracked(event) => event.place(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_not_full_is_the_last() {
        let call =
            |at_ms: u64| UsageEvent { event_id: format!("id-{at_ms}"), started_at_ms: at_ms, ..UsageEvent::default() };
        let first = Page { tenant: "acme", from_ms: 0, to_ms: 9, after: None, limit: 2 };
        let mut pages = Pages::from(first);
        assert_eq!(pages.next(), Some(first));
        pages.read(&[call(1), call(2)]);
        assert_eq!(pages.next(), Some(Page { after: Some((2, "id-2")), ..first }));
        pages.read(&[call(2), call(3)]);
        assert_eq!(pages.next(), Some(Page { after: Some((3, "id-3")), ..first }));
        pages.read(&[call(4)]);
        assert_eq!(pages.next(), None);
    }
}
