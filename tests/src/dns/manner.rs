//! How a server behaves for a name: well, slowly, or as an impostor beside it.

use super::wire::{Data, NOERROR, Query, Record, kind};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// The manner in which an answer is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Manner {
    /// At once, whole, and alone.
    #[default]
    Good,
    /// Over UDP it says that the answer does not fit.
    Truncated,
    /// Not at all.
    Silent,
    /// So much later.
    Slow(Duration),
    /// After [`FORGERIES`] from its own address, and some from others, all of
    /// which name this address.
    Forged(IpAddr),
}

/// How many of the forgeries come from where the true answer comes from.
pub const FORGERIES: usize = 6;

impl Manner {
    /// Sends an answer to a query.
    pub(super) fn send(
        self,
        query: &Query,
        answer: Vec<u8>,
        socket: &UdpSocket,
        peer: SocketAddr,
    ) -> io::Result<()> {
        match self {
            Self::Good => {}
            Self::Silent => return Ok(()),
            Self::Truncated => {
                let truncated = query.answer(NOERROR, true, &[]);
                return socket.send_to(&truncated, peer).map(drop);
            }
            Self::Slow(delay) => {
                let socket = socket.try_clone()?;
                // Others are answered meanwhile.
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    socket.send_to(&answer, peer)
                });
                return Ok(());
            }
            Self::Forged(address) => {
                let forgeries = forgeries(query, address);
                for forgery in &forgeries {
                    socket.send_to(forgery, peer)?;
                }
                // What would be right if it came from the server.
                let convincing = query.answer(NOERROR, false, &[record(&query.name, address)]);
                let ip = socket.local_addr()?.ip();
                let another_port = UdpSocket::bind((ip, 0))?;
                another_port.send_to(&convincing, peer)?;
                let any: IpAddr = if ip.is_ipv4() {
                    crate::address::FAR_V4.into()
                } else {
                    crate::address::FAR_V6.into()
                };
                let another_host = UdpSocket::bind((any, 53))?;
                another_host.send_to(&convincing, peer)?;
            }
        }
        socket.send_to(&answer, peer).map(drop)
    }

    /// Writes an answer to a stream.
    pub(super) fn write(self, answer: Vec<u8>, stream: &mut TcpStream) -> io::Result<()> {
        match self {
            Self::Silent => return Ok(()),
            Self::Slow(delay) => std::thread::sleep(delay),
            // Nobody but the server can write into its stream.
            Self::Good | Self::Truncated | Self::Forged(_) => {}
        }
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(answer);
        stream.write_all(&framed)
    }
}

fn record(owner: &str, address: IpAddr) -> Record {
    Record {
        owner: owner.into(),
        ttl: 60,
        data: Data::Address(address),
    }
}

/// Each is wrong in one thing.
fn forgeries(query: &Query, address: IpAddr) -> [Vec<u8>; FORGERIES] {
    let records = [record(&query.name, address)];
    let right = query.answer(NOERROR, false, &records);
    let changed = |change: &dyn Fn(&mut Query)| {
        let mut other = query.clone();
        change(&mut other);
        other.answer(NOERROR, false, &records)
    };
    let mut no_answer = right.clone();
    no_answer[2] &= 0x7f;
    let mut no_question = right.clone();
    no_question[5] = 0;
    [
        changed(&|it| it.id = it.id.wrapping_add(1)),
        changed(&|it| it.name = "other.example".into()),
        changed(&|it| it.kind = kind::TXT),
        no_answer,
        no_question,
        right[..7].to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_forgery_differs_from_the_right_answer() {
        let query = Query {
            id: 7,
            name: "allowed.example".into(),
            kind: kind::A,
        };
        let address = IpAddr::from([203, 0, 113, 66]);
        let right = query.answer(NOERROR, false, &[record(&query.name, address)]);
        let forgeries = forgeries(&query, address);
        assert_eq!(forgeries.len(), FORGERIES);
        assert!(forgeries.iter().all(|forgery| *forgery != right));
    }
}
