//! DNS over HTTPS (RFC 8484) over HTTP/2: one connection, many questions.

use super::exchange::ExchangeError;
use super::incoming::Answer;
use super::outgoing::Question;
use super::tls::connect;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

const MEDIA_TYPE: &str = "application/dns-message";
const LONGEST: usize = u16::MAX as usize;

type Sender = SendRequest<Full<Bytes>>;

/// The connection to one server.
pub(super) struct HttpsLine {
    address: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
    uri: String,
    sender: Mutex<Option<Sender>>,
}

impl fmt::Debug for HttpsLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsLine")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl HttpsLine {
    pub(super) fn new(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        uri: String,
    ) -> Self {
        Self {
            address,
            connector: TlsConnector::from(config),
            name,
            uri,
            sender: Mutex::new(None),
        }
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, ExchangeError> {
        let (sender, is_fresh) = self.sender(false).await?;
        match self.post(sender, question).await {
            Ok(message) => Ok(message),
            Err(error) if is_fresh => Err(error),
            // The connection may have ended while nobody asked.
            Err(_) => {
                let (sender, _) = self.sender(true).await?;
                self.post(sender, question).await
            }
        }
    }

    /// The connection, a new one if it is closed or if one is asked for. Those who
    /// come meanwhile wait for that one.
    async fn sender(&self, anew: bool) -> Result<(Sender, bool), ExchangeError> {
        let mut kept = self.sender.lock().await;
        if !anew && let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((sender.clone(), false));
        }
        let stream = connect(self.address, &self.connector, &self.name).await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an upstream ended");
            }
        });
        *kept = Some(sender.clone());
        Ok((sender, true))
    }

    async fn post(&self, mut sender: Sender, question: &Question) -> Result<Answer, ExchangeError> {
        let request = Request::post(&self.uri)
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .header(ACCEPT, MEDIA_TYPE)
            .body(Full::new(Bytes::copy_from_slice(question.bytes())))
            .map_err(io::Error::other)?;
        sender.ready().await.map_err(io::Error::other)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Err(ExchangeError::Status(response.status().as_u16()));
        }
        let kind = response.headers().get(CONTENT_TYPE);
        if kind.is_none_or(|kind| kind.as_bytes() != MEDIA_TYPE.as_bytes()) {
            return Err(ExchangeError::Mismatch);
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let bytes = body.map_err(io::Error::other)?.to_bytes();
        question.answered_by(&bytes).ok_or(ExchangeError::Mismatch)
    }
}
