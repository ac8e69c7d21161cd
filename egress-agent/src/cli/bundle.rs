//! `egressctl bundle`: makes bundles of policies, verifies and installs them.

use super::exit::{Exit, Problem};
use super::operate::{ReloadArguments, reload};
use super::output::{Output, counted, print, print_json};
use crate::bundle::{Bundle, Member, Signatures, TrustedKey, suffixes};
use crate::daemon::source::{self, Source};
use crate::daemon::{BundleSettings, Config};
use crate::policy::load;
use crate::policy::render::{Colour, diagnostics_text};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Subcommand, Debug)]
pub enum BundleCommand {
    /// Make a bundle of policy files; signing it is the next step.
    Create(CreateArguments),
    /// Verify a bundle's signature and content; needs no agent and no root.
    Verify(VerifyArguments),
    /// Bring a signed bundle into force on this host.
    Install(InstallArguments),
}

#[derive(Args, Debug)]
pub struct CreateArguments {
    /// Policy files, and directories of them; together they must form one set.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Which line of versions it belongs to, such as `production`.
    #[arg(long)]
    name: String,
    /// The version; each bundle of a name has a higher one than those before.
    #[arg(long)]
    version: u64,
    /// The time it says that it was made at, RFC 3339; now if absent. With it
    /// the same files give the same bytes.
    #[arg(long, value_name = "TIME")]
    created: Option<Timestamp>,
    /// The bundle's file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// The bundle; its signatures lie beside it as FILE.sig or FILE.minisig.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A public key that is believed, as the configuration has it; several may be
    /// given. If absent: those of the configuration.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct InstallArguments {
    /// The bundle; its signatures lie beside it as FILE.sig or FILE.minisig.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(socket: &Path, command: BundleCommand) -> Result<Exit, Problem> {
    match command {
        BundleCommand::Create(arguments) => create(&arguments),
        BundleCommand::Verify(arguments) => verify(&arguments),
        BundleCommand::Install(arguments) => install(socket, &arguments),
    }
}

fn create(arguments: &CreateArguments) -> Result<Exit, Problem> {
    let now = Timestamp::now();
    let (texts, problems) = load::texts(&arguments.paths);
    let (_, warnings) = load::parse(&texts, problems, now).map_err(|problems| {
        Problem::new(
            Exit::BadConfiguration,
            diagnostics_text(&problems, Colour::No),
        )
    })?;
    eprint!("{}", diagnostics_text(&warnings, Colour::No));
    let files = texts.into_iter().map(|text| Member {
        name: text
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        text: text.text,
    });
    let created = arguments.created.unwrap_or(now).to_string();
    let bundle = Bundle::new(&arguments.name, arguments.version, created, files.collect())
        .map_err(Problem::usage)?;
    let bytes = bundle.encode().map_err(Problem::failure)?;
    let file = arguments.out.display();
    std::fs::write(&arguments.out, bytes)
        .map_err(|error| Problem::failure(format!("cannot write {file}: {error}")))?;
    let count = counted(bundle.files.len(), "policy", "policies");
    let (name, version) = (&arguments.name, arguments.version);
    print(&format!(
        "{file}: {name} version {version} with {count}\n\
         sign it: ssh-keygen -Y sign -n egress-policy -f KEY {file}\n\
         or:      minisign -S -s KEY -m {file}\n"
    ))?;
    Ok(Exit::Ok)
}

fn verify(arguments: &VerifyArguments) -> Result<Exit, Problem> {
    let keys = if arguments.key.is_empty() {
        settings(&configuration(arguments.config.as_deref())?)?.keys
    } else {
        let keys = arguments.key.iter().map(|key| TrustedKey::parse(key));
        keys.collect::<Result<_, _>>().map_err(Problem::usage)?
    };
    let unverified = |error: &dyn std::fmt::Display| {
        let file = arguments.file.display();
        Problem::new(Exit::Unverified, format!("{file}: {error}"))
    };
    let (bytes, signatures) = read(&arguments.file)?;
    let texts = signatures.iter().map(|(_, text)| text.clone()).collect();
    let signer = Signatures(texts)
        .signer(&bytes, &keys)
        .map_err(|error| unverified(&error))?;
    let bundle = Bundle::decode(&bytes).map_err(|error| unverified(&error))?;
    let manifest = &bundle.manifest;
    match arguments.output {
        Output::Table => {
            let mut text = format!(
                "{}: {} version {} of {}, signed by {signer}\n",
                arguments.file.display(),
                manifest.name,
                manifest.version,
                manifest.created
            );
            for file in &manifest.files {
                text.push_str(&format!("  {}  {}\n", &file.sha256[..12], file.name));
            }
            print(&text)?;
        }
        Output::Json | Output::Jsonl => {
            print_json(&json!({ "signer": signer.to_string(), "manifest": manifest }))?;
        }
    }
    Ok(Exit::Ok)
}

/// Puts a bundle to where the agent looks for it, and lets the agent load it.
/// What was there before comes back if this one is refused.
fn install(socket: &Path, arguments: &InstallArguments) -> Result<Exit, Problem> {
    let config = configuration(arguments.config.as_deref())?;
    let target = settings(&config)?.file;
    let (bytes, signatures) = read(&arguments.file)?;
    // Asked as the agent will ask, but of the file where it lies now.
    let mut trial = config.clone();
    if let Some(bundle) = &mut trial.bundle {
        bundle.file.clone_from(&arguments.file);
    }
    Source::open(&trial)
        .and_then(|mut source| source.read(Timestamp::now()))
        .map_err(|problems| {
            Problem::new(Exit::Unverified, diagnostics_text(&problems, Colour::No))
        })?;
    let before = source::place_bundle(&target, &bytes, &signatures)
        .map_err(|error| Problem::failure(format!("cannot write {}: {error}", target.display())))?;
    match reload(socket, &ReloadArguments::default()) {
        Err(problem) if problem.exit() == Exit::NotReachable => {
            print("installed; no agent runs, and the next start brings it into force\n")?;
            Ok(Exit::Ok)
        }
        Err(problem) => {
            before.restore().map_err(|error| {
                Problem::failure(format!(
                    "{problem}\nand the bundle before it could not be put back: {error}"
                ))
            })?;
            Err(problem)
        }
        done => done,
    }
}

fn configuration(path: Option<&Path>) -> Result<Config, Problem> {
    Config::load_or_default(path).map_err(|error| Problem::new(Exit::BadConfiguration, error))
}

fn settings(config: &Config) -> Result<BundleSettings, Problem> {
    config.bundle.clone().ok_or_else(|| {
        Problem::new(
            Exit::BadConfiguration,
            "no keys are configured: add `[bundle]` with `keys = [\"…\"]` to the configuration, or name a key with `bundle verify --key`",
        )
    })
}

/// The bytes of a bundle, and what lies beside it by suffix.
type Read = (Vec<u8>, Vec<(&'static str, String)>);

fn read(file: &Path) -> Result<Read, Problem> {
    let cannot = |path: &Path, error: std::io::Error| {
        Problem::failure(format!("cannot read {}: {error}", path.display()))
    };
    let bytes = std::fs::read(file).map_err(|error| cannot(file, error))?;
    let mut signatures = Vec::new();
    for suffix in suffixes() {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => signatures.push((suffix, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(&path, error)),
        }
    }
    Ok((bytes, signatures))
}
