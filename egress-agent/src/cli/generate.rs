//! Shell completions and the man page.

use super::Arguments;
use super::exit::{Exit, Problem};
use super::output::print;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Args, Debug)]
pub struct CompletionArguments {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
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

pub fn man() -> Result<Exit, Problem> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Arguments::command())
        .render(&mut text)
        .map_err(Problem::failure)?;
    print(&String::from_utf8_lossy(&text)).map(|()| Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
