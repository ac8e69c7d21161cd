//! An agent that finds what others made: their programs, another agent, a file
//! that is no audit store. It tells whose it is, and leaves it as it is.

mod policy;

use egress_tests::address::ALLOWED_V4;
use egress_tests::bpf::{Direction, Program, Sharing};
use egress_tests::operation::{Said, attached};
use egress_tests::probe::{go_on, rest, until_pause};
use egress_tests::product::{Agent, programs};
use egress_tests::{World, cgroup};
use std::fs;
use std::path::Path;

fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    Some(world)
}

fn prepared(world: &World) -> Agent<'_> {
    Agent::prepare(world, &[("one-name", policy::ONE_NAME)])
}

/// Asserts that an agent that was not started left no governed root.
#[track_caller]
fn no_root(agent: &Agent<'_>) {
    let root = agent.root_directory();
    assert!(!root.exists(), "{} was left behind", root.display());
}

#[test]
fn a_foreign_exclusive_program_stops_the_start_and_stays_alone() {
    let Some(world) = world("neighbours: exclusive program") else {
        return;
    };
    for direction in [Direction::Egress, Direction::Ingress] {
        let mut agent = prepared(&world);
        let root = agent.root_directory();
        fs::create_dir(&root).expect("root may make cgroups");
        let program = Program::load("night_watch", direction, None).expect("loaded");
        program
            .attach(&root, direction, Sharing::Exclusive)
            .expect("attached");
        Said::by(agent.begin())
            .failed_with(1, &["night_watch", "bpftool cgroup detach", "`multi`"]);
        // What was attached before the one that found no place is out again.
        assert_eq!(attached(&root), ["night_watch"]);
        cgroup::remove_all(&root);
        agent.launch();
        assert_eq!(agent.status()["state"], "enforcing");
    }
}

#[test]
fn a_foreign_program_that_shares_is_tolerated_and_told() {
    let Some(world) = world("neighbours: shared program") else {
        return;
    };
    let mut agent = prepared(&world);
    let root = agent.root_directory();
    fs::create_dir(&root).expect("root may make cgroups");
    let program = Program::load("day_watch", Direction::Egress, None).expect("loaded");
    program
        .attach(&root, Direction::Egress, Sharing::Multi)
        .expect("attached");
    agent.launch();
    let mut run = agent.probe(
        "s",
        "one-name",
        &[
            "named-exchange allowed.example 443 hi",
            "tcp-exchange 203.0.113.66:443 secret",
            "pause",
        ],
    );
    let attempts = until_pause(&mut run);
    attempts[0].succeeded();
    attempts[1].refused();
    rest(run);
    assert_eq!(attached(&root).len(), programs() + 1);
    // It says yes to everything, and overrules nothing.
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn programs_of_another_version_keep_enforcing() {
    let Some(world) = world("neighbours: another version") else {
        return;
    };
    let agent = prepared(&world);
    let root = agent.root_directory();
    fs::create_dir(&root).expect("root may make cgroups");
    let old = Program::load("egress", Direction::Egress, Some(("GRANTS", 64))).expect("loaded");
    old.attach(&root, Direction::Egress, Sharing::Multi)
        .expect("attached");
    Said::by(agent.begin()).failed_with(
        1,
        &[
            "another version",
            "GRANTS",
            "keep enforcing",
            "egressctl disarm --yes",
        ],
    );
    assert_eq!(attached(&root), ["egress"]);
}

#[test]
fn a_second_agent_does_not_start_and_harms_nothing() {
    let Some(world) = world("neighbours: second agent") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    let mut run = agent.probe(
        "s",
        "one-name",
        &["pause", "named-exchange allowed.example 443 hi", "pause"],
    );
    until_pause(&mut run);
    Said::by(agent.begin()).failed_with(1, &["another agent uses", "runtime_directory"]);
    // Another runtime directory alone does not make it another agent.
    let text = agent.configuration();
    agent.configure(
        &text
            .replace("/runtime\"", "/other\"")
            .replace("control.sock", "other.sock"),
    );
    let holder = agent.pid().expect("it runs").to_string();
    Said::by(agent.begin()).failed_with(1, &["audit.db", "in use by another agent", &holder]);
    assert_eq!(agent.status()["state"], "enforcing");
    go_on(&mut run)[0].succeeded();
    rest(run);

    let sandbox = world.sandbox(policy::ONE_NAME);
    let mut first = sandbox.start(&["pause"]);
    until_pause(&mut first);
    Said::by(sandbox.run(["/bin/true"])).failed_with(1, &["audit.db", "in use by another agent"]);
    rest(first);
}

/// An agent whose audit file was made by `spoil` before it starts.
#[track_caller]
fn spoiled(world: &World, spoil: impl Fn(&Path), words: &[&str]) {
    let agent = prepared(world);
    fs::create_dir(agent.state()).expect("a state directory");
    let file = agent.state().join("audit.db");
    spoil(&file);
    let before = fs::read(&file).ok();
    let mut all = vec!["audit.db"];
    all.extend(words);
    Said::by(agent.begin()).failed_with(1, &all);
    no_root(&agent);
    assert_eq!(
        fs::read(&file).ok(),
        before,
        "the file is somebody's evidence"
    );
}

#[test]
fn an_audit_file_that_cannot_be_used_stops_the_start_and_stays_as_it_is() {
    let Some(world) = world("neighbours: audit file") else {
        return;
    };
    let text = "not a database\n".repeat(100);
    spoiled(
        &world,
        |file| fs::write(file, &text).expect("written"),
        &["is not an audit store", "left untouched", "move it away"],
    );
    spoiled(
        &world,
        |file| fs::create_dir(file).expect("made"),
        &["is not a regular file", "name a file"],
    );
    spoiled(
        &world,
        |file| std::os::unix::fs::symlink("/etc/hostname", file).expect("linked"),
        &["is not a regular file"],
    );
}

#[test]
fn a_damaged_audit_file_is_set_aside_as_it_is_and_told_by_the_next() {
    let Some(world) = world("neighbours: damaged audit file") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    agent.terminate();
    let file = agent.state().join("audit.db");
    let mut bytes = fs::read(&file).expect("the store");
    // The header stays, so that it still looks like a store; the rest of the
    // first page, which says what tables there are, does not.
    bytes[100..4000].fill(0x5a);
    fs::write(&file, &bytes).expect("written");
    agent
        .ask(&["audit", "query", "--file", file.to_str().expect("text")])
        .failed_with(1, &["audit.db", "damaged"]);
    agent.launch();
    let aside = fs::read_dir(agent.state())
        .expect("the state directory")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.to_string_lossy().contains("audit.db.damaged-"))
        // Its log and index lie beside it, under longer names.
        .min_by_key(|path| path.as_os_str().len())
        .expect("a file that was set aside");
    assert_eq!(fs::read(&aside).expect("the old store"), bytes);
    let named = agent.audit().iter().any(|record| {
        record["kind"] == "evidence"
            && record["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains(&*aside.to_string_lossy()))
    });
    assert!(named, "{:#?}", agent.audit());
}
