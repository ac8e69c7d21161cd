//! Keyed hashes in the place of names and addresses.

use crate::audit::AuditError;
use crate::audit::chain::hexadecimal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use std::net::IpAddr;
use std::path::Path;

/// Shorter keys could be guessed together with the names, in bytes.
const SHORTEST_KEY: usize = 32;

/// Hashes what must not be readable. Equal values stay equal, so that what was
/// done to one destination can still be found by who has the key.
#[derive(Clone)]
pub struct Hider(Key);

impl std::fmt::Debug for Hider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hider(..)")
    }
}

impl Hider {
    /// Reads the key: the bytes of a file.
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let bytes = std::fs::read(path).map_err(|source| AuditError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
        if bytes.len() < SHORTEST_KEY {
            return Err(AuditError::Key {
                path: path.to_owned(),
                problem: format!(
                    "it has {} bytes, and a key that cannot be guessed has at least {SHORTEST_KEY}; \
                     make one with `head -c 32 /dev/urandom`",
                    bytes.len()
                ),
            });
        }
        Ok(Self(Key::new(HMAC_SHA256, &bytes)))
    }

    /// HMAC-SHA-256 of a name in lower case without a final dot, in hexadecimal.
    pub fn name(&self, name: &str) -> String {
        let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        hexadecimal(sign(&self.0, bare.as_bytes()).as_ref())
    }

    /// HMAC-SHA-256 of an address as text (RFC 5952), in hexadecimal.
    pub fn address(&self, address: IpAddr) -> String {
        hexadecimal(sign(&self.0, address.to_canonical().to_string().as_bytes()).as_ref())
    }
}
