//! `egressctl seccomp`: the system call filters, for reviewers and for container
//! engines.

use super::exit::{Exit, Problem};
use super::output::{print, print_json, table};
use crate::policy::SeccompProfile;
use crate::sandbox::seccomp::{Machine, PROFILE, Refusal, When, export};
use clap::{Args, Subcommand, ValueEnum};

#[derive(Subcommand, Debug)]
pub enum SeccompCommand {
    /// List what a profile refuses, and why.
    Show(ShowArguments),
    /// Write a profile in the form that container engines read.
    Export(ExportArguments),
}

#[derive(Args, Debug)]
pub struct ShowArguments {
    /// The profile.
    #[arg(long, value_enum, default_value_t = ProfileName::Default)]
    profile: ProfileName,
}

#[derive(Args, Debug)]
pub struct ExportArguments {
    /// The form: that of `--security-opt seccomp=FILE` and of OCI configurations.
    #[arg(long, value_enum, default_value_t = Format::Oci)]
    format: Format,
    /// The profile.
    #[arg(long, value_enum, default_value_t = ProfileName::Default)]
    profile: ProfileName,
    /// The machine that it is for; this one if absent.
    #[arg(long, value_enum)]
    arch: Option<MachineName>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum ProfileName {
    Default,
    Strict,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Format {
    Oci,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum MachineName {
    #[value(name = "x86_64")]
    X86_64,
    Aarch64,
}

impl From<ProfileName> for SeccompProfile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Default => Self::Default,
            ProfileName::Strict => Self::Strict,
        }
    }
}

pub fn run(command: SeccompCommand) -> Result<Exit, Problem> {
    match command {
        SeccompCommand::Show(arguments) => show(arguments.profile.into()),
        SeccompCommand::Export(arguments) => {
            let Format::Oci = arguments.format;
            let machine = match arguments.arch {
                Some(MachineName::X86_64) => Some(Machine::X86_64),
                Some(MachineName::Aarch64) => Some(Machine::Aarch64),
                None => Machine::own(),
            };
            let machine = machine.ok_or_else(|| Problem::usage("name the machine with --arch"))?;
            if let Some(exported) = export(arguments.profile.into(), machine) {
                print_json(&exported)?;
            }
            Ok(Exit::Ok)
        }
    }
}

fn show(profile: SeccompProfile) -> Result<Exit, Problem> {
    let entries = PROFILE.iter().filter(|entry| entry.since <= profile);
    let rows = entries.map(|entry| {
        let when = match entry.when {
            When::Always => "always".to_owned(),
            When::Family => "other families than UNIX, INET, INET6, NETLINK".to_owned(),
            When::NetlinkProtocol => "netlink protocols between processes".to_owned(),
            When::UserNamespace => "with CLONE_NEWUSER".to_owned(),
            When::AnyNamespace => "with any CLONE_NEW flag".to_owned(),
            When::Request(request) => format!("request {request:#x}"),
        };
        let told = match entry.refusal {
            Refusal::NotPermitted => "EPERM",
            Refusal::Unknown => "ENOSYS",
        };
        vec![
            entry.name.to_owned(),
            when,
            told.to_owned(),
            entry.why.to_owned(),
        ]
    });
    print(&table(&["CALL", "WHEN", "ANSWER", "WHY"], rows))?;
    Ok(Exit::Ok)
}
