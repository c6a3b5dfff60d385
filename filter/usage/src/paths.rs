//! Known paths as a tree: a walk down a document is a walk down the tree, and a key that the tree does not have means that
//! nothing below it matters.

use memchr::memchr;

use crate::json::decode;

/// A place in a document that is on a known path.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(u16);

/// The tree, whose places mean `P`.
#[derive(Debug)]
pub(crate) struct Paths<P> {
    nodes: Vec<Node<P>>,
    keys: Keys,
}

/// Which keys of a document are those of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Those that stand there byte for byte.
    Exact,
    /// Those that some reader takes for them too.
    Spelled,
}

#[derive(Debug)]
struct Node<P> {
    parent: NodeId,
    /// The members, by the length of their keys: by that most of a document's keys are told apart.
    keys: Vec<Vec<(&'static str, NodeId)>>,
    element: Option<NodeId>,
    leaf: Option<P>,
    /// Of the subtree that begins here.
    own_subtree: Option<P>,
    /// Of the innermost subtree that this place is in.
    subtree: Option<P>,
}

impl<P: Copy> Paths<P> {
    /// A document's top.
    pub(crate) const ROOT: NodeId = NodeId(0);

    /// A tree of the top alone.
    pub(crate) fn new() -> Paths<P> {
        Paths { nodes: vec![Node::new(Self::ROOT)], keys: Keys::Exact }
    }

    /// A tree of the top alone, whose keys are known in any spelling: with escapes, as every reader of JSON reads them, and
    /// in any case, as Go's does.
    pub(crate) fn in_any_spelling() -> Paths<P> {
        Paths { keys: Keys::Spelled, ..Paths::new() }
    }

    /// Makes a leaf of a path such as `["choices[]", "finish_reason"]`: a segment that ends in `[]` is an array, and the path
    /// goes on in its elements; `[][]` is an array of arrays. What the place means is told from what it meant before, if it was a leaf already.
    pub(crate) fn insert(&mut self, path: &[&'static str], meaning: impl FnOnce(Option<P>) -> P) {
        let place = self.place(path);
        if let Some(node) = self.nodes.get_mut(usize::from(place.0)) {
            node.leaf = Some(meaning(node.leaf));
        }
    }

    /// Makes a subtree of a path in the same way: it has all strings below, but for leaves of their own and subtrees inside
    /// of it.
    pub(crate) fn insert_subtree(&mut self, path: &[&'static str], meaning: impl FnOnce(Option<P>) -> P) {
        let place = self.place(path);
        if let Some(node) = self.nodes.get_mut(usize::from(place.0)) {
            node.own_subtree = Some(meaning(node.own_subtree));
        }
        self.inherit();
    }

    /// The place of an object's member, whose key stands as `key` between its quotes.
    pub(crate) fn member(&self, object: NodeId, key: &[u8]) -> Option<NodeId> {
        let node = self.node(object)?;
        match (node.child(key.len(), |known| is_same(known.as_bytes(), key)), self.keys) {
            (None, Keys::Spelled) if key.is_ascii() && memchr(b'\\', key).is_none() => {
                node.child(key.len(), |known| known.as_bytes().eq_ignore_ascii_case(key))
            }
            (None, Keys::Spelled) => {
                let key: String = decode(key).chars().map(fold).collect();
                node.child(key.len(), |known| known.eq_ignore_ascii_case(&key))
            }
            (found, _) => found,
        }
    }

    /// The place that all elements of an array share.
    pub(crate) fn element(&self, array: NodeId) -> Option<NodeId> {
        self.node(array)?.element
    }

    /// What the value at a place means.
    pub(crate) fn leaf(&self, place: NodeId) -> Option<P> {
        self.node(place)?.leaf
    }

    /// What strings below a place mean that are at no leaf.
    pub(crate) fn subtree(&self, place: NodeId) -> Option<P> {
        self.node(place)?.subtree
    }

    fn node(&self, id: NodeId) -> Option<&Node<P>> {
        self.nodes.get(usize::from(id.0))
    }

    fn place(&mut self, path: &[&'static str]) -> NodeId {
        let mut place = Self::ROOT;
        for segment in path {
            let key = segment.trim_end_matches("[]");
            let known = self.member(place, key.as_bytes());
            place = known.unwrap_or_else(|| self.grow(place, |node, child| node.add(key, child)));
            for _ in 0..(segment.len() - key.len()) / 2 {
                let known = self.element(place);
                place = known.unwrap_or_else(|| self.grow(place, |node, child| node.element = Some(child)));
            }
        }
        place
    }

    fn grow(&mut self, parent: NodeId, link: impl FnOnce(&mut Node<P>, NodeId)) -> NodeId {
        let child = NodeId(u16::try_from(self.nodes.len()).unwrap_or(u16::MAX));
        let subtree = self.subtree(parent);
        self.nodes.push(Node { subtree, ..Node::new(parent) });
        if let Some(node) = self.nodes.get_mut(usize::from(parent.0)) {
            link(node, child);
        }
        child
    }

    /// Parents stand before their children.
    fn inherit(&mut self) {
        for at in 0..self.nodes.len() {
            let parent = self.nodes.get(at).and_then(|node| self.subtree(node.parent));
            if let Some(node) = self.nodes.get_mut(at) {
                node.subtree = node.own_subtree.or(parent);
            }
        }
    }
}

/// Whether two keys of one length are the same. They are short, and `==` compares byte by byte in wasm.
fn is_same(known: &[u8], key: &[u8]) -> bool {
    let ((known, known_rest), (key, key_rest)) = (known.as_chunks::<8>(), key.as_chunks::<8>());
    let is_same = |(known, key): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*known) == u64::from_le_bytes(*key);
    known.iter().zip(key).all(is_same) && known_rest.iter().zip(key_rest).all(|(known, key)| known == key)
}

/// The letters beyond ASCII that Go takes for some within (`unicode.SimpleFold`).
fn fold(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => letter,
    }
}

impl<P> Node<P> {
    /// The place of the first member with such a key, of this length.
    fn child(&self, length: usize, is_key: impl Fn(&str) -> bool) -> Option<NodeId> {
        self.keys.get(length)?.iter().find(|(known, _)| is_key(known)).map(|(_, child)| *child)
    }

    fn add(&mut self, key: &'static str, child: NodeId) {
        if self.keys.len() <= key.len() {
            self.keys.resize_with(key.len() + 1, Vec::new);
        }
        if let Some(of_length) = self.keys.get_mut(key.len()) {
            of_length.push((key, child));
        }
    }

    fn new(parent: NodeId) -> Node<P> {
        Node { parent, keys: Vec::new(), element: None, leaf: None, own_subtree: None, subtree: None }
    }
}
