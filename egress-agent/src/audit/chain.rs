//! The hashes of the evidence: of a record, and of the chain up to it.
//!
//! `docs/audit.md` defines them byte for byte; nothing here may change without a
//! new name of the format.

use aws_lc_rs::digest::{Context, SHA256};
use std::fmt;

/// The format, hashed into the beginning of every chain.
const FORMAT: &str = "egress-chain/v1";
/// Before what a leaf of the Merkle tree hashes (RFC 6962, 2.1).
const LEAF: u8 = 0;
/// Before the two children of a node of the tree.
const NODE: u8 = 1;
/// Before a link of the chain: no leaf and no node is one.
const LINK: u8 = 2;

/// A SHA-256 value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        sha256(&[bytes])
    }

    /// 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (pairs, []) = text.as_bytes().as_chunks() else {
            return None;
        };
        let pairs: &[_; 32] = pairs.try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            *byte = octet(*pair)?;
        }
        Some(Self(bytes))
    }

    /// What a database gave back.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// What hexadecimal digits stand for, in either case.
pub(super) fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks() else {
        return None;
    };
    pairs.iter().map(|pair| octet(*pair)).collect()
}

fn octet([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |digit| char::from(digit).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Hash(hash)
}

/// What is known of a record without its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The place in the chain, from 1.
    pub sequence: i64,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub time: i64,
    /// How long it is kept (`Class` as a number).
    pub class: u8,
}

/// The hash of a record: a leaf of the tree.
///
/// The body goes in as its digest, so that the body can be erased and the leaf
/// still be computed from what is left.
pub fn leaf(header: &Header, digest: &Hash) -> Hash {
    let mut bytes = [0; 50];
    bytes[0] = LEAF;
    bytes[1..9].copy_from_slice(&header.sequence.to_be_bytes());
    bytes[9..17].copy_from_slice(&header.time.to_be_bytes());
    bytes[17] = header.class;
    bytes[18..].copy_from_slice(&digest.0);
    Hash::of(&bytes)
}

/// The parent of two nodes of the tree.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [0; 65];
    bytes[0] = NODE;
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Hash::of(&bytes)
}

/// The chain's hash before its first record.
pub fn genesis(node: &str, chain: &str) -> Hash {
    sha256(&[
        FORMAT.as_bytes(),
        b"\n",
        node.as_bytes(),
        b"\n",
        chain.as_bytes(),
        b"\n",
    ])
}

/// The chain's hash with one more record.
pub fn link(previous: &Hash, leaf: &Hash) -> Hash {
    let mut bytes = [0; 65];
    bytes[0] = LINK;
    bytes[1..33].copy_from_slice(&previous.0);
    bytes[33..].copy_from_slice(&leaf.0);
    Hash::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out with another program from the definition in `docs/audit.md`.
    #[test]
    fn the_hashes_are_those_of_the_definition() {
        let genesis = genesis("host-1", "01937b1c-4a00-7000-8000-000000000000");
        let header = Header {
            sequence: 1,
            time: 1_700_000_000_000_000,
            class: 1,
        };
        let leaf = leaf(&header, &Hash::of(b"{}"));
        let link = link(&genesis, &leaf);
        assert_eq!(
            [genesis.to_string(), leaf.to_string(), link.to_string()],
            [
                "bbf53b407c771f9c17dcbede4fa0523bf8d2579f3b935fad20750222922b2ccd",
                "3b2c98e32bd7af0cf30a2e347bd278f84b5685386d047540314959add021ac31",
                "876ad66d77e7740241c299c696c9f3d2277ebb6aff11aef74bc8e8d50a15c3d1",
            ]
        );
    }

    #[test]
    fn hexadecimal_digits_are_read_back() {
        let hash = Hash::of(b"x");
        assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
        assert_eq!(Hash::parse("00"), None);
        assert_eq!(Hash::parse(&"g".repeat(64)), None);
    }
}
