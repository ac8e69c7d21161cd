//! `egressctl names`: lists of names for `block_lists` and `domain_list`.

use super::exit::{Exit, Problem};
use super::output::{Output, print, print_json};
use crate::model::DomainName;
use crate::policy::lists::{Builder, Format, NameList, Read, read};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

#[derive(Subcommand, Debug)]
pub enum NamesCommand {
    /// Make a list of texts; the old one is there until the new one is whole.
    Build(BuildArguments),
    /// Verify a list, and say what it is.
    Show(ShowArguments),
    /// Ask a list for a name; 0 if it holds it, 3 if not.
    Find(FindArguments),
}

/// How a text is written.
#[derive(Clone, Copy, ValueEnum, Debug, Default)]
enum FormatWord {
    /// Each line as it looks.
    #[default]
    Auto,
    /// `0.0.0.0 ads.example`, as /etc/hosts.
    Hosts,
    /// A name, or a pattern of the policy language, on each line.
    Domains,
    /// `||ads.example^`: the name and every name below it.
    Adblock,
}

#[derive(Args, Debug)]
pub struct BuildArguments {
    /// The list's file, such as /var/lib/egress/lists/ads.names.
    #[arg(value_name = "LIST")]
    list: PathBuf,
    /// Texts; `-` is standard input.
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<PathBuf>,
    /// How the texts are written.
    #[arg(long, value_enum, default_value_t)]
    format: FormatWord,
    /// Plain names mean the names below them too.
    #[arg(long)]
    with_below: bool,
    /// Make no list if a line cannot be read.
    #[arg(long)]
    strict: bool,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct ShowArguments {
    /// The list's file.
    #[arg(value_name = "LIST")]
    list: PathBuf,
    /// How the answer looks.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub struct FindArguments {
    /// The list's file.
    #[arg(value_name = "LIST")]
    list: PathBuf,
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
}

impl From<FormatWord> for Format {
    fn from(word: FormatWord) -> Self {
        match word {
            FormatWord::Auto => Self::Auto,
            FormatWord::Hosts => Self::Hosts,
            FormatWord::Domains => Self::Domains,
            FormatWord::Adblock => Self::Adblock,
        }
    }
}

pub fn run(command: NamesCommand) -> Result<Exit, Problem> {
    match command {
        NamesCommand::Build(arguments) => build(&arguments),
        NamesCommand::Show(arguments) => show(&arguments),
        NamesCommand::Find(arguments) => find(&arguments),
    }
}

fn build(arguments: &BuildArguments) -> Result<Exit, Problem> {
    let mut builder = Builder::default();
    let mut all = Read::default();
    for path in &arguments.texts {
        let cannot = |error| Problem::failure(format!("cannot read {}: {error}", path.display()));
        let text: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(File::open(path).map_err(cannot)?))
        };
        let format = arguments.format.into();
        let found = read(text, format, arguments.with_below, &mut builder).map_err(cannot)?;
        for (line, why) in &found.examples {
            eprintln!("{}:{line}: {why}", path.display());
        }
        all.taken += found.taken;
        all.left_out += found.left_out;
        all.unreadable += found.unreadable;
    }
    if arguments.strict && all.unreadable > 0 {
        return Err(Problem::failure(format!(
            "{} lines cannot be read; nothing is written",
            all.unreadable
        )));
    }
    let list = arguments.list.display();
    let names = builder.write(&arguments.list).map_err(Problem::failure)?;
    match arguments.output {
        Output::Table => print(&format!(
            "{list}: {names} names of {} lines; {} rules that mean more than names were left out, {} lines cannot be read\n",
            all.taken, all.left_out, all.unreadable
        ))?,
        Output::Json | Output::Jsonl => print_json(&json!({
            "list": arguments.list,
            "names": names,
            "lines": all.taken,
            "left_out": all.left_out,
            "unreadable": all.unreadable,
        }))?,
    }
    Ok(Exit::Ok)
}

fn open(path: &Path) -> Result<NameList, Problem> {
    NameList::open(path).map_err(|error| Problem::new(Exit::Unverified, error))
}

fn show(arguments: &ShowArguments) -> Result<Exit, Problem> {
    let list = open(&arguments.list)?;
    match arguments.output {
        Output::Table => print(&format!(
            "{}: {} names in {} bytes, {} of them over a public suffix\nsha256 {}\n",
            arguments.list.display(),
            list.len(),
            list.size(),
            list.public_suffixes(),
            list.digest()
        ))?,
        Output::Json | Output::Jsonl => print_json(&json!({
            "list": arguments.list,
            "names": list.len(),
            "bytes": list.size(),
            "public_suffixes": list.public_suffixes(),
            "sha256": list.digest(),
        }))?,
    }
    Ok(Exit::Ok)
}

fn find(arguments: &FindArguments) -> Result<Exit, Problem> {
    let name = DomainName::parse(&arguments.name).map_err(Problem::usage)?;
    match open(&arguments.list)?.find(name.as_str()) {
        Some(found) => {
            let entry: Vec<&str> = name.labels().skip(found.below).collect();
            print(&format!("{name} is meant by {}\n", entry.join(".")))?;
            Ok(Exit::Ok)
        }
        None => {
            print(&format!("{name} is not in the list\n"))?;
            Ok(Exit::Denied)
        }
    }
}
