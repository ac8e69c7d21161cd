//! The tour of the README, typed as a newcomer types it: each command prints
//! what the page says that it prints.
//!
//! In a `console` fence `$` begins a command that needs no privileges and `#`
//! one that needs root; what follows is its output, in which `…` stands for any
//! text within a line. A `yaml` fence is the file that the text before it names.

use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, UPSTREAM_V4};
use egress_tests::{World, product};
use std::fs;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../../README.md");
const TOUR: &str = "\n## Five minutes\n";

/// A command of the tour.
#[derive(Debug)]
struct Typed<'a> {
    as_root: bool,
    line: &'a str,
    prints: Vec<&'a str>,
}

/// The text of the tour's fences of a language, without their indentation.
fn fences(language: &str) -> Vec<Vec<&'static str>> {
    let (_, tour) = README.split_once(TOUR).expect("the README has a tour");
    let tour = tour.split("\n## ").next().unwrap_or(tour);
    let opening = format!("```{language}");
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut open: Option<usize> = None;
    for line in tour.lines() {
        let indentation = line.len() - line.trim_start().len();
        match open {
            None if line.trim() == opening => {
                open = Some(indentation);
                found.push(Vec::new());
            }
            Some(_) if line.trim() == "```" => open = None,
            Some(by) => found
                .last_mut()
                .expect("a fence is open")
                .push(line.get(by..).unwrap_or_default()),
            None => {}
        }
    }
    found
}

fn commands() -> Vec<Typed<'static>> {
    let mut commands: Vec<Typed<'_>> = Vec::new();
    for line in fences("console").into_iter().flatten() {
        let typed = |as_root| {
            let line = &line[2..];
            Typed {
                as_root,
                line,
                prints: Vec::new(),
            }
        };
        match line.get(..2) {
            Some("$ ") => commands.push(typed(false)),
            Some("# ") => commands.push(typed(true)),
            _ => commands
                .last_mut()
                .expect("a fence begins with a command")
                .prints
                .push(line),
        }
    }
    commands
}

/// Whether a line is what the page says, `…` standing for any text.
fn is(line: &str, said: &str) -> bool {
    let mut parts = said.split('…');
    let Some(mut rest) = parts.next().and_then(|start| line.strip_prefix(start)) else {
        return false;
    };
    let mut open_end = false;
    for part in parts {
        open_end = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    open_end || rest.is_empty()
}

/// Types a command in `directory` and returns everything that it printed.
fn shell(world: &World, directory: &Path, typed: &Typed<'_>) -> String {
    // The agent's upstream is the world's: its near side has no resolv.conf.
    let upstream = format!("--ephemeral --upstream {UPSTREAM_V4}");
    let line = typed.line.replace("--ephemeral", &upstream);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{{ {line}\n}} 2>&1")])
        .current_dir(directory)
        .env("PATH", format!("{}:/usr/bin:/bin", directory.display()));
    if !typed.as_root {
        use std::os::unix::process::CommandExt;
        command.uid(65534).gid(65534);
    }
    let output = world.near.run(|| command.output()).expect("a shell starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_tour_prints_what_the_readme_says() {
    let test = "the_tour_prints_what_the_readme_says";
    let Some(world) = World::or_skip(test) else {
        return;
    };
    let names = [ALLOWED_V4.into(), ALLOWED_V6.into()];
    world.dns.resolve("example.com", &names);
    world.dns.resolve("example.org", &[FORBIDDEN_V4.into()]);
    let directory = world.fresh_directory();
    fs::copy(product::binary("egressctl"), directory.join("egressctl")).expect("a copy");
    let [policy] = &fences("yaml")[..] else {
        panic!("the tour has one policy");
    };
    fs::write(directory.join("policy.yaml"), policy.join("\n") + "\n").expect("written");

    let commands = commands();
    assert!(commands.len() > 5, "the tour was found: {commands:#?}");
    for typed in &commands {
        let printed = shell(&world, &directory, typed);
        let lines: Vec<&str> = printed.lines().collect();
        let agree = lines.len() == typed.prints.len()
            && lines
                .iter()
                .zip(&typed.prints)
                .all(|(line, said)| is(line, said));
        assert!(
            agree,
            "`{}` prints\n{printed}\nand the README says\n{}",
            typed.line,
            typed.prints.join("\n")
        );
    }
}

#[test]
fn an_ellipsis_stands_for_text_and_for_nothing_else() {
    assert!(is("2026 deny x", "… deny x"));
    assert!(is("a b c", "a … c"));
    assert!(is("a b", "a …"));
    assert!(!is("a b c", "a b"));
    assert!(!is("a b", "a … c"));
}
