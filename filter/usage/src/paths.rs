//! All paths that some format knows, as one tree: a walk down a document is a walk down the tree, and a key that the tree
//! does not have means that nothing below it matters.

use std::sync::OnceLock;

use crate::format::{Field, Formats, TABLE};

/// A place in a document that some format knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(u16);

/// What the value at a place means, and to which formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) field: Field,
    pub(crate) formats: Formats,
}

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    keys: Vec<(&'static str, NodeId)>,
    element: Option<NodeId>,
    leaf: Option<Leaf>,
}

impl Paths {
    /// A document's top.
    pub(crate) const ROOT: NodeId = NodeId(0);

    /// The tree of all formats, built on first use.
    pub(crate) fn all() -> &'static Paths {
        static ALL: OnceLock<Paths> = OnceLock::new();
        ALL.get_or_init(|| {
            let mut paths = Paths { nodes: vec![Node::default()] };
            for spec in TABLE {
                for (path, field) in spec.rows() {
                    paths.insert(&path, field, Formats::only(spec.format));
                }
            }
            paths
        })
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
    pub(crate) fn leaf(&self, place: NodeId) -> Option<Leaf> {
        self.node(place)?.leaf
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::from(id.0))
    }

    /// Adds a path such as `choices[].finish_reason`. Formats may share a path when they mean the same by it.
    fn insert(&mut self, path: &[&'static str], field: Field, formats: Formats) {
        let mut place = Paths::ROOT;
        for segment in path {
            let key = segment.trim_end_matches("[]");
            let known = self.member(place, key.as_bytes());
            place = known.unwrap_or_else(|| self.grow(place, |node, child| node.keys.push((key, child))));
            if key.len() < segment.len() {
                let known = self.element(place);
                place = known.unwrap_or_else(|| self.grow(place, |node, child| node.element = Some(child)));
            }
        }
        if let Some(node) = self.nodes.get_mut(usize::from(place.0)) {
            let formats = node.leaf.map_or(formats, |leaf| leaf.formats.and(formats));
            node.leaf = Some(Leaf { field, formats });
        }
    }

    fn grow(&mut self, parent: NodeId, link: impl FnOnce(&mut Node, NodeId)) -> NodeId {
        let child = NodeId(u16::try_from(self.nodes.len()).unwrap_or(u16::MAX));
        self.nodes.push(Node::default());
        if let Some(node) = self.nodes.get_mut(usize::from(parent.0)) {
            link(node, child);
        }
        child
    }
}
