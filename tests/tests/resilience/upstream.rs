//! The upstream resolver is gone.

use crate::policy;
use crate::scene::{Siege, world};
use egress_tests::address::UPSTREAM_V4;
use egress_tests::probe::{go_on, rest, until_pause};
use egress_tests::product::Agent;

#[test]
fn a_dead_upstream_fails_new_names_and_nothing_else() {
    let Some(world) = world("upstream: dead") else {
        return;
    };
    let names = policy::changing(&["allowed.example", "second.example"], "");
    let agent = Agent::start(&world, &[("changing", &names)]);
    let siege = Siege::begin(&agent, "besieged", "changing");
    let steps = [
        "pause",
        "resolve second.example",
        "pause",
        "named-exchange second.example 443 hi",
        "pause",
    ];
    let mut run = agent.probe("asker", "changing", &steps);
    until_pause(&mut run);
    // Datagrams to it vanish: nothing says that it is gone.
    let address = format!("{UPSTREAM_V4}/32");
    world
        .far
        .configure(&format!(
            "addr del {address} dev lo\nroute add blackhole {address}\n"
        ))
        .expect("the far side is the test's own");
    go_on(&mut run)[0].failed();
    assert!(agent.recorded(&["upstream_failed", "second.example"]));
    world
        .far
        .configure(&format!(
            "route del blackhole {address}\naddr add {address} dev lo\n"
        ))
        .expect("the far side is the test's own");
    go_on(&mut run)[0].succeeded();
    rest(run);
    // Meanwhile the other one noticed nothing: its name is in the cache.
    siege.ends_unharmed(&world);
}
