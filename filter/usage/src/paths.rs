//! Known paths as a tree: a walk down a document is a walk down the tree, and a key that the tree does not have means that
//! nothing below it matters.

/// A place in a document that is on a known path.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(u16);

/// The tree, whose places mean `P`.
#[derive(Debug)]
pub(crate) struct Paths<P> {
    nodes: Vec<Node<P>>,
}

#[derive(Debug)]
struct Node<P> {
    parent: NodeId,
    keys: Vec<(&'static str, NodeId)>,
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
        Paths { nodes: vec![Node::new(Self::ROOT)] }
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

    /// The place of an object's member.
    pub(crate) fn member(&self, object: NodeId, key: &[u8]) -> Option<NodeId> {
        self.node(object)?.keys.iter().find(|(known, _)| known.as_bytes() == key).map(|(_, child)| *child)
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
            place = known.unwrap_or_else(|| self.grow(place, |node, child| node.keys.push((key, child))));
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

impl<P> Node<P> {
    fn new(parent: NodeId) -> Node<P> {
        Node { parent, keys: Vec::new(), element: None, leaf: None, own_subtree: None, subtree: None }
    }
}
