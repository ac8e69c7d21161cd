//! What somebody would build by hand: nftables with a set of what each cgroup
//! may reach.
//!
//! `nft` looks a cgroup's path up below `/sys/fs/cgroup` and nowhere else, so a
//! hybrid system's mount (`/sys/fs/cgroup/unified`) becomes a part of the path.

use super::enforced::{GRANTS, SANDBOXES};
use super::place::destinations;
use egress_tests::Namespace;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where `nft` looks for cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// Installs the rules in a namespace. As many cgroups as the product has
/// sandboxes are made below `root`, since a set can only name cgroups that
/// exist.
pub fn start(near: &Namespace, root: &Path, level: u32, sandbox: &Path) -> io::Result<()> {
    let name = |path: &Path| {
        path.strip_prefix(ROOT)
            .map(|path| path.display().to_string())
            .map_err(|_| {
                io::Error::other(format!(
                    "the cgroup2 mount is not below {ROOT}, where nft looks"
                ))
            })
    };
    let mut others = Vec::new();
    for n in 1..SANDBOXES {
        let path = root.join(n.to_string());
        std::fs::create_dir(&path)?;
        others.push(name(&path)?);
    }
    let rules = ruleset(&name(root)?, level, &name(sandbox)?, &others);
    near.run(|| load(&rules))
}

fn load(rules: &str) -> io::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("nft: {error}")))?;
    let mut stdin = nft.stdin.take();
    if let Some(stdin) = &mut stdin {
        stdin.write_all(rules.as_bytes())?;
    }
    drop(stdin);
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().take(3).collect::<Vec<_>>().join(" ");
    Err(io::Error::other(format!("nft: {first}")))
}

/// `level` is the depth of `root`; the sandboxes are one below it.
fn ruleset(root: &str, level: u32, sandbox: &str, others: &[String]) -> String {
    let mut elements = String::new();
    let mut count = 0;
    // Writing into a string cannot fail.
    for (protocol, endpoint) in destinations() {
        let (ip, port) = (endpoint.ip(), endpoint.port());
        let _ = writeln!(elements, "\"{sandbox}\" . {ip} . {protocol} . {port},");
        count += 1;
    }
    for (n, other) in (0_u32..).zip(others.iter().cycle()).take(GRANTS - count) {
        let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(203, 0, 0, 0)) + n);
        let _ = writeln!(elements, "\"{other}\" . {ip} . 6 . 443,");
    }
    let below = level + 1;
    format!(
        "table inet egress {{\n\
         set allowed {{ type cgroupsv2 . ipv4_addr . inet_proto . inet_service; size 131072; \
         elements = {{ {elements} }} }}\n\
         chain output {{ type filter hook output priority filter; policy accept;\n\
         ct state established,related accept\n\
         socket cgroupv2 level {below} . ip daddr . meta l4proto . th dport @allowed accept\n\
         socket cgroupv2 level {level} \"{root}\" drop\n}}\n\
         chain input {{ type filter hook input priority filter; policy accept;\n\
         ct state established,related accept\n\
         socket cgroupv2 level {level} \"{root}\" drop\n}}\n}}\n"
    )
}
