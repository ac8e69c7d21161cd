//! The agent dies without a word, at any moment, again and again.

use crate::policy;
use crate::scene::{Random, Siege, times, world};
use egress_tests::address::{ALLOWED_V4, SECOND_V4, UPSTREAM_V4};
use egress_tests::probe::until_pause;
use egress_tests::product::Agent;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// From the start of a process over its start-up into its work.
const LIFE: Duration = Duration::from_millis(1500);
/// Sandboxes that are begun on the way.
const IDLE: u32 = 100;

/// Gives the agent something to do. It may die over it, or not listen yet.
fn poke(agent: &Agent<'_>, path: &str, body: &Value) {
    let Ok(mut stream) = UnixStream::connect(agent.socket()) else {
        return;
    };
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let patient = stream.set_read_timeout(Some(Duration::from_millis(50)));
    if patient.is_ok() && stream.write_all(request.as_bytes()).is_ok() {
        let _ = stream.read(&mut [0; 1024]);
    }
}

#[test]
fn an_agent_that_is_killed_at_any_moment_opens_nothing_and_cuts_nothing() {
    let Some(world) = world("killed: random moments") else {
        return;
    };
    let kills = times("EGRESS_KILLS", 20);
    let mut random = Random::new();
    let both = policy::changing(&["allowed.example", "second.example"], "");
    let one = policy::changing(&["allowed.example"], "");
    let mut agent = Agent::start(&world, &[("changing", &both)]);
    let siege = Siege::begin(&agent, "besieged", "changing");
    let measured = kills.div_ceil(5);
    let ask = format!("until-resolved {UPSTREAM_V4}:53 second.example");
    let mut steps = vec!["pause"];
    steps.extend((0..=measured).flat_map(|_| [ask.as_str(), "pause"]));
    let mut asker = agent.probe("asker", "changing", &steps);
    until_pause(&mut asker);

    let mut outages = Vec::new();
    let mut idle = 0;
    for kill in 0..kills {
        let life = random.below(LIFE);
        let begun = Instant::now();
        let mut turn = 0_u32;
        while begun.elapsed() < life {
            turn += 1;
            let policy = if turn.is_multiple_of(2) { &both } else { &one };
            agent.write_policy("changing", policy);
            poke(&agent, "/v1/reload", &Value::Null);
            if idle < IDLE {
                idle += 1;
                let name = format!("idle-{idle}");
                let owner = std::process::id();
                let wanted = json!({ "name": name, "policy": "changing", "owner": owner });
                poke(&agent, "/v1/sandboxes", &wanted);
            }
            std::thread::sleep(random.below(Duration::from_millis(30)));
        }
        agent.kill();
        if kill.is_multiple_of(5) {
            agent.write_policy("changing", &both);
            agent.launch_unawaited();
            asker.say("ask").expect("it waits");
            let took = until_pause(&mut asker);
            let took = took[0].succeeded().parse::<u64>().expect("a number");
            outages.push(took);
        } else {
            agent.launch_unawaited();
        }
    }
    agent.kill();
    agent.write_policy("changing", &both);
    agent.launch();
    asker.say("ask").expect("it waits");
    until_pause(&mut asker)[0].succeeded();

    let status = agent.status();
    assert_eq!(status["state"], "enforcing", "{status:#}");
    let started = status["started"].as_str().expect("words");
    assert!(started.contains("took over"), "{status:#}");
    let counted = siege.ends_unharmed(&world);
    assert!(
        counted["answers"].as_u64() > Some(u64::from(kills)),
        "{counted:#}"
    );
    let allowed = [(ALLOWED_V4, 443).into(), (SECOND_V4, 443).into()];
    world.nothing_escaped(&allowed);
    // What it recorded before each end is there, and its store still works.
    assert!(agent.recorded(&["besieged", "no_rule"]));
    outages.sort_unstable();
    println!(
        "{kills} kills; from the start of an agent until a name resolves: median {} ms, longest {} ms, of {}",
        outages[outages.len() / 2],
        outages[outages.len() - 1],
        outages.len(),
    );
}
