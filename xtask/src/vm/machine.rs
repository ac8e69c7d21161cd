//! One boot: QEMU without KVM, from power on to power off.

use super::kernel::{Bootable, unwritable};
use crate::{Failure, shell};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Memory of a machine. The maps of one agent take some 50 MB, and several
/// agents run at a time.
const MEMORY: &str = "1024M";

/// How many of the console's last lines explain a death.
const LAST_WORDS: usize = 30;

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// The work ended with this status.
    Exited(u8),
    /// The work did not end in time, and the machine was switched off.
    TimeLimit,
    /// The machine ended before the work did.
    Died {
        /// The end of what its console says.
        console: String,
    },
}

/// Where the streams of a boot are kept: until the next one.
#[derive(Debug)]
pub struct Streams {
    stdout: PathBuf,
    stderr: PathBuf,
    status: PathBuf,
    console: PathBuf,
}

impl Streams {
    /// Empty streams in a directory.
    pub fn new(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory).map_err(unwritable(directory))?;
        let file = |name: &str| {
            let path = directory.join(name);
            fs::write(&path, "").map_err(unwritable(&path))?;
            Ok(path)
        };
        Ok(Self {
            stdout: file("stdout")?,
            stderr: file("stderr")?,
            status: file("status")?,
            console: file("console")?,
        })
    }

    /// What was written to stdout.
    pub fn stdout(&self) -> String {
        lossy(&self.stdout)
    }

    /// What was written to stderr.
    pub fn stderr(&self) -> String {
        lossy(&self.stderr)
    }

    fn ending(&self) -> Ending {
        match lossy(&self.status).trim().parse() {
            Ok(status) => Ending::Exited(status),
            Err(_) => Ending::Died {
                console: last_lines(&lossy(&self.console), LAST_WORDS),
            },
        }
    }
}

/// A root disk.
#[derive(Clone, Copy, Debug)]
pub enum Disk<'p> {
    /// What a boot writes to it goes with that boot.
    Fresh(&'p Path),
    /// What a boot writes to it the next one finds.
    Kept(&'p Path),
}

/// Boots and waits for the end of the work; shows its output meanwhile.
pub fn boot(
    kernel: &Bootable,
    root: Disk<'_>,
    share: &Path,
    streams: &Streams,
    limit: Duration,
) -> Result<Ending, Failure> {
    let mut qemu = command(kernel, root, share, streams);
    let line = shell::line(&qemu);
    eprintln!("+ {line}");
    let mut machine = qemu
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| Failure::new(format!("`{line}` cannot be started: {error}")))?;
    let mut shown = [Follower::of(&streams.stdout), Follower::of(&streams.stderr)];
    let in_time = wait(&mut machine, limit, || {
        shown.iter_mut().for_each(Follower::show);
    });
    shown.iter_mut().for_each(Follower::show);
    if in_time {
        Ok(streams.ending())
    } else {
        Ok(Ending::TimeLimit)
    }
}

/// Waits for the end, at most so long; a machine that is late is ended.
pub fn wait(machine: &mut Child, limit: Duration, mut meanwhile: impl FnMut()) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if !matches!(machine.try_wait(), Ok(None)) {
            return true;
        }
        if Instant::now() > deadline {
            // Both can only fail because it just ended.
            let _ = machine.kill();
            let _ = machine.wait();
            return false;
        }
        meanwhile();
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The command that boots. KVM is never asked for: where the device opens and
/// is not usable, guests die in it.
fn command(kernel: &Bootable, root: Disk<'_>, share: &Path, streams: &Streams) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"])
        .args(["-machine", "q35", "-smp", "2", "-m", MEMORY])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&kernel.initrd)
        .args([
            "-append",
            // Every panic ends the machine at once.
            "console=ttyS0 panic=-1 oops=panic quiet systemd.show_status=0",
        ])
        .arg("-serial")
        .arg(format!("file:{}", streams.console.display()));
    let root = match root {
        Disk::Fresh(path) => (path, "snapshot=on"),
        Disk::Kept(path) => (path, "snapshot=off"),
    };
    let disks = [
        root,
        (&kernel.modules, "readonly=on"),
        (share, "snapshot=on"),
    ];
    for (image, mode) in disks {
        let image = image.display();
        qemu.arg("-drive")
            .arg(format!("file={image},format=raw,if=virtio,{mode}"));
    }
    qemu.args(["-device", "virtio-serial"]);
    let ports = [&streams.stdout, &streams.stderr, &streams.status];
    for (number, file) in (1..).zip(ports) {
        qemu.arg("-chardev")
            .arg(format!("file,id=port{number},path={}", file.display()))
            .arg("-device")
            .arg(format!("virtserialport,chardev=port{number},nr={number}"));
    }
    qemu
}

/// Shows what is added to a file.
struct Follower<'f> {
    path: &'f Path,
    shown: u64,
}

impl<'f> Follower<'f> {
    fn of(path: &'f Path) -> Self {
        Self { path, shown: 0 }
    }

    fn show(&mut self) {
        let mut text = Vec::new();
        let read = fs::File::open(self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.shown))?;
            file.read_to_end(&mut text)
        });
        // What cannot be read now is shown the next time, or is in the file.
        if let Ok(count) = read {
            self.shown += count as u64;
            print!("{}", String::from_utf8_lossy(&text));
        }
    }
}

fn lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> (tempfile::TempDir, Streams) {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let streams = Streams::new(directory.path()).expect("streams");
        (directory, streams)
    }

    #[test]
    fn a_status_is_the_works_and_no_status_is_a_death_with_its_reason() {
        let (_directory, streams) = streams();
        fs::write(&streams.console, "boot\nKernel panic - not syncing\n").expect("writable");
        assert_eq!(
            streams.ending(),
            Ending::Died {
                console: "boot\nKernel panic - not syncing".into()
            }
        );
        fs::write(&streams.status, "101\n").expect("writable");
        assert_eq!(streams.ending(), Ending::Exited(101));
    }

    #[test]
    fn a_machine_that_is_late_is_ended() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().expect("sleep");
        let started = Instant::now();
        assert!(!wait(&mut sleeper, Duration::from_millis(300), || {}));
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(matches!(sleeper.try_wait(), Ok(Some(_))), "still there");
    }

    #[test]
    fn emulation_is_asked_for_and_nothing_of_the_disks_is_kept() {
        let (_directory, streams) = streams();
        let kernel = Bootable {
            release: "6.1".into(),
            image: "vmlinuz".into(),
            initrd: "initrd".into(),
            modules: "modules".into(),
        };
        let command = command(
            &kernel,
            Disk::Fresh(Path::new("root")),
            Path::new("share"),
            &streams,
        );
        let line = shell::line(&command);
        assert!(line.contains("-accel tcg"), "{line}");
        assert!(!line.contains("kvm"), "{line}");
        for disk in [
            "file=root,format=raw,if=virtio,snapshot=on",
            "file=share,format=raw,if=virtio,snapshot=on",
            "file=modules,format=raw,if=virtio,readonly=on",
        ] {
            assert!(line.contains(disk), "{disk} is not in: {line}");
        }
    }
}
