//! Many names, many sandboxes: what was resolved can be reached at once, also
//! under load, and idle sandboxes cost little.

use egress_tests::World;
use egress_tests::probe::{Attempt, until_pause};
use egress_tests::process::Running;
use egress_tests::product::Agent;
use egress_tests::servers::{Threads, closing};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every name below `load.example`, on the port of the server that closes.
const POLICY: &str = r#"
apiVersion: egress/v1
name: load
egress:
  default_action: deny
  mode: enforce
allowlist:
  many:
    - domain: "*.load.example"
      ports: [8443]
      protocols: [tcp]
dns:
  # More names than a client asks for: this is a test of load.
  limits: { names: 1000000, names_per_wildcard: 1000000, bytes: 1000000, bytes_per_wildcard: 1000000, entropy: 1000000, entropy_per_wildcard: 1000000 }
"#;

/// Each of these tests needs the whole machine: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What has to live as long as a test.
type Held = (Threads, MutexGuard<'static, ()>);

/// A world in which `nNUMBER.load.example` has one of 254 addresses, all of
/// them served.
fn world(test: &str) -> Option<(World, Held)> {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::or_skip(test)?;
    let addresses: Vec<IpAddr> = (1..255)
        .map(|host| Ipv4Addr::new(198, 51, 100, host).into())
        .collect();
    world.dns.resolve_below("load.example", &addresses);
    world
        .far
        .configure("route add local 198.51.100.0/24 dev lo\n")
        .expect("the far side is the test's own");
    let server = closing(&world.far, (Ipv4Addr::UNSPECIFIED, 8443).into());
    Some((world, (server.expect("the port is free"), alone)))
}

/// Waits for the end of a probe; every report but those of pauses.
fn reports(run: Running) -> Vec<Attempt> {
    let (status, lines, errors) = run.finish();
    assert!(status.success(), "{errors}");
    lines
        .iter()
        .filter_map(|line| Attempt::parse(line))
        .collect()
}

#[track_caller]
fn nothing_was_lost(agent: &Agent<'_>) {
    let status = agent.status();
    for counter in [
        "dns_overloaded",
        "dns_failed",
        "dns_refused",
        "kernel_denied",
        "kernel_asker_failed",
    ] {
        assert_eq!(status["counters"][counter], 0, "{counter}: {status:#}");
    }
}

#[test]
fn a_thousand_rounds_after_each_other_connect_at_the_first_try() {
    let Some((world, _server)) = world("load: sequential") else {
        return;
    };
    let agent = Agent::start(&world, &[("load", POLICY)]);
    let run = agent.probe("s", "load", &["rounds 0 1000 1 8443 load.example"]);
    assert_eq!(reports(run)[0].succeeded(), "1000");
    nothing_was_lost(&agent);
}

#[test]
fn ten_thousand_at_once_from_a_hundred_sandboxes_connect_at_the_first_try() {
    let Some((world, _server)) = world("load: concurrent") else {
        return;
    };
    let agent = Agent::start(&world, &[("load", POLICY)]);
    let mut runs: Vec<Running> = (0..100)
        .map(|number| {
            let rounds = format!("rounds {} 100 100 8443 load.example", number * 100);
            agent.probe(&format!("s{number}"), "load", &["pause", &rounds])
        })
        .collect();
    for run in &mut runs {
        until_pause(run);
    }
    assert_eq!(agent.status()["sandboxes"], 100);
    for run in &mut runs {
        run.say("go on").expect("the probe waits");
    }
    let outcomes: Vec<Vec<Attempt>> = runs.into_iter().map(reports).collect();
    eprintln!("{:#}", agent.status()["counters"]);
    for outcome in outcomes {
        assert_eq!(outcome[0].succeeded(), "100");
    }
    nothing_was_lost(&agent);
}

/// The memory that a process holds, in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        })
        .expect("the kernel tells it")
}

#[test]
fn a_thousand_idle_sandboxes_fit_into_64_mebibytes() {
    let Some((world, _server)) = world("load: memory") else {
        return;
    };
    let agent = Agent::start(&world, &[("load", POLICY)]);
    let process = agent.pid().expect("it runs");
    let empty = resident(process);
    for number in 0..1000 {
        let (code, body) = agent.create_idle(&format!("idle-{number}"), "load");
        assert_eq!(code, 200, "{body}");
    }
    assert_eq!(agent.status()["sandboxes"], 1000);
    // Two ticks of the agent's own housekeeping over all of them.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let full = resident(process);
    eprintln!("resident: {empty} KiB with none, {full} KiB with 1000 sandboxes");
    assert!(full < 64 * 1024, "{full} KiB");
}

#[test]
fn the_sandbox_that_does_not_fit_into_the_kernels_map_is_refused() {
    /// One less than the map holds: one meter is for what is in no sandbox.
    const BOUND: u32 = 4095;
    let Some((world, _server)) = world("load: sandbox map") else {
        return;
    };
    let agent = Agent::start(&world, &[("load", POLICY)]);
    for number in 0..BOUND {
        let (code, body) = agent.create_idle(&format!("idle-{number}"), "load");
        assert_eq!(code, 200, "{body}");
    }
    let (code, body) = agent.create_idle(&format!("idle-{BOUND}"), "load");
    assert_eq!(code, 500, "{body}");
    assert!(body.contains("more than the 4095"), "{body}");
    // Nothing is left of it, and those that are there go on.
    assert!(
        !agent
            .root_directory()
            .join(format!("idle-{BOUND}"))
            .exists()
    );
    assert_eq!(agent.status()["sandboxes"], BOUND);
    let (code, body) = agent.request("DELETE", "/v1/sandboxes/idle-0", &Value::Null);
    assert_eq!(code, 200, "{body}");
    let run = agent.probe("s", "load", &["rounds 0 1 1 8443 load.example"]);
    reports(run)[0].succeeded();
}
