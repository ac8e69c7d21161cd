//! The threads that read datagrams.
//!
//! Several threads read one socket, each as many datagrams per system call as
//! wait there. What can be answered without waiting is answered on the spot
//! ([`quick`]), and so is what cannot be answered; the rest is begun there
//! ([`Begun`]), and goes on there when an upstream has answered ([`Reactor`]). One socket
//! and not one per thread (`SO_REUSEPORT`): a group of sockets can be joined by others of
//! the same user, and it ties each client to one thread, so that a busy client holds up
//! those who share its thread.

use super::admission::Pass;
use super::backlog::Queue;
use super::batch::{BATCH, Batch};
use super::begun::{Begun, GoingOn};
use super::counters::count;
use super::desk::Said;
use super::gate::Gate;
use super::query::{Plain, QuestionKey};
use super::reactor::Reactor;
use super::resolver::{Heard, Resolver};
use super::server::{PAUSE_AFTER_ERROR, Shared};
use super::sockets;
use super::trace::{self, Asked};
use egress_common::{Protocol, SandboxId};
use rustix::net::SendFlags;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
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

/// Questions that are taken up before the thread looks for answers of upstreams.
const AT_ONCE: usize = 8;
/// How often a thread that reads nothing any more looks whether everything is answered.
const UNTIL_THE_END: Duration = Duration::from_millis(20);

impl<G: Gate> Worker<G> {
    /// Reads until told to stop, and then waits for what the upstreams were asked here.
    pub(super) fn run(self, reactor: &Arc<Reactor>) {
        let _runtime = self.runtime.enter();
        sockets::belong_to(Arc::clone(reactor));
        let going_on = GoingOn::here();
        let mut batch = Batch::new();
        let mut later = Vec::with_capacity(BATCH);
        let mut key = QuestionKey::new();
        let mut may_hold_more = false;
        while !self.stop.load(Ordering::Acquire) {
            // First: whatever came of the last turn, nothing that was woken waits longer.
            going_on.step();
            let received = match self.receive(reactor, &mut batch, may_hold_more) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(%error, "the resolver cannot receive");
                    std::thread::sleep(PAUSE_AFTER_ERROR);
                    continue;
                }
            };
            if let Some(received) = received {
                may_hold_more = received == BATCH;
                self.take(received, &mut batch, &mut key, &mut later);
                self.take_up(&mut batch, &mut later, (reactor, &going_on));
            }
        }
        if let Err(error) = reactor.forget(&*self.socket) {
            tracing::warn!(%error, "the resolver waits for no answer any more");
            return;
        }
        while !reactor.is_idle() {
            if let Err(error) = reactor.wait(Some(UNTIL_THE_END)) {
                tracing::debug!(%error, "the resolver cannot wait");
                std::thread::sleep(UNTIL_THE_END);
            }
            going_on.step();
        }
    }

    /// Waits for questions and for answers of upstreams, and reads the questions; how many.
    /// `None` if there was no look at them.
    fn receive(
        &self,
        reactor: &Reactor,
        batch: &mut Batch,
        may_hold_more: bool,
    ) -> io::Result<Option<usize>> {
        let questions = self.socket.as_fd();
        if !reactor.is_idle() {
            let patience = may_hold_more.then_some(Duration::ZERO);
            let is_asked = reactor.wait(patience)?;
            if !(is_asked || may_hold_more) {
                return Ok(None);
            }
        } else if !may_hold_more {
            // One system call less where nothing else is waited for.
            return batch.receive(questions).map(Some);
        }
        batch.receive_rest(questions).map(Some)
    }

    /// Answers those of the questions that need no waiting, and leaves the others for later.
    fn take(
        &self,
        received: usize,
        batch: &mut Batch,
        key: &mut QuestionKey,
        later: &mut Vec<usize>,
    ) {
        let (resolver, backlog) = (&self.shared.resolver, &self.shared.backlog);
        if received == BATCH {
            backlog.may_hold_more(self.queue);
        } else if backlog.read_all(self.queue) {
            resolver.gate.drained();
        }
        let moment = (resolver.gate.now(), resolver.gate.generation());
        for place in 0..received {
            let Some((bytes, from, room)) = batch.at(place) else {
                continue;
            };
            match quick(resolver, (from, bytes), key, moment, room) {
                Some(length) => batch.queue(place, length),
                None => later.push(place),
            }
        }
        // What is at hand does not wait for what is not.
        batch.send(self.socket.as_fd());
    }

    /// Takes up the questions that were left for later. What upstreams answer meanwhile does
    /// not wait for all of them.
    fn take_up(
        &self,
        batch: &mut Batch,
        later: &mut Vec<usize>,
        (reactor, going_on): (&Reactor, &GoingOn),
    ) {
        for (number, place) in later.drain(..).enumerate() {
            if number % AT_ONCE == AT_ONCE - 1 && !reactor.is_idle() {
                // That there are questions, too, is said again.
                if let Err(error) = reactor.wait(Some(Duration::ZERO)) {
                    tracing::debug!(%error, "the resolver cannot look for answers");
                }
                going_on.step();
            }
            if let Some((bytes, from, _)) = batch.at(place) {
                self.begin(from, bytes);
            }
        }
    }

    /// Begins the answer of a question, and deals with anything else on the spot: what
    /// costs its sender nothing must not cost a task.
    fn begin(&self, from: SocketAddr, bytes: &[u8]) {
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
