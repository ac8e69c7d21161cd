//! Connections through interfaces: taking ended ones out of the table, and
//! ending those that policy takes back.

use super::agent::Agent;
use super::book::Book;
use crate::enforcer::{EnforcerError, Resets};
use crate::image::Image;
use egress_common::interface::UDP_IDLE;
use egress_common::{CgroupId, Connection, ConnectionKey, Destination, Protocol};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long an ended connection may still exchange farewells.
const LINGER: Duration = Duration::from_secs(2);
/// How long a connection may wait for its first answer.
const HANDSHAKE: Duration = Duration::from_secs(130);
/// How long a TCP connection may be silent: as long as what lapsed covers one.
const TCP_IDLE: Duration = Duration::from_secs(24 * 3600);
/// How often both ends of a revoked connection are told: what is on its way
/// while the first reset is, can make it one that is not believed.
const TOLD: u8 = 3;

/// Revoked connections, and how often their ends were told.
#[derive(Default)]
pub struct Revoked {
    told: Mutex<BTreeMap<ConnectionKey, u8>>,
}

impl Agent {
    /// Begins to end connections that policy no longer allows; how many. Their
    /// packets are refused already.
    pub(super) fn end_revoked_at_interfaces(&self, image: &Image) -> Result<usize, EnforcerError> {
        let connections = self.enforcer().connections()?;
        let mut ended = 0;
        for (key, connection) in &connections {
            let Some(protocol) = Protocol::from_key(key.protocol) else {
                continue;
            };
            let to = Destination {
                ip: key.there,
                port: key.there_port,
                protocol,
            };
            let id = CgroupId::of_interface(key.interface);
            // Who is in no sandbox has no connection either.
            if Book::may_go_on(image, id, &to) {
                continue;
            }
            ended += usize::from(!connection.has_ended());
            let mut told = self.revoked().lock();
            told.entry(*key).or_insert(0);
        }
        self.tell_revoked(&connections);
        Ok(ended)
    }

    /// Resets revoked connections at both ends, a few times, then forgets them.
    fn tell_revoked(&self, connections: &[(ConnectionKey, Connection)]) {
        let mut told = self.revoked().lock();
        if told.is_empty() {
            return;
        }
        let resets = match Resets::open() {
            Ok(resets) => resets,
            Err(error) => {
                tracing::warn!(%error, "revoked connections end when their packets are missed");
                told.clear();
                return;
            }
        };
        let now: BTreeMap<_, _> = connections.iter().map(|(key, c)| (key, c)).collect();
        let mut done = Vec::new();
        told.retain(|key, times| {
            let Some(connection) = now.get(key) else {
                return false;
            };
            let sent = resets.send(key, connection).unwrap_or_else(|error| {
                tracing::debug!(%error, "a reset could not be sent");
                false
            });
            *times += 1;
            let more = sent && *times < TOLD;
            if !more {
                done.push(*key);
            }
            more
        });
        if let Err(error) = self.enforcer().remove_connections(&done) {
            tracing::warn!(%error, "revoked connections stay in the table, refused");
        }
    }

    /// Takes out what has ended or is silent for too long.
    pub(super) fn sweep_connections(&self) {
        let connections = match self.enforcer().connections() {
            Ok(connections) => connections,
            Err(error) => {
                tracing::warn!(%error, "the connection table cannot be read");
                return;
            }
        };
        self.tell_revoked(&connections);
        let now = crate::enforcer::coarse_now();
        let gone: Vec<ConnectionKey> = connections
            .iter()
            .filter(|(key, connection)| {
                // A packet may have come since the clock was read.
                let silent = Duration::from_nanos(now.saturating_sub(connection.seen));
                silent > patience(key, connection)
            })
            .map(|(key, _)| *key)
            .collect();
        if let Err(error) = self.enforcer().remove_connections(&gone) {
            tracing::warn!(%error, "ended connections stay in the table");
        }
    }
}

impl Revoked {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ConnectionKey, u8>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a connection may be silent.
fn patience(key: &ConnectionKey, connection: &Connection) -> Duration {
    if key.protocol != Protocol::Tcp.number() {
        return Duration::from_nanos(UDP_IDLE);
    }
    match (
        connection.has_ended(),
        connection.state & Connection::ANSWERED != 0,
    ) {
        (true, _) => LINGER,
        (false, false) => HANDSHAKE,
        (false, true) => TCP_IDLE,
    }
}
