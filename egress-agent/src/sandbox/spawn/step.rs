//! The steps of a launch, and how a child reports the one that failed.

use super::Failure;
use rustix::io::Errno;

/// Declares the steps with their number and what is said when they fail.
macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $sentence:literal;)+) => {
        /// A step of a launch, in the order in which they are taken.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Step { $($(#[$doc])* $name = $code),+ }

        impl Step {
            fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)+ _ => None }
            }

            /// What could not be done, to follow "cannot".
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence),+ }
            }
        }
    };
}

steps! {
    /// The next children get a pid namespace.
    PidNamespace = 1, "make a pid namespace (needs CAP_SYS_ADMIN and CONFIG_PID_NS)";
    /// The next children get a network namespace.
    NetworkNamespace = 31, "make a network namespace (needs CAP_SYS_ADMIN and CONFIG_NET_NS)";
    /// `clone3` into the cgroup.
    Clone = 2, "make a process in the sandbox's cgroup (needs Linux 5.7, and clone3 not filtered away)";
    /// The maker sees the child in its cgroup.
    Membership = 3, "see the process in the sandbox's cgroup";
    /// The child waits for its maker.
    Gate = 4, "wait for the launcher";
    /// Mount, cgroup and IPC namespaces.
    Namespaces = 5, "make mount, cgroup and IPC namespaces (needs CAP_SYS_ADMIN)";
    /// No mount goes in or out from now on.
    Propagation = 6, "make the mounts private";
    /// `/proc` shows the sandbox's processes only.
    Proc = 7, "mount /proc for the sandbox's own processes";
    /// A directory becomes empty.
    HideDirectory = 8, "hide the directory";
    /// A socket or a device leads nowhere.
    HideFile = 9, "hide";
    /// The sandbox's own `resolv.conf`.
    ResolvConf = 10, "put the sandbox's resolv.conf in place";
    /// A socket of the host that the policy names.
    HostSocket = 28, "show the host's socket that the policy names in `sandbox.relax`,";
    /// A place becomes read-only.
    ReadOnly = 11, "make read-only";
    /// All that is mounted becomes read-only.
    ReadOnlyRoot = 29, "make the file system read-only (needs Linux 5.12)";
    /// `/tmp` of a bounded size.
    Tmp = 30, "mount a /tmp of a bounded size";
    /// The bounding set is emptied.
    BoundingSet = 12, "empty the capability bounding set (needs CAP_SETPCAP)";
    /// Root's number brings no capabilities back.
    SecureBits = 13, "lock the secure bits (needs CAP_SETPCAP)";
    /// No supplementary groups.
    Groups = 14, "leave the supplementary groups (needs CAP_SETGID)";
    /// The group.
    Group = 15, "become the group (needs CAP_SETGID)";
    /// The user.
    User = 16, "become the user (needs CAP_SETUID)";
    /// No capability in any set.
    Capabilities = 17, "drop the capabilities";
    /// `no_new_privs`.
    NoNewPrivileges = 18, "set no_new_privs";
    /// What was given away is really gone.
    Verify = 19, "verify that all privileges are gone";
    /// The child dies with its maker.
    ParentDeath = 20, "tie the process to the launcher's life";
    /// The working directory, entered as the user.
    Directory = 21, "enter the working directory as the sandbox's user";
    /// Every descriptor but the first three is closed.
    Descriptors = 22, "close descriptors (needs Linux 5.9)";
    /// Signals are as a new process expects them.
    Signals = 23, "reset the signal handlers";
    /// Abstract Unix sockets of others are out of reach.
    Scope = 27, "close the way to abstract Unix sockets outside (Landlock)";
    /// The system call filter.
    Filter = 24, "install the system call filter (needs CONFIG_SECCOMP_FILTER)";
    /// The command itself.
    Exec = 25, "run the command";
    /// The maker could not read the report.
    Report = 26, "read what the process reports";
}

/// A report: step, place in its list, errno.
pub(super) type Report = [u8; 7];

pub(super) fn encode(failure: Failure) -> Report {
    let [low, high] = failure.index.to_le_bytes();
    let [a, b, c, d] = failure.errno.raw_os_error().to_le_bytes();
    [failure.step as u8, low, high, a, b, c, d]
}

pub(super) fn decode(report: &[u8]) -> Option<Failure> {
    let &[step, low, high, a, b, c, d] = report else {
        return None;
    };
    Some(Failure {
        step: Step::from_code(step)?,
        index: u16::from_le_bytes([low, high]),
        errno: Errno::from_raw_os_error(i32::from_le_bytes([a, b, c, d])),
    })
}

#[cfg(test)]
mod tests {
    use super::{Errno, Failure, Step, decode, encode};

    #[test]
    fn a_report_says_what_was_reported() {
        let failure = Failure {
            step: Step::HideFile,
            index: 0x1234,
            errno: Errno::NOSYS,
        };
        assert_eq!(decode(&encode(failure)), Some(failure));
        assert_eq!(decode(&[8, 0, 0]), None);
        assert_eq!(decode(&[0, 0, 0, 1, 0, 0, 0]), None);
    }
}
