//! The known containers that are open.

use super::MAX_KNOWN_DEPTH;
use crate::paths::NodeId;

/// The known containers that are open, outermost first.
#[derive(Debug, Default)]
pub(super) struct Open {
    containers: [Container; MAX_KNOWN_DEPTH],
    pub(super) len: usize,
}

/// An open container.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Container {
    pub(super) place: NodeId,
    /// The place of its elements, when it is an array.
    pub(super) element: Option<NodeId>,
    /// Where it begins.
    pub(super) start: u64,
}

impl Open {
    pub(super) fn last(&self) -> Option<&Container> {
        self.containers.get(self.len.checked_sub(1)?)
    }

    pub(super) fn pop(&mut self) -> Option<Container> {
        let last = self.last().copied();
        self.len = self.len.saturating_sub(1);
        last
    }

    /// False when there is no room.
    pub(super) fn push(&mut self, container: Container) -> bool {
        let Some(slot) = self.containers.get_mut(self.len) else { return false };
        *slot = container;
        self.len += 1;
        true
    }
}
