//! What operators push: files that change under a running agent, bad ones, half
//! written ones, and signed bundles.

mod policy;

use egress_tests::World;
use egress_tests::product::{Agent, binary};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long a loaded machine may take to notice a file.
const PATIENCE: Duration = Duration::from_secs(40);

fn policy_names(agent: &Agent<'_>) -> Vec<String> {
    let status = agent.status();
    let policies = status["policies"].as_array().expect("a list");
    let names = policies
        .iter()
        .map(|it| it["name"].as_str().expect("a name"));
    names.map(str::to_owned).collect()
}

#[track_caller]
fn eventually(agent: &Agent<'_>, wanted: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while policy_names(agent) != wanted {
        assert!(
            Instant::now() < deadline,
            "{:?} instead of {wanted:?}",
            policy_names(agent)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn warnings(agent: &Agent<'_>) -> String {
    agent.status()["warnings"].to_string()
}

#[test]
fn a_change_of_the_directory_comes_into_force_when_it_is_complete() {
    let Some(world) = World::or_skip("pushes: watch") else {
        return;
    };
    let mut agent = Agent::prepare(&world, &[("one-name", policy::ONE_NAME)]);
    agent.configure(&(agent.configuration() + "watch = true\n"));
    agent.launch();
    assert_eq!(policy_names(&agent), ["one-name"]);

    // A file that is still being written does not count, though what is there of
    // it is a policy already; nor does a wrong one, though nobody asked.
    let directory = agent.directory().join("policies.d");
    let mut half = fs::File::create(directory.join("b.yaml")).expect("writable");
    half.write_all(policy::SECOND_NAME.as_bytes())
        .expect("writable");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(policy_names(&agent), ["one-name"]);
    half.write_all(b"# complete\n").expect("writable");
    drop(half);
    eventually(&agent, &["one-name", "second-name"]);

    // By renaming, as package managers and configuration management do it.
    fs::write(directory.join(".b.yaml.tmp"), "nonsense").expect("writable");
    fs::rename(directory.join(".b.yaml.tmp"), directory.join("b.yaml")).expect("renamed");
    assert!(agent.recorded(&["refused; the policies in force stay"]));
    eventually(&agent, &["one-name", "second-name"]);
    let deadline = Instant::now() + PATIENCE;
    while !warnings(&agent).contains("b.yaml") {
        assert!(Instant::now() < deadline, "{}", warnings(&agent));
        std::thread::sleep(Duration::from_millis(50));
    }

    // The whole directory is swapped for another one.
    let next = agent.directory().join("next");
    fs::create_dir(&next).expect("writable");
    fs::write(next.join("b.yaml"), policy::SECOND_NAME).expect("writable");
    fs::rename(&directory, agent.directory().join("before")).expect("renamed");
    fs::rename(&next, &directory).expect("renamed");
    eventually(&agent, &["second-name"]);
    assert_eq!(warnings(&agent), "[]");
    // And the new directory is watched like the old one.
    fs::remove_file(directory.join("b.yaml")).expect("removable");
    eventually(&agent, &[]);
}

#[test]
fn after_a_bad_push_a_restart_enforces_what_was_good_and_says_so() {
    let Some(world) = World::or_skip("pushes: last good") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("one-name", policy::ONE_NAME)]);
    agent.write_policy("one-name", "nonsense");
    agent.kill();
    // As after a reboot: nothing is left of the runtime directory.
    fs::remove_dir_all(agent.directory().join("runtime")).expect("removable");
    agent.launch();
    assert_eq!(policy_names(&agent), ["one-name"]);
    let status = agent.status();
    assert_eq!(status["state"], "enforcing, with warnings");
    assert_eq!(
        status["policies_from"],
        "what was good the last time: files"
    );
    assert!(warnings(&agent).contains("one-name.yaml"), "{status}");
    assert!(agent.recorded(&["\"policy\"", "\"deny\"", "one-name.yaml"]));
    // Once it is mended the warning goes.
    agent.write_policy("one-name", policy::SECOND_NAME);
    agent.reload();
    assert_eq!(agent.status()["state"], "enforcing");
    assert_eq!(agent.status()["policies_from"], "files");
}

/// A directory of whoever makes bundles.
struct Workshop {
    directory: PathBuf,
}

impl Workshop {
    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(&self.directory)
            .output()
            .expect("it starts")
    }

    #[track_caller]
    fn done(&self, program: &str, arguments: &[&str]) -> String {
        let path = match program {
            "egressctl" => binary(program),
            _ => program.into(),
        };
        let output = self.run(&path, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Makes and signs the bundle `NAME.bundle` with one policy.
    fn make(&self, name: &str, version: &str, policy: &str) {
        fs::write(self.directory.join("policy.yaml"), policy).expect("writable");
        let file = format!("{name}.bundle");
        let create = [
            "bundle",
            "create",
            "policy.yaml",
            "--name",
            "prod",
            "--version",
            version,
            "--out",
            &file,
        ];
        self.done("egressctl", &create);
        self.done(
            "ssh-keygen",
            &[
                "-Y",
                "sign",
                "-q",
                "-n",
                "egress-policy",
                "-f",
                "key",
                &file,
            ],
        );
    }
}

#[test]
fn a_signed_bundle_is_made_verified_and_installed_and_an_older_one_refused() {
    let Some(world) = World::or_skip("pushes: bundle") else {
        return;
    };
    let workshop = Workshop {
        directory: world.fresh_directory(),
    };
    workshop.done(
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", "", "-C", "ops", "-f", "key"],
    );
    let key = fs::read_to_string(workshop.directory.join("key.pub")).expect("a key");
    let key = key.trim();
    workshop.make("one", "1", policy::ONE_NAME);
    workshop.make("two", "2", policy::SECOND_NAME);
    let verified = workshop.done(
        "egressctl",
        &["bundle", "verify", "two.bundle", "--key", key],
    );
    assert!(
        verified.contains("prod version 2") && verified.contains("policy.yaml"),
        "{verified}"
    );

    // A host that believes this key has no bundle yet.
    let mut agent = Agent::prepare(&world, &[]);
    let configuration = format!("{}[bundle]\nkeys = [\"{key}\"]\n", agent.configuration());
    agent.configure(&configuration);
    let config = agent.directory().join("agent.toml");
    let config = config.to_str().expect("text");
    let path = |name: &str| {
        workshop
            .directory
            .join(name)
            .to_str()
            .expect("text")
            .to_owned()
    };
    let install = |agent: &Agent<'_>, name: &str| {
        agent.ask(&["bundle", "install", "--config", config, &path(name)])
    };
    assert!(install(&agent, "one.bundle").status.success());
    agent.launch();
    assert_eq!(policy_names(&agent), ["one-name"]);
    assert!(install(&agent, "two.bundle").status.success());
    assert_eq!(policy_names(&agent), ["second-name"]);
    let from = agent.status()["policies_from"].to_string();
    assert!(
        from.contains("bundle prod version 2") && from.contains("(ops)"),
        "{from}"
    );

    // Older, unsigned, changed.
    install(&agent, "one.bundle").failed_with(7, &["version 1 is older than version 2"]);
    workshop.make("three", "3", policy::ONE_NAME);
    fs::rename(path("three.bundle.sig"), path("kept")).expect("renamed");
    install(&agent, "three.bundle").failed_with(7, &["it is not signed"]);
    let unsigned = workshop.run(
        &binary("egressctl"),
        &["bundle", "verify", "three.bundle", "--key", key],
    );
    assert_eq!(unsigned.status.code(), Some(7));
    fs::rename(path("kept"), path("three.bundle.sig")).expect("renamed");
    let mut bytes = fs::read(path("three.bundle")).expect("readable");
    let last = bytes
        .iter()
        .rposition(|byte| *byte == b'4')
        .expect("a digit");
    bytes[last] = b'5';
    fs::write(path("three.bundle"), bytes).expect("writable");
    install(&agent, "three.bundle").failed_with(7, &["the file was changed"]);
    // A loose file beside it is refused, whoever wrote it.
    agent.write_policy("loose", policy::ONE_NAME);
    agent
        .ask(&["reload"])
        .failed_with(78, &["loose.yaml", "in no signed bundle"]);
    assert_eq!(policy_names(&agent), ["second-name"]);
    fs::remove_file(agent.directory().join("policies.d/loose.yaml")).expect("removable");
    // What was put aside by all of this is not what a restart finds.
    agent.terminate();
    agent.launch();
    assert_eq!(policy_names(&agent), ["second-name"]);
}

#[test]
fn the_same_files_make_the_same_bundle() {
    let directory = tempfile::tempdir().expect("a directory");
    let workshop = Workshop {
        directory: directory.path().to_owned(),
    };
    fs::write(directory.path().join("policy.yaml"), policy::ONE_NAME).expect("writable");
    for out in ["a", "b"] {
        let create = [
            "bundle",
            "create",
            "policy.yaml",
            "--name",
            "prod",
            "--version",
            "1",
        ];
        let rest = ["--created", "2026-11-26T00:00:00Z", "--out", out];
        workshop.done("egressctl", &[&create[..], &rest].concat());
        std::thread::sleep(Duration::from_millis(1100));
    }
    let read = |name: &str| fs::read(directory.path().join(name)).expect("readable");
    assert_eq!(read("a"), read("b"));
    let listed = workshop.done("tar", &["--list", "--file", "a"]);
    assert_eq!(listed, "manifest.json\npolicy.yaml\n");
}
