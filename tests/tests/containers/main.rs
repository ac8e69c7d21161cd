//! Real containers, started by a real runtime (runc, as Debian ships it) below the
//! governed root, with `egressctl oci-hook` as their `createRuntime` hook.

mod bundle;
mod debian;

use bundle::{Bundle, Inside};
use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4};
use egress_tests::operation::Said;
use egress_tests::product::{Agent, Outcome};

/// Opens HTTPS at the allowed address, for containers of this engine.
fn for_containers(engine: &str) -> String {
    format!(
        "apiVersion: egress/v1\nname: boxes\napplies_to:\n  - cgroup: \"{engine}-*.scope\"\n\
         allowlist:\n  web:\n    - {{ cidr: \"{ALLOWED_V4}\", ports: [443], protocols: [tcp] }}\n"
    )
}

#[test]
fn a_container_reaches_what_its_policy_names_and_nothing_else() {
    let Some(world) = World::or_skip("containers: enforced") else {
        return;
    };
    let agent = Agent::start(&world, &[("boxes", &for_containers("docker"))]);
    let (allowed, forbidden) = (
        format!("tcp-exchange {ALLOWED_V4}:443 hello"),
        format!("tcp-exchange {FORBIDDEN_V4}:443 hello"),
    );
    let inside = Inside::probe(&world, &[&allowed, &forbidden]);
    let bundle = Bundle::make(&world, &agent, &inside);
    let outcome = Outcome::of(bundle.run());
    outcome[0].succeeded();
    outcome[1].refused();
    assert!(agent.recorded(&["docker-0123456789ab", "under policy boxes"]));
    world.nothing_escaped(&[(ALLOWED_V4, 443).into()]);
}

#[test]
fn a_container_that_no_policy_names_never_starts() {
    let Some(world) = World::or_skip("containers: no policy") else {
        return;
    };
    let agent = Agent::start(&world, &[("boxes", &for_containers("crio"))]);
    let attempt = format!("tcp-exchange {ALLOWED_V4}:443 hello");
    let bundle = Bundle::make(&world, &agent, &Inside::probe(&world, &[&attempt]));
    let said = Said::by(bundle.run());
    said.never_ran(&["no policy names the cgroup"]);
    world.nothing_escaped(&[]);
}

#[test]
fn no_container_starts_while_no_agent_answers() {
    let Some(world) = World::or_skip("containers: no agent") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("boxes", &for_containers("docker"))]);
    let attempt = format!("tcp-exchange {ALLOWED_V4}:443 hello");
    let bundle = Bundle::make(&world, &agent, &Inside::probe(&world, &[&attempt]));
    agent.kill();
    let said = Said::by(bundle.run());
    said.never_ran(&["no agent answers"]);
    world.nothing_escaped(&[]);
}
