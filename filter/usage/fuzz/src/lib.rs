//! What the fuzz targets share: how an input says in what shape its body is handed over.

/// One input: `[choice, cut, cut, cut, body...]`.
pub struct Input<'a> {
    choice: u8,
    cuts: [u8; 3],
    /// What the entry point is fed.
    pub body: &'a [u8],
}

impl<'a> Input<'a> {
    /// `None` when there are too few bytes.
    pub fn new(bytes: &'a [u8]) -> Option<Input<'a>> {
        let ([choice, cuts @ ..], body) = bytes.split_first_chunk::<4>()?;
        Some(Input { choice: *choice, cuts: *cuts, body })
    }

    /// One of these; the next choice is another.
    pub fn choose<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        let chosen = from[usize::from(self.choice) % N];
        self.choice /= N as u8;
        chosen
    }

    /// The body in pieces, of as many bytes as the cuts say in turn.
    pub fn pieces(&self) -> Vec<&'a [u8]> {
        let (mut pieces, mut rest) = (Vec::new(), self.body);
        for cut in self.cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(usize::from(*cut) + 1));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }

    /// The body byte by byte.
    pub fn bytes(&self) -> Vec<&'a [u8]> {
        self.body.chunks(1).collect()
    }
}
