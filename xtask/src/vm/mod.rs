//! `cargo xtask vm`: the product on kernels that this machine does not run.
//!
//! Debian kernels with a real systemd, in QEMU without KVM, from images that
//! are made once and kept in `target/vm/`. Emulation is ten to twenty times
//! slower than the machine: nothing that is measured there is a time.

mod container;
mod guest;
mod kernel;
mod machine;
mod package;
mod suite;

pub use kernel::{Kernel, unwritable};

use crate::test::Tally;
use crate::{Failure, setup, shell};
use egress_tests::privilege::MUST_RUN;
use guest::Share;
use kernel::Bootable;
use machine::{Disk, Ending, Streams};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use suite::Built;
pub use suite::SMOKE;

/// Statuses by which a failure of the machine is told from one of the work, as
/// `timeout` and `docker run` have them.
const TIME_LIMIT: u8 = 124;
const DEATH: u8 = 125;

/// What is needed on this machine, with its Debian package and the reason.
const PROGRAMS: [(&str, &str, &str); 8] = [
    ("qemu-system-x86_64", "qemu-system-x86", "is the machine"),
    ("mmdebstrap", "mmdebstrap", "makes the root file system"),
    (
        "debootstrap",
        "debootstrap",
        "makes the root of containers in it",
    ),
    ("mke2fs", "e2fsprogs", "makes disks"),
    ("cpio", "cpio", "makes the initrd"),
    ("busybox", "busybox-static", "is the program in the initrd"),
    ("modprobe", "kmod", "knows which modules need which"),
    ("xz", "xz-utils", "unpacks modules for the initrd"),
];

/// What can be chosen.
#[derive(clap::Args)]
pub struct Options {
    /// A kernel; several may be named.
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<Kernel>,
    /// Every kernel; every suite too, unless some are named.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Seconds that one boot may take; then it is ended with status 124.
    #[arg(long, value_name = "SECONDS", default_value_t = 2400)]
    time_limit: u64,
    /// Make the images anew, from the packages of today.
    #[arg(long)]
    refresh: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Runs suites: unit, enforcement, bypasses, resilience, reload, operations,
    /// equivalence, smoke (what `cargo xtask test` runs),
    /// or any program of `tests/`.
    Test {
        /// Suites, each in a boot of its own.
        #[arg(required = true)]
        suites: Vec<String>,
        /// Arguments for the test programs.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Installs the package and does with it what operators do, over two boots.
    Package,
    /// The same in a container with a systemd of its own, on this kernel.
    Container,
    /// Puts the kernel behind a tap of this machine, as a sandbox, and tries to get
    /// out of it.
    BehindTap,
    /// Runs a shell command, with the product's programs in /share.
    Exec {
        /// The command.
        command: String,
    },
}

/// A suite on a kernel.
struct Cell {
    suite: String,
    release: String,
    ending: Ending,
    tally: Tally,
}

impl Cell {
    fn word(&self) -> String {
        match self.ending {
            Ending::Exited(0) => self.tally.to_string(),
            Ending::Exited(status) => format!("{} (status {status})", self.tally),
            Ending::TimeLimit => format!("{}, then out of time", self.tally),
            Ending::Died { .. } => format!("{}, then died", self.tally),
        }
    }
}

/// Does what was asked.
pub fn run(options: &Options) -> Result<(), Failure> {
    let limit = Duration::from_secs(options.time_limit);
    let kernels = if options.all {
        &Kernel::ALL[..]
    } else {
        &options.kernel
    };
    if kernels.is_empty() && !matches!(options.action, Some(Action::Container)) {
        return Err(Failure::new("on which kernel? --kernel, or --all"));
    }
    let ground = Ground::prepare(options.refresh)?;
    let cells = match &options.action {
        Some(Action::Exec { command }) => return exec(&ground, kernels, command, limit),
        Some(Action::Test { suites, arguments }) => {
            test(&ground, kernels, suites, arguments, limit)?
        }
        Some(Action::BehindTap) => return behind_tap(&ground, kernels),
        Some(Action::Package) => {
            let mut cells = Vec::new();
            for &kernel in kernels {
                cells.extend(package::test(&ground, kernel, limit)?);
            }
            cells
        }
        Some(Action::Container) => {
            setup::provide(&container::PROGRAMS)?;
            container::test(&ground, limit)?
        }
        None if options.all => test(&ground, kernels, &[], &[], limit)?,
        None => {
            return Err(Failure::new(
                "what for? `test SUITE`, `exec COMMAND`, or --all",
            ));
        }
    };
    print(&cells);
    cells.iter().try_for_each(|cell| judge(&cell.ending))
}

/// Runs suites on a kernel and returns what they counted, for the summary of
/// everything.
pub fn count(ground: &Ground, kernel: Kernel, suites: &[&str]) -> Result<Tally, Failure> {
    const LIMIT: Duration = Duration::from_secs(900);
    let suites: Vec<String> = suites.iter().map(|&suite| suite.to_owned()).collect();
    let cells = test(ground, &[kernel], &suites, &[], LIMIT)?;
    let mut sum = Tally::default();
    for cell in &cells {
        sum.add(cell.tally);
        if cell.tally.failures() == 0 {
            judge(&cell.ending)?;
        }
    }
    Ok(sum)
}

/// Runs suites on kernels; without any, all that there are.
fn test(
    ground: &Ground,
    kernels: &[Kernel],
    suites: &[String],
    arguments: &[String],
    limit: Duration,
) -> Result<Vec<Cell>, Failure> {
    let built = Built::build()?;
    let suites = if suites.is_empty() {
        &built.all_suites()
    } else {
        suites
    };
    let mut cells = Vec::new();
    for &kernel in kernels {
        let bootable = Bootable::prepare(kernel, &ground.cache)?;
        for suite in suites {
            let programs = built.suite(suite);
            if programs.is_empty() {
                return Err(Failure::new(format!("there is no suite `{suite}`")));
            }
            let share = built.share(&ground.cache, &programs, arguments)?;
            let boot = || ground.boot(kernel, &bootable, &share, suite, limit);
            let (mut ending, mut streams) = boot()?;
            if matches!(ending, Ending::Died { .. }) && streams.stdout().is_empty() {
                eprintln!("vm: the machine died before the work began; once more");
                (ending, streams) = boot()?;
            }
            let mut tally = Tally::default();
            for line in streams.stdout().lines().chain(streams.stderr().lines()) {
                tally.line(line);
            }
            if let Ending::Died { console } = &ending {
                eprintln!("vm: the machine died; its console ends with:\n{console}");
            }
            cells.push(Cell {
                suite: suite.clone(),
                release: bootable.release.clone(),
                ending,
                tally,
            });
        }
    }
    Ok(cells)
}

fn exec(
    ground: &Ground,
    kernels: &[Kernel],
    command: &str,
    limit: Duration,
) -> Result<(), Failure> {
    let built = Built::build()?;
    for &kernel in kernels {
        let bootable = Bootable::prepare(kernel, &ground.cache)?;
        let share = built.command(&ground.cache, command)?;
        let (ending, _) = ground.boot(kernel, &bootable, &share, "exec", limit)?;
        judge(&ending)?;
    }
    Ok(())
}

/// Runs the test that boots these kernels by itself.
fn behind_tap(ground: &Ground, kernels: &[Kernel]) -> Result<(), Failure> {
    shell::run(shell::cargo().arg("build"))?;
    for &kernel in kernels {
        let bootable = Bootable::prepare(kernel, &ground.cache)?;
        let directory = bootable.image.parent().unwrap_or(&ground.cache);
        let mut cargo = shell::testing_cargo();
        cargo.arg("test");
        if !shell::is_root() {
            shell::run_programs_as_root(&mut cargo);
        }
        cargo.args(["--test", "interface", "--", "--ignored", "machine::"]);
        cargo.env("EGRESS_MACHINE", directory).env(MUST_RUN, "1");
        shell::run(&mut cargo)?;
    }
    Ok(())
}

fn judge(ending: &Ending) -> Result<(), Failure> {
    match ending {
        Ending::Exited(0) => Ok(()),
        Ending::Exited(status) => Err(Failure::with_status(
            *status,
            format!("the work ended with status {status}"),
        )),
        Ending::TimeLimit => Err(Failure::with_status(
            TIME_LIMIT,
            "the machine was out of time",
        )),
        Ending::Died { console } => Err(Failure::with_status(
            DEATH,
            format!("the machine died:\n{console}"),
        )),
    }
}

fn print(cells: &[Cell]) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["kernel", "suite", "result"]);
    for cell in cells {
        table.add_row([&cell.release, &cell.suite, &cell.word()]);
    }
    println!("{table}");
}

/// What every boot stands on.
pub struct Ground {
    cache: PathBuf,
    root: PathBuf,
    /// One machine at a time: two would be each other's noise, and both would
    /// write the same files.
    _lock: fs::File,
}

impl Ground {
    /// Installs what is missing, and makes the root file system where there is none.
    pub fn prepare(refresh: bool) -> Result<Self, Failure> {
        setup::provide(&PROGRAMS)?;
        let cache = shell::workspace().join("target/vm");
        fs::create_dir_all(&cache).map_err(unwritable(&cache))?;
        let lock = cache.join("lock");
        let lock = fs::File::create(&lock).map_err(unwritable(&lock))?;
        lock.lock().map_err(unwritable(&cache))?;
        if refresh {
            forget(&cache)?;
        }
        let root = guest::prepare_root(&cache)?;
        Ok(Self {
            cache,
            root,
            _lock: lock,
        })
    }

    fn boot(
        &self,
        kernel: Kernel,
        bootable: &Bootable,
        share: &Share,
        name: &str,
        limit: Duration,
    ) -> Result<(Ending, Streams), Failure> {
        self.boot_from(
            Disk::Fresh(&self.root),
            kernel,
            bootable,
            share,
            name,
            limit,
        )
    }

    fn boot_from(
        &self,
        root: Disk<'_>,
        kernel: Kernel,
        bootable: &Bootable,
        share: &Share,
        name: &str,
        limit: Duration,
    ) -> Result<(Ending, Streams), Failure> {
        eprintln!("vm: {name} on {}", bootable.release);
        let disk = self.cache.join("share.img");
        share.make_disk(&disk)?;
        let last: &Path = &self.cache.join("last").join(format!("{kernel}-{name}"));
        let streams = Streams::new(last)?;
        let ending = machine::boot(bootable, root, &disk, &streams, limit)?;
        Ok((ending, streams))
    }
}

/// Takes away what says of which recipe the images were made.
fn forget(cache: &Path) -> Result<(), Failure> {
    let kernels = Kernel::ALL.map(|kernel| cache.join(kernel.to_string()).join("recipe"));
    for recipe in kernels.into_iter().chain([cache.join("root.recipe")]) {
        match fs::remove_file(&recipe) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(unwritable(&recipe)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(ending: Ending) -> Cell {
        let mut tally = Tally::default();
        tally.line("test result: FAILED. 2 passed; 1 failed; 0 ignored");
        Cell {
            suite: "unit".into(),
            release: "6.1.0".into(),
            ending,
            tally,
        }
    }

    #[test]
    fn the_ends_of_a_machine_are_told_apart() {
        let died = Ending::Died {
            console: "Kernel panic".into(),
        };
        let ends = [
            (
                Ending::Exited(1),
                "2 passed, 1 failed, 0 skipped (status 1)",
            ),
            (
                Ending::TimeLimit,
                "2 passed, 1 failed, 0 skipped, then out of time",
            ),
            (died, "2 passed, 1 failed, 0 skipped, then died"),
        ];
        for (ending, word) in ends {
            assert!(judge(&ending).is_err());
            assert_eq!(cell(ending).word(), word);
        }
        assert!(judge(&Ending::Exited(0)).is_ok());
    }
}
