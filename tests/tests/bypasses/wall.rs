//! The second wall: what LSM programs stop where the kernel lets them run. The
//! hostile process here is root with every capability and no system call filter,
//! moved into a sandbox by hand with everything that it had before.

use crate::policy::ONE_NAME;
use crate::scene::{answer, device, hexadecimal, rest, until_pause, world};
use egress_tests::World;
use egress_tests::address::FORBIDDEN_V4;
use egress_tests::feature::{Feature, granted};
use egress_tests::process::Running;
use egress_tests::product::Agent;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Lets the probe begin these steps outside of every sandbox, as root.
fn outside(world: &World, steps: &[&str]) -> Running {
    let mut command = Command::new(world.probe());
    command.args(steps);
    let started = world.near.run(|| Running::start(&mut command));
    started.expect("the probe starts")
}

/// The cgroup of a sandbox that runs, and its agent's word about the wall.
fn sandbox(agent: &Agent<'_>, name: &str) -> PathBuf {
    let mount = egress_tests::cgroup::mount().expect("cgroup2");
    mount.join(agent.root()).join(name)
}

#[test]
fn the_second_wall_stands_where_the_kernel_lets_it_and_says_why_where_not() {
    let Some(world) = world("bypass: second wall") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let status = answer(&agent, &["status", "-o", "json"]);
    let told = status["lsm"].as_str().expect("a word about it");
    if Feature::LsmPrograms.is_there() {
        assert_eq!(
            told,
            "in force: socket_create, socket_connect, socket_sendmsg, file_receive, \
             ptrace_access_check, bpf, inode_permission"
        );
    } else {
        assert!(told.starts_with("not usable here: "), "{told}");
        assert!(told.len() > "not usable here: ".len() + 10, "{told}");
    }
    let mut run = agent.probe("s", "one-name", &["resolve allowed.example", "pause"]);
    until_pause(&mut run)[0].succeeded();
}

#[test]
fn a_process_that_is_moved_in_uses_nothing_that_it_brought() {
    if !granted("bypass: moved process", Feature::LsmPrograms) {
        return;
    }
    let Some(world) = world("bypass: moved process") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let mut resident = agent.probe("s", "one-name", &["pause"]);
    until_pause(&mut resident);
    let cgroup = sandbox(&agent, "s");
    let mut victim = outside(&world, &["open u udp4", "pause"]);
    until_pause(&mut victim);
    let victim_id = victim.pid();
    let meeting = world.fresh_directory().join("hand-over.sock");
    let giver = outside(
        &world,
        &["open s udp4", &format!("give s {}", meeting.display())],
    );

    let above = cgroup.parent().expect("the root");
    let procs = format!("write {}", above.join("cgroup.procs").display());
    let open_cgroup = format!(
        "call-as c {} -100 text:{} {}",
        libc::SYS_openat,
        above.display(),
        libc::O_DIRECTORY,
    );
    let pidfd = format!("call-as q {} {victim_id} 0", libc::SYS_pidfd_open);
    let getfd = format!("call-as taken {} fd:q 3 0", libc::SYS_pidfd_getfd);
    let memory = format!("write /proc/{victim_id}/mem");
    let ask_bpf = format!("call {} 11 bytes:{} 12", libc::SYS_bpf, "00".repeat(12));
    let send = format!("send-to u {FORBIDDEN_V4}:443 secret");
    let connect = format!("connect t {FORBIDDEN_V4}:443");
    let fixed = format!("call {} fd:c 200", libc::SYS_dup2);
    // `struct sockaddr_ll` to everybody on the device.
    let mut to_everybody = vec![17, 0, 8, 0];
    to_everybody.extend(device(&world).to_ne_bytes());
    to_everybody.extend([0, 0, 0, 6, 255, 255, 255, 255, 255, 255, 0, 0]);
    let frame = format!(
        "send-raw p {} secret-frame-of-some-length",
        hexadecimal(&to_everybody)
    );
    // `struct clone_args`: CLONE_INTO_CGROUP, SIGCHLD, descriptor 200.
    let mut clone = [0_u64; 11];
    (clone[0], clone[4], clone[10]) = (0x2_0000_0000, 17, 200);
    let clone: Vec<u8> = clone.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let clone = format!("call {} bytes:{} 88", libc::SYS_clone3, hexadecimal(&clone));
    let seize = format!("call {} 16902 {victim_id} 0 0", libc::SYS_ptrace);
    let take = format!("take s {}", meeting.display());

    let before = [
        "open u udp4",
        "open t tcp4",
        "make p 17 3 0",
        &open_cgroup,
        &fixed,
        &pidfd,
        &getfd,
        &procs,
        &memory,
        &ask_bpf,
        "pause",
    ];
    let after = [
        &send,
        &connect,
        &frame,
        "make p2 17 3 0",
        "make v 40 1 0",
        &getfd,
        &take,
        &procs,
        &clone,
        &memory,
        &seize,
        &ask_bpf,
    ];
    let mut steps = before.to_vec();
    steps.extend(after);
    let mut mover = outside(&world, &steps);
    // Before it is moved, root can do all of it.
    for attempt in until_pause(&mut mover) {
        attempt.succeeded();
    }
    std::fs::write(cgroup.join("cgroup.procs"), mover.pid().to_string()).expect("root may move it");
    let attempts = rest(mover);
    assert_eq!(attempts.len(), after.len(), "{attempts:#?}");
    for attempt in &attempts {
        if attempt.step == take {
            // The message comes, and without what it carried.
            assert!(
                attempt.failed().contains("no descriptor came"),
                "{attempt:?}"
            );
        } else if attempt.step == memory {
            attempt.refused_with(libc::EACCES);
        } else {
            attempt.refused();
        }
    }
    drop((giver, victim));
    world.settle();
    world.nothing_escaped(&[]);
    let status = answer(&agent, &["status", "-o", "json"]);
    let counted = |hook: &str| status["counters"][format!("lsm_{hook}")].as_u64();
    for hook in [
        "socket_create",
        "socket_sendmsg",
        "file_receive",
        "bpf",
        "inode_permission",
    ] {
        assert!(counted(hook) > Some(0), "{hook}: {status}");
    }
    rest(resident);
}

#[test]
fn the_second_wall_is_put_back_and_outlives_its_agent() {
    if !granted("bypass: second wall lasts", Feature::LsmPrograms) {
        return;
    }
    let Some(world) = world("bypass: second wall lasts") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let mut resident = agent.probe("s", "one-name", &["pause"]);
    until_pause(&mut resident);
    let cgroup = sandbox(&agent, "s");
    let root = cgroup.parent().expect("the root").to_owned();
    let taken = egress_tests::bpf::detach_lsm_programs(&root).expect("root may");
    assert!(taken >= 7, "{taken} programs were taken out");
    let again = || egress_tests::bpf::lsm_programs(&root).is_ok_and(|ids| ids.len() >= taken);
    let mut waited = Duration::ZERO;
    while !again() {
        assert!(waited < Duration::from_secs(60), "it was not put back");
        std::thread::sleep(Duration::from_millis(100));
        waited += Duration::from_millis(100);
    }
    agent.kill();
    let send = format!("send-to u {FORBIDDEN_V4}:443 secret");
    let mut mover = outside(&world, &["open u udp4", "pause", &send]);
    until_pause(&mut mover);
    std::fs::write(cgroup.join("cgroup.procs"), mover.pid().to_string()).expect("root may move it");
    rest(mover)[0].refused();
    world.nothing_escaped(&[]);
    agent.launch();
    let status = answer(&agent, &["status", "-o", "json"]);
    let told = status["lsm"].as_str();
    assert!(
        told.is_some_and(|told| told.starts_with("in force: ")),
        "{status}"
    );
    let ids = egress_tests::bpf::lsm_programs(&root).expect("a list");
    assert_eq!(
        ids.len(),
        taken,
        "the next agent's in place of the last one's"
    );
}
