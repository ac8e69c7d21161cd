//! Who an upstream is: the certificate's name, who vouches for it, pinned keys.

use super::endpoint::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;

/// Why an upstream cannot be told from an impostor.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The name is none that a certificate can have.
    #[error("`{0}` is no name that a certificate can be for")]
    Name(String),
    /// The file cannot be read as certificates.
    #[error("{path}: {problem}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system trusts nobody.
    #[error(
        "the system has no certificate authorities; install the package `ca-certificates`, or \
         name a file with `authorities`"
    )]
    NoAuthorities,
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// The name that the certificate must be for.
pub(super) fn server_name(identity: &Identity) -> Result<ServerName<'static>, IdentityError> {
    ServerName::try_from(identity.name.clone())
        .map_err(|_| IdentityError::Name(identity.name.clone()))
}

/// A client that speaks with nobody else.
pub(super) fn client(
    identity: &Identity,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, IdentityError> {
    // Named here and not left to the process, whose default others may set.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = Arc::new(authorities(identity)?);
    let failed = |error: VerifierBuilderError| IdentityError::Tls(error.to_string());
    let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let verifier = Pinned {
        chain: chain.build().map_err(failed)?,
        pins: identity.pins.clone(),
    };
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| IdentityError::Tls(error.to_string()))?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn authorities(identity: &Identity) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &identity.authorities else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        return if roots.is_empty() {
            Err(IdentityError::NoAuthorities)
        } else {
            Ok(roots)
        };
    };
    let failed = |problem: String| IdentityError::Authorities {
        path: path.clone(),
        problem,
    };
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate in PEM form".into()));
    }
    Ok(roots)
}

/// The usual checks of chain, name and time, and then the key.
#[derive(Debug)]
struct Pinned {
    chain: Arc<WebPkiServerVerifier>,
    pins: Vec<[u8; 32]>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.chain
                .verify_server_cert(end_entity, intermediates, name, stapled, now)?;
        if self.pins.is_empty() {
            return Ok(verified);
        }
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let digest: [u8; 32] = Sha256::digest(&key).into();
        if self.pins.contains(&digest) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
