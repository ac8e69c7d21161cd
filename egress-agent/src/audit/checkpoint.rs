//! What a node signs: how many records there are, and their hashes
//! (C2SP tlog-checkpoint).

use crate::audit::chain::Hash;
use crate::audit::note::{self, NoteError, PublicKey};
use crate::audit::seal::Head;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

/// Begins the origin of every chain.
const ORIGIN: &str = "egress-audit/v1";

/// A statement of a node about its chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The node.
    pub node: String,
    /// The chain.
    pub chain_id: String,
    /// How many records it speaks for.
    pub size: u64,
    /// The root of the Merkle tree over them.
    pub root: Hash,
    /// The chain's hash after the last of them.
    pub chain: Hash,
    /// When it was signed.
    pub time: Timestamp,
}

/// The name under which a chain's checkpoints are signed: their first line.
pub fn origin(node: &str, chain_id: &str) -> String {
    format!("{ORIGIN}/{node}/{chain_id}")
}

impl Checkpoint {
    pub(super) fn of(head: &Head, time: Timestamp) -> Self {
        Self {
            node: head.node.clone(),
            chain_id: head.chain_id.clone(),
            size: head.frontier.size(),
            root: head.frontier.root(),
            chain: head.chain,
            time,
        }
    }

    /// The note, signed with each of the keys.
    pub(super) fn sign(&self, pairs: &[&Ed25519KeyPair]) -> String {
        let origin = origin(&self.node, &self.chain_id);
        let text = format!(
            "{origin}\n{}\n{}\nchain {}\ntime {}\n",
            self.size,
            BASE64.encode(self.root.0),
            self.chain,
            self.time,
        );
        note::sign(&text, &origin, pairs)
    }

    /// Reads a note that one of the keys signed.
    pub fn open(note: &str, keys: &[PublicKey]) -> Result<Self, NoteError> {
        Self::read(note::open(note, keys)?)
    }

    /// Reads a note without looking at its signatures.
    pub fn unverified(note: &str) -> Result<Self, NoteError> {
        Self::read(note::split(note)?.0)
    }

    fn read(text: &str) -> Result<Self, NoteError> {
        let read = || {
            let mut lines = text.lines();
            let (node, chain_id) = lines
                .next()?
                .strip_prefix(ORIGIN)?
                .strip_prefix('/')?
                .split_once('/')?;
            let size = lines.next()?.parse().ok()?;
            let root = Hash::from_slice(&BASE64.decode(lines.next()?).ok()?)?;
            let chain = Hash::parse(lines.next()?.strip_prefix("chain ")?)?;
            let time = lines.next()?.strip_prefix("time ")?.parse().ok()?;
            Some(Self {
                node: node.to_owned(),
                chain_id: chain_id.to_owned(),
                size,
                root,
                chain,
                time,
            })
        };
        read().ok_or(NoteError::Form(
            "its text is no checkpoint of an audit chain",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_back_from_its_note() {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let mut head = Head::begin("host-1".to_owned());
        head.frontier.push(Hash::of(b"leaf"));
        let checkpoint = Checkpoint::of(&head, "2026-11-20T08:30:00Z".parse().expect("a time"));
        let note = checkpoint.sign(&[&pair]);
        let first = note.lines().next().expect("a line").to_owned();
        assert_eq!(first, origin("host-1", &head.chain_id));
        let key = PublicKey::of("any name", &pair).expect("a key");
        assert_eq!(Checkpoint::open(&note, &[key]), Ok(checkpoint.clone()));
        assert_eq!(Checkpoint::unverified(&note), Ok(checkpoint));
        let text = "something else\n\n\u{2014} x AAAAAAAA\n";
        assert!(Checkpoint::unverified(text).is_err());
    }
}
