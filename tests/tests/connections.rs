//! What a policy says about the connections of a sandbox: how many, how much waits
//! in them, and what they carried.

mod policy;

use egress_tests::World;
use egress_tests::address::{PORTS, SERVERS};
use egress_tests::operation::{Said, details};
use egress_tests::probe::{go_on, rest, until_pause};
use egress_tests::process::{Running, paced};
use egress_tests::product::Agent;
use policy::limited;
use std::process::Command;
use std::time::{Duration, Instant};

/// A shell that can connect to the far side, and knows how to say so.
fn connecting(script: &str) -> [String; 3] {
    let place = format!("/dev/tcp/{}/{}", SERVERS[0], PORTS[0]);
    // A refused connection must not end the shell that asked for it.
    let functions = format!(
        "try() {{ eval \"command exec $1<>{place}\" 2>/tmp/refused.$BASHPID && echo open || \
         grep -o -m 1 'Operation not permitted' /tmp/refused.$BASHPID; }}; shut() {{ eval \"exec $1>&-\"; }}; "
    );
    [
        "/bin/bash".into(),
        "-c".into(),
        format!("{functions}{script}"),
    ]
}

/// Starts such a shell in a sandbox.
fn run(agent: &Agent<'_>, script: &str) -> Running {
    let mut arguments = vec!["run", "--name", "s", "--policy", "limited", "--"];
    let command = connecting(script);
    arguments.extend(command.iter().map(String::as_str));
    agent.egressctl(&arguments).expect("egressctl starts")
}

fn at_most_two() -> String {
    limited("  max_connections: 2\n")
        + &format!(
            "allowlist:\n  web:\n    - {{ cidr: \"{}\", ports: [{}], protocols: [tcp] }}\n",
            SERVERS[0], PORTS[0]
        )
}

#[test]
fn a_sandbox_has_no_more_open_connections_than_its_limit() {
    let Some(world) = World::or_skip("limits: connections") else {
        return;
    };
    let sandbox = world.sandbox(&at_most_two());
    let script = "try 3; try 4; try 5; shut 3; try 5; shut 4; \
        for n in $(seq 60); do try 6 >/dev/null; shut 6; done; try 4; try 6; shut 4; shut 5; \
        for n in $(seq 12); do (try 7; sleep 8) & done | sort | uniq -c; wait";
    let said = Said::by(sandbox.run(connecting(script)));
    let lines: Vec<String> = said
        .succeeded()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let refused = "Operation not permitted";
    assert_eq!(
        lines,
        [
            "open",
            "open",
            refused,
            "open",
            "open",
            refused,
            "10 Operation not permitted",
            "2 open"
        ],
        "{said:#?}"
    );
    let records = sandbox.audit();
    let told = records
        .iter()
        .any(|record| record["reason"] == "too_many_connections" && record["verdict"] == "deny");
    assert!(told, "{records:#?}");
}

#[test]
fn the_next_agent_knows_how_many_connections_are_open() {
    let Some(world) = World::or_skip("limits: connections across a restart") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("limited", &at_most_two())]);
    let go = world.fresh_directory().join("go");
    let script = format!(
        "try 3; try 4; while [ ! -e {} ]; do sleep 0.05; done; try 5; shut 4; try 5",
        go.display()
    );
    let mut run = run(&agent, &script);
    assert_eq!(run.line().as_deref(), Some("open"));
    assert_eq!(run.line().as_deref(), Some("open"));
    agent.kill();
    agent.launch();
    std::fs::write(&go, "").expect("the directory is the world's");
    let said = Said::by(run);
    assert_eq!(
        said.succeeded(),
        "Operation not permitted\nopen",
        "{said:#?}"
    );
}

/// Half of it for each of two connections; less than twice what any kernel's
/// `net.core.wmem_max` is, so that the kernel gives it all.
const PENDING: u32 = 400_000;

fn with_pending_bound() -> String {
    let key = "max_connections: 2\n";
    at_most_two().replace(key, &format!("{key}  max_pending_bytes: {PENDING}\n"))
}

/// What the kernel says of a TCP connection of the near side to the first server.
#[derive(Debug)]
struct Queue {
    /// Bytes that were written and not sent.
    pending: u32,
    /// The most that may be, as it is set at the socket.
    bound: u32,
}

/// The connections of the near side to the first server, as `ss` shows them to
/// somebody outside of the sandbox.
fn queues(world: &World) -> Vec<Queue> {
    let to = SERVERS[0].to_string();
    let said = world.near.run(|| {
        Command::new("ss")
            .args(["-HtnmiO", "state", "established", "dst", &to])
            .output()
    });
    let said = said.expect("iproute2 is there");
    let text = String::from_utf8(said.stdout).expect("ss prints text");
    let queue = |line: &str| {
        let (_, memory) = line.split_once(",tb")?;
        Some(Queue {
            // Left out where there are none.
            pending: match line.split_once("notsent:") {
                Some((_, rest)) => rest.split_whitespace().next()?.parse().ok()?,
                None => 0,
            },
            bound: memory.split(',').next()?.parse().ok()?,
        })
    };
    text.lines()
        .map(|line| queue(line).unwrap_or_else(|| panic!("not understood: {line}")))
        .collect()
}

#[test]
fn no_more_waits_to_be_sent_than_the_policy_says() {
    /// A segment that the kernel had begun when the bound was reached.
    const BEGUN: u32 = 64 * 1024;
    /// What the server takes before it waits for its client is a fraction of this.
    const MUCH: u64 = 1 << 30;
    let Some(world) = World::or_skip("limits: pending bytes") else {
        return;
    };
    let agent = Agent::start(&world, &[("limited", &with_pending_bound())]);
    let fill = format!("head -c {MUCH} /dev/zero");
    // Not by `kill 0`: what else was started here is of the same process group.
    let script = format!(
        "try 3; try 4; {fill} >&3 & one=$!; {fill} >&4 & echo filling; read; kill $one $!; wait"
    );
    let mut run = run(&agent, &script);
    for word in ["open", "open", "filling"] {
        assert_eq!(run.line().as_deref(), Some(word));
    }
    // The server sends everything back, nobody reads that, and so it stops to read.
    let (mut most, mut last, mut quiet) = (0, Vec::new(), 0);
    let begun = Instant::now();
    while quiet < 10 {
        assert!(begun.elapsed() < paced(Duration::from_secs(60)), "{last:?}");
        std::thread::sleep(Duration::from_millis(20));
        let now = queues(&world);
        assert_eq!(now.len(), 2, "{now:?}");
        for queue in &now {
            assert_eq!(queue.bound, PENDING / 2, "{now:?}");
            most = most.max(queue.pending);
        }
        let pending: Vec<u32> = now.iter().map(|queue| queue.pending).collect();
        let is_full = pending.iter().all(|bytes| *bytes > PENDING / 4);
        quiet = if is_full && pending == last {
            quiet + 1
        } else {
            0
        };
        last = pending;
    }
    assert!(most <= PENDING / 2 + BEGUN, "{most} bytes waited");
    run.say("enough").expect("the shell waits");
    drop(run);
}

#[test]
fn a_sandbox_cannot_have_more_wait_than_the_policy_says() {
    const EPERM: i32 = 1;
    const EINVAL: i32 = 22;
    let Some(world) = World::or_skip("limits: the size of send buffers") else {
        return;
    };
    let agent = Agent::start(&world, &[("limited", &with_pending_bound())]);
    let four_mebibytes = "00004000";
    // The number, and more behind it than a program at the hook is shown.
    let long = format!("{four_mebibytes}{}", "00".repeat(5000));
    let connect = format!("connect a {}:{}", SERVERS[0], PORTS[0]);
    let larger = format!("option a 1 7 {four_mebibytes}");
    let longer = format!("option a 1 7 {long}");
    let steps = [
        "open a tcp4",
        &larger,
        &connect,
        "pause",
        &larger,
        "pause",
        &longer,
        "pause",
        // A negative number is a large one to the kernel.
        "option a 1 7 ffffffff",
        "pause",
        // SO_BUF_LOCK, by which the kernel would choose the size again.
        "option a 1 72 00000000",
        "pause",
        // 20,000, which the kernel doubles.
        "option a 1 7 204e0000",
        "pause",
        &larger,
        "pause",
        // Half a number, and what is no TCP socket: neither is the policy's affair.
        "option a 1 7 0040",
        "open u udp4",
        "option u 1 7 00004000",
        "option u 1 72 00000000",
        "pause",
    ];
    let mut run = agent.probe("s", "limited", &steps);
    let bound = |world: &World| {
        let queues = queues(world);
        assert_eq!(queues.len(), 1, "{queues:?}");
        queues[0].bound
    };
    for attempt in until_pause(&mut run) {
        attempt.succeeded();
    }
    assert_eq!(bound(&world), PENDING / 2, "set before it was connected");
    for what in ["larger", "longer", "negative"] {
        go_on(&mut run)[0].succeeded();
        assert_eq!(bound(&world), PENDING / 2, "{what}");
    }
    go_on(&mut run)[0].refused_with(EPERM);
    go_on(&mut run)[0].succeeded();
    assert_eq!(bound(&world), 40_000, "a sandbox may want less");
    go_on(&mut run)[0].succeeded();
    assert_eq!(bound(&world), PENDING / 2, "and all of it again");
    let others = go_on(&mut run);
    others[0].refused_with(EINVAL);
    for attempt in &others[1..] {
        attempt.succeeded();
    }
    assert_eq!(rest(run).len(), 0);
    assert!(agent.recorded(&["socket_option"]), "{:#?}", agent.audit());
}

#[test]
fn the_closing_record_has_the_bytes_where_they_are_counted() {
    const SENT: u64 = 300_000;
    let Some(world) = World::or_skip("limits: bytes") else {
        return;
    };
    let mut agent = Agent::prepare(&world, &[("limited", &at_most_two())]);
    agent.configure(&format!("count_bytes = true\n{}", agent.configuration()));
    agent.launch();
    let script =
        format!("try 3; head -c {SENT} /dev/zero >&3 & head -c {SENT} <&3 | wc -c; sleep 1");
    let said = Said::by(run(&agent, &script));
    assert_eq!(said.succeeded(), format!("open\n{SENT}"), "{said:#?}");
    assert!(
        agent.recorded(&["ended: ", " bytes sent, "]),
        "{:#?}",
        agent.audit()
    );
    let details = details(&agent.audit());
    let ended = details
        .iter()
        .find(|detail| detail.starts_with("ended: "))
        .unwrap_or_else(|| panic!("{details:#?}"));
    let bytes = |what: &str| -> u64 {
        let (before, _) = ended.split_once(what).unwrap_or_else(|| panic!("{ended}"));
        let number = before.rsplit(' ').next().unwrap_or_default();
        number.parse().unwrap_or_else(|_| panic!("{ended}"))
    };
    // Headers and acknowledgements come on top.
    for number in [bytes(" bytes sent"), bytes(" bytes received")] {
        assert!((SENT..SENT * 11 / 10).contains(&number), "{ended}");
    }
}
