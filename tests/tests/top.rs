//! `egressctl top` on a terminal of 80 columns, and for scripts.

mod policy;

use egress_tests::World;
use egress_tests::probe::until_pause;
use egress_tests::process::patience;
use egress_tests::product::{Agent, binary};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A terminal of its own, which ends with it.
struct Terminal {
    name: String,
}

impl Terminal {
    fn new(name: &str, command: &str) -> Self {
        let terminal = Self {
            name: format!("{name}-{}", std::process::id()),
        };
        let made = terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", command]);
        assert!(
            made.status.success(),
            "tmux: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux")
            .args(["-f", "/dev/null", "-L", &self.name])
            .args(arguments)
            .output()
            .expect("tmux is installed; run `cargo xtask setup`")
    }

    /// What stands on the screen.
    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    fn is_open(&self) -> bool {
        self.tmux(&["has-session"]).status.success()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already where the test passed.
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn the_newest_denials_stand_on_a_small_screen_with_the_line_that_would_allow_them() {
    let Some(world) = World::or_skip("top") else {
        return;
    };
    let agent = Agent::start(
        &world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    let mut probe = agent.probe("shown", "changing", &["resolve refused.example", "pause"]);
    until_pause(&mut probe);

    let program = binary("egressctl");
    let socket = agent.socket();
    let terminal = Terminal::new(
        "egress-top",
        &format!("{} --socket {} top", program.display(), socket.display()),
    );
    let deadline = Instant::now() + patience();
    let screen = loop {
        let screen = terminal.screen();
        if screen.contains("refused.example") && screen.contains("- { domain") {
            break screen;
        }
        assert!(Instant::now() < deadline, "the screen shows:\n{screen}");
        std::thread::sleep(Duration::from_millis(50));
    };
    for part in [
        "enforcing",
        "SANDBOX",
        "DENY/m",
        "shown",
        "no rule allows the name",
        "- { domain: \"refused.example\", ports: [443], protocols: [https] }",
    ] {
        assert!(screen.contains(part), "{part} in:\n{screen}");
    }
    assert!(
        screen.lines().all(|line| line.chars().count() <= 80),
        "{screen}"
    );
    terminal.tmux(&["send-keys", "q"]);
    while terminal.is_open() {
        assert!(Instant::now() < deadline, "it does not leave");
        std::thread::sleep(Duration::from_millis(20));
    }

    // For scripts: the same picture as text and as JSON.
    let once = agent
        .egressctl(&["top", "--once"])
        .expect("egressctl starts");
    let (status, lines, errors) = once.finish();
    assert!(status.success(), "{errors}");
    assert!(
        lines.iter().any(|line| line.contains("refused.example")),
        "{lines:#?}"
    );
    let json = agent
        .egressctl(&["top", "-o", "json"])
        .expect("egressctl starts");
    let (status, lines, errors) = json.finish();
    assert!(status.success(), "{errors}");
    let picture: Value = serde_json::from_str(&lines.join("\n")).expect("JSON");
    assert_eq!(picture["sandboxes"][0]["name"], "shown");
    assert!(
        picture["sandboxes"][0]["denied"].as_u64() >= Some(1),
        "{picture}"
    );
    assert_eq!(picture["denials"][0]["destination"], "refused.example");

    // Without a terminal it says what to do instead.
    let live = agent.egressctl(&["top"]).expect("egressctl starts");
    let (status, _, errors) = live.finish();
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(errors.contains("--once"), "{errors}");
}
