//! Commands in sandboxes on the running kernel. They need root; without it
//! every test says that it was skipped.

mod relaxations;
mod signals;

use super::child::launch_prepared;
use super::{Child, Ending, LaunchError, LaunchSpec, Step, launch};
use crate::policy::SeccompProfile;
use crate::sandbox::cgroup::tests::{DEADLINE, TestRoot};
use crate::sandbox::cgroup::{RemoveOnDrop, SandboxCgroup};
use crate::sandbox::environment::Environment;
use crate::sandbox::user::User;
use crate::sandbox::view;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const UID: u32 = 2_000_000_042;

/// A sandbox with a directory that everybody may write.
struct World {
    cgroup: Option<RemoveOnDrop>,
    directory: tempfile::TempDir,
    root: Option<TestRoot>,
}

impl World {
    fn make(test: &str) -> Option<Self> {
        let root = TestRoot::make(test)?;
        let directory = tempfile::tempdir().expect("a directory");
        // Root without capabilities is a user like any other.
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), open).expect("chmod");
        let cgroup = root.sandbox("s").remove_on_drop(DEADLINE);
        Some(Self {
            cgroup: Some(cgroup),
            directory,
            root: Some(root),
        })
    }

    fn cgroup(&self) -> &SandboxCgroup {
        self.cgroup.as_ref().expect("until the end")
    }

    /// Runs a shell script as a user of its own, to its end.
    fn run(&self, script: &str) -> Ending {
        self.run_spec(&shell(script, UID, self.directory.path()))
    }

    fn run_spec(&self, spec: &LaunchSpec) -> Ending {
        self.launch(spec)
            .expect("it starts")
            .wait()
            .expect("it ends")
    }

    fn launch(&self, spec: &LaunchSpec) -> Result<Child, LaunchError> {
        launch(spec, self.cgroup())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the script wrote into the file `out`.
    fn output(&self) -> String {
        std::fs::read_to_string(self.file("out")).expect("the script wrote `out`")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The sandbox goes before the root above it.
        drop(self.cgroup.take());
        drop(self.root.take());
    }
}

fn shell(script: &str, uid: u32, directory: &Path) -> LaunchSpec {
    command(&["/bin/sh", "-c", script], uid, directory)
}

fn command(words: &[&str], uid: u32, directory: &Path) -> LaunchSpec {
    LaunchSpec {
        seccomp: SeccompProfile::Default,
        time: None,
        disk: None,
        hidden: Vec::new(),
        read_only: Vec::new(),
        command: words.iter().map(Into::into).collect(),
        user: User {
            uid,
            gid: uid,
            home: "/nonexistent".into(),
        },
        environment: Environment::from([("PATH".into(), "/usr/bin:/bin".into())]),
        directory: Some(directory.to_owned()),
        resolv_conf: None,
        relaxed: Vec::new(),
        forward_signals: false,
    }
}

fn wait_for(what: &str, reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_status_is_that_of_the_command() {
    let Some(world) = World::make("status") else {
        return;
    };
    assert_eq!(world.run("exit 7"), Ending::Exited(7));
    assert_eq!(world.run("kill -TERM $$"), Ending::Killed(15));
    assert_eq!(Ending::Killed(15).exit_code(), 143);
    assert_eq!(Ending::Exited(7).exit_code(), 7);
    assert!(!world.cgroup().populated().expect("events"));
}

#[test]
fn commands_that_cannot_run_give_the_shells_codes() {
    let Some(world) = World::make("codes") else {
        return;
    };
    let start = |word: &str| {
        let error = world.launch(&command(&[word], UID, world.directory.path()));
        error.expect_err("it cannot run").exit_code()
    };
    assert_eq!(start("egress-no-such-command"), Some(127));
    assert_eq!(start("/nowhere/command"), Some(127));
    assert_eq!(start("/etc/passwd"), Some(126));
    assert_eq!(start("/etc"), Some(126));
    let none = world.launch(&command(&[], UID, world.directory.path()));
    assert!(matches!(none, Err(LaunchError::NoCommand)));
    assert!(!world.cgroup().populated().expect("events"));
}

#[test]
fn no_privilege_is_left() {
    let Some(world) = World::make("privileges") else {
        return;
    };
    for uid in [UID, 0] {
        let spec = shell(
            "cat /proc/self/status > out; chmod 644 out",
            uid,
            world.directory.path(),
        );
        assert_eq!(world.run_spec(&spec), Ending::Exited(0));
        let text = world.output();
        std::fs::remove_file(world.file("out")).expect("removed");
        let status: BTreeMap<_, _> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key, value.split_whitespace().collect::<Vec<_>>()))
            .collect();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], ["0000000000000000"], "{set} of uid {uid}");
        }
        let id = uid.to_string();
        assert_eq!(status["NoNewPrivs"], ["1"]);
        assert_eq!(status["Seccomp"], ["2"]);
        assert_eq!(status["Uid"], [&*id; 4]);
        assert_eq!(status["Gid"], [&*id; 4]);
        assert!(status["Groups"].is_empty());
        assert_eq!(status["SigBlk"], ["0000000000000000"]);
        // The C library's own two: whoever started the tests with posix_spawn
        // may have left them ignored, and no program can change that.
        const OWN_OF_LIBC: u64 = 0b11 << 31;
        let ignored = u64::from_str_radix(status["SigIgn"][0], 16).expect("hexadecimal");
        assert_eq!(ignored & !OWN_OF_LIBC, 0);
    }
}

#[test]
fn only_the_first_three_descriptors_are_open() {
    let Some(world) = World::make("descriptors") else {
        return;
    };
    // One that this process leaves open on exec, as careless libraries do.
    let file = std::fs::File::open("/dev/null").expect("open");
    let leaked = rustix::io::dup(&file).expect("dup");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("no CLOEXEC");
    let ending = world.run("exec /bin/ls /proc/self/fd > out");
    assert_eq!(ending, Ending::Exited(0));
    // The fourth is the directory that `ls` itself reads.
    assert_eq!(
        world.output().split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
}

#[test]
fn the_environment_is_what_was_given() {
    let Some(world) = World::make("environment") else {
        return;
    };
    let mut spec = shell("cat /proc/$$/environ > out", UID, world.directory.path());
    spec.environment.insert("LANG".into(), "C".into());
    assert_eq!(world.run_spec(&spec), Ending::Exited(0));
    assert_eq!(world.output(), "LANG=C\0PATH=/usr/bin:/bin\0");
}

#[test]
fn it_is_born_in_its_cgroup_and_sees_only_its_own_processes() {
    let Some(world) = World::make("membership") else {
        return;
    };
    let script = "cat /proc/self/cgroup > cgroup; echo /proc/[0-9]* > out; sleep 60";
    let child = world
        .launch(&shell(script, UID, world.directory.path()))
        .expect("it starts");
    wait_for("the script's output", || {
        std::fs::read_to_string(world.file("out")).is_ok_and(|text| text.ends_with('\n'))
    });
    let members = world.cgroup().processes().expect("processes");
    assert!(members.contains(&child.pid()));
    assert_eq!(world.output(), "/proc/1 /proc/2\n");
    let cgroup = std::fs::read_to_string(world.file("cgroup")).expect("written");
    assert!(cgroup.lines().any(|line| line == "0::/"), "{cgroup}");
    drop(child);
    assert!(!world.cgroup().populated().expect("events"));
}

#[test]
fn cgroups_cannot_be_written_from_inside_not_even_by_root() {
    let Some(world) = World::make("cgroupfs") else {
        return;
    };
    let hierarchy = crate::sandbox::Hierarchy::find().expect("cgroup2");
    let mount = hierarchy.path().display();
    let script = format!(
        "echo $$ 2>&- > {mount}/cgroup.procs && exit 1
         mkdir {mount}/egress-test-escape 2>&- && exit 2
         test -z \"$(ls -A {mount} 2>&-)\" || exit 3
         umount {mount} 2>&- && exit 4
         mount -t cgroup2 none {mount} 2>&- && exit 5
         echo 1 2>&- > /proc/sys/vm/drop_caches && exit 6
         exit 0"
    );
    for uid in [UID, 0] {
        let spec = shell(&script, uid, world.directory.path());
        assert_eq!(world.run_spec(&spec), Ending::Exited(0), "uid {uid}");
    }
}

#[test]
fn sockets_of_the_host_lead_nowhere() {
    let Some(world) = World::make("sockets") else {
        return;
    };
    let socket = world.file("daemon.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let ending = world.run(
        "test -S daemon.sock && exit 1
         ls -A /run > out
         exit 0",
    );
    assert_eq!(ending, Ending::Exited(0));
    assert_eq!(world.output(), "", "/run is the sandbox's own and empty");
}

#[test]
fn resolv_conf_is_the_sandboxs_own() {
    let Some(world) = World::make("resolv") else {
        return;
    };
    let text = view::resolv_conf(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let before = std::fs::read("/etc/resolv.conf").expect("the host's");
    let mut spec = shell("cat /etc/resolv.conf > out", UID, world.directory.path());
    spec.resolv_conf = Some(text.clone());
    assert_eq!(world.run_spec(&spec), Ending::Exited(0));
    assert_eq!(world.output(), text);
    assert!(text.contains("nameserver 127.0.0.1\n"));
    assert_eq!(
        std::fs::read("/etc/resolv.conf").expect("the host's"),
        before
    );
    assert!(!Path::new("/run/resolv.conf").exists());
}

#[test]
fn resolv_conf_is_made_where_a_link_into_run_points() {
    let Some(world) = World::make("link") else {
        return;
    };
    let script = "cat /run/a/b/resolv.conf > out; ls -A /run >> out";
    let spec = shell(script, UID, world.directory.path());
    let mut prepared = spec.prepare().expect("prepared");
    prepared.view.run_directories = vec![c"/run/a".to_owned(), c"/run/a/b".to_owned()];
    prepared.view.resolv_conf = Some(view::ResolvConf {
        file: c"/run/a/b/resolv.conf".to_owned(),
        content: b"nameserver ::1\n".to_vec(),
        covers: None,
    });
    let child = launch_prepared(prepared, "sh".into(), world.cgroup(), None, None);
    let ending = child.expect("it starts").wait().expect("it ends");
    assert_eq!(ending, Ending::Exited(0));
    assert_eq!(world.output(), "nameserver ::1\na\n");
}

#[test]
fn what_cannot_be_hidden_stops_the_launch() {
    let Some(world) = World::make("hide") else {
        return;
    };
    let script = format!("touch {}", world.file("ran").display());
    let spec = shell(&script, UID, world.directory.path());
    let mut prepared = spec.prepare().expect("prepared");
    let missing = c"/nowhere/at/all".to_owned();
    prepared.view.hidden_directories.push(missing);
    let error = launch_prepared(prepared, "sh".into(), world.cgroup(), None, None)
        .expect_err("the directory is not there");
    assert_eq!(
        error.to_string(),
        "cannot hide the directory /nowhere/at/all: No such file or directory (os error 2); \
         nothing was started"
    );
    assert!(!world.file("ran").exists());
}

#[test]
fn a_failed_step_is_named_and_nothing_runs() {
    let Some(world) = World::make("steps") else {
        return;
    };
    let locked = world.file("locked");
    std::fs::create_dir(&locked).expect("a directory");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    let script = format!("touch {}", world.file("ran").display());
    let failed = world.launch(&shell(&script, UID, &locked));
    match failed {
        Err(LaunchError::Step {
            step: Step::Directory,
            path,
            source,
        }) => {
            assert_eq!(path.as_deref(), Some(locked.as_path()));
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
        }
        other => panic!("{other:?}"),
    }
    assert!(!world.file("ran").exists());
    assert!(!world.cgroup().populated().expect("events"));
}

#[test]
fn a_directory_that_was_not_asked_for_may_be_the_root() {
    let Some(world) = World::make("directory") else {
        return;
    };
    let mut spec = shell("pwd -P > out 2>&1", 0, world.directory.path());
    assert_eq!(world.run_spec(&spec), Ending::Exited(0));
    assert_eq!(Path::new(world.output().trim_end()), world.directory.path());
    spec.directory = None;
    spec.command[2] = format!("pwd -P > {}", world.file("out").display()).into();
    assert_eq!(world.run_spec(&spec), Ending::Exited(0));
    let here = std::env::current_dir().expect("here");
    assert_eq!(Path::new(world.output().trim_end()), here);
}

#[test]
fn what_the_command_leaves_behind_ends_with_it() {
    let Some(world) = World::make("orphans") else {
        return;
    };
    let ending =
        world.run("setsid sh -c 'trap \"\" TERM HUP; sleep 60' & setsid sleep 60 & exit 3");
    assert_eq!(ending, Ending::Exited(3));
    assert!(!world.cgroup().populated().expect("events"));
}

#[test]
fn what_it_makes_is_not_writable_for_others() {
    let Some(world) = World::make("umask") else {
        return;
    };
    assert_eq!(world.run("umask 2>&1 > out; : > made"), Ending::Exited(0));
    let mode = std::fs::metadata(world.file("made")).expect("made").mode();
    assert_eq!(mode & 0o022, 0);
}

#[test]
fn listed_system_calls_are_refused_and_others_are_not() {
    let Some(world) = World::make("calls") else {
        return;
    };
    const NEWUSER: i64 = libc::CLONE_NEWUSER as i64;
    #[rustfmt::skip]
    let cases: &[(&str, i64, [i64; 3], i32)] = &[
        ("socket(AF_INET)", libc::SYS_socket, [2, 1, 0], 0),
        ("socket(AF_UNIX)", libc::SYS_socket, [1, 1, 0], 0),
        ("socket(AF_NETLINK)", libc::SYS_socket, [16, 3, 0], 0),
        ("socket(AF_VSOCK)", libc::SYS_socket, [40, 1, 0], libc::EPERM),
        ("socket(AF_ALG)", libc::SYS_socket, [38, 5, 0], libc::EPERM),
        ("socketpair(AF_TIPC)", libc::SYS_socketpair, [30, 1, 0], libc::EPERM),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0], libc::EPERM),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0], libc::EPERM),
        ("unshare(NEWUSER)", libc::SYS_unshare, [NEWUSER, 0, 0], libc::EPERM),
        ("clone(NEWUSER)", libc::SYS_clone, [NEWUSER, 0, 0], libc::EPERM),
        ("unshare(0)", libc::SYS_unshare, [0, 0, 0], 0),
        ("clone3", libc::SYS_clone3, [0, 0, 0], libc::ENOSYS),
        ("ioctl(TIOCSTI)", libc::SYS_ioctl, [0, 0x5412, 0], libc::EPERM),
        ("ioctl(FIONREAD)", libc::SYS_ioctl, [0, 0x541b, 0], libc::ENOTTY),
        #[cfg(target_arch = "x86_64")]
        ("getpid of x32", 0x4000_0000 | libc::SYS_getpid, [0, 0, 0], libc::ENOSYS),
    ];
    for (what, call, [a, b, c], expected) in cases {
        let program = format!("exit(syscall({call}, {a}, {b}, {c}) == -1 ? int($!) : 0)");
        let perl = ["/usr/bin/perl", "-e", &program];
        let mut spec = command(&perl, UID, world.directory.path());
        spec.command = ["/bin/sh", "-c", "exec \"$@\" < /dev/null", "sh"]
            .iter()
            .map(Into::into)
            .chain(spec.command)
            .collect();
        let status = u8::try_from(*expected).expect("small");
        assert_eq!(world.run_spec(&spec), Ending::Exited(status), "{what}");
    }
}

#[test]
fn without_root_nothing_is_tried() {
    let Some(world) = World::make("permission") else {
        return;
    };
    let spec = shell("true", UID, world.directory.path());
    let outcome = std::thread::scope(|scope| {
        let unprivileged = scope.spawn(|| {
            // Binds this thread only.
            let user = rustix::process::Uid::from_raw(UID);
            rustix::thread::set_thread_res_uid(user, user, user).expect("setresuid");
            world.launch(&spec)
        });
        unprivileged.join().expect("no panic")
    });
    assert!(matches!(outcome, Err(LaunchError::NotPermitted)));
}
