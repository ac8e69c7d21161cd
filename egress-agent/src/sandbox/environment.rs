//! What a command finds in its environment: an allow-list.
//!
//! Sockets of agents and buses, tokens and proxies are all named by variables,
//! so what is not named here does not go in.

use crate::sandbox::user::User;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Where commands are looked for when the caller has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables, in the order of their names.
pub type Environment = BTreeMap<OsString, OsString>;

/// Why `--env` was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// There is no name before the `=`, or nothing at all.
    #[error("`--env {0}`: write NAME, to hand on the caller's value, or NAME=VALUE")]
    NoName(String),
    /// The caller has no such variable.
    #[error("`--env {0}`: the caller has no such variable; write {0}=VALUE to set one")]
    NotSet(String),
}

/// Builds the environment: `PATH`, `LANG`, `LC_*`, `TERM` and `TZ` from the
/// caller, `HOME` of the user, and what `wanted` (`--env`) names.
pub fn build(
    caller: impl IntoIterator<Item = (OsString, OsString)>,
    user: &User,
    wanted: &[String],
) -> Result<Environment, EnvironmentError> {
    let caller: Environment = caller.into_iter().collect();
    let mut environment = Environment::from([
        ("PATH".into(), DEFAULT_PATH.into()),
        ("HOME".into(), user.home.clone().into_os_string()),
    ]);
    for (name, value) in &caller {
        if is_handed_on(name) {
            environment.insert(name.clone(), value.clone());
        }
    }
    for text in wanted {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, OsString::from(value)),
            None if text.is_empty() => ("", OsString::new()),
            None => match caller.get(OsStr::new(text)) {
                Some(value) => (text.as_str(), value.clone()),
                None => return Err(EnvironmentError::NotSet(text.clone())),
            },
        };
        if name.is_empty() {
            return Err(EnvironmentError::NoName(text.clone()));
        }
        environment.insert(name.into(), value);
    }
    Ok(environment)
}

fn is_handed_on(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        matches!(name, "PATH" | "LANG" | "TERM" | "TZ") || name.starts_with("LC_")
    })
}

#[cfg(test)]
mod tests {
    use super::{Environment, EnvironmentError, User, build};

    fn run(caller: &[(&str, &str)], wanted: &[&str]) -> Result<Environment, EnvironmentError> {
        let user = User {
            uid: 1,
            gid: 1,
            home: "/home/a".into(),
        };
        let caller = caller.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
        build(caller, &user, &wanted)
    }

    #[test]
    fn only_the_list_and_what_is_asked_for_goes_in() {
        let caller = [
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C"),
            ("TERM", "xterm"),
            ("SSH_AUTH_SOCK", "/tmp/agent"),
            ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/bus"),
            ("LD_PRELOAD", "/tmp/x.so"),
            ("TOKEN", "secret"),
        ];
        let built = run(&caller, &["TOKEN", "MODE=a=b"]).expect("an environment");
        let built: Vec<_> = built
            .iter()
            .map(|(n, v)| format!("{}={}", n.display(), v.display()))
            .collect();
        assert_eq!(
            built,
            [
                "HOME=/home/a",
                "LC_ALL=C",
                "MODE=a=b",
                "PATH=/bin",
                "TERM=xterm",
                "TOKEN=secret"
            ]
        );
    }

    #[test]
    fn what_cannot_be_handed_on_is_named() {
        assert_eq!(
            run(&[], &["NOPE"]),
            Err(EnvironmentError::NotSet("NOPE".into()))
        );
        for text in ["", "=x"] {
            assert_eq!(
                run(&[], &[text]),
                Err(EnvironmentError::NoName(text.into()))
            );
        }
    }
}
