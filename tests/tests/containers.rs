//! Real containers, started by a real runtime (runc, as Debian ships it) below the
//! governed root, with `egressctl oci-hook` as their `createRuntime` hook.

use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4};
use egress_tests::operation::Said;
use egress_tests::process::Running;
use egress_tests::product::{Agent, Outcome, binary};
use egress_tests::{World, cgroup};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const RUNTIME: &str = "runc";

/// A container's id as engines give them, and its cgroup.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Opens HTTPS at the allowed address, for containers of this engine.
fn for_containers(engine: &str) -> String {
    format!(
        "apiVersion: egress/v1\nname: boxes\napplies_to:\n  - cgroup: \"{engine}-*.scope\"\n\
         allowlist:\n  web:\n    - {{ cidr: \"{ALLOWED_V4}\", ports: [443], protocols: [tcp] }}\n"
    )
}

/// A bundle of a container whose only program is the probe, and where the runtime
/// keeps what it knows.
struct Bundle {
    directory: PathBuf,
    /// The container's cgroup, relative to every hierarchy.
    cgroup: String,
}

impl Bundle {
    fn make(world: &World, agent: &Agent<'_>, steps: &[&str]) -> Self {
        let directory = world.fresh_directory();
        let root = directory.join("rootfs");
        for place in ["usr", "proc", "dev", "tmp"] {
            std::fs::create_dir_all(root.join(place)).expect("the world's directory");
        }
        for name in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(Path::new("usr").join(name), root.join(name))
                .expect("the world's directory");
        }
        std::fs::copy(world.probe(), root.join("probe")).expect("the world's directory");
        let cgroup = format!("/{}/docker-{ID}.scope", agent.root());
        let bundle = Self { directory, cgroup };
        let config = bundle.config(world, agent, steps).to_string();
        std::fs::write(bundle.directory.join("config.json"), config)
            .expect("the world's directory");
        bundle
    }

    fn config(&self, world: &World, agent: &Agent<'_>, steps: &[&str]) -> Value {
        let filter = agent.ask(&["seccomp", "export"]).json();
        let mut words = vec!["/probe"];
        words.extend(steps);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 2_000_000_077_u32, "gid": 2_000_000_077_u32 },
                "args": words,
                "env": ["PATH=/usr/bin"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {},
            },
            "root": { "path": "rootfs", "readonly": true },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
                { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] },
            ],
            "hooks": { "createRuntime": [{
                "path": binary("egressctl"),
                "args": ["egressctl", "--socket", agent.socket(), "oci-hook"],
            }] },
            "linux": {
                "cgroupsPath": self.cgroup,
                "seccomp": filter,
                "namespaces": [
                    { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "network", "path": world.near.path() },
                ],
            },
        })
    }

    /// The container, from its making to its end.
    fn run(&self) -> Running {
        let mut runtime = Command::new(RUNTIME);
        runtime
            .arg("--root")
            .arg(self.directory.join("state"))
            .args(["run", "--bundle"])
            .arg(&self.directory)
            .arg("box");
        Running::start(&mut runtime).expect("the runtime is installed (`cargo xtask setup`)")
    }
}

impl Drop for Bundle {
    /// On a hybrid host the runtime makes its cgroups in every hierarchy of version 1
    /// too, and leaves the directory above.
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let above = self.cgroup.rsplit_once('/').map_or("", |(above, _)| above);
        for line in table.lines().filter(|line| line.contains(" - cgroup ")) {
            if let Some(mount) = line.split(' ').nth(4) {
                cgroup::remove_all(Path::new(&format!("{mount}{above}")));
            }
        }
    }
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
    let bundle = Bundle::make(&world, &agent, &[&allowed, &forbidden]);
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
    let bundle = Bundle::make(&world, &agent, &[&attempt]);
    let said = Said::by(bundle.run());
    assert!(!said.status.success(), "{said:#?}");
    assert_eq!(said.out, "", "the probe ran");
    assert!(
        said.errors.contains("no policy names the cgroup"),
        "{said:#?}"
    );
    world.nothing_escaped(&[]);
}

#[test]
fn no_container_starts_while_no_agent_answers() {
    let Some(world) = World::or_skip("containers: no agent") else {
        return;
    };
    let mut agent = Agent::start(&world, &[("boxes", &for_containers("docker"))]);
    let attempt = format!("tcp-exchange {ALLOWED_V4}:443 hello");
    let bundle = Bundle::make(&world, &agent, &[&attempt]);
    agent.kill();
    let said = Said::by(bundle.run());
    assert!(!said.status.success(), "{said:#?}");
    assert_eq!(said.out, "", "the probe ran");
    assert!(said.errors.contains("no agent answers"), "{said:#?}");
    world.nothing_escaped(&[]);
}
