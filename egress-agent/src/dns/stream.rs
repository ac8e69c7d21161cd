//! DNS over TCP (RFC 7766): many queries per connection, answered as they are ready.

use super::counters::count;
use super::gate::Gate;
use super::server::{PAUSE_AFTER_ERROR, Shared, reap};
use super::trace::Asked;
use egress_common::{Protocol, SandboxId};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Queries of one connection under way; further ones wait in the socket.
const PIPELINE: usize = 16;
/// A query is a few hundred bytes; what announces more is not one.
const MAX_QUERY: u16 = 4096;

/// Accepts until told to stop.
pub(super) async fn connections<G: Gate>(
    shared: Arc<Shared<G>>,
    listener: TcpListener,
    only: Option<SandboxId>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        reap(&mut tasks);
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the resolver cannot accept");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        // A stranger's connection is closed unheard: one that may stay open
        // could use up descriptors under nobody's bound.
        let Some(sandbox) = shared.asker(only, from, Protocol::Tcp) else {
            count(&shared.resolver.counters.unknown_asker);
            shared.resolver.record_stranger(from);
            continue;
        };
        let Some(pass) = shared.connections.enter(sandbox) else {
            count(&shared.resolver.counters.overloaded);
            continue;
        };
        let (shared, stopped) = (shared.clone(), stopped.clone());
        tasks.spawn(async move {
            let _pass = pass;
            let connection = Connection {
                shared,
                from,
                only,
                sandbox,
            };
            if let Err(error) = connection.serve(stream, stopped).await {
                tracing::debug!(%error, "a DNS connection ended early");
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// One connection.
struct Connection<G: Gate> {
    shared: Arc<Shared<G>>,
    from: SocketAddr,
    only: Option<SandboxId>,
    sandbox: SandboxId,
}

impl<G: Gate> Connection<G> {
    async fn serve(self, stream: TcpStream, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
        let connection = Arc::new(self);
        let idle = connection.shared.idle_timeout;
        let (mut reader, writer) = stream.into_split();
        let writer = Arc::new(Mutex::new(writer));
        let slots = Arc::new(Semaphore::new(PIPELINE));
        let mut tasks = JoinSet::new();
        let ended = loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                break Ok(());
            };
            let frame = tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break Ok(()),
                frame = timeout(idle, read_frame(&mut reader)) => frame,
            };
            let bytes = match frame {
                Ok(Ok(Some(bytes))) => bytes,
                // Closed by the client, or silent for too long.
                Ok(Ok(None)) | Err(_) => break Ok(()),
                Ok(Err(error)) => break Err(error),
            };
            // Asked for every query: a socket can change hands, and then speaks
            // for nobody.
            let (shared, only) = (&connection.shared, connection.only);
            let asker = shared.asker(only, connection.from, Protocol::Tcp);
            if asker != Some(connection.sandbox) {
                count(&connection.shared.resolver.counters.unknown_asker);
                connection.shared.resolver.record_stranger(connection.from);
                break Ok(());
            }
            let (connection, writer) = (connection.clone(), writer.clone());
            reap(&mut tasks);
            tasks.spawn(async move {
                connection.query(&bytes, &writer).await;
                drop(slot);
            });
        };
        // What was asked is answered, also after the client closed its half.
        while tasks.join_next().await.is_some() {}
        ended
    }

    async fn query(&self, bytes: &[u8], writer: &Mutex<OwnedWriteHalf>) {
        let shared = &self.shared;
        let asked = Asked {
            from: self.from,
            protocol: Protocol::Tcp,
            sandbox: Some(self.sandbox),
            process: shared.resolver.gate.process(self.from, Protocol::Tcp),
        };
        let reply = match shared.queries.enter(self.sandbox) {
            Some(_pass) => shared.resolver.answer(asked, bytes).await,
            None => {
                count(&shared.resolver.counters.overloaded);
                super::resolver::overloaded(bytes)
            }
        };
        let Some(reply) = reply else { return };
        let Ok(length) = u16::try_from(reply.len()) else {
            return;
        };
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend(reply);
        let mut writer = writer.lock().await;
        let written = timeout(shared.idle_timeout, writer.write_all(&frame)).await;
        if !matches!(written, Ok(Ok(()))) {
            // Half a frame may be out: nothing after it would be understood.
            let _ = writer.shutdown().await;
        }
    }
}

/// One length-prefixed message; `None` at the end of the stream.
async fn read_frame(reader: &mut OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
    let length = match reader.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_QUERY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a query of {length} bytes was announced; {MAX_QUERY} are allowed"),
        ));
    }
    let mut bytes = vec![0; usize::from(length)];
    reader.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}
