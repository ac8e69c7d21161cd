//! Techniques that a review of the whole found, each in its own words.

use crate::policy::{ONE_NAME, ONE_NAME_UDP};
use crate::scene::{attempt, rest, through_v4, through_v6, until_pause, world};
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6};
use egress_tests::product::{Agent, binary};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

/// A policy under which the command is root.
fn as_root(policy: &str) -> String {
    format!("{policy}\nsandbox:\n  user: root\n")
}

#[test]
fn the_resolver_is_not_asked_in_datagrams_that_are_cut_from_one() {
    let Some(world) = world("bypass: UDP_SEGMENT to the resolver") else {
        return;
    };
    // Sixty-four for the price of one, in the queue that all share.
    let many = "aaaa".repeat(64);
    let control = |to: &str| format!("send-control c 0 {to} 17 103 0400 {many}");
    let steps = [
        "open u udp4",
        "connect u 127.0.0.1:53",
        "option u 17 103 04000000",
        &format!("send u {many}"),
        "send u aaaa",
        "open c udp4",
        &control("192.0.2.1:53"),
        "open v udp6",
        "option v 17 103 04000000",
        &format!("send-to v [2001:db8:99::1]:53 {many}"),
        "dns-udp 192.0.2.1:53 A allowed.example",
    ];
    let outcome = attempt(&world, ONE_NAME, &steps);
    for step in [3, 6, 9] {
        outcome[step].refused();
    }
    outcome[4].succeeded();
    outcome[10].succeeded();
    world.nothing_escaped(&[]);
}

#[test]
fn one_call_with_many_addresses_is_judged_for_each() {
    let Some(world) = world("bypass: sendmmsg") else {
        return;
    };
    let (good, bad) = (format!("{ALLOWED_V4}:4433"), format!("{FORBIDDEN_V4}:4433"));
    let steps = [
        "resolve allowed.example",
        "open u udp4",
        &format!("send-many u hello {good} {bad} {good}"),
        &format!("send-many u secret {bad} {good}"),
        &format!("connect u {good}"),
        &format!("send-many u secret {bad}"),
    ];
    let outcome = attempt(&world, ONE_NAME_UDP, &steps);
    assert_eq!(outcome[2].succeeded(), "1", "it ends before the second");
    outcome[3].refused();
    outcome[5].refused();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 4433))]);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn a_socket_that_changes_its_peer_while_another_thread_sends_stays_judged() {
    let Some(world) = world("bypass: race of connect and send") else {
        return;
    };
    let mut steps = vec!["resolve allowed.example".to_owned()];
    for (kind, good, bad) in [
        (
            "udp4",
            format!("{ALLOWED_V4}:4433"),
            format!("{FORBIDDEN_V4}:4433"),
        ),
        (
            "udp6",
            format!("[{ALLOWED_V6}]:4433"),
            format!("[{FORBIDDEN_V6}]:4433"),
        ),
    ] {
        steps.push(format!("open s {kind}"));
        steps.push(format!("race s {good} {bad} 1500 racing"));
    }
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, ONE_NAME_UDP, &steps);
    for step in [2, 4] {
        let taken = outcome[step].succeeded();
        assert_ne!(taken, "0", "nothing was sent at all: {outcome:#?}");
    }
    let open = [
        SocketAddr::from((ALLOWED_V4, 4433)),
        SocketAddr::from((ALLOWED_V6, 4433)),
    ];
    world.nothing_escaped(&open);
    assert!(world.sniffer.saw(|packet| packet.carries(b"racing")));
}

#[test]
fn data_in_a_handshake_with_port_53_reaches_the_resolver_only() {
    let Some(world) = world("bypass: fast open to port 53") else {
        return;
    };
    let bad = format!("{FORBIDDEN_V4}:53");
    let steps = [
        "open t tcp4",
        &format!("send-flags t {} {bad} secret", libc::MSG_FASTOPEN),
        "open d tcp4",
        // TCP_FASTOPEN_CONNECT: the handshake waits for the first data.
        "option d 6 30 01000000",
        &format!("connect d {bad}"),
        "send d secret",
        "open e tcp6",
        &format!(
            "send-flags e {} [{FORBIDDEN_V6}]:53 secret",
            libc::MSG_FASTOPEN
        ),
    ];
    attempt(&world, ONE_NAME, &steps);
    world.nothing_escaped(&[]);
}

#[test]
fn a_device_that_is_chosen_in_a_control_message_opens_no_address() {
    let Some(world) = world("bypass: PKTINFO in control messages") else {
        return;
    };
    let device = crate::scene::device(&world);
    let [four, six] = [through_v4(device), through_v6(device)];
    let control = |socket: &str, to: &str, level: u8, kind: u8, data: &str| {
        format!("send-control {socket} 0 {to} {level} {kind} {data} secret")
    };
    let steps = [
        "open a udp4".to_owned(),
        control("a", &format!("{FORBIDDEN_V4}:4433"), 0, 8, &four),
        "open b udp6".to_owned(),
        control("b", &format!("[{FORBIDDEN_V6}]:4433"), 41, 50, &six),
        control("b", &format!("[::ffff:{FORBIDDEN_V4}]:4433"), 0, 8, &four),
        // IPV6_2292PKTINFO, the older number of the same.
        control("b", &format!("[{FORBIDDEN_V6}]:4433"), 41, 2, &six),
        // An allowed address is open through it: the ledger's residual.
        "resolve allowed.example".to_owned(),
        control("a", &format!("{ALLOWED_V4}:4433"), 0, 8, &four).replace("secret", "hello"),
    ];
    let outcome = attempt(&world, ONE_NAME_UDP, &steps.each_ref().map(String::as_str));
    for step in [1, 3, 4, 5] {
        outcome[step].refused();
    }
    outcome[7].succeeded();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 4433))]);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn numbers_that_are_wider_than_the_kernel_reads_them_match_all_the_same() {
    let Some(world) = world("bypass: wide numbers") else {
        return;
    };
    let wide = |number: i64| number | 1 << 32;
    let steps = [
        format!("call {} 0 {} text:x", libc::SYS_ioctl, wide(0x5412)),
        format!("call {} 0 {} text:x", libc::SYS_ioctl, wide(0x541c)),
        format!("call {} {} 3 0", libc::SYS_socket, wide(17)),
        format!("call {} {} 3 {}", libc::SYS_socket, wide(16), wide(2)),
        format!(
            "call {} {}",
            libc::SYS_unshare,
            wide(i64::from(libc::CLONE_NEWUSER))
        ),
    ];
    let outcome = attempt(&world, ONE_NAME, &steps.each_ref().map(String::as_str));
    for step in 0..steps.len() {
        outcome[step].refused();
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn system_calls_of_other_tables_are_refused() {
    let Some(world) = world("bypass: foreign tables") else {
        return;
    };
    /// Where the numbers of x32 begin.
    const X32: i64 = 0x4000_0000;
    let steps = [
        format!("call {} 17 3 0", X32 + libc::SYS_socket),
        format!("call {} 8 0", X32 + libc::SYS_io_uring_setup),
    ];
    let outcome = attempt(&world, ONE_NAME, &steps.each_ref().map(String::as_str));
    outcome[0].refused_with(libc::ENOSYS);
    outcome[1].refused_with(libc::ENOSYS);
    // `socket` is 359 there. Whoever tries is killed, so there is no report.
    let outcome = world
        .sandbox(ONE_NAME)
        .attempt(&["status Uid", "call-32 359 17 3 0"]);
    assert_eq!(outcome.attempts.len(), 1, "{outcome:#?}");
    // The probe itself can do it, outside.
    let status = std::process::Command::new(binary("egress-probe"))
        .arg("call-32 20")
        .status();
    // `getpid`; some hosts are built without that table.
    assert!(status.is_ok_and(|status| status.success() || status.code().is_none()));
}

#[test]
fn programs_with_rights_of_their_own_get_none() {
    let Some(world) = world("bypass: setuid and file capabilities") else {
        return;
    };
    let own = world.fresh_directory();
    let copy = |name: &str| {
        let path = own.join(name);
        fs::copy(world.probe(), &path).expect("writable");
        path
    };
    let (insists, able, setuid) = (copy("insists"), copy("able"), copy("setuid"));
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).expect("root may");
    // `struct vfs_cap_data`, second version: NET_ADMIN, NET_RAW, SYS_ADMIN; the first
    // program wants them in effect at once, the other one would take them itself.
    for (program, effective) in [(&insists, 1), (&able, 0)] {
        let mut rights = (0x0200_0000_u32 | effective).to_le_bytes().to_vec();
        rights.extend((1_u32 << 12 | 1 << 13 | 1 << 21).to_le_bytes());
        rights.extend([0; 12]);
        let flags = rustix::fs::XattrFlags::empty();
        let set = rustix::fs::setxattr(program, "security.capability", &rights, flags);
        set.expect("root may, on this file system");
    }
    let sandbox = world.sandbox(ONE_NAME);
    let run = |program: &std::path::Path| {
        let program = program.to_str().expect("text");
        let steps = [
            "status CapPrm",
            "status Uid",
            "status NoNewPrivs",
            "make r 2 3 1",
            "make p 17 3 0",
        ];
        egress_tests::Outcome::of(sandbox.run(std::iter::once(program).chain(steps)))
    };
    // The kernel starts no program without what it insists on.
    let outcome = run(&insists);
    assert_eq!(outcome.attempts.len(), 0, "{outcome:#?}");
    assert!(outcome.errors.contains("cannot be run"), "{outcome:#?}");
    for program in [&able, &setuid] {
        let outcome = run(program);
        assert_eq!(outcome[0].succeeded(), "0000000000000000");
        let uids = outcome[1].succeeded();
        assert!(uids.split_whitespace().all(|uid| uid != "0"), "{uids}");
        assert_eq!(outcome[2].succeeded(), "1");
        outcome[3].refused();
        outcome[4].refused();
    }
}

#[test]
fn root_inside_does_not_change_what_the_agent_obeys_or_keeps() {
    let Some(world) = world("bypass: the agent's own files") else {
        return;
    };
    let policy = as_root(ONE_NAME);
    let agent = Agent::start(&world, &[("one-name", &policy)]);
    let policies = agent.directory().join("policies.d");
    let (file, state) = (policies.join("one-name.yaml"), agent.state());
    let path = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let steps = [
        "status Uid".to_owned(),
        format!("write {}", path(&file)),
        // O_CREAT | O_WRONLY, then renaming, linking and mounting over.
        format!(
            "call {} text:{}/more.yaml 65 420",
            libc::SYS_open,
            path(&policies)
        ),
        format!(
            "call {} text:{} text:{}/x",
            libc::SYS_rename,
            path(&file),
            path(&policies)
        ),
        format!(
            "call {} text:{} text:{}.away",
            libc::SYS_rename,
            path(&policies),
            path(&policies)
        ),
        format!("call {} text:{}", libc::SYS_unlink, path(&file)),
        format!("read {}/audit.db", path(&state)),
        format!("read {}/audit.key", path(&state)),
        format!("call {} text:{}/x 65 420", libc::SYS_open, path(&state)),
        format!("call {} text:{} 0", libc::SYS_umount2, path(&policies)),
        "write /dev/kmsg".to_owned(),
        format!(
            "call {} text:/sys/kernel/config/netconsole/x 493",
            libc::SYS_mkdir
        ),
        "pause".to_owned(),
    ];
    let before = fs::read_to_string(&file).expect("it is there");
    let mut run = agent.probe("rooted", "one-name", &steps.each_ref().map(String::as_str));
    let attempts = until_pause(&mut run);
    assert!(attempts[0].succeeded().starts_with('0'), "{attempts:?}");
    for attempt in &attempts[1..] {
        attempt.failed();
    }
    rest(run);
    assert_eq!(
        fs::read_to_string(&file).expect("it is still there"),
        before
    );
    let names = fs::read_dir(&policies).expect("readable").count();
    assert_eq!(names, 1);
    // And of an agent for one command, whose policy is a file of the user's.
    let sandbox = world.sandbox(&policy);
    let steps = [
        format!("write {}", path(sandbox.policy())),
        format!("read {}/audit.db", path(sandbox.state())),
    ];
    let outcome = sandbox.attempt(&steps.each_ref().map(String::as_str));
    outcome[0].failed();
    outcome[1].failed();
}
