//! The rules of the source tree, as data. Read it as documentation: this is
//! the order that `docs/architecture.md` explains.

/// A place among the modules of `egress-agent`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// May use the modules of smaller numbers only.
    Numbered(u8),
    /// May be used by every module, and itself uses the vocabulary only.
    Any,
}

/// The modules of `egress-agent` in their order. Modules of one row never use
/// each other: the consumer owns a small trait, and `daemon` joins the parts.
pub const MODULES: &[(&str, Row)] = &[
    // The vocabulary; no I/O, no clock.
    ("model", Row::Numbered(0)),
    // Text to meaning to answer; pure.
    ("policy", Row::Numbered(1)),
    // Files of policies that are believed by their signature; pure.
    ("bundle", Row::Numbered(1)),
    // Permissions earned at run time; pure.
    ("grants", Row::Numbered(2)),
    // What the kernel maps should contain; pure.
    ("image", Row::Numbered(3)),
    // What touches the kernel, processes, and the network.
    ("enforcer", Row::Numbered(4)),
    ("sandbox", Row::Numbered(4)),
    ("dns", Row::Numbered(4)),
    ("events", Row::Numbered(4)),
    ("link", Row::Numbered(4)),
    ("outbound", Row::Numbered(4)),
    // What is kept, and who is told.
    ("audit", Row::Numbered(5)),
    ("alerts", Row::Numbered(5)),
    ("gateway", Row::Numbered(5)),
    // What others can ask.
    ("api", Row::Numbered(6)),
    ("export", Row::Numbered(6)),
    ("learn", Row::Numbered(6)),
    ("report", Row::Numbered(6)),
    // Joins the parts.
    ("daemon", Row::Numbered(7)),
    // What a person types.
    ("cli", Row::Numbered(8)),
    // Logs and metrics.
    ("telemetry", Row::Any),
    // Parts of files and maps in memory.
    ("mapped", Row::Any),
];

/// Third-party crates that only one module of `egress-agent` may name, so that
/// replacing one is a change of one room.
pub const SOLE_USERS: &[(&str, &str)] = &[
    ("aya", "enforcer"),
    ("aya_obj", "enforcer"),
    ("hickory_proto", "dns"),
    ("rtnetlink", "link"),
    ("sqlx", "audit"),
    ("axum", "api"),
    ("askama", "report"),
    ("ssh_key", "bundle"),
    ("minisign_verify", "bundle"),
    ("tar", "bundle"),
    ("siphasher", "policy"),
    ("slab", "dns"),
    ("memmap2", "policy"),
    ("foldhash", "policy"),
    ("notify", "daemon"),
    ("sd_notify", "daemon"),
    ("tracing_journald", "telemetry"),
];

/// Where `unsafe` may be written: everywhere else it is an error.
pub const UNSAFE_ROOMS: &[&str] = &[
    // bpf(2) calls that aya does not have.
    "egress-agent/src/enforcer/",
    // The mapping of a file that nobody else has.
    "egress-agent/src/policy/lists/mapped.rs",
    // Parts of files and maps in memory.
    "egress-agent/src/mapped.rs",
    // Many datagrams per system call.
    "egress-agent/src/dns/batch.rs",
    // Waiting for an answer and nothing else.
    "egress-agent/src/dns/expecting.rs",
    // Between fork and exec.
    "egress-agent/src/sandbox/spawn",
    // Raw memory of the kernel.
    "egress-ebpf/src/context",
    "egress-ebpf/src/frame",
    "egress-ebpf/src/lookups",
    "egress-ebpf/src/lsm/kernel.rs",
    // The promise to aya that shared types are plain data.
    "egress-common/src/layout.rs",
    "egress-common/src/destination.rs",
    // bpf(2), to stand for other people's programs.
    "tests/src/bpf.rs",
    // Packet sockets.
    "tests/src/raw.rs",
    // unshare(2).
    "tests/src/namespace.rs",
    // bpf(2), for programs that do nothing.
    "tests/benches/connect/empty.rs",
    // System calls that no library offers.
    "tests/src/bin/egress-probe/calls.rs",
];

/// Ledgers: each row of their tables names an existing test.
pub const LEDGERS: &[&str] = &["docs/guarantees.md", "docs/bypasses.md"];

/// Where tests may be skipped: where skips are told, where they are counted, and
/// tests that are the programs of other tests.
pub const SKIP_ROOMS: &[&str] = &[
    "tests/src/privilege.rs",
    // Its kernel comes from `cargo xtask vm`, which runs it.
    "tests/tests/interface/machine.rs",
    "xtask/src/test.rs",
    "egress-agent/src/sandbox/launch/tests/signals.rs",
    "egress-agent/tests/killed_writer.rs",
];

/// No source file is longer.
pub const LONGEST_FILE: usize = 500;

/// Hosts of package registries, in parts so that this file does not name them
/// either. Policies and documentation use names reserved for examples.
pub const REGISTRY_HOSTS: &[(&str, &str)] = &[
    ("crates", "io"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("rubygems", "org"),
    ("golang", "org"),
];

/// The row of a module of `egress-agent`.
pub fn row(module: &str) -> Option<Row> {
    MODULES
        .iter()
        .find(|(name, _)| *name == module)
        .map(|&(_, row)| row)
}

/// Says whether `user` may use `used`.
pub fn may_use(user: &str, used: &str) -> bool {
    if user == used {
        return true;
    }
    match (row(user), row(used)) {
        (Some(Row::Numbered(user)), Some(Row::Numbered(used))) => used < user,
        (Some(Row::Any), Some(Row::Numbered(used))) => used == 0,
        (Some(_), Some(Row::Any)) => true,
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_use_rows_above_only() {
        assert!(may_use("dns", "policy"));
        assert!(may_use("daemon", "enforcer"));
        assert!(!may_use("policy", "grants"));
        assert!(!may_use("dns", "enforcer"), "one row");
        assert!(!may_use("dns", "unheard_of"));
    }

    #[test]
    fn everybody_may_log_and_the_log_knows_the_vocabulary_only() {
        assert!(may_use("model", "telemetry"));
        assert!(may_use("telemetry", "model"));
        assert!(!may_use("telemetry", "audit"));
    }
}
