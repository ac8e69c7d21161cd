//! The root file system of the containers of tests, made by debootstrap.

use crate::debian::Archive;
use crate::{Failure, shell};
use egress_tests::debian::{EXCUSE, ROOT};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The release whose packages it has.
const SUITE: &str = "bookworm";

/// Why it is needed.
pub const REASON: &str = "is the root of containers in tests; made by debootstrap";

/// Makes it if it is not there. That its packages cannot be fetched is told and is
/// no failure: the tests that need it are skipped then, with that reason.
pub fn provide() -> Result<(), Failure> {
    if is_there() {
        return Ok(());
    }
    eprintln!("setup: making {ROOT}, which takes a minute or two");
    let mirror = Archive::Releases.mirror();
    make(&mut shell::as_root("sh")?, ROOT, &mirror, EXCUSE)?;
    if let Ok(excuse) = fs::read_to_string(EXCUSE) {
        let excuse = excuse.trim();
        eprintln!("setup: {ROOT} is not made, and tests that need it are skipped: {excuse}");
    }
    Ok(())
}

/// Whether all of it is there.
pub fn is_there() -> bool {
    Path::new(ROOT).is_dir()
}

fn make(sh: &mut Command, place: &str, mirror: &str, excuse: &str) -> Result<(), Failure> {
    sh.arg(shell::workspace().join("xtask/src/setup/debian-root.sh"));
    shell::run(sh.args([place, SUITE, mirror, excuse]))
}

#[cfg(test)]
mod tests {
    use super::make;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// A directory with a place in it, and with programs that stand for those that
    /// need root and a registry.
    struct Made(tempfile::TempDir);

    impl Made {
        fn new(debootstrap: &str) -> Self {
            let made = Self(tempfile::tempdir().expect("a directory can be made"));
            made.program("unshare", r#"shift 2; exec "$@""#);
            made.program("debootstrap", debootstrap);
            made
        }

        fn program(&self, name: &str, script: &str) {
            let file = self.at(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("writable");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("own file");
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Makes the place, and says whether that was a success.
        fn make(&self) -> bool {
            let path = std::env::var("PATH").unwrap_or_default();
            let mut sh = Command::new("sh");
            sh.env("PATH", format!("{}:{path}", self.0.path().display()));
            let [place, excuse] = ["place", "excuse"].map(|name| self.at(name));
            let text = |path: &Path| path.display().to_string();
            make(&mut sh, &text(&place), "mirror", &text(&excuse)).is_ok()
        }
    }

    /// What debootstrap leaves that comes to its end.
    const WORKS: &str =
        r#"[ "$2 $4" = "bookworm mirror" ] && mkdir -p "$3/dev" "$3/usr/share/doc""#;

    #[test]
    fn it_is_there_as_a_whole_and_made_once() {
        let made = Made::new(WORKS);
        // What an interrupted one left.
        fs::create_dir_all(made.at("place.new/left")).expect("writable");
        fs::write(made.at("excuse"), "unreachable yesterday").expect("writable");
        assert!(made.make());
        assert!(made.at("place/dev").is_dir());
        for gone in ["place/left", "place/usr/share/doc", "place.new", "excuse"] {
            assert!(!made.at(gone).exists(), "{gone}");
        }
        made.program("debootstrap", "exit 1");
        assert!(made.make(), "nothing is left to do");
    }

    #[test]
    fn a_registry_that_is_not_reached_is_an_excuse_and_nothing_else_is() {
        let unreachable = "E: Failed getting release file mirror/dists/bookworm/Release";
        let made = Made::new(&format!("mkdir \"$3\"; echo '{unreachable}'; exit 1"));
        assert!(made.make());
        let excuse = fs::read_to_string(made.at("excuse")).expect("an excuse");
        assert_eq!(excuse.trim(), unreachable);
        assert!(!made.at("place").exists() && !made.at("place.new").exists());
        made.program("debootstrap", "echo 'E: No space left on device'; exit 1");
        assert!(!made.make());
        assert!(!made.at("excuse").exists());
    }
}
