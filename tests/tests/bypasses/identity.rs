//! Who asks and who answers: one sandbox in the place of another, or of the
//! resolver, and one sandbox at the cost of another.

use crate::policy::{ONE_NAME, SECOND_NAME};
use crate::scene::{answer, attempt, rest, until_pause, world};
use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4};
use egress_tests::process::Running;
use egress_tests::product::{Agent, Outcome};

/// Where an agent's resolver listens on IPv4.
fn resolver(agent: &Agent<'_>) -> String {
    let status = answer(agent, &["status", "-o", "json"]);
    status["resolver"][0]
        .as_str()
        .unwrap_or_else(|| panic!("no resolver in {status}"))
        .to_owned()
}

/// What a probe that does not pause reports.
fn rest_of(run: Running) -> Vec<egress_tests::Attempt> {
    Outcome::of(run).attempts
}

fn agents(world: &World) -> [Agent<'_>; 2] {
    [
        Agent::start(world, &[("one-name", ONE_NAME)]),
        Agent::start(world, &[("second-name", SECOND_NAME)]),
    ]
}

#[test]
fn a_sandbox_of_another_agent_does_not_take_the_place_of_a_dead_resolver() {
    let Some(world) = world("bypass: impostor resolver") else {
        return;
    };
    let [mut first, second] = agents(&world);
    let port = resolver(&first);
    let steps = ["pause", "open u udp4", "send-to u 127.0.0.1:53 secret"];
    let mut client = first.probe("client", "one-name", &steps);
    until_pause(&mut client);
    first.kill();
    let steps = [
        "open l udp4",
        &format!("bind l {port}"),
        "pause",
        "receive l",
    ];
    let mut impostor = second.probe("impostor", "second-name", &steps);
    let taken = until_pause(&mut impostor);
    taken[1].succeeded();
    rest(client)[1].refused();
    let heard = rest(impostor);
    assert!(!heard[0].ok, "the impostor heard {heard:?}");
}

#[test]
fn the_resolver_of_another_agent_answers_no_stranger() {
    let Some(world) = world("bypass: another's resolver") else {
        return;
    };
    let [first, second] = agents(&world);
    let [own, other] = [&first, &second].map(resolver);
    let mut resident = second.probe("resident", "second-name", &["pause"]);
    until_pause(&mut resident);
    let steps = [
        &format!("dns-udp {other} A second.example"),
        &format!("dns-tcp {other} A second.example"),
        // Its own, asked without the way over port 53, knows who asks.
        &format!("dns-udp {own} A allowed.example"),
        &format!("dns-udp {own} A second.example"),
    ];
    let run = first.probe("client", "one-name", &steps.map(String::as_str));
    let answers = rest_of(run);
    answers[0].failed();
    answers[1].failed();
    for answer in &answers {
        assert!(!answer.detail.contains("203.0.113.20"), "{answer:?}");
    }
    assert!(!world.dns.heard_of("second.example"));
    rest(resident);
}

#[test]
fn the_agents_user_id_and_mark_open_nothing() {
    let Some(world) = world("bypass: user id and mark") else {
        return;
    };
    let policy = format!("{ONE_NAME}\nsandbox:\n  user: root\n");
    let mark = (1_u32..=8).map(|mark| format!("option u 1 36 {:02x}000000", mark));
    let send = format!("send-to u {FORBIDDEN_V4}:443 secret");
    let connect = format!("tcp-exchange {FORBIDDEN_V4}:443 secret");
    let mut steps: Vec<String> = vec!["status Uid".into(), "open u udp4".into()];
    steps.extend(mark);
    steps.extend([
        send,
        connect,
        "dns-udp 127.0.0.1:53 A forbidden.example".into(),
    ]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let outcome = attempt(&world, &policy, &steps);
    assert!(outcome[0].succeeded().starts_with('0'), "{outcome:?}");
    for step in 2..12 {
        outcome[step].refused();
    }
    assert!(!world.dns.heard_of("forbidden.example"));
    world.nothing_escaped(&[]);
}

#[test]
fn a_cgroup_that_is_made_again_under_a_name_has_nothing_of_the_last_one() {
    let Some(world) = world("bypass: cgroup made again") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let first = agent.probe("again", "one-name", &["resolve allowed.example"]);
    rest_of(first)[0].succeeded();
    let mount = egress_tests::cgroup::mount().expect("cgroup2");
    let directory = mount.join(agent.root()).join("again");
    assert!(!directory.exists(), "the sandbox has ended");
    std::fs::create_dir(&directory).expect("root may make it");
    let steps = [
        "pause",
        &format!("tcp-exchange {ALLOWED_V4}:443 secret"),
        "dns-udp 127.0.0.1:53 A allowed.example",
        "open u udp4",
        &format!("send-to u {ALLOWED_V4}:443 secret"),
    ];
    let mut command = std::process::Command::new(world.probe());
    command.args(steps);
    let started = world.near.run(|| Running::start(&mut command));
    let mut mover = started.expect("the probe starts");
    until_pause(&mut mover);
    std::fs::write(directory.join("cgroup.procs"), mover.pid().to_string())
        .expect("root may move it");
    let attempts = rest(mover);
    attempts[0].refused();
    attempts[1].failed();
    attempts[3].refused();
    world.nothing_escaped(&[]);
}

#[test]
fn a_flood_of_queries_does_not_keep_another_sandbox_from_resolving() {
    let Some(world) = world("bypass: flood of queries") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    // The least favoured class of the scheduler: whoever has work to do comes
    // first, so that what is judged is the queue and not the number of processors.
    let idle = format!(
        "call {} 0 {} bytes:00000000",
        libc::SYS_sched_setscheduler,
        libc::SCHED_IDLE
    );
    let flood = [
        idle.as_str(),
        "open u udp4",
        "connect u 127.0.0.1:53",
        "pause",
        "flood u 600000",
    ];
    let mut hostile: Vec<_> = ["hostile-1", "hostile-2"]
        .map(|name| agent.probe(name, "one-name", &flood))
        .into();
    hostile.iter_mut().for_each(|run| {
        until_pause(run);
    });
    // One query each, without a second try as the C library would make it, and
    // with more patience than any machine needs: what was dropped never comes.
    let ask = "dns-udp-once 127.0.0.1:53 A allowed.example";
    let mut steps = vec!["pause"];
    steps.extend([ask; 10]);
    let mut other = agent.probe("other", "one-name", &steps);
    until_pause(&mut other);
    for run in &mut hostile {
        run.say("go on").expect("the probe waits");
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let answers = rest(other);
    let answered = answers.iter().filter(|attempt| attempt.ok).count();
    drop(hostile);
    // Where on the way they were lost, if they were.
    let read = |file: &str| world.near.run(|| std::fs::read_to_string(file));
    let (kernel, backlog) = (
        read("/proc/thread-self/net/snmp"),
        read("/proc/net/softnet_stat"),
    );
    assert!(
        answered >= 9,
        "{answered} of 10 were answered: {answers:#?}\n{:#}\n{}\n{}",
        agent.status()["counters"],
        kernel.unwrap_or_default(),
        backlog.unwrap_or_default()
    );
}

#[test]
fn a_flood_of_queries_while_the_agent_stands_still_loses_nothing_of_another_sandbox() {
    let Some(world) = world("bypass: flood of a resolver that does not read") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let flood = [
        "open u udp4",
        "connect u 127.0.0.1:53",
        "open v udp6",
        "connect v [::1]:53",
        "pause",
        "flood u 3000",
        "flood v 500",
        "pause",
    ];
    let mut hostile: Vec<_> = ["hostile-1", "hostile-2"]
        .map(|name| agent.probe(name, "one-name", &flood))
        .into();
    let ask = "dns-udp-once 127.0.0.1:53 A allowed.example";
    let mut other = agent.probe("other", "one-name", &[ask, "pause", ask, "pause"]);
    until_pause(&mut other)[0].succeeded();
    for run in &mut hostile {
        until_pause(run);
    }
    agent.signal(rustix::process::Signal::STOP);
    for run in &mut hostile {
        run.say("go on").expect("the probe waits");
    }
    let mut sent = Vec::new();
    for run in &mut hostile {
        let attempts = until_pause(run);
        sent.extend(attempts.iter().map(|flood| flood.succeeded().to_owned()));
    }
    // Whatever the gate let pass waits in the queues now, and the query of the
    // other one comes last.
    other.say("go on").expect("the probe waits");
    std::thread::sleep(std::time::Duration::from_millis(500));
    agent.signal(rustix::process::Signal::CONT);
    until_pause(&mut other)[0].succeeded();
    // No sandbox had more than two budgets in both queues together.
    for pair in sent.chunks(2) {
        let sent: u64 = pair
            .iter()
            .map(|n| n.parse::<u64>().expect("a number"))
            .sum();
        assert!((1..=1000).contains(&sent), "{pair:?}");
    }
    rest(other);
    hostile.into_iter().for_each(|run| {
        rest(run);
    });
}
