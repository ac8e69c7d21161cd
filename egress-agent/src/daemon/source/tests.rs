//! Pushes that are good, bad, old and half written, on a disk.

use super::{Loaded, Source, replace};
use crate::bundle::{Bundle, Member, TrustedKey};
use crate::daemon::config::{BundleSettings, Config};
use crate::policy::Diagnostic;
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const GOOD: &str = "apiVersion: egress/v1\n";

struct Host {
    directory: tempfile::TempDir,
    config: Config,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir(&path).expect("writable");
            path
        };
        let config = Config {
            policies: vec![at("policies.d")],
            state_directory: at("state"),
            ..Config::default()
        };
        Self { directory, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writable");
    }

    /// Starts as an agent does, and brings into force what it found.
    fn start(&self) -> Result<(Source, Loaded), Vec<Diagnostic>> {
        let mut source = Source::open(&self.config)?;
        let loaded = source.read_at_start(NOW)?;
        source.note_in_force(&loaded, NOW);
        Ok((source, loaded))
    }

    /// Makes this host believe a fresh key, whose files are `name` and `name.pub`.
    fn trust(&mut self, name: &str) {
        ssh_keygen(
            self.directory.path(),
            &["-q", "-t", "ed25519", "-N", "", "-f", name],
        );
        let key = fs::read_to_string(self.path(&format!("{name}.pub"))).expect("a key");
        self.config.bundle = Some(BundleSettings {
            keys: vec![TrustedKey::parse(&key).expect("a key")],
            file: self.path("bundle"),
            name: None,
        });
    }

    /// Pushes a bundle with one policy `name` to where it is looked for.
    fn push(&self, name: &str, version: u64, policy: &str, key: &str) {
        let file = Member {
            name: format!("{policy}.yaml"),
            text: GOOD.into(),
        };
        let bundle = Bundle::new(name, version, String::new(), vec![file]).expect("a bundle");
        fs::write(self.path("bundle"), bundle.encode().expect("bytes")).expect("writable");
        let _ = fs::remove_file(self.path("bundle.sig"));
        let sign = [
            "-Y",
            "sign",
            "-q",
            "-f",
            key,
            "-n",
            "egress-policy",
            "bundle",
        ];
        ssh_keygen(self.directory.path(), &sign);
    }
}

fn ssh_keygen(directory: &Path, arguments: &[&str]) {
    let done = Command::new("ssh-keygen")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("ssh-keygen is there");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded
        .policies
        .iter()
        .map(|policy| policy.name.clone())
        .collect()
}

#[track_caller]
fn refused<T>(result: Result<T, Vec<Diagnostic>>, wanted: &str) {
    let Err(problems) = result else {
        panic!("it should have been refused: {wanted}");
    };
    let said: Vec<&str> = problems.iter().map(|it| it.message.as_str()).collect();
    assert!(
        said.iter().any(|it| it.contains(wanted)),
        "{wanted}: {said:?}"
    );
    assert!(problems.iter().any(|it| it.help.is_some()), "{said:?}");
}

#[test]
fn what_was_good_the_last_time_is_used_after_a_bad_push_and_told() {
    let host = Host::new();
    host.write("policies.d/a.yaml", GOOD);
    let (source, loaded) = host.start().expect("good files");
    assert_eq!(loaded.from, "files");
    assert_eq!(source.warnings().count(), 0);
    host.write("policies.d/a.yaml", "nonsense");
    let (source, again) = host.start().expect("the last good ones");
    assert_eq!(names(&again), ["a"]);
    assert_eq!(again.from, "what was good the last time: files");
    let warning = source.warnings().next().expect("a warning");
    assert!(
        warning.contains("a.yaml") && warning.contains("refused"),
        "{warning}"
    );
    // And again, since the bad push did not become the last good one.
    assert_eq!(names(&host.start().expect("the last good ones").1), ["a"]);
    // A directory that has gone is a bad push too.
    fs::remove_dir_all(host.path("policies.d")).expect("removable");
    assert_eq!(names(&host.start().expect("the last good ones").1), ["a"]);
    // Once the push is mended it counts, and nothing is warned about.
    fs::create_dir(host.path("policies.d")).expect("writable");
    host.write("policies.d/b.yaml", GOOD);
    let (source, mended) = host.start().expect("good files");
    assert_eq!(
        (names(&mended), source.warnings().count()),
        (vec!["b".to_owned()], 0)
    );
}

#[test]
fn without_anything_good_a_bad_push_stops_the_start() {
    let host = Host::new();
    host.write("policies.d/a.yaml", "nonsense");
    assert!(host.start().is_err());
    // What was kept and damaged since is not half believed.
    host.write("policies.d/a.yaml", GOOD);
    host.start().expect("good files");
    let kept = host.path("state/last-good-policies.json");
    let text = fs::read(&kept).expect("kept");
    fs::write(&kept, &text[..text.len() / 2]).expect("writable");
    host.write("policies.d/a.yaml", "nonsense");
    refused(host.start(), "last-good-policies.json");
}

#[test]
fn an_agent_that_keeps_nothing_runs_what_it_was_given_or_nothing() {
    let mut host = Host::new();
    host.config.ephemeral = true;
    host.write("policies.d/a.yaml", GOOD);
    host.start().expect("good files");
    host.write("policies.d/a.yaml", "nonsense");
    assert!(host.start().is_err());
    assert_eq!(
        fs::read_dir(host.path("state")).expect("readable").count(),
        0
    );
}

#[test]
fn where_keys_are_configured_only_a_signed_bundle_counts() {
    let mut host = Host::new();
    host.trust("key");
    refused(host.start(), "cannot read");
    host.push("prod", 1, "one", "key");
    let (_, loaded) = host.start().expect("a signed bundle");
    assert_eq!(names(&loaded), ["one"]);
    assert!(
        loaded.from.starts_with("bundle prod version 1 of"),
        "{}",
        loaded.from
    );
    let policy = loaded.policies.get("one").expect("the policy");
    assert!(
        policy.file.ends_with("bundle/one.yaml"),
        "{}",
        policy.file.display()
    );
    // Unsigned.
    let mut source = Source::open(&host.config).expect("a source");
    fs::remove_file(host.path("bundle.sig")).expect("removable");
    refused(source.read(NOW), "not signed");
    // Signed by somebody else.
    ssh_keygen(
        host.directory.path(),
        &["-q", "-t", "ed25519", "-N", "", "-f", "other"],
    );
    host.push("prod", 2, "two", "other");
    refused(source.read(NOW), "no signature is by a key");
    // Changed after it was signed.
    host.push("prod", 2, "two", "key");
    let mut bytes = fs::read(host.path("bundle")).expect("a bundle");
    let last = bytes
        .iter()
        .rposition(|byte| *byte == b'1')
        .expect("a digit");
    bytes[last] = b'2';
    fs::write(host.path("bundle"), bytes).expect("writable");
    refused(source.read(NOW), "the file was changed");
    // And a loose file beside a good bundle.
    host.push("prod", 2, "two", "key");
    host.write("policies.d/loose.yaml", GOOD);
    refused(source.read(NOW), "loose.yaml` is in no signed bundle");
    fs::remove_file(host.path("policies.d/loose.yaml")).expect("removable");
    assert_eq!(names(&source.read(NOW).expect("a signed bundle")), ["two"]);
}

#[test]
fn a_host_never_goes_back_to_an_older_bundle() {
    let mut host = Host::new();
    host.trust("key");
    host.push("prod", 3, "three", "key");
    host.start().expect("a signed bundle");
    let mut source = Source::open(&host.config).expect("a source");
    host.push("prod", 2, "two", "key");
    refused(source.read(NOW), "version 2 is older than version 3");
    host.push("prod", 3, "other", "key");
    refused(source.read(NOW), "in force with another content");
    host.push("test", 9, "nine", "key");
    refused(
        source.read(NOW),
        "it is `test`, and what was in force is `prod`",
    );
    // A start after an old push uses the newest, and says so.
    host.push("prod", 1, "one", "key");
    let (source, loaded) = host.start().expect("the last good bundle");
    assert_eq!(names(&loaded), ["three"]);
    assert!(source.warnings().any(|it| it.contains("older")), "told");
    // Whoever configures the name changes over.
    host.config.bundle.as_mut().expect("settings").name = Some("test".into());
    host.push("test", 1, "new", "key");
    assert_eq!(names(&host.start().expect("the other name").1), ["new"]);
    host.push("prod", 4, "four", "key");
    let mut source = Source::open(&host.config).expect("a source");
    refused(source.read(NOW), "this host takes `test`");
    // A counter that cannot be read believes nothing.
    host.write("state/bundle-versions.json", "{");
    refused(Source::open(&host.config), "bundle-versions.json");
}

#[test]
fn the_last_good_bundle_must_still_be_signed_by_a_believed_key() {
    let mut host = Host::new();
    host.trust("old");
    host.push("prod", 1, "one", "old");
    host.start().expect("a signed bundle");
    // The key is revoked, and no new bundle is there.
    host.trust("new");
    refused(host.start(), "no signature is by a key");
    // Nor does a host that wants signatures go back to loose files it had before.
    let mut host = Host::new();
    host.write("policies.d/a.yaml", GOOD);
    host.start().expect("good files");
    fs::remove_file(host.path("policies.d/a.yaml")).expect("removable");
    host.trust("key");
    refused(host.start(), "cannot read");
}

#[test]
fn a_load_tells_what_it_changed_against_what_was_in_force() {
    let host = Host::new();
    host.write("policies.d/a.yaml", GOOD);
    host.write("policies.d/same.yaml", GOOD);
    let mut source = Source::open(&host.config).expect("a source");
    let first = source.read(NOW).expect("good files");
    let change = source.change(&first, NOW);
    assert_eq!((change.diff, change.signer), (None, None), "nothing before");
    source.note_in_force(&first, NOW);
    // Read again, unchanged: the same digest, and no difference.
    let again = source.read(NOW).expect("good files");
    assert_eq!(source.change(&again, NOW).digest, change.digest);
    assert_eq!(source.change(&again, NOW).diff, None);
    host.write(
        "policies.d/a.yaml",
        &format!("{GOOD}allowlist:\n  web:\n    - domain: new.example\n      protocols: [https]\n"),
    );
    host.write("policies.d/b.yaml", GOOD);
    // Also an agent that was not there before knows what was in force.
    let mut source = Source::open(&host.config).expect("a source");
    let loaded = source.read(NOW).expect("good files");
    let changed = source.change(&loaded, NOW);
    assert_ne!(changed.digest, change.digest);
    assert_eq!(changed.digest.len(), 64);
    let diff = changed.diff.expect("a difference");
    for line in [
        "+    - domain: new.example",
        "--- /dev/null",
        " apiVersion: egress/v1",
    ] {
        assert!(diff.lines().any(|it| it == line), "{line} in:\n{diff}");
    }
    assert!(!diff.contains("same.yaml"), "{diff}");
}

#[test]
fn a_bundle_tells_who_signed_it() {
    let mut host = Host::new();
    host.trust("key");
    host.push("prod", 1, "one", "key");
    let (source, _) = host.start().expect("a signed bundle");
    drop(source);
    host.push("prod", 2, "two", "key");
    let mut source = Source::open(&host.config).expect("a source");
    let loaded = source.read(NOW).expect("a signed bundle");
    let change = source.change(&loaded, NOW);
    let signer = change.signer.expect("a signer");
    assert!(loaded.from.ends_with(&format!("signed by {signer}")));
    let diff = change.diff.expect("a difference");
    assert!(
        diff.contains("--- one.yaml") && diff.contains("+++ two.yaml"),
        "{diff}"
    );
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file.json");
    replace(&path, b"old").expect("writable");
    // What a crash left behind is in nobody's way.
    fs::write(directory.path().join("file.json.new"), "half").expect("writable");
    replace(&path, b"new").expect("writable");
    assert_eq!(fs::read(&path).expect("readable"), b"new");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
