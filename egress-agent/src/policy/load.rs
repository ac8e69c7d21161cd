//! Reads policy files; the only I/O of this module.

use super::Policy;
use super::diagnostic::Diagnostic;
use super::listed::OpenLists;
use super::set::PolicySet;
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest policy file that is read, in bytes.
pub const MAX_FILE: u64 = 4 * 1024 * 1024;
/// The most policy files that a directory may hold.
pub const MAX_FILES: usize = 4096;

/// Reads one policy file.
pub fn file(path: &Path, now: Timestamp) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let text = read(path).map_err(|problem| vec![problem])?;
    let (policy, warnings) = Policy::parse(path, &text, now)?;
    with_lists(policy, warnings, &mut OpenLists::default())
}

/// Opens the lists of a policy.
fn with_lists(
    mut policy: Policy,
    mut found: Vec<Diagnostic>,
    open: &mut OpenLists,
) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let problems = policy.open_lists(open);
    if problems.is_empty() {
        return Ok((policy, found));
    }
    found.extend(problems);
    Err(found)
}

/// A policy file that was read and not understood yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    /// The file.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

/// Reads policy files, and every `*.yaml` and `*.yml` file of directories, and
/// joins them to a set. All problems of all files come at once.
pub fn set(
    paths: &[PathBuf],
    now: Timestamp,
) -> Result<(PolicySet, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (texts, problems) = texts(paths);
    parse(&texts, problems, now)
}

/// Reads policy files and directories of them without understanding anything;
/// what cannot be read comes as problems beside what can.
pub fn texts(paths: &[PathBuf]) -> (Vec<Text>, Vec<Diagnostic>) {
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match listed(path) {
            Ok(files) => {
                for path in files {
                    match read(&path) {
                        Ok(text) => texts.push(Text { path, text }),
                        Err(problem) => problems.push(problem),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    (texts, problems)
}

/// Joins texts to a set; `found` are the problems that are known already.
pub fn parse(
    texts: &[Text],
    mut found: Vec<Diagnostic>,
    now: Timestamp,
) -> Result<(PolicySet, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut policies = Vec::new();
    let mut open = OpenLists::default();
    for Text { path, text } in texts {
        let parsed = Policy::parse(path, text, now);
        match parsed.and_then(|(policy, found)| with_lists(policy, found, &mut open)) {
            Ok((policy, warnings)) => {
                policies.push(policy);
                found.extend(warnings);
            }
            Err(problems) => found.extend(problems),
        }
    }
    let set = PolicySet::new(policies);
    match set {
        Ok(set) if !found.iter().any(Diagnostic::is_error) => Ok((set, found)),
        Ok(_) => Err(found),
        Err(problems) => {
            found.extend(problems);
            Err(found)
        }
    }
}

/// The file itself, or the policy files of a directory in the order of their names.
pub fn listed(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| unreadable(path, &error))?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        // Editors and package managers leave hidden files and other endings behind.
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && matches!(ending, Some("yaml" | "yml")) {
            files.push(file);
        }
    }
    if files.len() > MAX_FILES {
        let message = format!(
            "`{}` holds {} policy files, and {MAX_FILES} are read at most",
            path.display(),
            files.len()
        );
        return Err(Diagnostic::about_file("unreadable", path, message)
            .help("join policies, or spread them over several agents"));
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, Diagnostic> {
    let refuse = |message: String, help: &str| {
        Err(Diagnostic::about_file("unreadable", path, message).help(help))
    };
    // Asked before opening: opening a FIFO would wait for a writer.
    let about = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if about.is_dir() {
        return refuse(
            format!("`{}` is a directory", path.display()),
            "name a policy file in it",
        );
    }
    if !about.is_file() {
        return refuse(
            format!("`{}` is not a regular file", path.display()),
            "write the policy to a file",
        );
    }
    let too_large = || {
        refuse(
            format!(
                "`{}` is larger than {} MiB",
                path.display(),
                MAX_FILE / 1024 / 1024
            ),
            "use wildcards or networks instead of long lists, or several policies",
        )
    };
    if about.len() > MAX_FILE {
        return too_large();
    }
    let mut bytes = Vec::new();
    // The file may have grown since it was asked for its size.
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_FILE {
        return too_large();
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            refuse(
                format!(
                    "`{}` is not UTF-8: byte {at} begins no character",
                    path.display()
                ),
                "save the file as UTF-8",
            )
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let (why, help) = match error.kind() {
        io::ErrorKind::NotFound => ("it does not exist", "check the path"),
        io::ErrorKind::PermissionDenied => {
            ("permission denied", "make the file readable for this user")
        }
        // `ELOOP`; its own kind is not stable yet.
        _ if error.raw_os_error() == Some(libc::ELOOP) => (
            "its symbolic links form a loop",
            "replace the links by a file",
        ),
        _ => ("", "check the path"),
    };
    let why = if why.is_empty() {
        error.to_string()
    } else {
        why.to_owned()
    };
    Diagnostic::about_file(
        "unreadable",
        path,
        format!("cannot read `{}`: {why}", path.display()),
    )
    .help(help)
}

#[cfg(test)]
mod tests {
    use super::{MAX_FILE, file, set};
    use crate::policy::Diagnostic;
    use jiff::Timestamp;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const GOOD: &str = "apiVersion: egress/v1\n";

    fn words(found: &[Diagnostic]) -> String {
        found
            .iter()
            .map(|found| format!("{}\n", found.message))
            .collect()
    }

    #[track_caller]
    fn refused(path: &Path, wanted: &str) {
        let found = file(path, NOW).expect_err("it cannot be read");
        assert_eq!(
            found.iter().map(|found| found.code).collect::<Vec<_>>(),
            ["unreadable"]
        );
        assert!(words(&found).contains(wanted), "{}", words(&found));
        assert!(found.iter().all(|found| found.help.is_some()));
    }

    #[test]
    fn what_is_no_policy_file_is_refused_in_clear_words() {
        let folder = tempfile::tempdir().expect("a directory");
        let at = |name: &str| folder.path().join(name);
        refused(&at("absent.yaml"), "it does not exist");
        refused(folder.path(), "is a directory");
        refused(Path::new("/dev/null"), "is not a regular file");
        symlink("loop.yaml", at("loop.yaml")).expect("a link");
        refused(&at("loop.yaml"), "symbolic links form a loop");
        fs::write(at("binary.yaml"), b"a: \xff").expect("a file");
        refused(&at("binary.yaml"), "is not UTF-8: byte 3");
        let large = fs::File::create(at("large.yaml")).expect("a file");
        large.set_len(MAX_FILE + 1).expect("a sparse file");
        refused(&at("large.yaml"), "is larger than 4 MiB");
    }

    #[test]
    fn a_directory_gives_its_policy_files_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a directory");
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "c.yaml~", "README.md"] {
            fs::write(folder.path().join(name), GOOD).expect("a file");
        }
        let (set, warnings) = set(&[folder.path().to_owned()], NOW).expect("policies");
        let names: Vec<&str> = set.iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(warnings, []);
    }

    #[test]
    fn problems_of_all_files_come_at_once() {
        let folder = tempfile::tempdir().expect("a directory");
        for (name, text) in [("a.yaml", "x: 1\n"), ("b.yaml", GOOD), ("c.yaml", "y: 1\n")] {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let found = set(&[folder.path().to_owned()], NOW).expect_err("two are bad");
        assert!(words(&found).contains("`x`") && words(&found).contains("`y`"));
    }
}
