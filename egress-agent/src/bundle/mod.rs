//! Signed bundles: a set of policy files as one file that a host believes only
//! with a signature, and never in an older version.
//!
//! A bundle is a tar archive whose first member is [`Manifest`]; the signatures
//! are files beside it, made with tools that every operator has: `ssh-keygen -Y
//! sign -n egress-policy FILE`, `minisign -S -m FILE`. Pure: no file is read, no
//! clock is asked.

#![forbid(unsafe_code)]

mod archive;
mod error;
mod manifest;
mod signature;

pub use archive::{Bundle, Member};
pub use error::BundleError;
pub use manifest::Manifest;
pub use signature::{KeyError, NAMESPACE, SignatureError, Signatures, TrustedKey, suffixes};
