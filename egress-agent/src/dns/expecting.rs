//! A socket on which nothing is expected any more but an answer.

#![expect(
    unsafe_code,
    reason = "tokio's safe sockets also wait for room to send, which wakes it twice before the answer does"
)]

use std::io;
use std::net::UdpSocket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An answer, or that there is nobody who answers.
const ANSWER: Interest = Interest::READABLE.add(Interest::ERROR);

/// A connected socket that has sent its question.
#[derive(Debug)]
pub(super) struct Expecting(AsyncFd<UdpSocket>);

impl Expecting {
    /// Waits with the runtime of the calling thread, for reading only. The socket must not block.
    pub(super) fn answer(socket: UdpSocket) -> io::Result<Self> {
        // SAFETY: a `UdpSocket` has one descriptor, which is open until it is
        // dropped, and the `AsyncFd` that owns it deregisters first.
        let socket = unsafe { AsyncFd::register_with_interest(socket, ANSWER) }?;
        Ok(Self(socket))
    }

    /// Waits for the next datagram.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let receive = |socket: &UdpSocket| socket.recv(buffer);
        self.0.async_io(ANSWER, receive).await
    }
}
