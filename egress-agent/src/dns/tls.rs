//! DNS over TLS (RFC 7858).

use super::exchange::{ExchangeError, over_stream};
use super::incoming::Answer;
use super::outgoing::Question;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections that wait for the next question.
const IDLE: usize = 16;
/// How long one waits. Servers close idle connections after some seconds.
const KEEP: Duration = Duration::from_secs(10);

type Stream = TlsStream<TcpStream>;

/// Connections to one server. A question has a connection to itself while it is
/// asked, so that a slow one holds up no other.
pub(super) struct TlsLine {
    address: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
    idle: Mutex<Vec<(Stream, Instant)>>,
}

impl fmt::Debug for TlsLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLine")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl TlsLine {
    pub(super) fn new(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Self {
        Self {
            address,
            connector: TlsConnector::from(config),
            name,
            idle: Mutex::default(),
        }
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, ExchangeError> {
        // One that waited may have been closed meanwhile: that says nothing about the server.
        if let Some(mut stream) = self.take()
            && let Ok(message) = over_stream(&mut stream, question).await
        {
            self.put_back(stream);
            return Ok(message);
        }
        let mut stream = connect(self.address, &self.connector, &self.name).await?;
        let message = over_stream(&mut stream, question).await?;
        self.put_back(stream);
        Ok(message)
    }

    fn take(&self) -> Option<Stream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < KEEP);
        idle.pop().map(|(stream, _)| stream)
    }

    fn put_back(&self, stream: Stream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push((stream, Instant::now()));
        }
    }
}

/// Connects, and makes sure of who answers.
pub(super) async fn connect(
    address: SocketAddr,
    connector: &TlsConnector,
    name: &ServerName<'static>,
) -> Result<Stream, ExchangeError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(connector.connect(name.clone(), stream).await?)
}
