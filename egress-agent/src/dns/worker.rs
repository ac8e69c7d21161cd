//! The threads that read datagrams.
//!
//! Several threads read one socket, each as many datagrams per system call as
//! wait there. What can be answered without waiting is answered on the spot
//! ([`quick`]), and so is what cannot be answered; the rest is begun there
//! ([`Begun`]) and becomes a task of the runtime if it has to wait. One socket and not one per thread
//! (`SO_REUSEPORT`): a group of sockets can be joined by others of the same user,
//! and it ties each client to one thread, so that a busy client holds up those
//! who share its thread.

use super::admission::Pass;
use super::backlog::Queue;
use super::batch::{BATCH, Batch};
use super::begun::Begun;
use super::counters::count;
use super::desk::Said;
use super::gate::Gate;
use super::query::{Plain, QuestionKey};
use super::resolver::{Heard, Resolver};
use super::server::{PAUSE_AFTER_ERROR, Shared};
use super::trace::{self, Asked};
use egress_common::{Protocol, SandboxId};
use rustix::net::SendFlags;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;

/// One thread's part.
pub(super) struct Worker<G: Gate> {
    pub(super) shared: Arc<Shared<G>>,
    pub(super) socket: Arc<UdpSocket>,
    /// Which of the sockets that is.
    pub(super) queue: Queue,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) begun: Arc<Begun>,
    pub(super) runtime: Handle,
}

impl<G: Gate> Worker<G> {
    /// Reads until told to stop.
    pub(super) fn run(self) {
        let _runtime = self.runtime.enter();
        let mut batch = Batch::new();
        let mut later = Vec::with_capacity(BATCH);
        let mut key = QuestionKey::new();
        let resolver = &self.shared.resolver;
        let backlog = &self.shared.backlog;
        let mut may_hold_more = false;
        while !self.stop.load(Ordering::Acquire) {
            let result = if may_hold_more {
                batch.receive_rest(self.socket.as_fd())
            } else {
                batch.receive(self.socket.as_fd())
            };
            let received = match result {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(%error, "the resolver cannot receive");
                    std::thread::sleep(PAUSE_AFTER_ERROR);
                    continue;
                }
            };
            may_hold_more = received == BATCH;
            if may_hold_more {
                backlog.may_hold_more(self.queue);
            } else if backlog.read_all(self.queue) {
                resolver.gate.drained();
            }
            let moment = (resolver.gate.now(), resolver.gate.generation());
            for place in 0..received {
                let Some((bytes, from, room)) = batch.at(place) else {
                    continue;
                };
                match quick(resolver, (from, bytes), &mut key, moment, room) {
                    Some(length) => batch.queue(place, length),
                    None => later.push(place),
                }
            }
            // What is at hand does not wait for what is not.
            batch.send(self.socket.as_fd());
            for place in later.drain(..) {
                if let Some((bytes, from, _)) = batch.at(place) {
                    self.take_up(from, bytes);
                }
            }
        }
    }

    /// Begins the answer of a question, and deals with anything else on the spot: what
    /// costs its sender nothing must not cost a task.
    fn take_up(&self, from: SocketAddr, bytes: &[u8]) {
        let shared = &self.shared;
        let resolver = &shared.resolver;
        let asked = Asked {
            from,
            protocol: Protocol::Udp,
            sandbox: resolver.gate.asker(from, Protocol::Udp),
            process: resolver.gate.process(from, Protocol::Udp),
        };
        let heard = match resolver.hear(asked, bytes) {
            Ok(heard) => heard,
            Err(turned_away) => {
                send(&self.socket, turned_away, from);
                return;
            }
        };
        let Some(pass) = shared.queries.enter(heard.sandbox) else {
            count(&resolver.counters.overloaded);
            return;
        };
        let socket = Arc::clone(&self.socket);
        let shared = Arc::clone(&self.shared);
        self.begun
            .begin(reply(shared, socket, (asked, heard), pass));
    }
}

/// Replies to a question over the socket that it came from.
pub(super) async fn reply<G: Gate>(
    shared: Arc<Shared<G>>,
    socket: Arc<impl AsFd>,
    (asked, heard): (Asked, Heard),
    pass: Pass,
) {
    let resolver = &shared.resolver;
    let mut concluded = resolver.answer_heard(asked, heard).await;
    drop(pass);
    send(&*socket, concluded.reply.take(), asked.from);
    resolver.finish(&concluded);
}

/// No sandbox has this id.
pub(super) const STRANGERS: SandboxId = SandboxId(0);

/// Sends a reply, if there is one, and never waits for room.
pub(super) fn send(socket: &impl AsFd, reply: Option<Vec<u8>>, to: SocketAddr) {
    if let Some(reply) = reply
        && let Err(error) = rustix::net::sendto(socket, &reply, SendFlags::DONTWAIT, &to)
    {
        // The client has gone, or its socket is full: it will ask again.
        tracing::debug!(%error, "an answer could not be sent");
    }
}

/// Answers what needs no waiting: an answer that is at hand, or a refusal. The
/// length of what was written to `room`; `None` sends the query the long way.
pub(super) fn quick<G: Gate>(
    resolver: &Resolver<G>,
    (from, bytes): (SocketAddr, &[u8]),
    key: &mut QuestionKey,
    (now, generation): (u64, u64),
    room: &mut [u8],
) -> Option<usize> {
    let sandbox = resolver.gate.sender(from, Protocol::Udp)?;
    let query = Plain::read(bytes, key)?;
    let (gate, counters) = (&*resolver.gate, &resolver.counters);
    let asked = (&*key, &query);
    let said = resolver
        .desks
        .say(gate, sandbox, asked, (now, generation), room)?;
    count(&counters.queries);
    match said {
        Said::Answer(length) => {
            count(&counters.answered);
            count(&counters.cache_hits);
            Some(length)
        }
        Said::Refusal(length, to_record) => {
            count(&counters.refused);
            if let Some((name, refusal)) = to_record {
                let question = super::query::type_of(key.as_bytes());
                let asker = (sandbox, gate.process(from, Protocol::Udp));
                gate.record(trace::refused(asker, name, question, refusal));
            }
            Some(length)
        }
    }
}
