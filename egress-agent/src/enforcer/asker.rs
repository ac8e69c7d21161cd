//! Who asks the resolver, as the packet hook noted it a moment ago.

use super::{Enforcer, boot_now};
use egress_common::{Asker, AskerKey, Ip, Port, Protocol, SandboxId, asker_word};
use std::net::SocketAddr;

/// Where the packet hook noted it.
enum Noted {
    /// In the memory that the agent maps, at this index.
    Word(u32),
    /// In the map of askers.
    Key(AskerKey),
}

impl Noted {
    fn of(source: SocketAddr, protocol: Protocol) -> Self {
        let (ip, port) = (Ip::from(source.ip()), Port::from_host(source.port()));
        match asker_word(&ip, port).filter(|_| protocol == Protocol::Udp) {
            Some(index) => Self::Word(index),
            None => Self::Key(AskerKey::new(ip, port, protocol)),
        }
    }
}

impl Enforcer {
    /// Which sandbox sent from `source`, as the packet hook proved it a moment
    /// ago; `None` for everybody else. For datagrams from a loopback address one
    /// load from memory, otherwise one map look-up, about 3 µs.
    pub fn asker(&self, source: SocketAddr, protocol: Protocol) -> Option<SandboxId> {
        let key = match Noted::of(source, protocol) {
            Noted::Word(index) => return self.words.get(index).sandbox(boot_now()),
            Noted::Key(key) => key,
        };
        // A map that cannot be read proves nothing.
        let Asker {
            expires, sandbox, ..
        } = self.maps.asker(&key).ok()??;
        (boot_now() < expires).then_some(sandbox)
    }

    /// The process whose socket sent a query from there, where the kernel knew it;
    /// for the record, and proof of nothing.
    pub fn asking_process(&self, source: SocketAddr, protocol: Protocol) -> Option<u32> {
        match Noted::of(source, protocol) {
            Noted::Word(index) => self.words.process(index),
            Noted::Key(key) => {
                let process = self.maps.asker(&key).ok()??.process;
                Some(process).filter(|process| *process != 0)
            }
        }
    }
}
