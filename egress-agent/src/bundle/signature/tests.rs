//! Signatures made by the tools that operators have.

use super::{KeyError, SignatureError, Signatures, TrustedKey};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CONTENT: &[u8] = b"the content of a bundle";

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let done = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup` installs it"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
}

/// A directory with the content in `bundle` and a key pair.
struct Signer {
    directory: tempfile::TempDir,
}

impl Signer {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("bundle"), CONTENT).expect("writable");
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn read(&self, name: &str) -> String {
        let path: PathBuf = self.path().join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn ssh(kind: &str, namespace: &str) -> (String, Signatures) {
        let signer = Self::new();
        let make = ["-q", "-t", kind, "-N", "", "-C", "ops", "-f", "key"];
        run("ssh-keygen", &make, signer.path());
        let sign = ["-Y", "sign", "-q", "-f", "key", "-n", namespace, "bundle"];
        run("ssh-keygen", &sign, signer.path());
        (
            signer.read("key.pub"),
            Signatures(vec![signer.read("bundle.sig")]),
        )
    }

    fn minisign(options: &[&str]) -> (String, Signatures) {
        let signer = Self::new();
        let make = ["-G", "-W", "-p", "key.pub", "-s", "key"];
        run("minisign", &make, signer.path());
        let mut sign = vec!["-S", "-s", "key", "-m", "bundle"];
        sign.extend(options);
        run("minisign", &sign, signer.path());
        let key = signer.read("key.pub");
        let key = key.lines().nth(1).expect("the second line").to_owned();
        (key, Signatures(vec![signer.read("bundle.minisig")]))
    }
}

fn key(text: &str) -> TrustedKey {
    TrustedKey::parse(text).expect("a key")
}

#[test]
fn signatures_of_ssh_keygen_and_minisign_count_for_their_key_and_content_only() {
    let ed25519 = Signer::ssh("ed25519", super::NAMESPACE);
    let others = [
        Signer::ssh("ecdsa", super::NAMESPACE),
        Signer::minisign(&[]),
        Signer::minisign(&["-l"]),
    ];
    let stranger = key(&ed25519.0);
    let (_, foreign) = Signer::ssh("ed25519", super::NAMESPACE);
    assert!(
        foreign
            .signer(CONTENT, std::slice::from_ref(&stranger))
            .is_err()
    );
    for (public, signatures) in std::iter::once(&ed25519).chain(&others) {
        let trusted = [key(public)];
        let signer = signatures.signer(CONTENT, &trusted).expect("a signer");
        assert_eq!(signer, &trusted[0]);
        let mut changed = CONTENT.to_vec();
        changed[3] ^= 1;
        for result in [
            signatures.signer(&changed, &trusted),
            signatures.signer(b"", &trusted),
            foreign.signer(CONTENT, &trusted),
            Signatures(vec!["no signature".into()]).signer(CONTENT, &trusted),
        ] {
            assert!(matches!(result, Err(SignatureError::Untrusted(_))));
        }
        // One of several keys, and one of several signatures, is enough.
        let several = [stranger.clone(), key(public)];
        let mut more = foreign.clone();
        more.0.extend(signatures.0.clone());
        assert!(more.signer(CONTENT, &several).is_ok());
    }
}

#[test]
fn an_ssh_signature_that_was_made_for_something_else_counts_for_nothing() {
    let (public, signatures) = Signer::ssh("ed25519", "git");
    let error = signatures
        .signer(CONTENT, &[key(&public)])
        .expect_err("another namespace");
    assert!(error.to_string().contains("`git` instead of"), "{error}");
}

#[test]
fn nothing_counts_without_a_signature_or_without_a_key() {
    let (public, signatures) = Signer::ssh("ed25519", super::NAMESPACE);
    let none = Signatures::default();
    assert_eq!(
        none.signer(CONTENT, &[key(&public)]),
        Err(SignatureError::Missing)
    );
    assert!(signatures.signer(CONTENT, &[]).is_err());
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_what_to_write() {
    let (rsa, _) = Signer::ssh("rsa", super::NAMESPACE);
    assert!(matches!(
        TrustedKey::parse(&rsa),
        Err(KeyError::Algorithm(_))
    ));
    for text in ["", "ssh-ed25519", "RWQnothing", "untrusted comment: key"] {
        let error = TrustedKey::parse(text).expect_err(text);
        assert!(error.to_string().contains("ssh-ed25519 AAAA"), "{error}");
    }
}
