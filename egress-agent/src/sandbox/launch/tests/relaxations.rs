//! The points of the fence that a policy can open, and what stays closed then.

use super::{UID, World, command, shell};
use crate::model::Relaxation;
use crate::sandbox::launch::{Ending, LaunchSpec};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

/// Runs `perl -e 'exit(...)'` with the number of a system call's error.
fn errno_of(world: &World, call: i64, arguments: &str, relaxed: &[Relaxation]) -> Ending {
    let program = format!("exit(syscall({call}, {arguments}) == -1 ? int($!) : 0)");
    let spec = LaunchSpec {
        relaxed: relaxed.to_vec(),
        ..command(
            &["/usr/bin/perl", "-e", &program],
            UID,
            world.directory.path(),
        )
    };
    world.run_spec(&spec)
}

const EPERM: Ending = Ending::Exited(libc::EPERM as u8);
const DONE: Ending = Ending::Exited(0);

#[test]
fn tracing_is_opened_by_its_name_and_taking_descriptors_is_not() {
    let Some(world) = World::make("ptrace") else {
        return;
    };
    let traced = "0, 0, 0, 0";
    assert_eq!(errno_of(&world, libc::SYS_ptrace, traced, &[]), EPERM);
    let other = [Relaxation::UserNamespaces];
    assert_eq!(errno_of(&world, libc::SYS_ptrace, traced, &other), EPERM);
    let open = [Relaxation::Ptrace];
    assert_eq!(errno_of(&world, libc::SYS_ptrace, traced, &open), DONE);
    let taken = errno_of(&world, libc::SYS_pidfd_getfd, "0, 0, 0", &open);
    assert_eq!(taken, EPERM);
}

#[test]
fn what_was_hidden_stays_hidden_in_user_namespaces() {
    let Some(world) = World::make("userns") else {
        return;
    };
    let hierarchy = crate::sandbox::Hierarchy::find().expect("cgroup2");
    let mount = hierarchy.path().display();
    // The first line proves that there is a namespace and that mounts work in it.
    let inside = format!(
        "mkdir -p own && mount -t tmpfs none own && touch own/x || exit 1
         umount /run 2>&- && exit 2
         umount -l {mount} 2>&- && exit 3
         mount --bind /run own && test -z \"$(ls -A own)\" || exit 4
         test -z \"$(ls -A {mount})\" || exit 5
         mkdir -p group
         if mount -t cgroup2 none group 2>&-; then
           mkdir group/escape 2>&- && exit 6
           echo 0 2>&- > group/cgroup.procs && exit 7
         fi
         umount /proc 2>&- && exit 8
         exit 0"
    );
    std::fs::write(world.file("inside"), inside).expect("written");
    let run = |relaxed: Vec<Relaxation>| {
        world.run_spec(&LaunchSpec {
            relaxed,
            ..shell("exec unshare -Urm sh ./inside", UID, world.directory.path())
        })
    };
    assert_eq!(run(Vec::new()), Ending::Exited(1), "unshare fails");
    assert!(!world.file("own").exists());
    assert_eq!(run(vec![Relaxation::UserNamespaces]), DONE);
}

#[test]
fn a_socket_of_the_host_is_reached_by_its_path_and_none_beside_it() {
    let Some(world) = World::make("host-socket") else {
        return;
    };
    // One in a directory that becomes empty, one where only the socket is masked.
    let hidden = tempfile::Builder::new()
        .prefix("egress-test-")
        .tempdir_in("/run")
        .expect("a directory in /run");
    let listen = |directory: &std::path::Path, name: &str| {
        let listener = UnixListener::bind(directory.join(name)).expect("a socket");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory, open.clone()).expect("chmod");
        std::fs::set_permissions(directory.join(name), open).expect("chmod");
        listener
    };
    let places = [hidden.path(), world.directory.path()];
    for place in places {
        let shown = listen(place, "shown");
        let _beside = listen(place, "beside");
        let program = "use IO::Socket::UNIX; my ($to, $beside) = @ARGV;
            IO::Socket::UNIX->new(Peer => $beside) and exit 2;
            my $s = IO::Socket::UNIX->new(Peer => $to) or exit 3;
            print $s \"word\\n\"; close $s; exit 0";
        let (to, beside) = (place.join("shown"), place.join("beside"));
        let words = [
            "/usr/bin/perl",
            "-e",
            program,
            to.to_str().expect("text"),
            beside.to_str().expect("text"),
        ];
        let spec = LaunchSpec {
            relaxed: vec![Relaxation::HostSocket(to.clone())],
            ..command(&words, UID, world.directory.path())
        };
        assert_eq!(world.run_spec(&spec), DONE, "{}", place.display());
        let mut heard = String::new();
        let (mut stream, _) = shown.accept().expect("it connected");
        stream.read_to_string(&mut heard).expect("read");
        assert_eq!(heard, "word\n");
        let usual = command(&words, UID, world.directory.path());
        assert_eq!(world.run_spec(&usual), Ending::Exited(3), "not by itself");
    }
}

#[test]
fn a_socket_that_is_not_there_starts_nothing() {
    let Some(world) = World::make("no-socket") else {
        return;
    };
    std::fs::write(world.file("plain"), "").expect("written");
    for name in ["missing", "plain"] {
        let path = world.file(name);
        let spec = LaunchSpec {
            relaxed: vec![Relaxation::HostSocket(path.clone())],
            ..shell("touch ran", UID, world.directory.path())
        };
        let error = world.launch(&spec).expect_err("no socket").to_string();
        let begin = format!("the policy opens the host's socket {}", path.display());
        assert!(error.starts_with(&begin), "{error}");
        assert!(error.contains("`sandbox.relax`"), "{error}");
    }
    assert!(!world.file("ran").exists());
}
