//! Plans of what a command sees.

use super::{ResolvConf, Target, View, hidden_directories, normal, sockets_with_a_path, target};
use crate::sandbox::mount_table::Mount;
use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

#[test]
fn control_file_systems_are_hidden_wherever_they_are_and_only_the_outermost() {
    let dir = tempfile::tempdir().expect("a directory");
    let inner = dir.path().join("inner");
    std::fs::create_dir(&inner).expect("a directory");
    let (hosts, homes) = (dir.path().join("net"), dir.path().join("home"));
    for path in [&hosts, &homes] {
        std::fs::create_dir(path).expect("a directory");
    }
    let mount = |point: &Path, kind: &str, source: &str| Mount {
        root: "/".into(),
        point: point.to_owned(),
        kind: kind.to_owned(),
        source: source.into(),
        read_only: false,
    };
    let maps = [
        mount(&hosts, "autofs", "-hosts"),
        mount(&homes, "autofs", "/etc/auto.home"),
    ];
    let hidden = hidden_directories(&maps);
    assert!(
        hidden.contains(&hosts),
        "any name below it calls on a server"
    );
    assert!(!hidden.contains(&homes));
    let table = [
        mount(&inner, "bpf", "bpf"),
        mount(dir.path(), "cgroup2", "cgroup2"),
        mount(Path::new("/usr"), "ext4", "/dev/vda"),
    ];
    let hidden = hidden_directories(&table);
    assert!(hidden.contains(dir.path()));
    assert!(hidden.contains(Path::new("/run")));
    assert!(!hidden.contains(&inner));
    assert!(!hidden.contains(Path::new("/usr")));
}

#[test]
fn what_is_the_agents_own_is_emptied_or_read_only_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        let path = dir.path().canonicalize().expect("it is there").join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    };
    let (state, inner, policies) = (place("state"), place("state/inner"), place("policies"));
    let hidden = [
        state.clone(),
        inner.clone(),
        "/nonexistent".into(),
        "/proc/1".into(),
    ];
    let read_only = [policies.clone(), inner, "/nonexistent".into(), "/".into()];
    let view = View::default()
        .without(&hidden, &read_only)
        .expect("a plan");
    let path = |path: &PathBuf| super::path_of(path.clone()).expect("a path");
    assert_eq!(view.hidden_directories, [path(&state)]);
    assert_eq!(view.read_only, [path(&policies)]);
}

#[test]
fn sockets_with_a_path_are_found_in_the_table() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a socket");
    let _listener = UnixListener::bind(&path).expect("a socket");
    let table = std::fs::read("/proc/net/unix").expect("the table");
    assert!(sockets_with_a_path(&table, &BTreeSet::new()).contains(&path));
    let hidden = BTreeSet::from([dir.path().to_owned()]);
    assert!(!sockets_with_a_path(&table, &hidden).contains(&path));
}

#[test]
fn resolv_conf_is_planned_for_where_it_really_lies() {
    let plan = |host| {
        let mut view = View::default();
        view.set_resolv_conf("text".to_owned(), host)
            .expect("a plan");
        view
    };
    assert_eq!(plan(Target::Missing), View::default());
    let plain = plan(Target::At("/etc/resolv.conf".into()));
    assert_eq!(
        plain.resolv_conf,
        Some(ResolvConf {
            file: c"/run/resolv.conf".to_owned(),
            content: b"text".to_vec(),
            covers: Some(c"/etc/resolv.conf".to_owned()),
        })
    );
    let linked = plan(Target::At("/run/systemd/resolve/stub-resolv.conf".into()));
    assert_eq!(
        linked.run_directories,
        [
            c"/run/systemd".to_owned(),
            c"/run/systemd/resolve".to_owned()
        ]
    );
    assert_eq!(linked.resolv_conf.expect("planned").covers, None);
}

#[test]
fn links_into_run_are_followed_even_when_they_dangle() {
    let dir = tempfile::tempdir().expect("a directory");
    let link = dir.path().join("resolv.conf");
    for to in [
        "/run/nobody/resolv.conf",
        "/var/run/nobody/../nobody/resolv.conf",
    ] {
        std::os::unix::fs::symlink(to, &link).expect("a link");
        assert_eq!(
            target(&link),
            Target::At(PathBuf::from("/run/nobody/resolv.conf"))
        );
        std::fs::remove_file(&link).expect("removed");
    }
    assert_eq!(target(&link), Target::Missing);
    assert_eq!(normal(Path::new("/etc/../run/./a")), Path::new("/run/a"));
}
