//! What is to be started, and its preparation.

use crate::model::Relaxation;
use crate::policy::SeccompProfile;
use crate::sandbox::environment::Environment;
use crate::sandbox::launch::LaunchError;
use crate::sandbox::seccomp;
use crate::sandbox::spawn::{Prepared, devices_cross};
use crate::sandbox::user::User;
use crate::sandbox::view::View;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is to be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaunchSpec {
    /// The command and its arguments. Without a `/` it is looked for in the
    /// `PATH` of `environment`.
    pub command: Vec<OsString>,
    /// As whom; see [`ChosenUser`](crate::sandbox::ChosenUser).
    pub user: User,
    /// All of its environment; see [`environment::build`](crate::sandbox::environment::build).
    pub environment: Environment,
    /// Where it starts. `None`: in this process's directory, or in `/` where
    /// the user may not enter that.
    pub directory: Option<PathBuf>,
    /// The text of its `resolv.conf`; see [`view::resolv_conf`](crate::sandbox::view::resolv_conf).
    /// `None`: the host's, unless that lies in `/run`, which is hidden.
    pub resolv_conf: Option<String>,
    /// The points of the fence that its policy opens.
    pub relaxed: Vec<Relaxation>,
    /// Whether signals that this process gets are handed to the command. One
    /// command per process can have them.
    pub forward_signals: bool,
    /// Which system calls it cannot make.
    pub seccomp: SeccompProfile,
    /// After this time it is killed, with all that it started.
    pub time: Option<Duration>,
    /// Bytes of a `/tmp` in memory, all else being read-only. `None`: the file
    /// system is the host's.
    pub disk: Option<u64>,
    /// Directories that are empty for it, if they exist.
    pub hidden: Vec<PathBuf>,
    /// Files and directories that it cannot change, if they exist.
    pub read_only: Vec<PathBuf>,
}

impl LaunchSpec {
    /// Makes everything that the child needs, while memory may be allocated.
    pub(super) fn prepare(&self) -> Result<Prepared, LaunchError> {
        let program = self.command.first().ok_or(LaunchError::NoCommand)?;
        if program.is_empty() {
            return Err(LaunchError::NoCommand);
        }
        if self.relaxed.contains(&Relaxation::UserNamespaces)
            && devices_cross().map_err(LaunchError::WiringUnknown)?
        {
            return Err(LaunchError::Wiring);
        }
        let here = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let directory = self.directory.clone().unwrap_or_else(here);
        Ok(Prepared {
            candidates: candidates(program, self.environment.get(OsStr::new("PATH")))?,
            arguments: self
                .command
                .iter()
                .map(|argument| c_string("the argument", argument))
                .collect::<Result<_, _>>()?,
            environment: self
                .environment
                .iter()
                .map(|(name, value)| {
                    let mut pair = name.clone();
                    pair.push("=");
                    pair.push(value);
                    c_string("the variable", &pair)
                })
                .collect::<Result<_, _>>()?,
            user: self.user.clone(),
            directory: c_string("the directory", directory.as_os_str())?,
            directory_or_root: self.directory.is_none(),
            view: View::plan(self.resolv_conf.clone(), self.user.uid == 0, &self.relaxed)?
                .without(&self.hidden, &self.read_only)?
                .with_disk(self.disk)?,
            time: self.time,
            filters: seccomp::programs(self.seccomp, &self.relaxed)?,
        })
    }
}

/// The files that may be meant by `program`. Empty parts of `PATH`, which mean
/// the working directory, are left out: the sandboxed code often writes there.
fn candidates(program: &OsStr, path: Option<&OsString>) -> Result<Vec<CString>, LaunchError> {
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![c_string("the command", program)?]);
    }
    path.map_or(&b""[..], |path| path.as_bytes())
        .split(|byte| *byte == b':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| {
            let file = Path::new(OsStr::from_bytes(directory)).join(program);
            c_string("the command", file.as_os_str())
        })
        .collect()
}

fn c_string(what: &'static str, value: &OsStr) -> Result<CString, LaunchError> {
    CString::new(value.to_owned().into_vec()).map_err(|_| LaunchError::ZeroByte {
        what,
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{LaunchError, candidates};
    use std::ffi::{OsStr, OsString};

    #[test]
    fn commands_are_looked_for_in_path_and_never_in_the_working_directory() {
        let find = |program: &str, path: &str| {
            let path = OsString::from(path);
            candidates(OsStr::new(program), Some(&path)).expect("candidates")
        };
        assert_eq!(
            find("a", "/x::/y:"),
            [c"/x/a".to_owned(), c"/y/a".to_owned()]
        );
        assert_eq!(find("./a", "/x"), [c"./a".to_owned()]);
        assert!(find("a", "").is_empty());
        assert!(matches!(
            candidates(OsStr::new("/a\0b"), None),
            Err(LaunchError::ZeroByte { .. })
        ));
    }
}
