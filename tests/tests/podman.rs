//! Podman, as Debian ships it: what it starts below the governed root, with
//! `egressctl oci-hook` among its hooks, in a root file system that debootstrap made.

use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4};
use egress_tests::feature::{Feature, granted};
use egress_tests::operation::Said;
use egress_tests::product::{Agent, binary};
use egress_tests::{World, cgroup, debian};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `cargo xtask setup` unpacks it: its installation would start services.
const PODMAN: &str = "/var/cache/egress-tests/podman/usr/bin/podman";

/// Opens one name, for cgroups of this name.
fn policy(matcher: &str) -> String {
    format!(
        "apiVersion: egress/v1\nname: boxes\napplies_to:\n  - cgroup: \"{matcher}\"\n\
         allowlist:\n  web:\n    - {{ domain: allowed.example, ports: [443], protocols: [tcp] }}\n"
    )
}

/// What root in the container tries, each told with its status.
fn script() -> String {
    format!(
        r#"exchange() {{ {{ echo "$3" >&3; IFS= read -r line <&3; echo "got $line"; }} 3<>"/dev/tcp/$1/$2"; }}
        say() {{ what=$1; shift; said=$("$@" 2>&1); echo "$what: $? $said" | tr '\n' ' '; echo; }}
        say resolved getent ahostsv4 allowed.example
        say allowed exchange allowed.example 443 hello
        say unresolved getent ahostsv4 forbidden.example
        say refused exchange {FORBIDDEN_V4} 443 secret
        "#
    )
}

/// What the root of a container may not have that Podman gives it.
const FEWER: [&str; 2] = ["--cap-drop=NET_RAW", "--cap-drop=MKNOD"];

/// Podman with everything that it keeps in a directory of the test.
struct Engine<'w> {
    world: &'w World,
    directory: PathBuf,
    /// The governed root, relative to every hierarchy.
    root: String,
}

impl<'w> Engine<'w> {
    /// Writes its configuration, the hook and the filter.
    fn make(world: &'w World, agent: &Agent<'_>) -> Self {
        assert!(
            Path::new(PODMAN).exists(),
            "{PODMAN} is missing: `cargo xtask setup` unpacks it"
        );
        let directory = world.fresh_directory();
        let write = |name: &str, text: &str| {
            std::fs::write(directory.join(name), text).expect("the world's directory");
        };
        std::fs::create_dir(directory.join("hooks.d")).expect("the world's directory");
        let hook = json!({
            "version": "1.0.0",
            "hook": {
                "path": binary("egressctl"),
                "args": ["egressctl", "--socket", agent.socket(), "oci-hook"],
            },
            "when": { "always": true },
            "stages": ["createRuntime"],
        });
        write("hooks.d/90-egress.json", &hook.to_string());
        let filter = agent.ask(&["seccomp", "export"]);
        write("seccomp.json", filter.succeeded());
        // Locks in files and not in shared memory that all engines of the machine
        // use, and limits that a root without CAP_SYS_RESOURCE may set.
        write(
            "containers.conf",
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\nlock_type = \"file\"\n",
        );
        let storage = |name: &str| format!("{name} = {:?}\n", directory.join(name));
        let places = storage("graphroot") + &storage("runroot");
        write(
            "storage.conf",
            &format!("[storage]\ndriver = \"vfs\"\n{places}"),
        );
        Self {
            world,
            directory,
            root: format!("/{}", agent.root()),
        }
    }

    /// A container, from its making to its end, with some of the capabilities that
    /// Podman usually gives.
    fn run(&self, capabilities: &[&str]) -> Said {
        let at = |name: &str| self.directory.join(name);
        // It mounts the container's root, which nobody else has to see.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", PODMAN]);
        for (option, name) in [("--tmpdir", "tmp"), ("--hooks-dir", "hooks.d")] {
            command.arg(option).arg(at(name));
        }
        command
            .arg("--events-backend=none")
            // crun refuses hosts that have some controllers on each version of cgroups.
            .args(["--cgroup-manager=cgroupfs", "--runtime=runc", "run", "--rm"])
            .arg(format!("--cgroup-parent={}", self.root))
            // The near side's, where the agent's resolver listens.
            .arg("--network=host")
            .args(capabilities)
            .arg("--security-opt=no-new-privileges")
            .arg(format!(
                "--security-opt=seccomp={}",
                at("seccomp.json").display()
            ))
            .args(["--rootfs", &format!("{}:O", debian::ROOT)])
            .args(["bash", "-c", &script()])
            .env("HOME", &self.directory)
            .env("CONTAINERS_CONF", at("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
        self.world.near.run(|| Said::of(&mut command))
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        cgroup::remove_beside(&self.root);
    }
}

/// A world, where there is what the containers are made of.
fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    for (name, address) in [
        ("allowed.example", ALLOWED_V4),
        ("forbidden.example", FORBIDDEN_V4),
    ] {
        world.dns.resolve(name, &[address.into()]);
    }
    granted(test, Feature::DebianRoot).then_some(world)
}

#[test]
fn a_container_of_podman_reaches_what_its_policy_names_and_nothing_else() {
    let Some(world) = world("podman: enforced") else {
        return;
    };
    let agent = Agent::start(&world, &[("boxes", &policy("libpod-*"))]);
    let said = Engine::make(&world, &agent).run(&FEWER);
    said.succeeded();
    let of = |what: &str| {
        let mut lines = said.out.lines();
        let found = lines.find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no line about {what}: {said:#?}"))
    };
    assert!(
        of("resolved").contains(&ALLOWED_V4.to_string()),
        "{said:#?}"
    );
    assert!(of("allowed").starts_with("0 got hello"), "{said:#?}");
    assert!(!of("unresolved").starts_with("0 "), "{said:#?}");
    assert!(
        of("refused").contains("Operation not permitted"),
        "{said:#?}"
    );
    assert!(!world.dns.heard_of("forbidden.example"));
    assert!(agent.recorded(&["libpod-", "under policy boxes"]));
    world.nothing_escaped(&[(ALLOWED_V4, 443).into()]);
}

#[test]
fn podman_starts_no_container_with_the_capabilities_that_it_usually_gives() {
    let Some(world) = world("podman: capabilities") else {
        return;
    };
    let agent = Agent::start(&world, &[("boxes", &policy("libpod-*"))]);
    let said = Engine::make(&world, &agent).run(&[]);
    said.never_ran(&["CAP_NET_RAW", "CAP_MKNOD"]);
    world.nothing_escaped(&[]);
}

#[test]
fn podman_starts_no_container_that_no_policy_names() {
    let Some(world) = world("podman: no policy") else {
        return;
    };
    let agent = Agent::start(&world, &[("boxes", &policy("docker-*"))]);
    let said = Engine::make(&world, &agent).run(&FEWER);
    said.never_ran(&["no policy names the cgroup"]);
    world.nothing_escaped(&[]);
}

#[test]
fn podman_starts_no_container_while_no_agent_answers() {
    let Some(world) = world("podman: no agent") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("boxes", &policy("libpod-*"))]);
    let engine = Engine::make(&world, &agent);
    agent.kill();
    let said = engine.run(&FEWER);
    said.never_ran(&["no agent answers"]);
    world.nothing_escaped(&[]);
}
