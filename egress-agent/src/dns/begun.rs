//! Answers that begin in the thread that reads, and go on where they are woken.
//!
//! A task of the runtime begins when another thread has been woken for it. Here the
//! reading thread itself takes the first step, which sends the question to an
//! upstream. What wakes the answer after that, mostly the upstream's own answer,
//! makes a task of it in the thread that hears of it: no thread is woken for nothing
//! while the upstream thinks.

use futures_util::FutureExt;
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
        let mut answer: Answer = Box::pin(guarded);
        let place = Arc::new(Place {
            runtime: self.runtime.clone(),
            state: Mutex::new(State::Steps),
        });
        let waker = Waker::from(Arc::clone(&place));
        let mut context = Context::from_waker(&waker);
        if answer.as_mut().poll(&mut context).is_pending() {
            place.leave(answer);
        }
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

/// Where an answer waits to be woken for the first time.
struct Place {
    runtime: Handle,
    state: Mutex<State>,
}

enum State {
    /// Its first step is under way.
    Steps,
    /// It was woken during its first step.
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
        *place = State::Gone;
        drop(place);
        self.runtime.spawn(answer);
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut place = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let after = match *place {
            State::Steps | State::Woken => State::Woken,
            State::Waits(_) | State::Gone => State::Gone,
        };
        let before = mem::replace(&mut *place, after);
        drop(place);
        if let State::Waits(answer) = before {
            self.runtime.spawn(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Begun;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;
    use tokio::runtime::Handle;
    use tokio::sync::oneshot;
    use tokio::time::{sleep, timeout};

    const SOON: Duration = Duration::from_secs(10);

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
}
