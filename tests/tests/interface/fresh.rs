//! Names of live connections, which clients ask for no more.

use crate::policy;
use crate::scene::{Container, world};
use egress_tests::address::ALLOWED_V4;
use egress_tests::product::{Agent, Outcome};

/// A policy whose grants last fifteen seconds; the agent looks every ten.
fn brief(name: &str, keep_fresh: bool) -> String {
    let settings = format!(
        "dns:\n  cache_ttl: 1s\n  min_ttl: 15s\n  max_ttl: 15s\n  grace: 0s\n  keep_fresh: {keep_fresh}\n"
    );
    policy::changing(&["allowed.example"], &settings)
        .replace("name: changing", &format!("name: {name}"))
}

#[test]
fn the_name_of_a_live_connection_is_kept_fresh_behind_an_interface_and_in_a_cgroup() {
    let Some(world) = world(
        "interface: the name of a live connection is kept fresh behind an interface and in a cgroup",
    ) else {
        return;
    };
    let (fresh, lapsing) = (brief("fresh", true), brief("lapsing", false));
    let agent = Agent::start(&world, &[("fresh", &fresh), ("lapsing", &lapsing)]);
    let (kept, left) = (Container::new(&world, 20), Container::new(&world, 21));
    kept.attach(&agent, "fresh");
    left.attach(&agent, "lapsing");
    let connect = format!("connect t {ALLOWED_V4}:443");
    let again = format!("tcp-exchange {ALLOWED_V4}:443 again");
    let connected = [
        "resolve allowed.example",
        "open t tcp4",
        &connect,
        "sleep 20000",
        &again,
        "send t still",
        "receive t",
    ];
    let idle = ["resolve allowed.example", "sleep 20000", &again];
    // Side by side: each takes longer than a grant lasts.
    let runs = [
        kept.start(&connected),
        agent.probe("kept", "fresh", &connected),
        left.start(&connected),
        agent.probe("left", "lapsing", &connected),
        agent.probe("idle", "fresh", &idle),
    ];
    let [kept, kept_in_cgroup, left, left_in_cgroup, idle] =
        runs.map(|run| Outcome::of(run).attempts);
    for attempts in [&kept, &kept_in_cgroup] {
        for attempt in attempts {
            attempt.succeeded();
        }
        assert_eq!(attempts.len(), connected.len(), "{attempts:#?}");
    }
    // Without it the address closes, and only what goes on goes on.
    for attempts in [&left, &left_in_cgroup] {
        attempts[4].failed();
        attempts[6].succeeded();
    }
    // A name that nobody is connected to is nobody's to keep.
    idle[2].refused();
    assert!(
        world.dns.times_asked("allowed.example") > 1,
        "the upstream was not asked again"
    );
}
