//! A container as a runtime is told of it: a directory with its configuration.

use egress_tests::process::Running;
use egress_tests::product::{Agent, binary};
use egress_tests::{World, cgroup};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const RUNTIME: &str = "runc";

/// A container's id as engines give them, and its cgroup.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What is inside.
pub struct Inside {
    /// The root file system, which is read only.
    root: PathBuf,
    /// What is mounted in it beside `/proc` and `/dev`.
    mounts: Vec<Value>,
    /// The command.
    words: Vec<String>,
    user: u32,
    capabilities: &'static [&'static str],
}

impl Inside {
    /// The probe as the only program beside this machine's own, as a user without
    /// any capability.
    pub fn probe(world: &World, steps: &[&str]) -> Self {
        let root = world.fresh_directory();
        for place in ["usr", "proc", "dev", "tmp"] {
            std::fs::create_dir_all(root.join(place)).expect("the world's directory");
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(Path::new("usr").join(name), root.join(name)).expect("the world's directory");
        }
        std::fs::copy(world.probe(), root.join("probe")).expect("the world's directory");
        let words = ["/probe"].iter().chain(steps);
        Self {
            root,
            mounts: vec![json!({
                "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"],
            })],
            words: words.map(|&word| word.to_owned()).collect(),
            user: 2_000_000_077,
            capabilities: &[],
        }
    }

    /// Debian's own programs, run by a script as the root that engines make: with
    /// those of their usual capabilities that a sandbox may have.
    pub fn debian(world: &World, script: &str) -> Self {
        let resolvers = world.fresh_directory().join("resolv.conf");
        // To any address: it is brought to the agent.
        std::fs::write(&resolvers, "nameserver 192.0.2.1\n").expect("the world's directory");
        Self {
            root: egress_tests::debian::ROOT.into(),
            mounts: vec![
                json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }),
                json!({
                    "destination": "/etc/resolv.conf", "type": "bind", "source": resolvers,
                    "options": ["bind", "ro"],
                }),
            ],
            words: ["/bin/bash", "-c", script].map(str::to_owned).to_vec(),
            user: 0,
            capabilities: &[
                "CAP_CHOWN",
                "CAP_DAC_OVERRIDE",
                "CAP_FOWNER",
                "CAP_FSETID",
                "CAP_KILL",
                "CAP_NET_BIND_SERVICE",
                "CAP_SETFCAP",
                "CAP_SETGID",
                "CAP_SETPCAP",
                "CAP_SETUID",
                "CAP_SYS_CHROOT",
            ],
        }
    }
}

/// A bundle, and where the runtime keeps what it knows of it.
pub struct Bundle<'w> {
    world: &'w World,
    directory: PathBuf,
    /// The governed root, relative to every hierarchy.
    above: String,
}

impl<'w> Bundle<'w> {
    /// Writes what the runtime is told: a cgroup below this agent's root, the hook,
    /// and the product's own filter.
    pub fn make(world: &'w World, agent: &Agent<'_>, inside: &Inside) -> Self {
        let directory = world.fresh_directory();
        let above = format!("/{}", agent.root());
        let config = config(agent, inside, &format!("{above}/docker-{ID}.scope"));
        std::fs::write(directory.join("config.json"), config.to_string())
            .expect("the world's directory");
        Self {
            world,
            directory,
            above,
        }
    }

    /// The container, from its making to its end, in the near side's network. It
    /// begins there: where the LSM programs are in force, a runtime that has entered the
    /// container's cgroup cannot join a network by `/proc/PID` of a process outside.
    pub fn run(&self) -> Running {
        let mut runtime = Command::new(RUNTIME);
        runtime
            .arg("--root")
            .arg(self.directory.join("state"))
            .args(["run", "--bundle"])
            .arg(&self.directory)
            .arg("box");
        let started = self.world.near.run(|| Running::start(&mut runtime));
        started.expect("the runtime is installed (`cargo xtask setup`)")
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        cgroup::remove_beside(&self.above);
    }
}

fn config(agent: &Agent<'_>, inside: &Inside, cgroup: &str) -> Value {
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
    ];
    mounts.extend(inside.mounts.iter().cloned());
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": inside.user, "gid": inside.user },
            "args": inside.words,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": inside.capabilities,
                "effective": inside.capabilities,
                "permitted": inside.capabilities,
            },
        },
        "root": { "path": inside.root, "readonly": true },
        "mounts": mounts,
        "hooks": { "createRuntime": [{
            "path": binary("egressctl"),
            "args": ["egressctl", "--socket", agent.socket(), "oci-hook"],
        }] },
        "linux": {
            "cgroupsPath": cgroup,
            "seccomp": agent.ask(&["seccomp", "export"]).json(),
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
            ],
        },
    })
}
