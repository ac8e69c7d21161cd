//! The kernel toolchain: what compiles `egress-ebpf`, and where it is.
//!
//! This file is the only place that knows it. `egress-agent/build.rs` includes
//! it by path to build the kernel object, `xtask setup` uses it to know what is
//! missing. It therefore depends on nothing but `std`.
//!
//! Two toolchains can build for [`TARGET`], which rustup has no precompiled
//! `core` for:
//!
//! | toolchain | compiler | `core` |
//! |---|---|---|
//! | Debian packages | `rustc-web` | precompiled, package `libstd-rust-web-dev-bpf` |
//! | rustup nightly | `nightly` | built from component `rust-src` |
//!
//! Both link with [`LINKER`]. Its LLVM has to be at least as new as the
//! compiler's, since it reads the bitcode which that compiler wrote.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the kernel programs: BPF on a little-endian machine.
pub const TARGET: &str = "bpfel-unknown-none";

/// The program that turns LLVM bitcode into a BPF object.
pub const LINKER: &str = "bpf-linker";

/// The places of a machine in which toolchains are looked for.
pub struct Machine {
    /// Root of the file system, `/` outside of tests.
    pub root: PathBuf,
    /// Directories in which [`LINKER`] may be, in order of preference.
    pub programs: Vec<PathBuf>,
    /// Directory of rustup's toolchains, if rustup may be in use.
    pub rustup_toolchains: Option<PathBuf>,
}

impl Machine {
    /// The machine that this program runs on.
    pub fn here() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let below_home = |variable: &str, fallback: &str| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|home| home.join(fallback)))
        };
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        // Under sudo or systemd, cargo's own directory is often not on PATH.
        let cargo_programs = below_home("CARGO_HOME", ".cargo").map(|cargo| cargo.join("bin"));
        Self {
            root: PathBuf::from("/"),
            programs: std::env::split_paths(&search_path)
                .chain(cargo_programs)
                .collect(),
            rustup_toolchains: below_home("RUSTUP_HOME", ".rustup")
                .map(|rustup| rustup.join("toolchains")),
        }
    }
}

/// A complete toolchain for the kernel programs.
#[derive(Debug, PartialEq, Eq)]
pub struct Toolchain {
    source: Source,
    rustc: PathBuf,
    linker: PathBuf,
}

/// Where the compiler comes from, which decides where `core` comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    DebianPackages,
    RustupNightly,
}

/// A part of a toolchain that is not there, or does not work.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// The compiler of Debian's package `rustc-web`.
    DebianCompiler,
    /// The precompiled `core` of Debian's package `libstd-rust-web-dev-bpf`.
    DebianCore,
    /// Any nightly toolchain of rustup.
    Nightly,
    /// The sources of `core` in a nightly toolchain.
    NightlySources,
    /// The linker is nowhere on the search path.
    Linker,
    /// The linker is there and cannot be started, with what it said.
    LinkerBroken(PathBuf, String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DebianCompiler => write!(f, "/usr/bin/rustc (Debian package rustc-web)"),
            Self::DebianCore => write!(
                f,
                "core for {TARGET} (Debian package libstd-rust-web-dev-bpf, \
                 the same version as rustc-web)"
            ),
            Self::Nightly => write!(f, "a nightly toolchain (rustup toolchain install nightly)"),
            Self::NightlySources => write!(
                f,
                "the sources of core (rustup component add rust-src --toolchain nightly)"
            ),
            Self::Linker => write!(f, "{LINKER} on the search path or in cargo's bin directory"),
            Self::LinkerBroken(path, said) => {
                write!(
                    f,
                    "a working {LINKER}: {} cannot be started: {said}",
                    path.display()
                )
            }
        }
    }
}

/// No toolchain is complete: for each, what it lacks.
#[derive(Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// What the toolchain of Debian packages lacks.
    pub debian: Vec<Missing>,
    /// What a rustup nightly toolchain lacks.
    pub nightly: Vec<Missing>,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the kernel programs cannot be built: no toolchain for {TARGET} is complete"
        )?;
        for (name, missing) in [
            ("Debian packages", &self.debian),
            ("rustup nightly", &self.nightly),
        ] {
            writeln!(f, "  with {name}, this is missing:")?;
            for part in missing {
                writeln!(f, "    - {part}")?;
            }
        }
        write!(
            f,
            "  one of the two is enough; `cargo xtask setup` installs the first on Debian"
        )
    }
}

impl std::error::Error for Incomplete {}

impl Toolchain {
    /// Finds a complete toolchain, Debian's packages first: they are a fixed
    /// version that the project is tested with, a nightly is not.
    pub fn find(machine: &Machine) -> Result<Self, Incomplete> {
        let linker = working_linker(&machine.programs);
        let complete = |source, compiler: Result<PathBuf, Vec<Missing>>| match (compiler, &linker) {
            (Ok(rustc), Ok(linker)) => Ok(Self {
                source,
                rustc,
                linker: linker.clone(),
            }),
            (compiler, linker) => {
                let mut missing = compiler.err().unwrap_or_default();
                missing.extend(linker.as_ref().err().map(LinkerProblem::missing));
                Err(missing)
            }
        };
        complete(Source::DebianPackages, debian_compiler(&machine.root)).or_else(|debian| {
            let nightly = nightly_compiler(machine.rustup_toolchains.as_deref());
            complete(Source::RustupNightly, nightly)
                .map_err(|nightly| Incomplete { debian, nightly })
        })
    }

    /// Returns the command that builds package `egress-ebpf` of `workspace`
    /// into `target_dir`, and the path of the object that it will leave.
    ///
    /// `cargo` is the cargo that runs now. The command gets a target directory
    /// of its own, because an outer cargo holds the lock of the usual one.
    pub fn build(&self, cargo: &Path, workspace: &Path, target_dir: &Path) -> (Command, PathBuf) {
        let mut command = match self.source {
            Source::DebianPackages => Command::new(cargo),
            // `-Z` options are only accepted by the nightly's own cargo.
            Source::RustupNightly => Command::new(self.rustc.with_file_name("cargo")),
        };
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| belongs_to_outer_cargo(name)) {
            command.env_remove(name);
        }
        let mut linker = OsString::from("-Clinker=");
        linker.push(&self.linker);
        let mut flags = linker;
        // Both are needed for `.BTF`, without which the maps that use BTF types
        // cannot be created and verifier messages cannot name source lines.
        flags.push("\u{1f}-Clink-arg=--btf\u{1f}-Cdebuginfo=2");
        command
            .current_dir(workspace)
            .env("RUSTC", &self.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            // How the agent is optimised is its own affair: the verifier of each kernel
            // judges what comes out here.
            .env("CARGO_PROFILE_RELEASE_LTO", "thin")
            .args(["build", "--locked", "--release", "--package", "egress-ebpf"])
            .args(["--target", TARGET, "--target-dir"])
            .arg(target_dir);
        match self.source {
            // aya-ebpf uses `asm_experimental_arch`, which a released compiler
            // only accepts with this.
            Source::DebianPackages => command.env("RUSTC_BOOTSTRAP", "1"),
            Source::RustupNightly => command.arg("-Zbuild-std=core"),
        };
        (
            command,
            target_dir.join(TARGET).join("release").join("egress-ebpf"),
        )
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::DebianPackages => "Debian packages",
            Source::RustupNightly => "rustup nightly",
        };
        write!(
            f,
            "{source}: {}, {}",
            self.rustc.display(),
            self.linker.display()
        )
    }
}

/// Says whether an environment variable describes the outer build: inherited
/// by the inner one, it would choose that build's compiler, clippy's wrapper or
/// features. Cargo's settings for the network and the user's home stay.
fn belongs_to_outer_cargo(name: &std::ffi::OsStr) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTRIES_",
        "CARGO_SOURCE_",
    ];
    const FOREIGN: [&str; 10] = [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "RUSTC_BOOTSTRAP",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        // Cargo puts the outer compiler's libraries here.
        "LD_LIBRARY_PATH",
        "TARGET",
    ];
    let name = name.to_string_lossy();
    let kept = KEPT.iter().any(|kept| name.starts_with(kept));
    FOREIGN.contains(&name.as_ref()) || (name.starts_with("CARGO") && !kept)
}

fn debian_compiler(root: &Path) -> Result<PathBuf, Vec<Missing>> {
    let rustc = root.join("usr/bin/rustc");
    let core = root.join("usr/lib/rustlib").join(TARGET).join("lib");
    let mut missing = Vec::new();
    if !rustc.is_file() {
        missing.push(Missing::DebianCompiler);
    }
    let has_core = core.read_dir().is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    });
    if !has_core {
        missing.push(Missing::DebianCore);
    }
    if missing.is_empty() {
        Ok(rustc)
    } else {
        Err(missing)
    }
}

fn nightly_compiler(toolchains: Option<&Path>) -> Result<PathBuf, Vec<Missing>> {
    let mut nightlies: Vec<PathBuf> = toolchains
        .and_then(|directory| directory.read_dir().ok())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly"))
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/rustc").is_file())
        .collect();
    // `nightly-HOST` sorts behind `nightly-DATE-HOST`, so the last is rustup's
    // current one, whatever order the directory gave.
    nightlies.sort();
    if nightlies.is_empty() {
        return Err(vec![Missing::Nightly, Missing::NightlySources]);
    }
    nightlies
        .iter()
        .rev()
        .find(|nightly| nightly.join("lib/rustlib/src/rust/library/core").is_dir())
        .map(|nightly| nightly.join("bin/rustc"))
        .ok_or_else(|| vec![Missing::NightlySources])
}

/// Why there is no linker; turned into a [`Missing`] for each toolchain.
enum LinkerProblem {
    Absent,
    Broken(PathBuf, String),
}

impl LinkerProblem {
    fn missing(&self) -> Missing {
        match self {
            Self::Absent => Missing::Linker,
            Self::Broken(path, said) => Missing::LinkerBroken(path.clone(), said.clone()),
        }
    }
}

/// Finds a linker and starts it once: it is linked to a shared LLVM, and when
/// that is removed the linker stays behind and fails late and obscurely.
fn working_linker(directories: &[PathBuf]) -> Result<PathBuf, LinkerProblem> {
    let mut problem = LinkerProblem::Absent;
    for candidate in directories.iter().map(|directory| directory.join(LINKER)) {
        if !candidate.is_file() {
            continue;
        }
        match Command::new(&candidate)
            .arg("--version")
            .env_remove("LD_LIBRARY_PATH")
            .output()
        {
            Ok(output) if output.status.success() => return Ok(candidate),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                problem = LinkerProblem::Broken(candidate, said);
            }
            Err(error) => problem = LinkerProblem::Broken(candidate, error.to_string()),
        }
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(source: Source) -> Toolchain {
        let (rustc, linker) = ("/t/bin/rustc".into(), "/c/bin/bpf-linker".into());
        Toolchain {
            source,
            rustc,
            linker,
        }
    }

    fn words(command: &Command) -> Vec<String> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_released_compiler_builds_with_its_precompiled_core() {
        let place = (Path::new("/w/cargo"), Path::new("/w"), Path::new("/o/ebpf"));
        let (command, object) = toolchain(Source::DebianPackages).build(place.0, place.1, place.2);
        assert_eq!(
            object,
            Path::new("/o/ebpf/bpfel-unknown-none/release/egress-ebpf")
        );
        assert_eq!(command.get_program(), "/w/cargo");
        assert!(!words(&command).iter().any(|word| word.starts_with("-Z")));
        let bootstrap = command
            .get_envs()
            .find(|(name, _)| *name == "RUSTC_BOOTSTRAP");
        assert_eq!(
            bootstrap,
            Some(("RUSTC_BOOTSTRAP".as_ref(), Some("1".as_ref())))
        );
    }

    #[test]
    fn a_nightly_builds_its_core_with_its_own_cargo() {
        let place = (Path::new("/w/cargo"), Path::new("/w"), Path::new("/o"));
        let (command, _) = toolchain(Source::RustupNightly).build(place.0, place.1, place.2);
        assert_eq!(command.get_program(), "/t/bin/cargo");
        assert!(words(&command).contains(&"-Zbuild-std=core".to_owned()));
    }

    #[test]
    fn the_outer_build_stays_outside_and_the_user_s_settings_stay() {
        for outer in [
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_FEATURE_X",
            "CARGO",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(belongs_to_outer_cargo(outer.as_ref()), "{outer}");
        }
        for user in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "PATH",
            "HOME",
        ] {
            assert!(!belongs_to_outer_cargo(user.as_ref()), "{user}");
        }
    }
}
