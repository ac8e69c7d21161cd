//! What a test needs and not every machine has, and skips that justify themselves.
//!
//! A test says what it needs by name. Whether the kernel has it is asked of the
//! kernel itself, never of the product, and compared with what the kernel's
//! version and settings promise: where the promise holds and the answer is no,
//! the skip is not justified, and the test fails. What `cargo xtask setup` fetches
//! is promised unless it says that it could not. `cargo xtask tidy` sees to it
//! that nothing skips in another way.

use crate::{Namespace, bpf, debian, privilege};
use std::fs;
use std::process::Command;

/// The kernel's list of running LSMs.
const RUNNING: &str = "/sys/kernel/security/lsm";

/// Something that not every supported kernel has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// Landlock keeps a process from abstract Unix sockets outside.
    LandlockScopes,
    /// LSM programs of a cgroup can be loaded, and are asked.
    LsmPrograms,
    /// A network namespace of one's own puts no device into another's.
    NamespacesApart,
    /// The root file system of [`debian`], for containers.
    DebianRoot,
}

/// What is known about a feature on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Knowledge {
    /// What was answered when the feature was asked for.
    answer: Result<(), String>,
    /// Whether the kernel's version and settings, or setup, say that it has to be
    /// there.
    promised: bool,
}

/// What follows from it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Run,
    Skip(String),
    Unjustified(String),
}

impl Knowledge {
    fn judge(self) -> Verdict {
        match self.answer {
            Ok(()) => Verdict::Run,
            Err(answer) if self.promised => Verdict::Unjustified(answer),
            Err(answer) => Verdict::Skip(answer),
        }
    }
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::LandlockScopes,
        Self::LsmPrograms,
        Self::NamespacesApart,
        Self::DebianRoot,
    ];

    /// What a skip calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LandlockScopes => "Landlock scopes (Linux 6.12)",
            Self::LsmPrograms => "LSM programs of cgroups (Linux 6.1, `bpf` in `lsm=`)",
            Self::NamespacesApart => "a check of rights over the namespace of a device's peer",
            Self::DebianRoot => "a root file system made by debootstrap",
        }
    }

    /// Whether this machine has it.
    pub fn is_there(self) -> bool {
        self.knowledge().answer.is_ok()
    }

    fn knowledge(self) -> Knowledge {
        match self {
            Self::LandlockScopes => Knowledge {
                answer: landlock_scopes(),
                promised: version() >= (6, 12) && runs("landlock"),
            },
            // Some hosts list the LSM and forbid its programs; the kernel's own
            // refusal of a program that does nothing is all there is to go by.
            Self::LsmPrograms => Knowledge {
                answer: lsm_programs(),
                promised: false,
            },
            // Mended in 2026, and in older kernels by some distributions.
            Self::NamespacesApart => Knowledge {
                answer: namespaces_apart(),
                promised: false,
            },
            Self::DebianRoot => Knowledge {
                answer: debian::answer(),
                promised: !debian::is_excused(),
            },
        }
    }
}

/// Says whether `test` can run, which needs this feature; if not, prints that it
/// is skipped and why, past the capturing of the test framework.
///
/// # Panics
///
/// If the machine should have the feature.
pub fn granted(test: &str, feature: Feature) -> bool {
    match feature.knowledge().judge() {
        Verdict::Run => true,
        Verdict::Skip(answer) => {
            let missing = format!("this machine has no {}: {answer}", feature.name());
            privilege::tell_skip(test, &missing);
            false
        }
        Verdict::Unjustified(answer) => panic!(
            "{test} may not be skipped: this machine has to have {}, and answers: {answer}",
            feature.name()
        ),
    }
}

/// Version and revision of the running kernel.
fn version() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text.split(['.', '-']).map_while(|n| n.parse().ok());
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
}

/// Whether an LSM is among the running ones.
fn runs(lsm: &str) -> bool {
    let running = fs::read_to_string(RUNNING).unwrap_or_default();
    running.trim().split(',').any(|name| name == lsm)
}

/// The first version of Landlock's interface with scopes is the sixth.
fn landlock_scopes() -> Result<(), String> {
    match bpf::landlock_version() {
        Ok(version) if version >= 6 => Ok(()),
        Ok(version) => Err(format!("its interface is of version {version}")),
        Err(error) => Err(error.to_string()),
    }
}

fn lsm_programs() -> Result<(), String> {
    bpf::load_lsm_program("bpf_lsm_file_open").map_err(|error| error.to_string())?;
    // Without the list the kernel that loads them is taken for one that asks
    // them: better a test that fails than a skip that hides something.
    match fs::read_to_string(RUNNING) {
        Ok(running) if !running.trim().split(',').any(|name| name == "bpf") => Err(format!(
            "its programs load and are never asked: {RUNNING} says {running}"
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Tries it by `ip`, between two namespaces that nobody else is in.
fn namespaces_apart() -> Result<(), String> {
    let other = Namespace::new().map_err(|error| error.to_string())?;
    let script = format!(
        "exec 9<{} && exec unshare -Urn ip link add near9 type veth peer name far9 netns /proc/self/fd/9",
        other.path()
    );
    let output = Command::new("sh").args(["-c", &script]).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Err("a veth pair across namespaces can be made without rights".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Feature, Knowledge, Verdict};

    fn judged(answer: Result<(), &str>, promised: bool) -> Verdict {
        let answer = answer.map_err(str::to_owned);
        Knowledge { answer, promised }.judge()
    }

    #[test]
    fn a_skip_on_a_machine_that_has_the_feature_is_not_justified() {
        assert_eq!(judged(Ok(()), true), Verdict::Run);
        assert_eq!(judged(Ok(()), false), Verdict::Run);
        assert_eq!(judged(Err("no"), false), Verdict::Skip("no".into()));
        assert_eq!(judged(Err("no"), true), Verdict::Unjustified("no".into()));
    }

    #[test]
    fn this_machine_keeps_what_is_promised_of_it() {
        for feature in Feature::ALL {
            let known = feature.knowledge();
            // Only root may load a program or read the list of LSMs.
            if rustix::process::geteuid().is_root() {
                let judged = known.clone().judge();
                assert!(
                    !matches!(judged, Verdict::Unjustified(_)),
                    "{feature:?}: {known:?}"
                );
            }
        }
    }
}
