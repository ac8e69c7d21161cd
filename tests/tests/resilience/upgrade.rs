//! Another version takes over under load.

use crate::policy;
use crate::scene::{Siege, times, world};
use egress_tests::product::{Agent, binary};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `EM_BPF`.
const BPF: u16 = 247;
/// A second in nanoseconds: the programs refill event budgets by it.
const SECOND: u32 = 1_000_000_000;

/// Where the kernel object lies in an agent's program.
fn object(program: &[u8]) -> std::ops::Range<usize> {
    let number = |at: usize, bytes: usize| {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&program[at..at + bytes]);
        u64::from_le_bytes(word) as usize
    };
    let begin = (64..program.len() - 64)
        .find(|&at| {
            program[at..].starts_with(b"\x7fELF\x02\x01\x01")
                && number(at + 18, 2) == usize::from(BPF)
        })
        .expect("an agent carries its kernel object");
    // The table of sections is the last thing in the file.
    let end = number(begin + 40, 8) + number(begin + 58, 2) * number(begin + 60, 2);
    begin..begin + end
}

/// An agent of the same build whose kernel programs differ: their second is a
/// nanosecond longer, so the kernel gives them other tags.
fn other_build(directory: &Path) -> PathBuf {
    let mut program = std::fs::read(binary("egress-agent")).expect("it was built");
    let object = object(&program);
    let mut changed = 0;
    for constant in [SECOND, SECOND - 1] {
        let bytes = constant.to_le_bytes();
        let mut at = object.start;
        while at + 8 <= object.end {
            // Instructions have 8 bytes; their constant is the last four.
            if program[at + 4..at + 8] == bytes {
                program[at + 4..at + 8].copy_from_slice(&(constant + 1).to_le_bytes());
                changed += 1;
            }
            at += 8;
        }
    }
    assert!(
        changed >= 4,
        "{changed} constants of the programs were found"
    );
    let path = directory.join("egress-agent");
    std::fs::write(&path, program).expect("written");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, executable).expect("executable");
    path
}

#[test]
fn another_version_replaces_the_programs_under_load_without_a_gap() {
    let Some(world) = world("upgrade: under load") else {
        return;
    };
    let names = policy::changing(&["allowed.example", "second.example"], "");
    let mut agent = Agent::start(&world, &[("changing", &names)]);
    let versions = [
        other_build(&world.fresh_directory()),
        binary("egress-agent"),
    ];
    let siege = Siege::begin(&agent, "besieged", "changing");
    for turn in 0..times("EGRESS_UPGRADES", 6) {
        let version = &versions[turn as usize % 2];
        agent.replace_program(version);
        if turn.is_multiple_of(3) {
            agent.kill();
        } else {
            agent.terminate().succeeded();
        }
        agent.launch();
        let status = agent.status();
        let started = status["started"].as_str().expect("words").to_owned();
        let replaced: u32 = started
            .split_once("replaced ")
            .and_then(|(_, rest)| rest.split(' ').next())
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        assert!(replaced >= 4, "{started}");
        assert_eq!(status["state"], "enforcing", "{status:#}");
    }
    siege.ends_unharmed(&world);
}
