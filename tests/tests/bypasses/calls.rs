//! System calls that make the kernel or another process act instead.

use crate::policy::ONE_NAME;
use crate::scene::{attempt, world};

#[test]
fn calls_that_make_others_act_are_refused() {
    let Some(world) = world("bypass: system calls") else {
        return;
    };
    let block = format!("bytes:{}", "00".repeat(128));
    let (new_user, new_net) = (libc::CLONE_NEWUSER, libc::CLONE_NEWNET);
    #[rustfmt::skip]
    let calls = [
        ("io_uring_setup", libc::SYS_io_uring_setup, format!("8 {block}")),
        ("keyctl", libc::SYS_keyctl, "0 -3 1".into()),
        ("request_key", libc::SYS_request_key, "text:dns_resolver text:exfil.example text: 0".into()),
        ("add_key", libc::SYS_add_key, "text:user text:a text:b 1 -3".into()),
        ("bpf", libc::SYS_bpf, format!("0 {block} 128")),
        ("perf_event_open", libc::SYS_perf_event_open, format!("{block} 0 -1 -1 0")),
        ("ptrace", libc::SYS_ptrace, "16 1 0 0".into()),
        ("process_vm_readv", libc::SYS_process_vm_readv, "1 0 0 0 0 0".into()),
        ("process_vm_writev", libc::SYS_process_vm_writev, "1 0 0 0 0 0".into()),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, "0 0 0".into()),
        ("setns", libc::SYS_setns, "0 0".into()),
        ("unshare of users", libc::SYS_unshare, new_user.to_string()),
        ("unshare of networks", libc::SYS_unshare, new_net.to_string()),
        ("mount of cgroup2", libc::SYS_mount, "text:none text:/tmp text:cgroup2 0 0".into()),
        ("mount of NFS", libc::SYS_mount, "text:a:/b text:/tmp text:nfs 0 text:addr=203.0.113.66".into()),
        ("fsopen", libc::SYS_fsopen, "text:cgroup2 0".into()),
    ];
    let steps: Vec<String> = calls
        .iter()
        .map(|(_, number, arguments): &(&str, i64, String)| format!("call {number} {arguments}"))
        .collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, ONE_NAME, &steps);
    for (index, (name, ..)) in calls.iter().enumerate() {
        let attempt = &outcome[index];
        assert_eq!(attempt.errno, Some(libc::EPERM), "{name}: {attempt:?}");
    }
    world.nothing_escaped(&[]);
}

#[test]
fn clone3_is_unknown_so_that_its_flags_need_not_be_read() {
    let Some(world) = world("bypass: clone3") else {
        return;
    };
    let step = format!("call {} bytes:{} 88", libc::SYS_clone3, "00".repeat(88));
    attempt(&world, ONE_NAME, &[&step])[0].refused_with(libc::ENOSYS);
}

#[test]
fn the_kernel_cannot_be_steered_through_files() {
    let Some(world) = world("bypass: control files") else {
        return;
    };
    let files = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/unified/cgroup.procs",
        "/sys/fs/bpf/egress",
        "/proc/1/mem",
    ];
    let steps = files.map(|file| format!("write {file}"));
    let outcome = attempt(&world, ONE_NAME, &steps.each_ref().map(String::as_str));
    for step in 0..files.len() {
        outcome[step].failed();
    }
}
