//! Lists of names: built by the command line, used by a running agent, replaced
//! and damaged under it.

use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::operation::Said;
use egress_tests::product::Agent;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// Allows everything below `example`, and blocks what the list holds.
const POLICY: &str = "apiVersion: egress/v1\nname: lists\nallowlist:\n  web:\n    \
    - { domain: \"*.allowed.example\", protocols: [https] }\n    \
    - { domain_list: good.names, protocols: [https] }\n\
    dns: { block_lists: [bad.names] }\n";

fn policies(agent: &Agent<'_>) -> PathBuf {
    agent.directory().join("policies.d")
}

/// Builds a list of these lines with the command line.
#[track_caller]
fn build(agent: &Agent<'_>, list: &str, lines: &str) -> Said {
    let text = agent.directory().join("lines.txt");
    fs::write(&text, lines).expect("its own directory");
    let list = policies(agent).join(list);
    let arguments = [
        "names",
        "build",
        list.to_str().expect("text"),
        text.to_str().expect("text"),
    ];
    Said::by(agent.egressctl(&arguments).expect("it starts"))
}

/// What a sandbox hears of a name.
fn asked(agent: &Agent<'_>, sandbox: &str, name: &str) -> String {
    let step = format!("dns-udp 198.51.100.1:53 A {name}");
    let run = agent.probe(sandbox, "lists", &[&step]);
    let (_, lines, errors) = run.finish();
    lines
        .first()
        .unwrap_or_else(|| panic!("nothing was said: {errors}"))
        .clone()
}

/// Resident memory in KiB: all of it, and what is of files.
fn resident(process: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).expect("a number")
    };
    (field("VmRSS:"), field("RssFile:"))
}

#[test]
fn a_list_counts_from_the_reload_on_and_a_damaged_one_changes_nothing() {
    let Some(world) = World::or_skip("lists: reload") else {
        return;
    };
    for name in ["ads", "www", "fine"] {
        world
            .dns
            .resolve(&format!("{name}.allowed.example"), &[ALLOWED_V4.into()]);
    }
    world.dns.resolve("listed.example", &[ALLOWED_V4.into()]);
    let mut agent = Agent::prepare(&world, &[("lists", POLICY)]);
    // Without its lists the policy is an error, and nothing starts.
    Said::by(agent.begin()).failed_with(78, &["lists.yaml", "good.names", "names build"]);
    build(&agent, "good.names", "listed.example\n").succeeded();
    let said = build(
        &agent,
        "bad.names",
        "0.0.0.0 ads.allowed.example\n||evil.example^\n? ?\n",
    );
    assert!(said.succeeded().contains("2 names"), "{said:?}");
    assert!(said.errors.contains("lines.txt:3:"), "{said:?}");
    agent.launch();
    assert!(asked(&agent, "a1", "listed.example").contains("code=0"));
    assert!(asked(&agent, "a2", "www.allowed.example").contains("code=0"));
    let refused = asked(&agent, "a3", "ads.allowed.example");
    assert!(
        refused.contains("code=3") && refused.contains("bad.names"),
        "{refused}"
    );
    let recorded = agent.awaits_record(|record| {
        record["name"] == "ads.allowed.example" && record["reason"] == "name_blocked"
    });
    assert!(recorded, "the refusal is recorded");

    // Another list: nothing changes before the reload, all of it afterwards.
    build(&agent, "bad.names", "www.allowed.example\n").succeeded();
    assert!(asked(&agent, "b1", "ads.allowed.example").contains("code=3"));
    agent.reload();
    assert!(asked(&agent, "b2", "ads.allowed.example").contains("code=0"));
    assert!(asked(&agent, "b3", "www.allowed.example").contains("code=3"));

    // One byte of damage: the reload is refused, and the old list counts.
    let list = policies(&agent).join("bad.names");
    let mut bytes = fs::read(&list).expect("the list");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&list, bytes).expect("written");
    agent
        .ask(&["reload", "--wait"])
        .failed_with(78, &["bad.names", "damaged"]);
    assert!(asked(&agent, "c1", "www.allowed.example").contains("code=3"));
    assert!(asked(&agent, "c2", "fine.allowed.example").contains("code=0"));
    // So it does when the file is gone.
    fs::remove_file(&list).expect("removed");
    agent
        .ask(&["reload", "--wait"])
        .failed_with(78, &["bad.names"]);
    assert!(asked(&agent, "c3", "www.allowed.example").contains("code=3"));
    assert!(!world.dns.heard_of("forbidden.example"));
}

#[test]
fn with_watch_a_new_list_is_a_push() {
    let Some(world) = World::or_skip("lists: watch") else {
        return;
    };
    world
        .dns
        .resolve("www.allowed.example", &[ALLOWED_V4.into()]);
    let mut agent = Agent::prepare(&world, &[("lists", POLICY)]);
    agent.configure(&format!("watch = true\n{}", agent.configuration()));
    build(&agent, "good.names", "listed.example\n").succeeded();
    build(&agent, "bad.names", "nobody.example\n").succeeded();
    agent.launch();
    assert!(asked(&agent, "a1", "www.allowed.example").contains("code=0"));
    build(&agent, "bad.names", "**.allowed.example\n").succeeded();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut number = 0;
    loop {
        number += 1;
        if asked(&agent, &format!("b{number}"), "www.allowed.example").contains("code=3") {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the list was not taken"
        );
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
}

#[test]
fn an_agent_with_a_million_names_stays_small() {
    let Some(world) = World::or_skip("lists: a million names") else {
        return;
    };
    world
        .dns
        .resolve("www.allowed.example", &[ALLOWED_V4.into()]);
    let mut agent = Agent::prepare(&world, &[("lists", POLICY)]);
    build(&agent, "good.names", "listed.example\n").succeeded();
    build(&agent, "bad.names", "nobody.example\n").succeeded();
    agent.launch();
    let pid = agent.pid().expect("it runs");
    assert!(asked(&agent, "a1", "www.allowed.example").contains("code=0"));
    let (_, files_before) = resident(pid);

    let mut lines = String::new();
    let mut state = 1_u64;
    for _ in 0..1_000_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "ads.{:x}.example", state >> 24);
    }
    let began = std::time::Instant::now();
    assert!(
        build(&agent, "bad.names", &lines)
            .succeeded()
            .contains("1000000 lines")
    );
    eprintln!("built in {:?}", began.elapsed());
    agent.reload();
    // Every part of the list is walked on.
    for (at, line) in lines.lines().step_by(100_000).enumerate() {
        let answer = asked(&agent, &format!("b{at}"), line);
        assert!(answer.contains("bad.names"), "{answer}");
    }
    assert!(asked(&agent, "c1", "www.allowed.example").contains("code=0"));
    let (all, files) = resident(pid);
    let size = fs::metadata(policies(&agent).join("bad.names"))
        .expect("the list")
        .len();
    eprintln!(
        "list {} KiB; agent {all} KiB resident, {} KiB more of files",
        size / 1024,
        files - files_before
    );
    assert!(
        files.saturating_sub(files_before) < 20 * 1024,
        "{files_before} {files}"
    );
    assert!(all < 150 * 1024, "{all} KiB");
}
