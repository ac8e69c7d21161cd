//! What the attempts share.

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6};
pub use egress_tests::probe::{rest, until_pause};
use egress_tests::product::{Agent, Outcome};
use serde_json::Value;

/// A world in which the allowed and a forbidden name exist.
pub fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world
        .dns
        .resolve("allowed.example", &[ALLOWED_V4.into(), ALLOWED_V6.into()]);
    world.dns.resolve(
        "forbidden.example",
        &[FORBIDDEN_V4.into(), FORBIDDEN_V6.into()],
    );
    Some(world)
}

/// Does these steps in a sandbox that may reach `allowed.example`, and asserts
/// that every one was reported.
#[track_caller]
pub fn attempt(world: &World, policy: &str, steps: &[&str]) -> Outcome {
    let outcome = world.sandbox(policy).attempt(steps);
    assert_eq!(outcome.attempts.len(), steps.len(), "{outcome:#?}");
    outcome
}

/// The index of the near side's device that leads to the far side.
pub fn device(world: &World) -> u32 {
    let table = world.near.run(|| {
        std::fs::read_to_string("/proc/thread-self/net/dev_snmp6/near")
            .expect("the near side has its device")
    });
    let index = table
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1));
    index
        .and_then(|index| index.parse().ok())
        .expect("the kernel's table names the index")
}

/// Bytes as the probe wants them.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The control message data of IP_PKTINFO that asks for a device.
pub fn through_v4(device: u32) -> String {
    let mut bytes = device.to_ne_bytes().to_vec();
    bytes.extend([0; 8]);
    hexadecimal(&bytes)
}

/// The control message data of IPV6_PKTINFO that asks for a device.
pub fn through_v6(device: u32) -> String {
    let mut bytes = vec![0; 16];
    bytes.extend(device.to_ne_bytes());
    hexadecimal(&bytes)
}

/// What `egressctl` answers in JSON.
pub fn answer(agent: &Agent<'_>, arguments: &[&str]) -> Value {
    let run = agent.egressctl(arguments).expect("egressctl starts");
    let (_, lines, errors) = run.finish();
    serde_json::from_str(&lines.join("\n")).unwrap_or_else(|_| panic!("{lines:?} {errors}"))
}
