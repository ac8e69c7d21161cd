//! Many datagrams per system call.

#![expect(
    unsafe_code,
    reason = "recvmmsg(2) and sendmmsg(2) have no safe wrapper that keeps its buffers"
)]

use libc::{c_uint, iovec, mmsghdr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams per system call. More make the last one of a burst wait longer and
/// save nothing that can be measured.
pub(super) const BATCH: usize = 32;
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
    /// For each reply the sender's place, and its length.
    queued: Vec<(usize, usize)>,
    vectors: Box<[iovec]>,
    headers: Box<[mmsghdr]>,
}

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: all of these are plain C structures, for which zeroes are a value.
        let (sender, vector, header): (sockaddr_storage, iovec, mmsghdr) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            received: vec![[0; RECEIVE]; BATCH].into(),
            replies: vec![[0; SEND]; BATCH].into(),
            senders: vec![sender; BATCH].into(),
            queued: Vec::with_capacity(BATCH),
            vectors: vec![vector; BATCH].into(),
            headers: vec![header; BATCH].into(),
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
        for ((buffer, sender), (vector, header)) in parts.zip(kernel) {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = RECEIVE;
            header.msg_len = 0;
            header.msg_hdr.msg_name = std::ptr::from_mut(sender).cast();
            header.msg_hdr.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: every header was just pointed to buffers of this value, with
        // their true lengths; none of them moves while the call lasts.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as c_uint,
                flags,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// The datagram at a place below what [`Batch::receive`] returned, with its
    /// sender, and room for its reply.
    pub(super) fn at(&mut self, place: usize) -> Option<(&[u8], SocketAddr, &mut [u8])> {
        let length = self.headers.get(place)?.msg_len as usize;
        let bytes = self.received.get(place)?.get(..length)?;
        let from = address(self.senders.get(place)?)?;
        let room = self.replies.get_mut(self.queued.len())?;
        Some((bytes, from, room))
    }

    /// Queues the reply that was written into the room of this place.
    pub(super) fn queue(&mut self, place: usize, length: usize) {
        self.queued.push((place, length.min(SEND)));
    }

    /// Sends what is queued. What cannot be sent is left out: its client has
    /// gone, or its socket is full, and it will ask again.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) {
        let count = self.queued.len();
        for (number, (place, length)) in self.queued.drain(..).enumerate() {
            let (Some(vector), Some(header)) =
                (self.vectors.get_mut(number), self.headers.get_mut(number))
            else {
                return;
            };
            let (Some(reply), Some(sender)) =
                (self.replies.get_mut(number), self.senders.get_mut(place))
            else {
                return;
            };
            vector.iov_base = reply.as_mut_ptr().cast();
            vector.iov_len = length;
            header.msg_hdr.msg_name = std::ptr::from_mut(sender).cast();
            header.msg_hdr.msg_namelen = size_of_address(sender);
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_flags = 0;
        }
        let mut done = 0;
        while done < count {
            let Some(rest) = self.headers.get_mut(done..count) else {
                return;
            };
            // SAFETY: as in `receive`; the vectors hold the lengths of replies
            // that were written, which are at most those of their buffers.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            // An error is that of the first one; the others still have a chance.
            done += usize::try_from(sent).unwrap_or(0).max(1);
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
