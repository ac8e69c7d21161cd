//! Signed notes (C2SP signed-note) and the keys that sign them.

use crate::audit::chain::{Hash, hexadecimal};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt;
use std::str::FromStr;

/// Ed25519, in the registry of C2SP.
const ED25519_TYPE: u8 = 1;

/// A public key with the name under which it signs: `NAME+ID+KEY`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey {
    name: String,
    key: [u8; 32],
}

/// Why text is no public key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no public key; it reads NAME+ID+KEY, as `egressctl audit key` prints it")]
pub struct PublicKeyError(String);

/// Why a note proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoteError {
    /// It has another form.
    #[error("it is not a signed note: {0}")]
    Form(&'static str),
    /// No signature is of a known key.
    #[error("none of its signatures is by a key that is trusted ({0})")]
    Unknown(String),
    /// A signature of a known key does not fit the text.
    #[error("the signature of {0} does not fit its text: it was altered or forged")]
    Forged(String),
}

impl PublicKey {
    /// The verifier of a key pair under a name.
    pub(super) fn of(name: &str, pair: &Ed25519KeyPair) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            key: pair.public_key().as_ref().try_into().ok()?,
        })
    }

    /// The same key under another name.
    pub fn named(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            key: self.key,
        }
    }

    /// The first four bytes of SHA-256 over name, line feed, type and key.
    fn id(&self) -> [u8; 4] {
        let hashed = [self.name.as_bytes(), b"\n", &[ED25519_TYPE], &self.key].concat();
        let Hash([a, b, c, d, ..]) = Hash::of(&hashed);
        [a, b, c, d]
    }

    /// Whether both are the same key, under whatever names.
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Whether the signature over the text is this key's.
    pub(super) fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(text.as_bytes(), signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519_TYPE][..], &self.key].concat();
        write!(
            f,
            "{}+{}+{}",
            self.name,
            hexadecimal(&self.id()),
            BASE64.encode(key)
        )
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (name, rest) = text.split_once('+')?;
            let (id, key) = rest.split_once('+')?;
            let key = BASE64.decode(key).ok()?;
            let (kind, key) = key.split_first()?;
            let verifier = Self {
                name: name.to_owned(),
                key: key.try_into().ok()?,
            };
            let fits = *kind == ED25519_TYPE && hexadecimal(&verifier.id()) == id;
            (fits && !name.is_empty()).then_some(verifier)
        };
        read().ok_or_else(|| PublicKeyError(text.to_owned()))
    }
}

/// Signs text, which ends in a line feed, under a name.
pub(super) fn sign(text: &str, name: &str, pairs: &[&Ed25519KeyPair]) -> String {
    let mut note = format!("{text}\n");
    for pair in pairs {
        if let Some(verifier) = PublicKey::of(name, pair) {
            let signature = pair.sign(text.as_bytes());
            let line = [&verifier.id()[..], signature.as_ref()].concat();
            note.push_str(&format!("\u{2014} {name} {}\n", BASE64.encode(line)));
        }
    }
    note
}

/// The text of a note that one of the keys signed. Other signatures (of
/// witnesses, of keys that are not trusted) are left aside, as the format says.
pub(super) fn open<'a>(note: &'a str, keys: &[PublicKey]) -> Result<&'a str, NoteError> {
    let (text, signatures) = split(note)?;
    let mut signed = false;
    let mut others = Vec::new();
    for line in signatures.lines() {
        let (name, signature) = line
            .strip_prefix("\u{2014} ")
            .and_then(|line| line.split_once(' '))
            .ok_or(NoteError::Form("a line of a signature has another form"))?;
        let signature = BASE64
            .decode(signature)
            .map_err(|_| NoteError::Form("a signature is not base64"))?;
        let (id, signature) = signature
            .split_at_checked(4)
            .ok_or(NoteError::Form("a signature is too short"))?;
        let known = keys
            .iter()
            .map(|key| key.named(name))
            .find(|key| key.id() == id);
        match known {
            Some(key) if key.has_signed(text, signature) => signed = true,
            Some(_) => return Err(NoteError::Forged(name.to_owned())),
            None => others.push(name.to_owned()),
        }
    }
    if signed {
        Ok(text)
    } else {
        Err(NoteError::Unknown(others.join(", ")))
    }
}

/// The text, with its last line feed, and the lines of the signatures.
pub(super) fn split(note: &str) -> Result<(&str, &str), NoteError> {
    let end = note
        .rfind("\n\n")
        .ok_or(NoteError::Form("no empty line ends its text"))?;
    let (text, signatures) = (&note[..=end], &note[end + 2..]);
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(NoteError::Form("its signatures are missing or cut"));
    }
    Ok((text, signatures))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the documentation of the package `sumdb/note` of Go,
    /// which the format comes from.
    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\
        \n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_another_implementation_is_verified() {
        let key: PublicKey = GO_KEY.parse().expect("a key");
        assert_eq!(key.to_string(), GO_KEY);
        let text = open(GO_NOTE, &[key]).expect("signed");
        assert!(text.ends_with("problem is.\n"));
    }

    #[test]
    fn what_was_changed_or_signed_by_others_is_refused() {
        let key: PublicKey = GO_KEY.parse().expect("a key");
        let changed = GO_NOTE.replace("answer", "question");
        let error = open(&changed, std::slice::from_ref(&key)).expect_err("changed");
        assert!(matches!(error, NoteError::Forged(_)), "{error}");
        let error = open(GO_NOTE, &[]).expect_err("no key");
        assert!(matches!(error, NoteError::Unknown(_)), "{error}");
        for cut in ["", "text\n", "text\n\n", &GO_NOTE[..GO_NOTE.len() - 1]] {
            let error = open(cut, std::slice::from_ref(&key)).expect_err(cut);
            assert!(matches!(error, NoteError::Form(_)), "{error}");
        }
    }

    #[test]
    fn what_was_signed_is_verified_under_its_name() {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let key = PublicKey::of("egress/host-1", &pair).expect("a key");
        let note = sign("hello\n", "egress/host-1", &[&pair]);
        assert_eq!(open(&note, std::slice::from_ref(&key)), Ok("hello\n"));
        assert_eq!(key.to_string().parse(), Ok(key));
    }
}
