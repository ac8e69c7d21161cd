//! Cgroups on the running kernel. Every test makes a governed root of its own.

use super::{CgroupError, GovernedRoot, Hierarchy, SandboxCgroup};
use crate::model::SandboxName;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// A governed root for one test; it goes with everything below it.
pub(crate) struct TestRoot(Option<GovernedRoot>);

impl TestRoot {
    /// Makes it, or says why the test cannot run.
    pub(crate) fn make(test: &str) -> Option<Self> {
        if !egress_tests::privilege::granted(test) {
            return None;
        }
        let hierarchy = Hierarchy::find().expect("cgroup2");
        let name = format!("egress-test-{}-{test}", std::process::id());
        Some(Self(Some(
            GovernedRoot::ensure(&hierarchy, &name).expect("a root for the test"),
        )))
    }

    pub(crate) fn sandbox(&self, name: &str) -> SandboxCgroup {
        SandboxCgroup::create(self.root(), &SandboxName::parse(name).expect("a name"))
            .expect("a sandbox cgroup")
    }

    pub(crate) fn root(&self) -> &GovernedRoot {
        self.0.as_ref().expect("still there")
    }
}

impl Drop for TestRoot {
    fn drop(&mut self) {
        let Some(root) = self.0.take() else { return };
        for name in root.sandboxes().unwrap_or_default() {
            let removed =
                SandboxCgroup::open(&root, &name).and_then(|sandbox| sandbox.remove(DEADLINE));
            if let Err(error) = removed {
                eprintln!("{error}");
            }
        }
        if let Err(error) = root.remove() {
            eprintln!("{error}");
        }
    }
}

#[test]
fn levels_and_ids_are_those_of_the_kernel() {
    let Some(root) = TestRoot::make("levels") else {
        return;
    };
    assert_eq!(root.root().level(), 1);
    let hierarchy = Hierarchy::find().expect("cgroup2");
    let name = root.root().path().file_name().expect("a name");
    let below = format!("{}/a/b", name.to_str().expect("text"));
    let deeper = GovernedRoot::ensure(&hierarchy, &below).expect("a deeper root");
    assert_eq!(deeper.level(), 3);
    assert_ne!(deeper.id(), root.root().id());
    let sandbox = root.sandbox("s");
    let inode = rustix::fs::stat(sandbox.path()).expect("stat").st_ino;
    assert_eq!(sandbox.id().0, inode);
    let names = hierarchy.names().expect("names");
    assert!(
        names.iter().any(|other| name == other.as_str()),
        "{names:?}"
    );
}

#[test]
fn an_existing_sandbox_is_not_adopted_and_a_missing_one_not_made() {
    let Some(root) = TestRoot::make("adopt") else {
        return;
    };
    let sandbox = root.sandbox("s");
    assert!(matches!(
        SandboxCgroup::create(root.root(), sandbox.name()),
        Err(CgroupError::Exists(_))
    ));
    let other = SandboxName::parse("other").expect("a name");
    assert!(matches!(
        SandboxCgroup::open(root.root(), &other),
        Err(CgroupError::Missing(_))
    ));
    assert_eq!(
        root.root().sandboxes().expect("names"),
        [sandbox.name().clone()]
    );
}

#[test]
fn a_root_that_others_may_write_is_refused() {
    let Some(root) = TestRoot::make("writable") else {
        return;
    };
    std::os::unix::fs::chown(root.root().path(), Some(1), None).expect("chown");
    let hierarchy = Hierarchy::find().expect("cgroup2");
    let name = root.root().path().file_name().expect("a name");
    let opened = GovernedRoot::ensure(&hierarchy, name.to_str().expect("text"));
    assert!(matches!(
        opened,
        Err(CgroupError::NotRootOnly { uid: 1, .. })
    ));
}

#[test]
fn freeze_thaw_kill_and_remove_act_on_what_runs_there() {
    let Some(root) = TestRoot::make("kill") else {
        return;
    };
    let sandbox = root.sandbox("s").remove_on_drop(DEADLINE);
    assert!(!sandbox.populated().expect("events"));
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "read line; sleep 60 & sleep 60"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let pid = shell.id().to_string();
    std::fs::write(sandbox.path().join("cgroup.procs"), &pid).expect("move it in");
    let mut input = shell.stdin.take().expect("a pipe");
    input.write_all(b"go\n").expect("start it");
    while sandbox.processes().expect("processes").len() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    sandbox.freeze().expect("frozen");
    sandbox.thaw().expect("thawed");
    sandbox.freeze().expect("frozen again");
    let path = sandbox.path().to_owned();
    drop(sandbox);
    assert!(
        !path.exists(),
        "frozen processes are killed and removed too"
    );
    assert!(!shell.wait().expect("ended").success());
}

#[test]
fn what_is_removed_while_it_is_killed_is_empty() {
    let Some(root) = TestRoot::make("gone") else {
        return;
    };
    let sandbox = root.sandbox("s");
    std::fs::remove_dir(sandbox.path()).expect("nobody is in it");
    sandbox.kill(DEADLINE).expect("nothing is left to kill");
}

#[test]
fn without_cgroup_kill_the_frozen_processes_are_signalled() {
    let Some(root) = TestRoot::make("oldkill") else {
        return;
    };
    let sandbox = root.sandbox("s");
    let mut sleeper = Command::new("sleep").arg("60").spawn().expect("sleep");
    std::fs::write(
        sandbox.path().join("cgroup.procs"),
        sleeper.id().to_string(),
    )
    .expect("move it in");
    sandbox.kill_frozen().expect("killed");
    assert!(!sleeper.wait().expect("ended").success());
    assert!(!sandbox.populated().expect("events"));
}
