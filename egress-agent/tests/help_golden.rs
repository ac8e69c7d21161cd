//! What the programs say about themselves, word for word.
//!
//! `UPDATE_GOLDEN=1 cargo test -p egress-agent --test help_golden` rewrites the
//! texts below `tests/help/`.

mod golden;

use clap::{Command, CommandFactory};
use egress_agent::cli::{AgentArguments, Arguments};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folder of the golden texts.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help")
}

/// The help of a program or of one of its subcommands, as it is printed where
/// there is no terminal.
fn help(program: &str, path: &[String]) -> String {
    let output = std::process::Command::new(program)
        .args(path)
        .arg("--help")
        // Variables that stand for options show in the help.
        .env_remove("EGRESS_SOCKET")
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{path:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// A command and every command below it, by what has to be typed; what is
/// hidden is left out.
fn every(command: &Command, path: &[String], all: &mut Vec<Vec<String>>) {
    all.push(path.to_vec());
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        let mut path = path.to_vec();
        path.push(below.get_name().to_owned());
        every(below, &path, all);
    }
}

/// Program, file name and text of each help there is.
fn texts() -> Vec<(PathBuf, String)> {
    let programs = [
        (env!("CARGO_BIN_EXE_egressctl"), Arguments::command()),
        (
            env!("CARGO_BIN_EXE_egress-agent"),
            AgentArguments::command(),
        ),
    ];
    let mut texts = Vec::new();
    for (program, command) in programs {
        let mut all = Vec::new();
        every(&command, &[], &mut all);
        for path in all {
            let mut name = vec![command.get_name().to_owned()];
            name.extend(path.iter().cloned());
            let file = folder().join(name.join("-")).with_extension("txt");
            texts.push((file, help(program, &path)));
        }
    }
    texts
}

#[test]
fn every_command_helps_in_the_words_that_are_checked_in() {
    golden::same_as_checked_in(texts());
}

#[test]
fn no_help_is_checked_in_for_what_is_not_there() {
    let there: BTreeSet<PathBuf> = texts().into_iter().map(|(file, _)| file).collect();
    let checked_in: BTreeSet<PathBuf> = std::fs::read_dir(folder())
        .expect("the golden texts are there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(checked_in, there);
}

#[test]
fn every_option_and_command_is_explained() {
    let programs = [Arguments::command(), AgentArguments::command()];
    for program in programs {
        explained(&program, program.get_name());
    }
}

fn explained(command: &Command, path: &str) {
    let visible = |argument: &&clap::Arg| !argument.is_hide_set();
    for argument in command.get_arguments().filter(visible) {
        assert!(
            argument.get_help().is_some(),
            "{path}: {}",
            argument.get_id()
        );
    }
    for below in command.get_subcommands() {
        let path = format!("{path} {}", below.get_name());
        assert!(below.get_about().is_some(), "{path}");
        explained(below, &path);
    }
}
