//! The three descriptors that a command inherits.
//!
//! The kernel programs judge a socket by the cgroup in which it was made, so an
//! internet socket that comes in as a standard stream would answer to nobody; and
//! a directory leads to what is hidden above it.

use crate::sandbox::launch::LaunchError;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{AddressFamily, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Refuses streams that would be a way round the fence.
pub(super) fn check() -> Result<(), LaunchError> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [
        ("stdin", stdin.as_fd()),
        ("stdout", stdout.as_fd()),
        ("stderr", stderr.as_fd()),
    ];
    for (name, stream) in streams {
        if let Some(what) = danger_of(stream).map_err(|errno| LaunchError::Stream {
            name,
            what: format!("unreadable ({errno})"),
        })? {
            return Err(LaunchError::Stream { name, what });
        }
    }
    Ok(())
}

/// What makes a stream one that may not be passed on.
fn danger_of(stream: BorrowedFd<'_>) -> Result<Option<String>, Errno> {
    let status = match rustix::fs::fstat(stream) {
        Ok(status) => status,
        // Closed, so nothing is inherited.
        Err(Errno::BADF) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    Ok(match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => Some("a directory".to_owned()),
        FileType::Socket => {
            let family = sockopt::socket_domain(stream)?;
            // A pair of Unix sockets is how many programs make pipes.
            (family != AddressFamily::UNIX)
                .then(|| format!("a network socket (family {})", family.as_raw()))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::danger_of;
    use std::fs::File;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn network_sockets_and_directories_are_dangerous_files_and_pairs_are_not() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let directory = File::open("/").expect("a directory");
        let file = File::open("/dev/null").expect("a file");
        let (pair, _other) = UnixStream::pair().expect("a pair");
        let danger = |fd| danger_of(fd).expect("an open descriptor");
        assert!(danger(socket.as_fd()).is_some_and(|what| what.contains("socket")));
        assert!(danger(directory.as_fd()).is_some_and(|what| what.contains("directory")));
        assert_eq!(danger(file.as_fd()), None);
        assert_eq!(danger(pair.as_fd()), None);
    }
}
