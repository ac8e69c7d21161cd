//! Messages on their way to a collector.

use crate::outbound::{Client, TlsError, TlsStream};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, lookup_host};

/// How long a connection or a write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How messages travel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// A datagram a message (RFC 5426): nobody knows what arrives.
    Udp,
    /// With octet counting (RFC 6587).
    Tcp,
    /// The same under TLS (RFC 5425).
    Tls(Client),
}

/// A collector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// How it is reached.
    pub transport: Transport,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Why messages cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It took too long.
    #[error("the collector takes nothing within {} s", PATIENCE.as_secs())]
    Slow,
}

/// A connection to a collector.
pub(super) enum Connection {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

/// For people.
impl std::fmt::Display for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls(_) => "tls",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Receiver {
    /// Sends messages over a connection of their own.
    pub async fn deliver(&self, messages: &[String]) -> Result<(), TransportError> {
        self.connect().await?.send(messages).await
    }

    pub(super) async fn connect(&self) -> Result<Connection, TransportError> {
        let connected = async {
            Ok(match &self.transport {
                Transport::Udp => {
                    let to = lookup_host((self.host.as_str(), self.port))
                        .await?
                        .next()
                        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                    let any: SocketAddr = if to.is_ipv4() {
                        ([0, 0, 0, 0], 0).into()
                    } else {
                        ([0_u16; 8], 0).into()
                    };
                    let socket = UdpSocket::bind(any).await?;
                    socket.connect(to).await?;
                    Connection::Udp(socket)
                }
                Transport::Tcp => Connection::Tcp(self.stream().await?),
                Transport::Tls(client) => {
                    let stream = self.stream().await?;
                    Connection::Tls(Box::new(client.connect(&self.host, stream).await?))
                }
            })
        };
        tokio::time::timeout(PATIENCE, connected)
            .await
            .map_err(|_| TransportError::Slow)?
    }

    async fn stream(&self) -> io::Result<TcpStream> {
        TcpStream::connect((self.host.as_str(), self.port)).await
    }
}

impl Connection {
    /// Sends messages in their order: all of them, or an error.
    pub async fn send(&mut self, messages: &[String]) -> Result<(), TransportError> {
        let sent = async {
            match self {
                Self::Udp(socket) => {
                    for message in messages {
                        socket.send(message.as_bytes()).await?;
                    }
                }
                Self::Tcp(stream) => {
                    has_ended(stream)?;
                    stream.write_all(&counted(messages)).await?;
                }
                Self::Tls(stream) => {
                    has_ended(stream.get_ref().0)?;
                    stream.write_all(&counted(messages)).await?;
                    stream.flush().await?;
                }
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, sent)
            .await
            .map_err(|_| TransportError::Slow)?
    }
}

/// A collector sends nothing, so what can be read is its farewell; without
/// looking, a first write after it would seem to succeed.
fn has_ended(stream: &TcpStream) -> io::Result<()> {
    let mut byte = [0; 1];
    match stream.try_read(&mut byte) {
        Ok(0) => Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the collector closed the connection",
        )),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// Octet counting: each message after its length.
fn counted(messages: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
        bytes.extend_from_slice(message.as_bytes());
    }
    bytes
}
