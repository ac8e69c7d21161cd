//! A socket on which nothing is expected any more but an answer.

#![expect(
    unsafe_code,
    reason = "tokio's safe sockets also wait for room to send, which wakes it twice before the answer does"
)]

use super::reactor::Registered;
use rustix::net::RecvFlags;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An answer, or that there is nobody who answers.
const ANSWER: Interest = Interest::READABLE.add(Interest::ERROR);

/// Larger than what is asked for (1232): some servers do not listen. What is cut off does
/// not parse.
const RECEIVE: usize = 4096;

/// A socket for one question, which has no port yet.
#[derive(Debug)]
pub(super) enum Unasked {
    /// Of a thread of the runtime; it is registered when the question has been sent.
    Runtime(UdpSocket),
    /// Of a thread that reads questions.
    Reader(Registered),
}

impl Unasked {
    /// Sends its question to `server`.
    pub(super) fn ask(self, server: SocketAddr, question: &[u8]) -> io::Result<Expecting> {
        match self {
            Self::Runtime(socket) => {
                socket.connect(server)?;
                socket.send(question)?;
                Expecting::answer(socket)
            }
            Self::Reader(mut socket) => {
                socket.ask(server, question)?;
                Ok(Expecting(Way::Reader(socket)))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &UdpSocket {
        match self {
            Self::Runtime(socket) => socket,
            Self::Reader(socket) => socket.socket(),
        }
    }
}

/// A connected socket that has sent its question.
#[derive(Debug)]
pub(super) struct Expecting(Way);

#[derive(Debug)]
enum Way {
    Runtime(AsyncFd<UdpSocket>),
    Reader(Registered),
}

impl Expecting {
    /// Waits with the runtime of the calling thread, for reading only. The socket must not block.
    pub(super) fn answer(socket: UdpSocket) -> io::Result<Self> {
        // SAFETY: a `UdpSocket` has one descriptor, which is open until it is
        // dropped, and the `AsyncFd` that owns it deregisters first.
        let socket = unsafe { AsyncFd::register_with_interest(socket, ANSWER) }?;
        Ok(Self(Way::Runtime(socket)))
    }

    /// Waits for the next datagram, and gives what `read` makes of it.
    pub(super) async fn receive<T>(&self, mut read: impl FnMut(&[u8]) -> T) -> io::Result<T> {
        let mut receive = |socket: &UdpSocket| {
            // On the stack, and not cleared: there is one for as long as it takes to read it.
            let mut room = [MaybeUninit::uninit(); RECEIVE];
            let ((bytes, _), _) = rustix::net::recv(socket, &mut room[..], RecvFlags::empty())?;
            Ok(read(bytes))
        };
        match &self.0 {
            Way::Runtime(socket) => socket.async_io(ANSWER, receive).await,
            Way::Reader(socket) => poll_fn(|context| socket.poll_with(context, &mut receive)).await,
        }
    }

    /// Expects nothing any more.
    pub(super) fn end(&mut self) {
        if let Way::Reader(socket) = &mut self.0 {
            socket.expect(false);
        }
    }
}
