//! Whose signature a host believes.

use minisign_verify::{PublicKey as MinisignKey, Signature as MinisignSignature};
use ssh_key::{PublicKey as SshKey, SshSig};
use std::fmt;

/// The namespace of SSH signatures (`ssh-keygen -Y sign -n`): a signature that
/// was made for something else, such as a commit, counts for nothing here.
pub const NAMESPACE: &str = "egress-policy";

/// What signature files are called: the bundle's name and one of these.
pub const fn suffixes() -> [&'static str; 2] {
    [".sig", ".minisig"]
}

/// A public key that a host believes.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// As the configuration has it.
    text: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ssh,
    Minisign,
}

/// Why a text is no key that can be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is neither kind.
    #[error(
        "`{0}` is no public key: write a line of an SSH public key file (`ssh-ed25519 AAAA…`) or the second line of a minisign public key file (`RW…`)"
    )]
    Unreadable(String),
    /// It is an SSH key of a kind that cannot be verified here.
    #[error("`{0}` keys cannot be used; use ssh-ed25519 or ecdsa-sha2-nistp256")]
    Algorithm(String),
}

/// Why no signature counts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error("it is not signed: there is no `.sig` and no `.minisig` beside it")]
    Missing,
    /// None is by a key that is believed.
    #[error("no signature is by a key that this host believes: {0}")]
    Untrusted(String),
}

impl TrustedKey {
    /// Reads an SSH or a minisign public key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let kind = if MinisignKey::from_base64(text).is_ok() {
            Kind::Minisign
        } else {
            let key = SshKey::from_openssh(text)
                .map_err(|_| KeyError::Unreadable(text.chars().take(40).collect()))?;
            let algorithm = key.algorithm();
            let name = algorithm.as_str();
            if !matches!(name, "ssh-ed25519" | "ecdsa-sha2-nistp256") {
                return Err(KeyError::Algorithm(name.to_owned()));
            }
            Kind::Ssh
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
        })
    }

    /// Whether this key made this signature of these bytes.
    fn made(&self, bytes: &[u8], signature: &str) -> Result<(), String> {
        match self.kind {
            Kind::Ssh => {
                let key = SshKey::from_openssh(&self.text).map_err(|error| error.to_string())?;
                let signature =
                    SshSig::from_pem(signature).map_err(|_| "it is no SSH signature".to_owned())?;
                if signature.namespace() != NAMESPACE {
                    return Err(format!(
                        "its namespace is `{}` instead of `{NAMESPACE}`",
                        signature.namespace()
                    ));
                }
                key.verify(NAMESPACE, bytes, &signature)
                    .map_err(|_| "the key is another, or the file was changed".to_owned())
            }
            Kind::Minisign => {
                let key =
                    MinisignKey::from_base64(&self.text).map_err(|error| error.to_string())?;
                let signature = MinisignSignature::decode(signature)
                    .map_err(|_| "it is no minisign signature".to_owned())?;
                // Signatures of the whole text instead of its digest are as good.
                key.verify(bytes, &signature, true)
                    .map_err(|_| "the key is another, or the file was changed".to_owned())
            }
        }
    }
}

/// What people compare: the fingerprint that `ssh-keygen -l` shows, or the whole
/// minisign key.
impl fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, SshKey::from_openssh(&self.text)) {
            (Kind::Ssh, Ok(key)) => {
                let fingerprint = key.fingerprint(ssh_key::HashAlg::Sha256);
                match key.comment() {
                    "" => write!(f, "{fingerprint}"),
                    comment => write!(f, "{fingerprint} ({comment})"),
                }
            }
            (Kind::Ssh, Err(_)) | (Kind::Minisign, _) => write!(f, "minisign {}", self.text),
        }
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKey({self})")
    }
}

/// The texts of the signature files of one bundle.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Signatures(pub Vec<String>);

impl Signatures {
    /// The first key that made one of them. One is enough: several keys are
    /// several people who may sign, or an old and a new key.
    pub fn signer<'k>(
        &self,
        bytes: &[u8],
        keys: &'k [TrustedKey],
    ) -> Result<&'k TrustedKey, SignatureError> {
        if self.0.is_empty() {
            return Err(SignatureError::Missing);
        }
        let mut problems = Vec::new();
        for key in keys {
            for signature in &self.0 {
                match key.made(bytes, signature) {
                    Ok(()) => return Ok(key),
                    Err(problem) => problems.push(format!("{key}: {problem}")),
                }
            }
        }
        problems.dedup();
        Err(SignatureError::Untrusted(if problems.is_empty() {
            "no key is configured".into()
        } else {
            problems.join("; ")
        }))
    }
}

#[cfg(test)]
mod tests;
