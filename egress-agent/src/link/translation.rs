//! Address translation of sandboxes' own networks on their way out of the host:
//! a table of nftables, put by its own program.

use super::LinkError;
use ipnet::IpNet;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// The table of one agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Translation {
    table: String,
    rules: String,
}

impl Translation {
    /// For what comes from `networks` and leaves through none of the interfaces
    /// whose names begin with `prefix`. `root` tells agents' tables apart.
    pub fn new(root: &str, prefix: &str, networks: &[IpNet]) -> Self {
        let rules = networks.iter().map(|network| {
            let family = if network.addr().is_ipv4() {
                "ip"
            } else {
                "ip6"
            };
            format!("{family} saddr {network} oifname != \"{prefix}*\" masquerade\n")
        });
        Self {
            // Names of tables hold letters, digits and underscores.
            table: root
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect(),
            rules: rules.collect(),
        }
    }

    /// Puts the table, or puts it again: one change, whatever was there.
    pub fn put(&self) -> Result<(), LinkError> {
        let Self { table, rules } = self;
        nft(&format!(
            "table inet {table} {{}}\ndelete table inet {table}\n\
             table inet {table} {{\nchain postrouting {{\n\
             type nat hook postrouting priority srcnat;\n{rules}}}\n}}\n"
        ))
    }

    /// Takes the table away, if it is there.
    pub fn remove(&self) -> Result<(), LinkError> {
        let table = &self.table;
        nft(&format!(
            "table inet {table} {{}}\ndelete table inet {table}\n"
        ))
    }
}

fn nft(commands: &str) -> Result<(), LinkError> {
    let failed = |text: String| LinkError::Translation(text);
    let started = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut nft = started.map_err(|error| {
        failed(format!(
            "`nft` does not start: {error}; install the package nftables"
        ))
    })?;
    if let Some(mut input) = nft.stdin.take() {
        // One that ended early says why below.
        let _ = input.write_all(commands.as_bytes());
    }
    let output = nft
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(failed(format!("`nft` says: {said}")))
    }
}
