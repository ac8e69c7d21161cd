//! What systemd itself says about the units.

use crate::{Failure, shell};
use std::process::{Command, Stdio};

/// The exposure that each service may have at most, in tenths (`systemd-analyze
/// security`): what is reached. What is left is what the product does: root, BPF,
/// the network, cgroups.
const THRESHOLDS: [(&str, u8); 2] = [("egress-agent.service", 39), ("egress-arm.service", 29)];

/// Whether systemd's own judge is there.
pub fn can_be_judged() -> bool {
    shell::find("systemd-analyze").is_some()
}

/// Lets systemd judge the hardening of the services.
pub fn judge() -> Result<(), Failure> {
    let units = shell::workspace().join("packaging/systemd");
    for (unit, threshold) in THRESHOLDS {
        let mut analyze = Command::new("systemd-analyze");
        analyze
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={threshold}"))
            .arg(units.join(unit))
            // It prints a table of everything; what counts is its status.
            .stdout(Stdio::null());
        shell::run(&mut analyze)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::shell;
    use std::fs;

    #[test]
    fn every_line_of_hardening_is_commented() {
        let unit = shell::workspace().join("packaging/systemd/egress-agent.service");
        let text = fs::read_to_string(unit).expect("the unit");
        let service = text.split_once("[Service]").expect("a service").1;
        let service = service.split_once("[Install]").expect("an end").0;
        // A comment stands before each group of lines that belong together.
        for group in service.split("\n\n") {
            let mut commented = false;
            for line in group.lines().filter(|line| !line.is_empty()) {
                commented |= line.starts_with('#');
                assert!(commented, "no comment before: {line}");
            }
        }
    }
}
