//! What the launcher takes away, looked for in processes that others started.
//!
//! A process that was not started by [`launch`](mod@crate::sandbox::launch) is judged
//! packet by packet like any other. But the ways round that, which the launcher
//! closes, may be open to it.

use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Something that a process has and no sandbox has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// What, in words.
    pub words: String,
    /// Whether it is a way round the fence by itself.
    pub open: bool,
}

/// Capabilities with which a process gets round the fence, by number
/// (include/uapi/linux/capability.h).
const DANGEROUS: [(&str, u32); 10] = [
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_MODULE", 16),
    ("CAP_SYS_RAWIO", 17),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_MKNOD", 27),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// Sockets of those who act for whoever asks.
const DEPUTIES: [&str; 7] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/egress/agent.sock",
];

fn finding(words: impl Into<String>, open: bool) -> Finding {
    Finding {
        words: words.into(),
        open,
    }
}

/// Examines processes by their numbers. One that is gone by now has nothing.
pub fn examine(processes: &[u32]) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    for process in processes {
        let place = format!("/proc/{process}");
        let Ok(status) = std::fs::read_to_string(format!("{place}/status")) else {
            continue;
        };
        found.extend(of_status(&status));
        let own = std::fs::read_link("/proc/self/ns/net");
        let its = std::fs::read_link(format!("{place}/ns/net"));
        if let (Ok(own), Ok(its)) = (own, its)
            && own == its
        {
            found.insert(finding(SHARED_NETWORK, false));
        }
        for socket in DEPUTIES {
            let path = format!("{place}/root{socket}");
            let is_socket = std::fs::symlink_metadata(path)
                .is_ok_and(|metadata| metadata.file_type().is_socket());
            if is_socket {
                found.insert(finding(format!("sees the socket {socket}"), false));
            }
        }
    }
    found.into_iter().collect()
}

const SHARED_NETWORK: &str =
    "is in the agent's network namespace, where abstract Unix sockets of others can be reached";
const NO_FILTER: &str =
    "has no system call filter (`egressctl seccomp export`, or SystemCallFilter=)";
const MAY_GAIN: &str = "may gain privileges (no_new_privs is not set)";

/// What `/proc/PID/status` tells.
fn of_status(status: &str) -> Vec<Finding> {
    let value = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .map(str::trim)
    };
    let mut found = Vec::new();
    let capabilities = value("CapEff").and_then(|text| u64::from_str_radix(text, 16).ok());
    // What cannot be read is not taken for harmless.
    let capabilities = capabilities.unwrap_or(u64::MAX);
    for (name, bit) in DANGEROUS {
        if capabilities & (1 << bit) != 0 {
            found.push(finding(format!("has {name}"), true));
        }
    }
    if value("Seccomp") != Some("2") {
        found.push(finding(NO_FILTER, true));
    }
    if value("NoNewPrivs") != Some("1") {
        found.push(finding(MAY_GAIN, false));
    }
    found
}

/// Examines the configuration of an OCI container, before its process has it.
pub fn examine_container(config: &Value) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    let capabilities = &config["process"]["capabilities"];
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        let names = capabilities[set].as_array().into_iter().flatten();
        for name in names.filter_map(Value::as_str) {
            if DANGEROUS.iter().any(|(dangerous, _)| *dangerous == name) {
                found.insert(finding(format!("has {name}"), true));
            }
        }
    }
    if config["linux"]["seccomp"]["syscalls"]
        .as_array()
        .is_none_or(Vec::is_empty)
    {
        found.insert(finding(NO_FILTER, true));
    }
    if config["process"]["noNewPrivileges"] != true {
        found.insert(finding(MAY_GAIN, false));
    }
    let mut namespaces = config["linux"]["namespaces"]
        .as_array()
        .into_iter()
        .flatten();
    if !namespaces.any(|namespace| namespace["type"] == "network") {
        found.insert(finding(SHARED_NETWORK, false));
    }
    for mount in config["mounts"].as_array().into_iter().flatten() {
        let Some(source) = mount["source"].as_str() else {
            continue;
        };
        let is_deputy = DEPUTIES.iter().any(|socket| {
            let other = format!("/var{socket}");
            Path::new(socket).starts_with(source) || Path::new(&other).starts_with(source)
        });
        if source.starts_with('/') && (is_deputy || source.ends_with(".sock")) {
            found.insert(finding(
                format!("{source} of the host is mounted in it"),
                true,
            ));
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{examine, examine_container, of_status};
    use serde_json::json;

    fn open(found: &[super::Finding]) -> Vec<&str> {
        let open = found.iter().filter(|finding| finding.open);
        open.map(|finding| finding.words.as_str()).collect()
    }

    #[test]
    fn a_process_as_the_launcher_leaves_it_has_nothing() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nCapEff:\t0000000000000000\n";
        assert_eq!(of_status(status), []);
    }

    #[test]
    fn capabilities_and_a_missing_filter_are_found() {
        let status = "NoNewPrivs:\t0\nSeccomp:\t0\nCapEff:\t0000000000002000\n";
        let found = of_status(status);
        assert_eq!(open(&found).len(), 2, "{found:?}");
        assert!(open(&found)[0].contains("CAP_NET_RAW"), "{found:?}");
        assert_eq!(
            open(&of_status("")).len(),
            11,
            "what cannot be read is not harmless"
        );
    }

    #[test]
    fn this_very_process_can_be_examined() {
        assert!(!examine(&[std::process::id()]).is_empty());
        assert_eq!(examine(&[u32::MAX]), []);
    }

    #[test]
    fn a_container_is_examined_by_its_configuration() {
        let tight = json!({
            "process": { "noNewPrivileges": true, "capabilities": { "bounding": ["CAP_CHOWN"] } },
            "linux": { "namespaces": [{ "type": "network" }], "seccomp": { "syscalls": [{}] } },
            "mounts": [{ "destination": "/proc", "source": "proc" }],
        });
        assert_eq!(examine_container(&tight), []);
        let mut wide = tight;
        wide["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
        wide["mounts"] = json!([
            { "destination": "/s", "source": "/var/run/docker.sock" },
            { "destination": "/r", "source": "/run" },
        ]);
        assert_eq!(open(&examine_container(&wide)).len(), 3);
        assert!(open(&examine_container(&json!({}))).contains(&super::NO_FILTER));
    }
}
