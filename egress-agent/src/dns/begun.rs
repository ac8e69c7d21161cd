//! Answers that begin in the thread that reads, and go on where they are woken.
//!
//! A task of the runtime begins when another thread has been woken for it. Here the
//! reading thread itself takes the first step, which sends the question to an
//! upstream, and the next one, too, if the upstream's answer came to that thread. What is
//! woken by any other thread becomes a task of the runtime there: no thread is woken for
//! nothing while the upstream thinks.

use futures_util::FutureExt;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most bytes of an answer that begins: it is moved several times, and thousands may wait.
const LARGEST: usize = 2_048;

type Answer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Answers that take a step in one thread before it waits again. Where many wait for one answer
/// of an upstream, the threads of the runtime share them, and whoever asks this thread does
/// not wait for all of them.
const MOST_HERE: usize = 16;

thread_local! {
    /// What was woken in this thread and goes on here; `None` in threads that read nothing.
    static WOKEN: RefCell<Option<VecDeque<Woken>>> = const { RefCell::new(None) };
}

/// An answer, and where it waited.
type Woken = (Arc<Place>, Answer);

/// All answers that are under way.
#[derive(Debug)]
pub(super) struct Begun {
    runtime: Handle,
    tracker: TaskTracker,
    end: CancellationToken,
}

impl Begun {
    /// Answers that go on in this runtime.
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            tracker: TaskTracker::new(),
            end: CancellationToken::new(),
        }
    }

    /// Takes the first step of an answer, and sees to it that the others follow. The calling
    /// thread must have entered the runtime.
    pub(super) fn begin(&self, answer: impl Future<Output = ()> + Send + 'static) {
        debug_assert!(size_of_val(&answer) <= LARGEST);
        let until_the_end = self.end.clone().run_until_cancelled_owned(answer);
        let tracked = self.tracker.track_future(until_the_end);
        // As in a task: an answer that panics ends no other.
        let guarded = AssertUnwindSafe(tracked).catch_unwind().map(|ended| {
            if ended.is_err() {
                tracing::error!("an answer of the resolver ended early");
            }
        });
        let place = Arc::new(Place {
            runtime: self.runtime.clone(),
            state: Mutex::new(State::Steps),
        });
        step(&place, Box::pin(guarded));
    }

    /// Ends all of them, also those that begin later.
    pub(super) fn end(&self) {
        self.end.cancel();
    }

    /// Waits until all of them are given.
    pub(super) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// What is woken in the calling thread goes on there from now on, whenever it calls
/// [`GoingOn::step`].
pub(super) struct GoingOn(());

impl GoingOn {
    pub(super) fn here() -> Self {
        WOKEN.set(Some(VecDeque::with_capacity(MOST_HERE)));
        Self(())
    }

    /// Takes a step of each answer that has been woken here, within bounds.
    pub(super) fn step(&self) {
        let next = || WOKEN.with_borrow_mut(|woken| woken.as_mut()?.pop_front());
        let mut taken = 0;
        while let Some((place, answer)) = next() {
            // One step wakes others.
            if taken == MOST_HERE {
                place.leave_to_runtime(answer);
                continue;
            }
            taken += 1;
            place.set(State::Steps);
            step(&place, answer);
        }
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        for (place, answer) in WOKEN.take().into_iter().flatten() {
            place.leave_to_runtime(answer);
        }
    }
}

fn step(place: &Arc<Place>, mut answer: Answer) {
    let waker = Waker::from(Arc::clone(place));
    let mut context = Context::from_waker(&waker);
    if answer.as_mut().poll(&mut context).is_pending() {
        place.leave(answer);
    }
}

/// Where an answer waits to be woken.
struct Place {
    runtime: Handle,
    state: Mutex<State>,
}

enum State {
    /// A step is under way.
    Steps,
    /// It was woken during its step, or waits in a thread for the next one.
    Woken,
    /// It waits.
    Waits(Answer),
    /// It is a task, or has ended.
    Gone,
}

impl Place {
    /// Leaves an answer here until it is woken.
    fn leave(&self, answer: Answer) {
        let mut place = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Steps = *place {
            *place = State::Waits(answer);
            return;
        }
        drop(place);
        // What wakes itself shares the runtime with others, and not a thread that reads.
        self.leave_to_runtime(answer);
    }

    fn leave_to_runtime(&self, answer: Answer) {
        self.set(State::Gone);
        self.runtime.spawn(answer);
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut place = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let after = match *place {
            State::Steps | State::Woken | State::Waits(_) => State::Woken,
            State::Gone => State::Gone,
        };
        let before = mem::replace(&mut *place, after);
        drop(place);
        let State::Waits(answer) = before else {
            return;
        };
        let left = WOKEN.with_borrow_mut(|woken| match woken {
            Some(woken) if woken.len() < MOST_HERE => {
                woken.push_back((Arc::clone(self), answer));
                None
            }
            Some(_) | None => Some(answer),
        });
        if let Some(answer) = left {
            self.leave_to_runtime(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Begun, GoingOn, MOST_HERE};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{self, Sender};
    use std::thread::ThreadId;
    use std::time::Duration;
    use tokio::runtime::Handle;
    use tokio::sync::{broadcast, oneshot};
    use tokio::time::{sleep, timeout};

    const SOON: Duration = Duration::from_secs(10);
    const TOO_MANY: usize = 4 * MOST_HERE;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_step_is_taken_here_and_the_rest_follows_once() {
        let begun = Begun::new(Handle::current());
        let (steps, here) = (Arc::new(AtomicUsize::new(0)), std::thread::current().id());
        let (waker, woken) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let counted = Arc::clone(&steps);
        begun.begin(async move {
            tell.send(std::thread::current().id()).expect("heard");
            woken.await.expect("woken");
            counted.fetch_add(1, Ordering::Relaxed);
            // Woken again as the task that it is now.
            sleep(Duration::from_millis(5)).await;
            counted.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(told.try_recv(), Ok(here), "it began elsewhere or later");
        assert_eq!(steps.load(Ordering::Relaxed), 0);
        waker.send(()).expect("it waits");
        timeout(SOON, begun.ended()).await.expect("an end");
        assert_eq!(steps.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_woken_during_its_first_step_goes_on() {
        let begun = Begun::new(Handle::current());
        for _ in 0..1_000 {
            // It wakes itself before it waits.
            begun.begin(tokio::task::yield_now());
            // Another thread wakes it, often while it steps.
            let (waker, woken) = oneshot::channel();
            tokio::spawn(async move { waker.send(()) });
            begun.begin(async move { woken.await.expect("woken") });
        }
        timeout(SOON, begun.ended()).await.expect("an end");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_ends_one_answer_and_the_end_all() {
        let begun = Begun::new(Handle::current());
        begun.begin(async { panic!("at once") });
        begun.begin(async {
            tokio::task::yield_now().await;
            panic!("later")
        });
        timeout(SOON, begun.ended()).await.expect("both ended");

        let (held, freed) = oneshot::channel::<()>();
        begun.begin(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        begun.end();
        let freed = timeout(SOON, freed).await.expect("it was ended");
        assert!(freed.is_err());
        timeout(SOON, begun.ended()).await.expect("no other");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_woken_where_it_was_read_goes_on_there() {
        let begun = Begun::new(Handle::current());
        let here = std::thread::current().id();
        let going_on = GoingOn::here();
        let (first, woken_first) = oneshot::channel();
        let (second, woken_second) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        begun.begin(async move {
            for woken in [woken_first, woken_second] {
                woken.await.expect("woken");
                tell.send(std::thread::current().id()).expect("heard");
            }
            tokio::task::yield_now().await;
            tell.send(std::thread::current().id()).expect("heard");
        });
        first.send(()).expect("it waits");
        assert!(told.try_recv().is_err(), "not inside of whoever wakes it");
        going_on.step();
        assert_eq!(told.try_recv(), Ok(here));
        second.send(()).expect("it waits again");
        going_on.step();
        assert_eq!(told.try_recv(), Ok(here));
        // It woke itself: that would keep this thread from reading.
        let elsewhere = told.recv_timeout(SOON).expect("it goes on");
        assert_ne!(elsewhere, here);
        timeout(SOON, begun.ended()).await.expect("an end");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_woken_by_others_or_too_late_goes_on_in_the_runtime() {
        let begun = Begun::new(Handle::current());
        let here = std::thread::current().id();
        let going_on = GoingOn::here();
        let (tell, told) = mpsc::channel();
        let mut wakers = Vec::new();
        for _ in 0..2 {
            let ((waker, woken), tell) = (oneshot::channel(), tell.clone());
            wakers.push(waker);
            begun.begin(async move {
                woken.await.expect("woken");
                tell.send(std::thread::current().id()).expect("heard");
            });
        }
        let by_other = wakers.pop().expect("two");
        let woken = std::thread::spawn(move || by_other.send(()).expect("it waits"));
        woken.join().expect("woken");
        assert_ne!(told.recv_timeout(SOON).expect("it goes on"), here);
        // This thread ends before it comes to the step.
        wakers.pop().expect("two").send(()).expect("it waits");
        drop(going_on);
        assert_ne!(told.recv_timeout(SOON).expect("it goes on"), here);
        timeout(SOON, begun.ended()).await.expect("an end");
    }

    /// How many answers go on in this thread of those that `begin` begins, which are too many
    /// for it. What `begin` gives back wakes them.
    async fn staying<W: FnOnce()>(begin: impl FnOnce(&Begun, &Sender<ThreadId>) -> W) -> usize {
        let begun = Begun::new(Handle::current());
        let here = std::thread::current().id();
        let going_on = GoingOn::here();
        let (tell, told) = mpsc::channel();
        let wake = begin(&begun, &tell);
        wake();
        going_on.step();
        timeout(SOON, begun.ended()).await.expect("an end");
        let threads: Vec<_> = told.try_iter().collect();
        assert_eq!(threads.len(), TOO_MANY);
        threads.iter().filter(|thread| **thread == here).count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_too_much_for_one_thread_goes_on_in_the_runtime() {
        let stayed = staying(|begun, tell| {
            let (wake, _) = broadcast::channel::<()>(1);
            for _ in 0..TOO_MANY {
                let (mut woken, tell) = (wake.subscribe(), tell.clone());
                begun.begin(async move {
                    woken.recv().await.expect("woken");
                    tell.send(std::thread::current().id()).expect("heard");
                });
            }
            move || {
                wake.send(()).expect("they wait");
            }
        });
        assert_eq!(stayed.await, MOST_HERE);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_others_wake_one_by_one_does_not_keep_one_thread() {
        let stayed = staying(|begun, tell| {
            let (first, mut before) = oneshot::channel();
            for _ in 0..TOO_MANY {
                let (next, after) = oneshot::channel();
                let (woken, tell) = (std::mem::replace(&mut before, after), tell.clone());
                begun.begin(async move {
                    woken.await.expect("woken");
                    tell.send(std::thread::current().id()).expect("heard");
                    // Of the last one nobody wants to know.
                    let _ = next.send(());
                });
            }
            move || first.send(()).expect("it waits")
        });
        assert_eq!(stayed.await, MOST_HERE);
    }
}
