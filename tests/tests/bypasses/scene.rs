//! What the attempts share.

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6};
use egress_tests::probe::Attempt;
use egress_tests::process::Running;
use egress_tests::product::Outcome;

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

/// Reads reports up to the one of the next `pause`.
pub fn until_pause(run: &mut Running) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    while let Some(line) = run.line() {
        let Some(attempt) = Attempt::parse(&line) else {
            continue;
        };
        if attempt.step == "pause" {
            return attempts;
        }
        attempts.push(attempt);
    }
    panic!("the probe ended before its pause: {attempts:#?}");
}

/// Lets the probe go on to its end.
pub fn rest(mut run: Running) -> Vec<Attempt> {
    run.say("go on").expect("the probe waits");
    let (_, lines, _) = run.finish();
    lines
        .iter()
        .filter_map(|line| Attempt::parse(line))
        .collect()
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
