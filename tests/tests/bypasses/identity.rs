//! Who asks and who answers: one sandbox in the place of another, or of the
//! resolver, and one sandbox at the cost of another.

use crate::policy::{ONE_NAME, SECOND_NAME};
use crate::scene::{rest, until_pause, world};
use egress_tests::World;
use egress_tests::product::Agent;

/// Where an agent's resolver listens on IPv4.
fn resolver(agent: &Agent<'_>) -> String {
    let status = agent
        .egressctl(&["status", "-o", "json"])
        .expect("egressctl starts");
    let (_, lines, errors) = status.finish();
    let status: serde_json::Value =
        serde_json::from_str(&lines.join("\n")).unwrap_or_else(|_| panic!("{lines:?} {errors}"));
    status["resolver"][0]
        .as_str()
        .unwrap_or_else(|| panic!("no resolver in {status}"))
        .to_owned()
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
fn a_flood_of_queries_does_not_keep_another_sandbox_from_resolving() {
    let Some(world) = world("bypass: flood of queries") else {
        return;
    };
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let flood = [
        "open u udp4",
        "connect u 127.0.0.1:53",
        "pause",
        "flood u 3000",
    ];
    let mut hostile: Vec<_> = ["hostile-1", "hostile-2"]
        .map(|name| agent.probe(name, "one-name", &flood))
        .into();
    hostile.iter_mut().for_each(|run| {
        until_pause(run);
    });
    // One query each, without a second try as the C library would make it.
    let ask = "dns-udp 127.0.0.1:53 A allowed.example";
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
    assert!(
        answered >= 9,
        "{answered} of 10 were answered: {answers:#?}"
    );
}
