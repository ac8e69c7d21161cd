//! Signatures as the Standard Webhooks specification has them.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// A secret that the receiver knows too.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Others could read it.
    #[error("{0} may be read by everybody; make it mode 0600")]
    Open(PathBuf),
    /// It is no secret of the specification.
    #[error(
        "this is no webhook secret: write `whsec_` and 24 to 64 random bytes in base64, such as `echo whsec_$(openssl rand -base64 32)` makes"
    )]
    Form,
}

impl Secret {
    /// Reads a file with a secret in it.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let read = |error| SecretError::Read {
            path: path.to_owned(),
            error,
        };
        let mode = std::fs::metadata(path).map_err(read)?.mode();
        if mode & 0o007 != 0 {
            return Err(SecretError::Open(path.to_owned()));
        }
        Self::parse(std::fs::read_to_string(path).map_err(read)?.trim())
    }

    /// Reads a secret: `whsec_` and base64.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = text
            .strip_prefix(PREFIX)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or(SecretError::Form)?;
        if (24..=64).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(SecretError::Form)
        }
    }

    /// The `webhook-signature` of a message: its id, when it is sent in seconds
    /// since the epoch, and its body.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut signed = hmac::Context::with_key(&key);
        signed.update(format!("{id}.{timestamp}.").as_bytes());
        signed.update(body);
        format!("v1,{}", STANDARD.encode(signed.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specifications_example() {
        // The example of the specification and of its reference libraries.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_showing_it() {
        for text in [
            "",
            "whsec_",
            "whsec_c2hvcnQ=",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!",
        ] {
            let error = Secret::parse(text).expect_err(text).to_string();
            assert!(text.len() < 8 || !error.contains(text), "{error}");
        }
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
