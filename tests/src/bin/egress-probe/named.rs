//! Steps with sockets that live from one step to the next.

use crate::exchange::PATIENCE;
use crate::{Result, parse};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Sockets by the name that a step gave them.
#[derive(Default)]
pub struct Sockets {
    by_name: BTreeMap<String, Socket>,
}

impl Sockets {
    pub fn open(&mut self, name: &str, kind: &str) -> Result {
        let (domain, kind) = match kind {
            "tcp4" => (Domain::IPV4, Type::STREAM),
            "tcp6" => (Domain::IPV6, Type::STREAM),
            "udp4" => (Domain::IPV4, Type::DGRAM),
            "udp6" => (Domain::IPV6, Type::DGRAM),
            other => return Err(io::Error::other(format!("not a kind of socket: {other}"))),
        };
        self.keep(name, Socket::new(domain, kind, None)?)
    }

    /// Makes a socket of any family, type and protocol, as numbers.
    pub fn make(&mut self, name: &str, [family, kind, protocol]: [&str; 3]) -> Result {
        let socket = Socket::new(
            Domain::from(parse::<i32>(family)?),
            Type::from(parse::<i32>(kind)?),
            Some(Protocol::from(parse::<i32>(protocol)?)),
        )?;
        self.keep(name, socket)
    }

    /// Takes over an open descriptor, such as one that was inherited.
    pub fn inherited(&mut self, name: &str, number: &str) -> Result {
        let open = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
        // A copy, so that the standard streams stay what they are.
        let copy = rustix::io::fcntl_dupfd_cloexec(crate::calls::borrowed(number)?, 3)?;
        self.keep(name, Socket::from(copy))?;
        Ok(open.display().to_string())
    }

    pub fn bind(&self, name: &str, address: &str) -> Result {
        let socket = self.named(name)?;
        socket.bind(&parse::<SocketAddr>(address)?.into())?;
        let bound = socket.local_addr()?.as_socket();
        Ok(bound.map(|address| address.to_string()).unwrap_or_default())
    }

    /// Sends one DNS query again and again, whether it is taken or not.
    pub fn flood(&self, name: &str, milliseconds: &str) -> Result {
        const QUERY: &[u8] = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
            \x09forbidden\x07example\x00\x00\x01\x00\x01";
        let socket = self.named(name)?;
        let end = Instant::now() + Duration::from_millis(parse(milliseconds)?);
        let mut taken = 0_u64;
        while Instant::now() < end {
            for _ in 0..64 {
                taken += u64::from(socket.send(QUERY).is_ok());
            }
        }
        Ok(taken.to_string())
    }

    /// Connects to two addresses in turn, as fast as it can, while another thread
    /// sends without naming one; how many were taken.
    pub fn race(&self, name: &str, addresses: [&str; 2], milliseconds: &str, text: &str) -> Result {
        let socket = self.named(name)?;
        let [first, second] = addresses.map(parse::<SocketAddr>);
        let addresses = [SockAddr::from(first?), SockAddr::from(second?)];
        let end = Instant::now() + Duration::from_millis(parse(milliseconds)?);
        let taken = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut taken = 0_u64;
                while Instant::now() < end {
                    taken += u64::from(socket.send(text.as_bytes()).is_ok());
                }
                taken
            });
            while Instant::now() < end {
                for address in &addresses {
                    // Connecting a datagram socket sends nothing and is no offence.
                    let _ = socket.connect(address);
                }
            }
            sender.join()
        });
        let taken = taken.map_err(|_| io::Error::other("the sender panicked"))?;
        Ok(taken.to_string())
    }

    pub fn close(&mut self, name: &str) -> Result {
        self.by_name.remove(name);
        Ok(String::new())
    }

    pub fn connect(&self, name: &str, address: &str) -> Result {
        let address = SockAddr::from(parse::<SocketAddr>(address)?);
        let socket = self.named(name)?;
        socket
            .connect_timeout(&address, PATIENCE)
            .map(|()| String::new())
    }

    pub fn send(&self, name: &str, text: &str) -> Result {
        self.named(name)?
            .send(text.as_bytes())
            .map(|length| length.to_string())
    }

    pub fn send_to(&self, name: &str, address: &str, text: &str) -> Result {
        let address = SockAddr::from(parse::<SocketAddr>(address)?);
        let sent = self.named(name)?.send_to(text.as_bytes(), &address)?;
        Ok(sent.to_string())
    }

    pub fn receive(&self, name: &str) -> Result {
        let mut buffer = [0; 2048];
        let length = self.named(name)?.read(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    pub fn listen(&mut self, name: &str, address: &str) -> Result {
        let address: SocketAddr = parse(address)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&address.into())?;
        socket.listen(8)?;
        let bound = socket.local_addr()?.as_socket();
        self.keep(name, socket)?;
        Ok(bound.map(|address| address.to_string()).unwrap_or_default())
    }

    pub fn accept(&mut self, name: &str, accepted: &str) -> Result {
        let (socket, peer) = self.named(name)?.accept()?;
        self.keep(accepted, socket)?;
        Ok(peer
            .as_socket()
            .map(|address| address.to_string())
            .unwrap_or_default())
    }

    /// Waits at a Unix socket for a taker and passes the socket to it.
    pub fn give(&self, name: &str, path: &str) -> Result {
        let socket = self.named(name)?;
        let (taker, _) = UnixListener::bind(path)?.accept()?;
        let descriptors = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(
            &taker,
            &[IoSlice::new(b"!")],
            &mut control,
            SendFlags::empty(),
        )?;
        Ok(String::new())
    }

    /// Takes the socket that somebody gives at this path.
    pub fn take(&mut self, name: &str, path: &str) -> Result {
        let giver = UnixStream::connect(path)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        recvmsg(&giver, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let taken: Option<OwnedFd> = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let taken = taken.ok_or_else(|| io::Error::other("no descriptor came"))?;
        self.keep(name, Socket::from(taken))
    }

    /// Keeps a descriptor of any kind under a name.
    pub fn keep_descriptor(&mut self, name: &str, descriptor: OwnedFd) -> Result {
        let number = descriptor.as_raw_fd().to_string();
        self.by_name
            .insert(name.to_owned(), Socket::from(descriptor));
        Ok(number)
    }

    /// Arguments of a call with the number in place of each `fd:NAME`.
    pub fn numbers(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let number = |argument: &&str| match argument.strip_prefix("fd:") {
            Some(name) => Ok(self.named(name)?.as_raw_fd().to_string()),
            None => Ok((*argument).to_owned()),
        };
        arguments.iter().map(number).collect()
    }

    fn keep(&mut self, name: &str, socket: Socket) -> Result {
        socket.set_read_timeout(Some(PATIENCE))?;
        self.by_name.insert(name.to_owned(), socket);
        Ok(String::new())
    }

    pub fn named(&self, name: &str) -> Result<&Socket> {
        self.by_name
            .get(name)
            .ok_or_else(|| io::Error::other(format!("no socket {name}")))
    }
}
