//! One JSON document a line. A line that is broken does not touch the next.

use memchr::memchr;

use super::Documents;

/// Where in the lines the bytes stand.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    place: Place,
}

#[derive(Debug, Default, Clone, Copy)]
enum Place {
    #[default]
    Start,
    Inside,
}

impl Lines {
    pub(super) fn feed(&mut self, bytes: &[u8], documents: &mut impl Documents) {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let line = rest.get(..end).unwrap_or_default();
            match self.place {
                Place::Start => documents.whole(line),
                Place::Inside => {
                    documents.part(line);
                    documents.end();
                }
            }
            self.place = Place::Start;
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            documents.part(rest);
            self.place = Place::Inside;
        }
    }
}
