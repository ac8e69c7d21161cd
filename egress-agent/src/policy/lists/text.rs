//! The forms in which lists of names are published.

use super::Builder;
use crate::model::{DomainName, DomainPattern};
use std::io::{self, BufRead};
use std::net::IpAddr;

/// How a text is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// Each line as it looks.
    #[default]
    Auto,
    /// `0.0.0.0 ads.example`, as `/etc/hosts`.
    Hosts,
    /// A name, or a pattern of the policy language, on each line.
    Domains,
    /// `||ads.example^`: the name and every name below it.
    Adblock,
}

/// What was found in a text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// Lines that gave names.
    pub taken: u64,
    /// Rules that mean more than names (exceptions, paths, page elements), and were
    /// left out.
    pub left_out: u64,
    /// Lines that cannot be read.
    pub unreadable: u64,
    /// The first of these, with their numbers and what is wrong.
    pub examples: Vec<(u64, String)>,
}

/// How many unreadable lines are shown.
const EXAMPLES: usize = 10;
/// The longest line that is read, in bytes; no name is longer than 253.
const LONGEST: usize = 4096;
/// Names that hosts files hold for the host itself.
const OWN_NAMES: [&str; 10] = [
    "localhost",
    "localhost.localdomain",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
];

/// What a line is.
enum Line {
    Nothing,
    LeftOut,
    Name(DomainPattern),
    Names(Vec<DomainPattern>),
    Unreadable(String),
}

/// Reads a text and adds its names. `with_below` takes plain names for the names
/// below them too.
pub fn read(
    mut text: impl BufRead,
    format: Format,
    with_below: bool,
    builder: &mut Builder,
) -> io::Result<Read> {
    let mut found = Read::default();
    let mut add = |pattern: DomainPattern| {
        builder.add(&match pattern {
            DomainPattern::Exact(name) if with_below => DomainPattern::Within(name),
            other => other,
        });
    };
    let (mut line, mut number) = (Vec::new(), 0);
    while text.read_until(b'\n', &mut line)? > 0 {
        number += 1;
        let bytes = line.strip_suffix(b"\n").unwrap_or(&line);
        let read = match std::str::from_utf8(bytes) {
            Ok(line) if line.len() <= LONGEST => understand(line.trim(), format),
            Ok(_) => Line::Unreadable(format!("it is longer than {LONGEST} bytes")),
            Err(_) => Line::Unreadable("it is not UTF-8".to_owned()),
        };
        line.clear();
        match read {
            Line::Nothing => {}
            Line::LeftOut => found.left_out += 1,
            Line::Name(pattern) => {
                found.taken += 1;
                add(pattern);
            }
            Line::Names(patterns) => {
                found.taken += 1;
                patterns.into_iter().for_each(&mut add);
            }
            Line::Unreadable(why) => {
                found.unreadable += 1;
                if found.examples.len() < EXAMPLES {
                    found.examples.push((number, why));
                }
            }
        }
    }
    Ok(found)
}

fn understand(line: &str, format: Format) -> Line {
    if line.is_empty() || line.starts_with(['#', '!']) || is_heading(line) {
        return Line::Nothing;
    }
    match format {
        Format::Hosts => hosts(line),
        Format::Domains => domains(line),
        Format::Adblock => adblock(line),
        Format::Auto => {
            let first = line.split_whitespace().next().unwrap_or_default();
            if line.starts_with("||") || line.starts_with("@@") || line.contains("##") {
                adblock(line)
            } else if first.parse::<IpAddr>().is_ok() || first.contains('%') {
                hosts(line)
            } else {
                domains(line)
            }
        }
    }
}

/// `[Adblock Plus 2.0]`
fn is_heading(line: &str) -> bool {
    line.starts_with('[') && line.ends_with(']')
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

fn hosts(line: &str) -> Line {
    let mut words = without_comment(line).split_whitespace();
    let address = words.next().unwrap_or_default();
    let bare = address.split('%').next().unwrap_or_default();
    if bare.parse::<IpAddr>().is_err() {
        return Line::Unreadable(format!("`{address}` is no address"));
    }
    let mut names = Vec::new();
    for word in words {
        // Lists that block by an address name that address too.
        if OWN_NAMES.contains(&word) || word.parse::<IpAddr>().is_ok() {
            continue;
        }
        match DomainName::parse(word) {
            Ok(name) => names.push(DomainPattern::Exact(name)),
            Err(error) => return Line::Unreadable(error.to_string()),
        }
    }
    if names.is_empty() {
        return Line::Nothing;
    }
    Line::Names(names)
}

fn domains(line: &str) -> Line {
    let text = without_comment(line);
    if text.is_empty() {
        return Line::Nothing;
    }
    match DomainPattern::parse(text) {
        Ok(pattern) => Line::Name(pattern),
        Err(error) => Line::Unreadable(error.to_string()),
    }
}

/// `||name^`, possibly with `$important`. What else an adblock rule can say is
/// about pages, of which a resolver sees nothing.
fn adblock(line: &str) -> Line {
    let Some(rule) = line.strip_prefix("||") else {
        return Line::LeftOut;
    };
    let (name, rest) = match rule.split_once('^') {
        Some(parts) => parts,
        None => return Line::LeftOut,
    };
    if !matches!(rest, "" | "|" | "$important" | "$all" | "$document") || name.contains(['/', '*'])
    {
        return Line::LeftOut;
    }
    match DomainName::parse(name) {
        Ok(name) => Line::Name(DomainPattern::Within(name)),
        Err(error) => Line::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::NameList;
    use super::*;

    fn list(text: &str, format: Format, with_below: bool) -> (NameList, Read) {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("x.names");
        let mut builder = Builder::default();
        let found = read(text.as_bytes(), format, with_below, &mut builder).expect("in memory");
        builder.write(&path).expect("written");
        (NameList::open(&path).expect("opened"), found)
    }

    #[test]
    fn each_line_is_read_as_it_looks() {
        let text = "# comment\n! another\n[Adblock Plus 2.0]\n\n127.0.0.1 localhost\n\
                    0.0.0.0 ads.example tracker.example # two\n0.0.0.0 0.0.0.0\nfe80::1%lo0 localhost\n\
                    ||below.example^\n||third.example^$third-party\n@@||good.example^\n||path.example/ads^\n\
                    example.org##.banner\nplain.example\n*.wild.example\nBücher.example\nnot a name\n";
        let (list, found) = list(text, Format::Auto, false);
        assert_eq!((found.taken, found.left_out, found.unreadable), (5, 4, 1));
        assert_eq!(found.examples[0].0, 17);
        assert_eq!(list.len(), 6);
        for (name, below) in [
            ("ads.example", Some(0)),
            ("x.ads.example", None),
            ("tracker.example", Some(0)),
            ("below.example", Some(0)),
            ("a.b.below.example", Some(2)),
            ("notbelow.example", None),
            ("plain.example", Some(0)),
            ("x.plain.example", None),
            ("wild.example", None),
            ("x.wild.example", Some(1)),
            ("xn--bcher-kva.example", Some(0)),
            ("good.example", None),
            ("example", None),
            ("localhost", None),
        ] {
            assert_eq!(list.find(name).map(|found| found.below), below, "{name}");
        }
    }

    #[test]
    fn plain_names_can_stand_for_those_below_them() {
        let (list, _) = list("0.0.0.0 ads.example\n", Format::Hosts, true);
        assert_eq!(
            list.find("x.ads.example"),
            Some(super::super::Found { below: 1 })
        );
        assert_eq!(
            list.find("ads.example"),
            Some(super::super::Found { below: 0 })
        );
    }

    #[test]
    fn a_form_that_is_named_is_kept_to() {
        for (text, format) in [
            ("ads.example\n", Format::Hosts),
            ("0.0.0.0 ads.example\n", Format::Domains),
        ] {
            let mut builder = Builder::default();
            let found = read(text.as_bytes(), format, false, &mut builder).expect("in memory");
            assert_eq!((found.taken, found.unreadable), (0, 1), "{text}");
            assert!(builder.is_empty());
        }
    }
}
