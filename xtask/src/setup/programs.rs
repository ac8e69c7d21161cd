//! What is needed to build and to test, by name, with the reason.

/// Programs that are needed, with their Debian package and the reason.
pub(super) const PROGRAMS: &[(&str, &str, &str)] = &[
    (
        "cc",
        "build-essential",
        "links the programs and compiles SQLite",
    ),
    (
        "ip",
        "iproute2",
        "connects the network namespaces of tests and demo",
    ),
    ("curl", "curl", "is a client in the demo"),
    ("dig", "bind9-dnsutils", "asks another resolver in the demo"),
    ("getent", "libc-bin", "is a client in the demo"),
    ("/usr/bin/python3", "python3", "is a client in the demo"),
    (
        "bpftool",
        "bpftool",
        "attaches and detaches programs in tests",
    ),
    (
        "/usr/lib/postgresql/15/bin/postgres",
        "postgresql-15",
        "is the database that tests ship audit records to",
    ),
    (
        "ssh-keygen",
        "openssh-client",
        "signs bundles of policies in tests",
    ),
    ("minisign", "minisign", "signs bundles of policies in tests"),
    (
        "nft",
        "nftables",
        "is what the benchmark compares enforcement with",
    ),
    ("runc", "runc", "starts the containers of tests"),
    ("promtool", "prometheus", "checks the metrics in tests"),
    ("rsyslogd", "rsyslog", "is a collector in tests"),
    (
        "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so",
        "rsyslog-gnutls",
        "lets that collector speak TLS",
    ),
    ("openssl", "openssl", "makes certificates in tests"),
    ("tmux", "tmux", "is the terminal in tests"),
    ("/usr/bin/host", "bind9-host", "is a client in tests"),
    ("/usr/bin/kdig", "knot-dnsutils", "is a client in tests"),
    ("/usr/bin/drill", "ldnsutils", "is a client in tests"),
    ("/usr/bin/wget", "wget", "is a client in tests"),
    ("/usr/bin/busybox", "busybox-static", "is a client in tests"),
    ("/usr/bin/node", "nodejs", "is a client in tests"),
    ("/usr/bin/npm", "npm", "is a client in tests"),
    ("/usr/bin/git", "git", "is a client in tests"),
    ("/usr/bin/ssh", "openssh-client", "is a client in tests"),
    (
        "/usr/lib/python3/dist-packages/pip/__main__.py",
        "python3-pip",
        "is a client in tests",
    ),
    (
        "/usr/bin/keytool",
        "default-jre-headless",
        "is a client in tests",
    ),
    (
        "/usr/bin/musl-gcc",
        "musl-tools",
        "builds a client with another C library in tests",
    ),
    (
        "/usr/sbin/dropbear",
        "dropbear-bin",
        "is the SSH server in tests",
    ),
    ("crun", "crun", "starts containers in tests"),
    (
        "debootstrap",
        "debootstrap",
        "makes the root of containers in tests",
    ),
    ("conmon", "conmon", "is a part of Podman in tests"),
    (
        "/usr/lib/x86_64-linux-gnu/libgpgme.so.11",
        "libgpgme11",
        "is a part of Podman in tests",
    ),
    (
        "/usr/lib/x86_64-linux-gnu/libsubid.so.4",
        "libsubid4",
        "is a part of Podman in tests",
    ),
    (
        "/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1",
        "libdevmapper1.02.1",
        "is a part of Podman in tests",
    ),
    (
        "/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so",
        "libsystemd-shared",
        "is a part of systemd-resolved, a client in tests",
    ),
];

/// Where packages are unpacked whose installation would change the machine.
pub(super) const UNPACKED_PLACE: &str = "/var/cache/egress-tests";

/// Programs of such packages, below [`UNPACKED_PLACE`] and the package's name.
pub(super) const UNPACKED: &[(&str, &str, &str)] = &[
    (
        "/var/cache/egress-tests/systemd-resolved/lib/systemd/systemd-resolved",
        "systemd-resolved",
        "is a client in tests; unpacked only, since its installation replaces /etc/resolv.conf",
    ),
    (
        "/var/cache/egress-tests/podman/usr/bin/podman",
        "podman",
        "starts containers in tests; unpacked only, since its installation starts services",
    ),
];

/// What the linker is built from.
pub(super) const LINKER_PACKAGES: [(&str, &str); 5] = [
    ("llvm-22-dev", "is the LLVM that bpf-linker is built with"),
    ("libpolly-22-dev", "is a part of that LLVM"),
    ("zlib1g-dev", "is what that LLVM links to"),
    ("libzstd-dev", "is what that LLVM links to"),
    ("libxml2-dev", "is what that LLVM links to"),
];
