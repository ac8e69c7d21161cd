//! Many datagrams per system call, and many of one client per way through the kernel.
//!
//! Replies of one length to one client leave as one packet that the kernel cuts into
//! datagrams (`UDP_SEGMENT`, udp(7), Linux 4.18): it takes its way through the kernel
//! once, and on the loopback device it is cut where it arrives. The client sees datagrams
//! like any others.

#![expect(
    unsafe_code,
    reason = "recvmmsg(2) and sendmmsg(2) have no safe wrapper that keeps its buffers"
)]

use libc::{
    c_uint, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t,
};
use std::cmp::Reverse;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams per system call, and no more than a packet may be cut into
/// (`UDP_MAX_SEGMENTS` before Linux 6.10). More make the last one of a burst wait longer.
pub(super) const BATCH: usize = 64;
/// No query is longer; what is cut off does not parse.
const RECEIVE: usize = 4096;
/// No answer over UDP is longer.
const SEND: usize = 1232;

/// Buffers for one worker. Everything that the kernel is pointed to lives in
/// boxes that are made once and never move.
pub(super) struct Batch {
    received: Box<[[u8; RECEIVE]]>,
    replies: Box<[[u8; SEND]]>,
    senders: Box<[sockaddr_storage]>,
    /// Of what was received. The headers have it, too, but only until something is sent by them.
    lengths: Box<[usize]>,
    queued: Vec<Queued>,
    vectors: Box<[iovec]>,
    headers: Box<[mmsghdr]>,
    segments: Box<[Segments]>,
    /// How many headers may point elsewhere than to receive.
    used: usize,
}

/// A reply that waits to be sent. In this order, those of one client stand together, the
/// longest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Queued {
    to: SocketAddr,
    length: Reverse<usize>,
    /// Whose sender it answers, and whose room it was written to.
    place: usize,
}

/// The control message that has a packet cut: a header, and how long each datagram is.
#[repr(C)]
#[derive(Clone, Copy)]
struct Segments {
    header: cmsghdr,
    length: u16,
    // `CMSG_SPACE(2)`: what follows the header is as aligned as it is.
    _rest: [u8; size_of::<usize>() - 2],
}

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: all of these are plain C structures, for which zeroes are a value.
        let (sender, vector, header, segments): (sockaddr_storage, iovec, mmsghdr, Segments) =
            unsafe { std::mem::zeroed() };
        Self {
            received: vec![[0; RECEIVE]; BATCH].into(),
            replies: vec![[0; SEND]; BATCH].into(),
            senders: vec![sender; BATCH].into(),
            lengths: vec![0; BATCH].into(),
            queued: Vec::with_capacity(BATCH),
            vectors: vec![vector; BATCH].into(),
            headers: vec![header; BATCH].into(),
            segments: vec![segments; BATCH].into(),
            used: BATCH,
        }
    }

    /// Waits for a datagram, and takes what else is there; how many.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.read(socket, libc::MSG_WAITFORONE)
    }

    /// Takes what is there, which may be nothing.
    pub(super) fn receive_rest(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        match self.read(socket, libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    fn read(&mut self, socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<usize> {
        let parts = self.received.iter_mut().zip(&mut self.senders);
        let kernel = self.vectors.iter_mut().zip(&mut self.headers);
        // Mostly one datagram came last time: the others are still pointed.
        for ((buffer, sender), (vector, header)) in parts.zip(kernel).take(self.used) {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = RECEIVE;
            header.msg_len = 0;
            let room = size_of::<sockaddr_storage>() as socklen_t;
            point(
                &mut header.msg_hdr,
                (sender, room),
                std::slice::from_mut(vector),
            );
        }
        // SAFETY: every header points to buffers of this value, with their true
        // lengths: those that were used were just pointed anew. None of them moves
        // while the call lasts.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as c_uint,
                flags,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(count).map_err(|_| io::Error::last_os_error());
        // Whatever is received or sent from now on uses the first ones.
        self.used = received.as_ref().map_or(1, |received| (*received).max(1));
        let headers = self.headers.iter().take(self.used);
        for (length, header) in self.lengths.iter_mut().zip(headers) {
            *length = header.msg_len as usize;
        }
        received
    }

    /// The datagram at a place below what [`Batch::receive`] returned, with its
    /// sender, and room for its reply.
    pub(super) fn at(&mut self, place: usize) -> Option<(&[u8], SocketAddr, &mut [u8])> {
        let bytes = self.received.get(place)?.get(..*self.lengths.get(place)?)?;
        let from = address(self.senders.get(place)?)?;
        let room = self.replies.get_mut(place)?;
        Some((bytes, from, room))
    }

    /// Queues the reply that was written into the room of this place.
    pub(super) fn queue(&mut self, place: usize, length: usize) {
        if let Some(to) = self.senders.get(place).and_then(address) {
            self.queued.push(Queued {
                to,
                length: Reverse(length.min(SEND)),
                place,
            });
        }
    }

    /// Sends what is queued, of each client's replies the longest first. What cannot be
    /// sent is left out: its client has gone, or its socket is full, and it will ask again.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) {
        let packets = self.pack();
        self.queued.clear();
        let mut done = 0;
        while let Some(rest) = self.headers.get_mut(done..packets)
            && !rest.is_empty()
        {
            // SAFETY: `pack` pointed these headers to replies that were written, with
            // their lengths, to their senders, and to control messages of this value.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            // An error is that of the first one; the others still have a chance.
            done += match usize::try_from(sent) {
                Ok(sent) => sent.max(1),
                Err(_) => {
                    one_by_one(socket, rest.first());
                    1
                }
            };
        }
    }

    /// Points one header to the replies of each packet; how many packets there are.
    fn pack(&mut self) -> usize {
        self.queued.sort_unstable();
        let (mut queued, mut vectors) = (&*self.queued, &mut *self.vectors);
        let mut kernel = self.headers.iter_mut().zip(&mut self.segments);
        let mut packets = 0;
        while let Some(first) = queued.first()
            && let Some((packet, others)) = queued.split_at_checked(of_one_packet(queued))
            && let Some((own, further)) = vectors.split_at_mut_checked(packet.len())
            && let Some(sender) = self.senders.get_mut(first.place)
            && let Some((header, segments)) = kernel.next()
        {
            for (reply, vector) in packet.iter().zip(&mut *own) {
                if let Some(room) = self.replies.get_mut(reply.place) {
                    vector.iov_base = room.as_mut_ptr().cast();
                    vector.iov_len = reply.length.0;
                }
            }
            let header = &mut header.msg_hdr;
            let length = size_of_address(sender);
            point(header, (sender, length), own);
            if packet.len() > 1 {
                segments.header.cmsg_level = libc::SOL_UDP;
                segments.header.cmsg_type = libc::UDP_SEGMENT;
                // `CMSG_LEN(2)`
                segments.header.cmsg_len = size_of::<cmsghdr>() + size_of::<u16>();
                segments.length = first.length.0 as u16;
                header.msg_control = std::ptr::from_mut(segments).cast();
                header.msg_controllen = size_of::<Segments>();
            }
            packets += 1;
            (queued, vectors) = (others, further);
        }
        packets
    }
}

/// Points a header to an address and to what is read or sent, without a control message.
fn point(
    header: &mut msghdr,
    (address, length): (&mut sockaddr_storage, socklen_t),
    vectors: &mut [iovec],
) {
    header.msg_name = std::ptr::from_mut(address).cast();
    header.msg_namelen = length;
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    header.msg_control = std::ptr::null_mut();
    header.msg_controllen = 0;
    header.msg_flags = 0;
}

/// How many of the first replies leave together: those of one client that are equally
/// long, and one that is shorter, which the kernel allows for the last.
fn of_one_packet(queued: &[Queued]) -> usize {
    let Some(first) = queued.first() else {
        return 0;
    };
    let is_own = |reply: &Queued| reply.to == first.to;
    let is_alike = |reply: &&Queued| is_own(reply) && reply.length == first.length;
    let equal = queued.iter().take_while(is_alike).count();
    equal + usize::from(queued.get(equal).is_some_and(is_own))
}

/// Sends the replies of a packet that the kernel did not take, as it takes none where a
/// device leaves checksums to it.
fn one_by_one(socket: BorrowedFd<'_>, packet: Option<&mmsghdr>) {
    let Some(packet) = packet.filter(|packet| packet.msg_hdr.msg_iovlen > 1) else {
        return;
    };
    for number in 0..packet.msg_hdr.msg_iovlen {
        let mut one = packet.msg_hdr;
        one.msg_iovlen = 1;
        one.msg_control = std::ptr::null_mut();
        one.msg_controllen = 0;
        // SAFETY: the header points to so many vectors, and each to a reply, which
        // nobody has changed since the packet was to be sent. What cannot be sent is
        // left out, as before.
        unsafe {
            one.msg_iov = one.msg_iov.add(number);
            libc::sendmsg(socket.as_raw_fd(), &raw const one, libc::MSG_DONTWAIT);
        }
    }
}

fn size_of_address(address: &sockaddr_storage) -> socklen_t {
    match i32::from(address.ss_family) {
        libc::AF_INET6 => size_of::<sockaddr_in6>() as socklen_t,
        _ => size_of::<sockaddr_in>() as socklen_t,
    }
}

fn address(storage: &sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote an address of this family, and the storage
            // is large enough and aligned for every family.
            let v4: &sockaddr_in = unsafe { &*std::ptr::from_ref(storage).cast() };
            let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some((ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6: &sockaddr_in6 = unsafe { &*std::ptr::from_ref(storage).cast() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some((ip, u16::from_be(v6.sin6_port)).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    /// For each client how long the replies to its questions are.
    const ASKS: [&[usize]; 5] = [
        &[60; BATCH],
        &[100, 100, 100, 100, 100, 100, 100],
        &[90, 1232, 80, 90, 1232, 90, 1, 90],
        &[50],
        &[],
    ];

    /// Has all of it asked at once, and judges what each client is told.
    fn judge(server: &UdpSocket) {
        let to = server.local_addr().expect("bound");
        let clients = ASKS.map(|_| UdpSocket::bind((to.ip(), 0)).expect("bound"));
        let mut asked = 0;
        for (client, lengths) in clients.iter().zip(ASKS) {
            for (number, length) in (0_u8..).zip(lengths) {
                let question = [&[number][..], &length.to_le_bytes()].concat();
                client.send_to(&question, to).expect("asked");
                asked += 1;
            }
        }
        server.set_read_timeout(Some(SOON)).expect("set");
        let mut batch = Batch::new();
        while asked > 0 {
            let received = batch.receive(server.as_fd()).expect("received");
            for place in 0..received {
                let (question, _, room) = batch.at(place).expect("a question");
                let (number, length) = question.split_first().expect("a question");
                let length = usize::from_le_bytes(length.try_into().expect("a length"));
                room[..length].fill(*number);
                batch.queue(place, length);
            }
            batch.send(server.as_fd());
            asked -= received;
        }
        for (client, lengths) in clients.iter().zip(ASKS) {
            client.set_read_timeout(Some(SOON)).expect("set");
            let mut told: Vec<Vec<u8>> = lengths.iter().map(|_| one(client)).collect();
            told.sort();
            let wanted = (0_u8..).zip(lengths);
            let wanted: Vec<_> = wanted.map(|(n, length)| vec![n; *length]).collect();
            assert_eq!(told, wanted, "over {to}");
            client.set_nonblocking(true).expect("set");
            assert!(client.recv(&mut [0]).is_err(), "one reply to each question");
        }
    }

    fn one(client: &UdpSocket) -> Vec<u8> {
        let mut buffer = vec![0; 4096];
        let length = client.recv(&mut buffer).expect("a reply");
        buffer.truncate(length);
        buffer
    }

    #[test]
    fn every_reply_is_a_datagram_of_its_own_to_who_asked() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            judge(&UdpSocket::bind(address).expect("bound"));
        }
    }

    #[test]
    fn a_question_is_the_same_when_others_were_answered() {
        for answered in [1, BATCH - 1] {
            let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
            let to = server.local_addr().expect("bound");
            let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("bound"));
            clients[0].send_to(b"a question", to).expect("asked");
            for _ in 0..answered {
                clients[1].send_to(b"another one", to).expect("asked");
            }
            let mut batch = Batch::new();
            assert_eq!(batch.receive(server.as_fd()).expect("read"), answered + 1);
            for place in 1..=answered {
                batch.queue(place, 1 + 70 * (answered / 2));
            }
            batch.send(server.as_fd());
            let (question, from, _) = batch.at(0).expect("it is still there");
            assert_eq!(question, b"a question");
            assert_eq!(from, clients[0].local_addr().expect("bound"));
        }
    }

    #[test]
    fn replies_that_the_kernel_does_not_cut_are_sent_one_by_one() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let yes = 1_i32;
        // SAFETY: the value is an integer of this size. Without checksums (only IPv4
        // can be) the kernel cuts nothing: `udp_send_skb` in net/ipv4/udp.c.
        let done = unsafe {
            libc::setsockopt(
                server.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                (&raw const yes).cast(),
                size_of::<i32>() as socklen_t,
            )
        };
        assert_eq!(done, 0);
        judge(&server);
    }

    #[test]
    fn replies_of_one_client_leave_together() {
        let queued = |port: u16, length| Queued {
            to: SocketAddr::from(([127, 0, 0, 1], port)),
            length: Reverse(length),
            place: 0,
        };
        assert_eq!(of_one_packet(&[]), 0);
        assert_eq!(of_one_packet(&[queued(1, 9)]), 1);
        let mixed = [
            queued(1, 9),
            queued(1, 9),
            queued(1, 8),
            queued(1, 8),
            queued(2, 9),
        ];
        assert_eq!(of_one_packet(&mixed), 3, "the last may be shorter");
        assert_eq!(of_one_packet(&mixed[2..]), 2, "and is the client's own");
    }
}
