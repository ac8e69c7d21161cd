//! The Merkle tree of RFC 6962 over the records of a chain.

use crate::audit::chain::{Hash, node};

/// What is needed of a tree to let it grow: the roots of its perfect subtrees,
/// the largest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut size = self.size;
        while size & 1 == 1
            && let Some(left) = self.roots.pop()
        {
            hash = node(&left, &hash);
            size >>= 1;
        }
        self.roots.push(hash);
        self.size += 1;
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.roots.iter().flat_map(|root| root.0).collect()
    }

    /// What [`Frontier::to_bytes`] gave; `None` if that is not of a tree of this size.
    pub(super) fn from_bytes(size: u64, bytes: &[u8]) -> Option<Self> {
        let roots: Option<Vec<Hash>> = bytes.chunks(32).map(Hash::from_slice).collect();
        let roots = roots?;
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }
}
