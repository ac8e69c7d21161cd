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

    /// How many leaves there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        match roots.next() {
            Some(last) => roots.fold(*last, |right, left| node(left, &right)),
            None => Hash::of(b""),
        }
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

/// The root of leaves.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of(b""),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: usize) -> usize {
    1 << (size - 1).ilog2()
}

/// The path from the leaf at `index` to the root (RFC 6962, 2.1.1).
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    if index < middle {
        let mut path = inclusion_proof(left, index);
        path.push(root(right));
        path
    } else {
        let mut path = inclusion_proof(right, index - middle);
        path.push(root(left));
        path
    }
}

/// What shows that the tree of the first `old` leaves is the beginning of the
/// tree of all (RFC 6962, 2.1.2).
pub fn consistency_proof(leaves: &[Hash], old: usize) -> Vec<Hash> {
    if old == 0 || old >= leaves.len() {
        return Vec::new();
    }
    subproof(leaves, old, true)
}

fn subproof(leaves: &[Hash], old: usize, known: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if known {
            Vec::new()
        } else {
            vec![root(leaves)]
        };
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    if old <= middle {
        let mut proof = subproof(left, old, known);
        proof.push(root(right));
        proof
    } else {
        let mut proof = subproof(right, old - middle, false);
        proof.push(root(left));
        proof
    }
}

/// Whether a path leads from a leaf to a root (RFC 9162, 2.1.3.2).
pub fn includes(size: u64, root: &Hash, index: u64, leaf: &Hash, path: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut place, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for step in path {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            hash = node(step, &hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, step);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether one tree is the beginning of another (RFC 9162, 2.1.4.2).
pub fn extends(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return proof.is_empty();
    }
    let (mut place, mut last) = (old_size - 1, new_size - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let mut steps = proof.iter();
    // The old tree's own root is left out of the proof where it is a subtree.
    let first = if old_size.is_power_of_two() {
        Some(old_root)
    } else {
        steps.next()
    };
    let Some(first) = first else {
        return false;
    };
    let (mut before, mut after) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            before = node(step, &before);
            after = node(step, &after);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            after = node(&after, step);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old_root && after == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree that the implementations of Certificate Transparency test with.
    const INPUTS: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn leaves() -> Vec<Hash> {
        let leaf = |input: &&[u8]| Hash::of(&[&[0], *input].concat());
        INPUTS.iter().map(leaf).collect()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let mut frontier = Frontier::default();
        for (n, leaf) in leaves().into_iter().enumerate() {
            frontier.push(leaf);
            assert_eq!(frontier.root().to_string(), ROOTS[n]);
            assert_eq!(root(&leaves()[..=n]), frontier.root());
            let again = Frontier::from_bytes(frontier.size(), &frontier.to_bytes());
            assert_eq!(again, Some(frontier.clone()));
        }
    }

    #[test]
    fn each_leaf_is_included_and_nothing_else_is() {
        let all = leaves();
        for size in 1..=all.len() {
            let root = root(&all[..size]);
            for index in 0..size {
                let path = inclusion_proof(&all[..size], index);
                let holds = |index: usize, leaf: &Hash, path: &[Hash]| {
                    includes(size as u64, &root, index as u64, leaf, path)
                };
                assert!(holds(index, &all[index], &path), "{index} of {size}");
                assert!(!holds(index, &Hash::of(b"other"), &path));
                assert!(!holds(index + 1, &all[index], &path));
                let longer = [&path[..], &[root]].concat();
                assert!(!holds(index, &all[index], &longer));
            }
        }
    }

    #[test]
    fn each_tree_extends_its_beginnings_and_no_other() {
        let all = leaves();
        for new in 1..=all.len() {
            let new_root = root(&all[..new]);
            for old in 1..=new {
                let old_root = root(&all[..old]);
                let proof = consistency_proof(&all[..new], old);
                let (old, new) = (old as u64, new as u64);
                assert!(extends((old, &old_root), (new, &new_root), &proof));
                let forged = Hash::of(b"forged");
                assert!(!extends((old, &forged), (new, &new_root), &proof));
                assert!(!extends((old, &old_root), (new, &forged), &proof));
            }
        }
    }
}
