//! As whom a command runs.

use egress_common::SandboxId;
use std::path::PathBuf;

/// Dedicated users begin here: above what distributions, containers and
/// dynamic services hand out, and below what a signed 32-bit number holds.
const DEDICATED_FIRST: u32 = 2_000_000_000;
/// Sandbox ids beyond this have no dedicated user.
const DEDICATED_COUNT: u32 = 147_000_000;
/// A home that is not there and that nobody may make.
const NO_HOME: &str = "/nonexistent";

/// A user as the kernel and the command see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number; there are no supplementary groups.
    pub gid: u32,
    /// What `HOME` says.
    pub home: PathBuf,
}

/// The user of a sandbox, with what is looser about it than a user of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct ChosenUser {
    /// Who.
    pub user: User,
    /// Each a sentence for status, reports and the audit store.
    pub relaxations: Vec<String>,
}

/// Who called this program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    /// The real user of this process.
    pub uid: u32,
    /// `SUDO_UID`, if set.
    pub sudo_uid: Option<String>,
    /// `SUDO_GID`, if set.
    pub sudo_gid: Option<String>,
}

/// Why no user could be chosen.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UserError {
    /// The policy names a user that `/etc/passwd` does not have.
    #[error(
        "the policy's user `{0}` is not in /etc/passwd; add it, or write numbers: `user: UID:GID`"
    )]
    Unknown(String),
    /// `SUDO_UID` or `SUDO_GID` does not hold a number.
    #[error("{variable}=`{value}` is not a number; start with sudo, or unset {variable}")]
    SudoVariable {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        value: String,
    },
    /// More sandboxes than dedicated users.
    #[error("sandbox {0} has no dedicated user left; name one in the policy: `user: NAME`")]
    Exhausted(u32),
    /// `/etc/passwd` cannot be read.
    #[error("cannot read /etc/passwd: {0}")]
    Passwd(String),
}

impl Caller {
    /// The caller of this very process.
    pub fn of_this_process() -> Self {
        Self {
            uid: rustix::process::getuid().as_raw(),
            sudo_uid: std::env::var("SUDO_UID").ok(),
            sudo_gid: std::env::var("SUDO_GID").ok(),
        }
    }

    /// The user who called sudo. The variables count only where the real user
    /// is root, who could choose any user anyway.
    fn invoking(&self) -> Result<Option<(u32, Option<u32>)>, UserError> {
        let Some(uid) = self.sudo_uid.as_deref().filter(|_| self.uid == 0) else {
            return Ok(None);
        };
        let uid = number("SUDO_UID", uid)?;
        let gid = match self.sudo_gid.as_deref() {
            Some(gid) => Some(number("SUDO_GID", gid)?),
            None => None,
        };
        Ok((uid != 0).then_some((uid, gid)))
    }
}

fn number(variable: &'static str, value: &str) -> Result<u32, UserError> {
    // The highest number means "leave it as it is" to setresuid(2).
    value
        .parse()
        .ok()
        .filter(|number| *number != u32::MAX)
        .ok_or_else(|| UserError::SudoVariable {
            variable,
            value: value.to_owned(),
        })
}

impl ChosenUser {
    /// Chooses: the policy's user, else who called sudo, else a user that only
    /// this sandbox has. Root is never chosen unless the policy says so.
    pub fn choose(
        policy: Option<&str>,
        caller: &Caller,
        sandbox: SandboxId,
    ) -> Result<Self, UserError> {
        let passwd = std::fs::read_to_string("/etc/passwd")
            .map_err(|error| UserError::Passwd(error.to_string()))?;
        Self::choose_from(&passwd, policy, caller, sandbox)
    }

    fn choose_from(
        passwd: &str,
        policy: Option<&str>,
        caller: &Caller,
        sandbox: SandboxId,
    ) -> Result<Self, UserError> {
        if let Some(text) = policy {
            let user = named(passwd, text).ok_or_else(|| UserError::Unknown(text.to_owned()))?;
            return Ok(Self::shared(user, text));
        }
        if let Some((uid, gid)) = caller.invoking()? {
            let known = entries(passwd).find(|entry| entry.user.uid == uid);
            let user = User {
                uid,
                gid: gid
                    .or(known.as_ref().map(|entry| entry.user.gid))
                    .unwrap_or(uid),
                home: known.map_or_else(|| NO_HOME.into(), |entry| entry.user.home),
            };
            return Ok(Self::shared(user, &format!("uid {uid}")));
        }
        if sandbox.0 >= DEDICATED_COUNT {
            return Err(UserError::Exhausted(sandbox.0));
        }
        let own = DEDICATED_FIRST + sandbox.0;
        Ok(Self {
            user: User {
                uid: own,
                gid: own,
                home: NO_HOME.into(),
            },
            relaxations: Vec::new(),
        })
    }

    /// A user who is also outside the sandbox.
    fn shared(user: User, name: &str) -> Self {
        let mut relaxations = Vec::new();
        if user.uid == 0 {
            relaxations.push(
                "runs as root (without capabilities): it may change every file that root owns, \
                 and so make host services act for it"
                    .to_owned(),
            );
        } else {
            relaxations.push(format!(
                "runs as {name}, a user who also exists outside the sandbox: it may change that \
                 user's files, which programs outside may read and run"
            ));
        }
        if user.gid == 0 && user.uid != 0 {
            relaxations.push("runs in group 0, which may change some of root's files".to_owned());
        }
        Self { user, relaxations }
    }
}

struct Entry<'a> {
    name: &'a str,
    user: User,
}

/// The well-formed entries of `/etc/passwd` (`passwd(5)`). The file alone is
/// read: the C library's lookup may ask directory servers over the network.
fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?.into();
        let user = User { uid, gid, home };
        (!name.is_empty()).then_some(Entry { name, user })
    })
}

/// A user by name, by number, or by `UID:GID`.
fn named(passwd: &str, text: &str) -> Option<User> {
    if let Some((uid, gid)) = text.split_once(':') {
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        if uid == u32::MAX || gid == u32::MAX {
            return None;
        }
        let home = entries(passwd)
            .find(|entry| entry.user.uid == uid)
            .map_or_else(|| NO_HOME.into(), |entry| entry.user.home);
        return Some(User { uid, gid, home });
    }
    let uid: Option<u32> = text.parse().ok();
    entries(passwd)
        .find(|entry| entry.name == text || Some(entry.user.uid) == uid)
        .map(|entry| entry.user)
}

#[cfg(test)]
mod tests {
    use super::{Caller, ChosenUser, SandboxId, User, UserError};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          broken:line\n\
                          alice:x:1000:1001:Alice:/home/alice:/bin/sh\n";

    fn choose(policy: Option<&str>, caller: &Caller) -> Result<ChosenUser, UserError> {
        ChosenUser::choose_from(PASSWD, policy, caller, SandboxId(7))
    }

    fn sudo(uid: u32, sudo_uid: &str, sudo_gid: &str) -> Caller {
        Caller {
            uid,
            sudo_uid: Some(sudo_uid.to_owned()),
            sudo_gid: Some(sudo_gid.to_owned()),
        }
    }

    fn user(uid: u32, gid: u32, home: &str) -> User {
        User {
            uid,
            gid,
            home: home.into(),
        }
    }

    #[test]
    fn who_called_sudo_runs_it_and_root_itself_gets_a_user_of_its_own() {
        let chosen = choose(None, &sudo(0, "1000", "1001")).expect("a user");
        assert_eq!(chosen.user, user(1000, 1001, "/home/alice"));
        assert_eq!(chosen.relaxations.len(), 1);
        for caller in [Caller::default(), sudo(0, "0", "0")] {
            let chosen = choose(None, &caller).expect("a user");
            assert_eq!(
                chosen.user,
                user(2_000_000_007, 2_000_000_007, "/nonexistent")
            );
            assert!(chosen.relaxations.is_empty());
        }
    }

    #[test]
    fn sudo_variables_count_for_root_only_and_must_be_numbers() {
        let chosen = choose(None, &sudo(1000, "33", "33")).expect("a user");
        assert_eq!(chosen.user.uid, 2_000_000_007);
        for text in ["", "-1", "4294967295", "alice"] {
            assert!(choose(None, &sudo(0, text, "1")).is_err(), "{text:?}");
            assert!(choose(None, &sudo(0, "1", text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_policy_wins_and_root_is_a_relaxation_there() {
        let caller = sudo(0, "1000", "1001");
        let alice = user(1000, 1001, "/home/alice");
        for text in ["alice", "1000", "1000:1001"] {
            assert_eq!(choose(Some(text), &caller).expect(text).user, alice);
        }
        let root = choose(Some("root"), &caller).expect("root");
        assert_eq!(root.user.uid, 0);
        assert!(root.relaxations[0].contains("root"));
        let grouped = choose(Some("5:0"), &caller).expect("5:0");
        assert_eq!(grouped.relaxations.len(), 2);
        for text in ["bob", "4242", "4294967295:0", "", ":"] {
            assert!(choose(Some(text), &caller).is_err(), "{text:?}");
        }
    }

    #[test]
    fn there_is_an_end_to_dedicated_users() {
        let none = Caller::default();
        let chosen = ChosenUser::choose_from(PASSWD, None, &none, SandboxId(u32::MAX));
        assert_eq!(chosen, Err(UserError::Exhausted(u32::MAX)));
    }
}
