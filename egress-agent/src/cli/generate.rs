//! Shell completions and man pages.

use super::exit::{Exit, Problem};
use super::output::print;
use super::{AgentArguments, Arguments};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct CompletionArguments {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Args, Debug)]
pub struct ManArguments {
    /// Write the pages of all programs and commands into this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn completion(arguments: &CompletionArguments) -> Result<Exit, Problem> {
    let mut text = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "egressctl",
        &mut text,
    );
    print(&String::from_utf8_lossy(&text)).map(|()| Exit::Ok)
}

pub fn man(arguments: &ManArguments) -> Result<Exit, Problem> {
    match &arguments.out {
        None => print(&page(Arguments::command(), "1")?)?,
        Some(directory) => {
            let commands = without_values(Arguments::command());
            clap_mangen::generate_to(commands, directory).map_err(Problem::failure)?;
            let agent = page(AgentArguments::command(), "8")?;
            write(&directory.join("egress-agent.8"), &agent)?;
        }
    }
    Ok(Exit::Ok)
}

fn page(command: clap::Command, section: &'static str) -> Result<String, Problem> {
    let mut text = Vec::new();
    clap_mangen::Man::new(without_values(command))
        .section(section)
        .manual("Egress enforcer")
        .render(&mut text)
        .map_err(Problem::failure)?;
    String::from_utf8(text).map_err(Problem::failure)
}

/// Variables would otherwise stand in the page with the value of whoever makes it.
fn without_values(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| argument.hide_env_values(true))
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    std::fs::write(path, text)
        .map_err(|error| Problem::failure(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_and_the_agent_have_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        let arguments = ManArguments {
            out: Some(directory.path().to_owned()),
        };
        man(&arguments).expect("pages");
        for name in [
            "egressctl.1",
            "egressctl-bundle-install.1",
            "egress-agent.8",
        ] {
            let text = std::fs::read_to_string(directory.path().join(name)).expect(name);
            assert!(
                text.contains(".SH NAME") && text.contains(".SH OPTIONS"),
                "{name}"
            );
        }
        assert!(!directory.path().join("egressctl-man.1").exists());
    }
}
