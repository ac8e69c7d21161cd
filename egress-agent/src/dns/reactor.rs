//! Where a thread that reads questions waits for upstreams, too.
//!
//! An answer of an upstream goes on in the thread that asked for it: no other one has to
//! be woken. Tokio's own sockets wake a thread of the runtime.

use futures_util::task::AtomicWaker;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use slab::Slab;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// What the kernel says that questions wait by; a socket is known by its place in a list.
const QUESTIONS: u64 = u64::MAX;
/// Events that are taken at once. What is left comes with the next ones.
const EVENTS: usize = 64;

/// What one thread waits for.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: OwnedFd,
    sockets: Mutex<Slab<Arc<Readiness>>>,
    /// Sockets on which an answer is expected.
    awaited: AtomicUsize,
}

/// Whether there is something to be read, and who wants to know.
#[derive(Debug, Default)]
struct Readiness {
    is_ready: AtomicBool,
    waker: AtomicWaker,
}

impl Reactor {
    /// Of several threads that wait for `questions`, in this way or by reading, one is woken
    /// for each (`EPOLLEXCLUSIVE`, Linux 4.5).
    pub(super) fn new(questions: impl AsFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        epoll::add(
            &epoll,
            questions,
            epoll::EventData::new_u64(QUESTIONS),
            flags,
        )?;
        Ok(Self {
            epoll,
            sockets: Mutex::default(),
            awaited: AtomicUsize::new(0),
        })
    }

    /// Waits no longer for questions.
    pub(super) fn forget(&self, questions: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, questions)?)
    }

    /// Whether no answer is expected. Only the thread whose reactor it is can change that to no.
    pub(super) fn is_idle(&self) -> bool {
        self.awaited.load(Ordering::Acquire) == 0
    }

    /// Waits for something that can be read, at most so long, and wakes those who wait for
    /// it. Whether there may be questions.
    pub(super) fn wait(&self, patience: Option<Duration>) -> io::Result<bool> {
        let patience = patience.map(|most| Timespec {
            tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: most.subsec_nanos().into(),
        });
        let nothing = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut events = [nothing; EVENTS];
        let found = epoll::wait(&self.epoll, &mut events, patience.as_ref())?;
        let mut may_be_asked = false;
        for event in events.iter().take(found) {
            let place = event.data.u64();
            if place == QUESTIONS {
                may_be_asked = true;
                continue;
            }
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            // Another socket may have come to its place, which then looks in vain.
            let Some(readiness) = self.lock().get(place).map(Arc::clone) else {
                continue;
            };
            readiness.is_ready.store(true, Ordering::Release);
            readiness.waker.wake();
        }
        Ok(may_be_asked)
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Readiness>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that a reactor knows. It must not block.
#[derive(Debug)]
pub(super) struct Registered {
    socket: UdpSocket,
    readiness: Arc<Readiness>,
    place: usize,
    reactor: Arc<Reactor>,
    is_awaited: bool,
}

impl Registered {
    /// Makes a socket known that nobody can have sent anything to.
    pub(super) fn new(reactor: &Arc<Reactor>, socket: UdpSocket) -> io::Result<Self> {
        let readiness = Arc::<Readiness>::default();
        let place = reactor.lock().insert(Arc::clone(&readiness));
        let registered = Self {
            socket,
            readiness,
            place,
            reactor: Arc::clone(reactor),
            is_awaited: false,
        };
        let data = epoll::EventData::new_u64(place as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&reactor.epoll, &registered.socket, data, flags)?;
        Ok(registered)
    }

    /// Asks `server`, from a port that the kernel picks at random.
    pub(super) fn ask(&mut self, server: SocketAddr, question: &[u8]) -> io::Result<()> {
        self.expect(true);
        self.socket.connect(server)?;
        self.socket.send(question)?;
        Ok(())
    }

    /// Reads with `read` when there may be something to be read.
    pub(super) fn poll_with<T>(
        &self,
        context: &mut Context<'_>,
        mut read: impl FnMut(&UdpSocket) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if !self.readiness.is_ready.swap(false, Ordering::Acquire) {
                self.readiness.waker.register(context.waker());
                // It may have become ready in between.
                if !self.readiness.is_ready.swap(false, Ordering::Acquire) {
                    return Poll::Pending;
                }
            }
            match read(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    // The kernel tells of what has come, not of what is still there.
                    self.readiness.is_ready.store(true, Ordering::Release);
                    return Poll::Ready(result);
                }
            }
        }
    }

    /// Says whether an answer is expected on it.
    pub(super) fn expect(&mut self, is_awaited: bool) {
        match (self.is_awaited, is_awaited) {
            (false, true) => self.reactor.awaited.fetch_add(1, Ordering::AcqRel),
            (true, false) => self.reactor.awaited.fetch_sub(1, Ordering::AcqRel),
            (false, false) | (true, true) => return,
        };
        self.is_awaited = is_awaited;
    }

    /// Where it is bound and to whom it is connected.
    #[cfg(test)]
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.expect(false);
        // The kernel forgets it when it is closed.
        self.reactor.lock().try_remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::task::{Wake, Waker};
    use std::thread;

    // An address that no other test of this process takes ports of.
    const HOST: &str = "127.77.1.2";
    const SOON: Option<Duration> = Some(Duration::from_secs(10));
    const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn bound() -> UdpSocket {
        let socket = UdpSocket::bind((HOST, 0)).expect("a socket");
        socket.set_nonblocking(true).expect("set");
        socket
    }

    fn far() -> (UdpSocket, SocketAddr) {
        let far = UdpSocket::bind((HOST, 0)).expect("a socket");
        far.set_read_timeout(SOON).expect("set");
        let address = far.local_addr().expect("an address");
        (far, address)
    }

    fn read(socket: &UdpSocket) -> io::Result<usize> {
        socket.recv(&mut [0; 64])
    }

    #[test]
    fn whoever_waits_is_woken_once_something_is_there_and_reads_all_of_it() {
        let questions = bound();
        let reactor = Arc::new(Reactor::new(&questions).expect("a reactor"));
        let (far, to) = far();
        let mut asking = Registered::new(&reactor, bound()).expect("registered");
        assert!(reactor.is_idle(), "it has not asked");
        asking.ask(to, b"?").expect("asked");
        assert!(!reactor.is_idle());
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(asking.poll_with(&mut context, read).is_pending());
        assert!(!reactor.wait(NOT_AT_ALL).expect("looked"));
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);

        let (_, from) = far.recv_from(&mut [0; 8]).expect("a question");
        for answer in [&b"one"[..], b"three"] {
            far.send_to(answer, from).expect("answered");
        }
        assert!(
            !reactor.wait(SOON).expect("waited"),
            "that was no question to us"
        );
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        for length in [3, 5] {
            let read = asking.poll_with(&mut context, read);
            assert!(
                matches!(read, Poll::Ready(Ok(found)) if found == length),
                "{read:?}"
            );
        }
        assert!(asking.poll_with(&mut context, read).is_pending());
        asking.expect(false);
        assert!(reactor.is_idle());
        drop(asking);
        assert!(reactor.lock().is_empty(), "it is forgotten");
    }

    #[test]
    fn that_nobody_is_there_is_an_answer_too() {
        let reactor = Arc::new(Reactor::new(bound()).expect("a reactor"));
        let (far, to) = far();
        drop(far);
        let mut asking = Registered::new(&reactor, bound()).expect("registered");
        asking.ask(to, b"?").expect("asked");
        let mut context = Context::from_waker(Waker::noop());
        assert!(asking.poll_with(&mut context, read).is_pending());
        assert!(!reactor.wait(SOON).expect("waited"));
        let Poll::Ready(Err(error)) = asking.poll_with(&mut context, read) else {
            panic!("it waits for nobody");
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_question_wakes_one_of_those_who_wait() {
        let questions = Arc::new(UdpSocket::bind((HOST, 0)).expect("a socket"));
        questions.set_nonblocking(true).expect("set");
        let to = questions.local_addr().expect("an address");
        let (tell, told) = mpsc::channel();
        let reactors: Vec<_> = (0..4)
            .map(|_| Arc::new(Reactor::new(&*questions).expect("a reactor")))
            .collect();
        for reactor in &reactors {
            let (tell, reactor) = (tell.clone(), Arc::clone(reactor));
            let questions = Arc::clone(&questions);
            thread::spawn(move || {
                let may_be_asked = reactor.wait(SOON).expect("waited");
                tell.send(may_be_asked).expect("heard");
                drop(questions);
            });
        }
        // Until all of them wait; that one begins later changes nothing but what is shown.
        thread::sleep(Duration::from_millis(200));
        let asks = UdpSocket::bind((HOST, 0)).expect("a socket");
        asks.send_to(b"?", to).expect("asked");
        assert_eq!(told.recv_timeout(SOON.expect("some")), Ok(true));
        let another = told.recv_timeout(Duration::from_millis(200));
        assert!(another.is_err(), "two were woken for one question");
        // Whoever sees to the others finds it, as long as nobody has read it.
        assert!(reactors[0].wait(NOT_AT_ALL).is_ok());
        read(&questions).expect("it is still there");
        for _ in 0..3 {
            asks.send_to(b"?", to).expect("asked");
            assert_eq!(told.recv_timeout(SOON.expect("some")), Ok(true));
        }
    }

    #[test]
    fn what_is_dropped_elsewhere_is_awaited_no_longer() {
        let reactor = Arc::new(Reactor::new(bound()).expect("a reactor"));
        let (_far, to) = far();
        let mut asking = Registered::new(&reactor, bound()).expect("registered");
        asking.ask(to, b"?").expect("asked");
        thread::spawn(move || drop(asking)).join().expect("dropped");
        assert!(reactor.is_idle());
        assert!(reactor.lock().is_empty());
    }

    #[test]
    fn whether_by_reading_or_by_waiting_somebody_takes_each_question() {
        const QUESTIONS: usize = 500;
        let questions = Arc::new(UdpSocket::bind((HOST, 0)).expect("a socket"));
        let to = questions.local_addr().expect("an address");
        let (tell, told) = mpsc::channel();
        for reads in [true, false, true, false] {
            let (questions, tell) = (Arc::clone(&questions), tell.clone());
            thread::spawn(move || {
                let reactor = Reactor::new(&*questions).expect("a reactor");
                let mut room = [0; 8];
                loop {
                    let flags = if reads {
                        rustix::net::RecvFlags::empty()
                    } else {
                        assert!(reactor.wait(None).expect("waited"));
                        rustix::net::RecvFlags::DONTWAIT
                    };
                    match rustix::net::recv(&*questions, &mut room, flags) {
                        Ok((1, _)) if tell.send(()).is_ok() => {}
                        Err(rustix::io::Errno::AGAIN) => {}
                        Ok(_) | Err(_) => return,
                    }
                }
            });
        }
        let asks = UdpSocket::bind((HOST, 0)).expect("a socket");
        for number in 0..QUESTIONS {
            asks.send_to(b"?", to).expect("asked");
            let taken = told.recv_timeout(SOON.expect("some"));
            assert_eq!(taken, Ok(()), "question {number} waits");
        }
        // Nothing is there any more for those who read: they end.
        drop(told);
        for _ in 0..8 {
            asks.send_to(b"?", to).expect("asked");
        }
    }
}
