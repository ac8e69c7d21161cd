//! Reloads when the policies on disk change. Only where the configuration says
//! so: a reload by command or signal works without.

use crate::daemon::agent::Agent;
use crate::daemon::records::Pusher;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};

/// How long nothing may happen before what is there is taken for complete.
const SETTLE: Duration = Duration::from_millis(300);
/// How often the files are looked at without an event: file systems without
/// events, and events that were lost, are slow but not forgotten.
const LOOK: Duration = Duration::from_secs(10);

/// Files that somebody has written to and not closed since.
#[derive(Default)]
struct Open(BTreeSet<PathBuf>);

impl Open {
    fn note(&mut self, event: &Event) {
        for path in &event.paths {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.0.insert(path.clone());
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Remove(_)
                | EventKind::Modify(ModifyKind::Name(_)) => {
                    self.0.remove(path);
                }
                _ => {}
            }
        }
    }
}

/// Watches until the agent stops.
pub async fn watch(agent: Arc<Agent>) {
    let (sender, mut events) = unbounded_channel();
    // Which lists of names belong to the policies changes with them.
    let paths = Arc::new(Mutex::new(agent.source().watched()));
    let ours = Arc::clone(&paths);
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let ours = ours.lock().unwrap_or_else(PoisonError::into_inner);
        if event.as_ref().map_or(true, |event| concerns(event, &ours)) {
            // Nobody listens any more when the agent ends.
            let _ = sender.send(event);
        }
    });
    let mut watcher = watcher
        .inspect_err(|error| {
            tracing::warn!(%error, "the policy directory is looked at every ten seconds instead of watched");
        })
        .ok();
    let mut open = Open::default();
    loop {
        let watched = agent.source().watched();
        if let Some(watcher) = &mut watcher {
            follow(watcher, &watched);
        }
        *paths.lock().unwrap_or_else(PoisonError::into_inner) = watched;
        tokio::select! {
            () = agent.stopped() => return,
            () = settled(&mut events, &mut open) => {}
        }
        let Some(there) = agent.source().moved() else {
            continue;
        };
        let half_written = there.iter().find(|(path, _)| open.0.contains(path));
        if let Some((path, _)) = half_written {
            tracing::info!(file = %path.display(), "changed and still open; waiting until it is closed");
            continue;
        }
        tracing::info!("the files of the policies changed");
        // How it ends is logged and recorded there.
        let _ = tokio::task::block_in_place(|| agent.reload_policies(Pusher::FileWatch));
    }
}

/// Returns when something happened and then nothing more for a while, or when it
/// is time for a look.
async fn settled(events: &mut UnboundedReceiver<notify::Result<Event>>, open: &mut Open) {
    let look = sleep_until(Instant::now() + LOOK);
    tokio::pin!(look);
    let first = tokio::select! {
        first = events.recv() => first,
        () = &mut look => return,
    };
    let mut next = first;
    while let Some(event) = next {
        if let Ok(event) = &event {
            open.note(event);
        }
        match timeout(SETTLE, events.recv()).await {
            Ok(more) => next = more,
            Err(_) => return,
        }
    }
    // No watcher, so there is nothing but the look.
    look.await;
}

/// Watches each directory, and the one above each path: a directory or a link
/// that is replaced is another one under the same name, which only the directory
/// above tells. What is not there (yet) is seen at the next look.
fn follow(watcher: &mut RecommendedWatcher, paths: &[PathBuf]) {
    for path in paths {
        let places = [Some(path.as_path()), path.parent()];
        for place in places.into_iter().flatten().filter(|place| place.is_dir()) {
            let _ = watcher.watch(place, RecursiveMode::NonRecursive);
        }
    }
}

/// Whether an event can be about the policies: other files lie beside them.
fn concerns(event: &Event, paths: &[PathBuf]) -> bool {
    let ours = |path: &PathBuf| paths.iter().any(|ours| path.starts_with(ours));
    event.need_rescan() || event.paths.iter().any(ours)
}

#[cfg(test)]
mod tests {
    use super::{AccessKind, AccessMode, Event, EventKind, ModifyKind, Open, concerns};
    use notify::event::DataChange;
    use std::path::PathBuf;

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(path.into())
    }

    #[test]
    fn a_file_is_half_written_until_its_writer_closes_it() {
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let mut open = Open::default();
        open.note(&event(written, "/p/a.yaml"));
        open.note(&event(written, "/p/b.yaml"));
        open.note(&event(closed, "/p/a.yaml"));
        assert_eq!(
            open.0.into_iter().collect::<Vec<_>>(),
            [PathBuf::from("/p/b.yaml")]
        );
    }

    #[test]
    fn what_lies_beside_the_policies_does_not_concern_them() {
        let paths = [PathBuf::from("/etc/egress/policies.d")];
        let any = EventKind::Any;
        assert!(concerns(
            &event(any, "/etc/egress/policies.d/a.yaml"),
            &paths
        ));
        assert!(concerns(&event(any, "/etc/egress/policies.d"), &paths));
        assert!(!concerns(&event(any, "/etc/egress/agent.toml"), &paths));
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(concerns(&lost, &paths));
    }
}
