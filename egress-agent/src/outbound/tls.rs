//! TLS towards receivers, with the system's authorities or with given ones.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection under TLS.
pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Makes connections, trusting certain authorities.
#[derive(Clone)]
pub struct Client {
    trusted: Option<PathBuf>,
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("trusted", &self.trusted)
            .finish()
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.trusted == other.trusted
    }
}

impl Eq for Client {}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of authorities cannot be used.
    #[error("cannot use {path} as a list of authorities: {problem}; it must hold PEM certificates")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// TLS itself.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// The name of the receiver.
    #[error("`{0}` is no name that a certificate could have")]
    Name(String),
    /// The connection.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Client {
    /// Trusts the authorities of the file, or those of the system.
    pub fn new(authorities: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = authorities {
            let refuse = |problem: String| TlsError::Authorities {
                path: path.to_owned(),
                problem,
            };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| refuse(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| refuse(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(refuse("it holds no certificate".to_owned()));
            }
        } else {
            // Some of a system's authorities are too odd to be read; whoever
            // needs such a one finds no connection, and is told so then.
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            trusted: authorities.map(Path::to_owned),
            config: Arc::new(config),
        })
    }

    /// Speaks TLS over a connection with the receiver of this name.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream, TlsError> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
        Ok(TlsConnector::from(Arc::clone(&self.config))
            .connect(name, stream)
            .await?)
    }
}
