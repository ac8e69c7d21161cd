//! Whether whoever has a network namespace of its own can put a device into
//! another's: Debian's 6.1.192 makes a veth pair whose other end lies in a
//! namespace over which its maker has no rights at all, 6.18.44 does not.
//!
//! That is tried, not read from a version, since distributions mend old kernels.

use super::last_errno;
use rustix::io::Errno;
use std::io;

/// The child's findings, as exit statuses.
const HELD: i32 = 0;
const CROSSED: i32 = 1;
/// Further ones are the errno of a call that should not fail, above this.
const FAILED: i32 = 64;

/// `RTM_NEWLINK` for a veth pair with its other end behind a descriptor, whose
/// number is the last word; laid out as in the kernel's `uapi/linux/rtnetlink.h`.
#[repr(C)]
struct MakePair {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    own: [u32; 4],
    /// `IFLA_LINKINFO`, with everything that follows.
    link: [u16; 2],
    /// `IFLA_INFO_KIND`.
    name: [u16; 2],
    veth: [u8; 4],
    /// `IFLA_INFO_DATA`, with everything that follows.
    data: [u16; 2],
    /// `VETH_INFO_PEER`, with everything that follows.
    peer: [u16; 2],
    other: [u32; 4],
    /// `IFLA_NET_NS_FD`.
    place: [u16; 2],
    descriptor: i32,
}

const LENGTH: u16 = size_of::<MakePair>() as u16;

impl MakePair {
    const fn new(descriptor: i32) -> Self {
        /// Request, acknowledge, create, exclusively.
        const FLAGS: u16 = 0x1 | 0x4 | 0x400 | 0x200;
        Self {
            length: LENGTH as u32,
            kind: libc::RTM_NEWLINK,
            flags: FLAGS,
            sequence: 1,
            port: 0,
            own: [0; 4],
            link: [LENGTH - 32, 18],
            name: [8, 1],
            veth: *b"veth",
            data: [LENGTH - 44, 2],
            peer: [LENGTH - 48, 1],
            other: [0; 4],
            place: [8, 28],
            descriptor,
        }
    }
}

/// Tries it between two namespaces that nobody else is in.
pub(in crate::sandbox) fn devices_cross() -> io::Result<bool> {
    // SAFETY: the child makes system calls only until it ends.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let finding = attempt().unwrap_or_else(|errno| FAILED + errno.raw_os_error());
            // SAFETY: nothing of the parent's is run on the way out.
            unsafe { libc::_exit(finding) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the status is a place for one integer.
            while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            match libc::WEXITSTATUS(status) {
                HELD if libc::WIFEXITED(status) => Ok(false),
                CROSSED => Ok(true),
                failed => Err(io::Error::from_raw_os_error(failed - FAILED)),
            }
        }
    }
}

/// Runs in the child: no allocation, no lock.
fn attempt() -> Result<i32, Errno> {
    let checked = |returned: i64| {
        if returned < 0 {
            Err(last_errno())
        } else {
            Ok(returned as i32)
        }
    };
    // SAFETY: each of these calls takes numbers, or pointers to what lives here
    // with its length; this process is a copy that has one thread.
    unsafe {
        checked(libc::unshare(libc::CLONE_NEWNET).into())?;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let other = checked(libc::open(c"/proc/thread-self/ns/net".as_ptr(), flags).into())?;
        // Where there are none, the command has none either.
        if libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) != 0 {
            return Ok(HELD);
        }
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let socket = checked(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE).into())?;
        let message = MakePair::new(other);
        let bytes: *const MakePair = &raw const message;
        checked(libc::send(socket, bytes.cast(), usize::from(LENGTH), 0) as i64)?;
        // The answer's header, then the error as a negative number.
        let mut answer = [0_i32; 64];
        let room = size_of_val(&answer);
        checked(libc::recv(socket, answer.as_mut_ptr().cast(), room, 0) as i64)?;
        match -answer[4] {
            0 => Ok(CROSSED),
            libc::EPERM => Ok(HELD),
            other => Err(Errno::from_raw_os_error(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MakePair, devices_cross};

    #[test]
    fn the_message_is_as_long_as_it_says() {
        let message = MakePair::new(7);
        assert_eq!(message.length, 76);
        assert_eq!(
            (message.link, message.data, message.peer),
            ([44, 18], [32, 2], [28, 1])
        );
    }

    #[test]
    fn a_kernel_that_is_asked_gives_an_answer() {
        if rustix::process::geteuid().is_root() {
            // Which, the kernel decides: `tests::bypasses::relaxed` compares.
            devices_cross().expect("an answer");
        }
    }
}
