//! What a million names cost: the measuring half of `cargo xtask bench names`.
//!
//! Each line is a value beside its goal. Files lie in a directory of its own.

use egress_agent::model::DomainName;
use egress_agent::policy::lists::{Builder, Format, NameList, read};
use egress_agent::policy::{NameVerdict, Policy, load};
use jiff::Timestamp;
use std::hint::black_box;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const NAMES: u64 = 1_000_000;
/// Names of the list that are asked for again and again, as many as are hot in `cargo xtask bench dns`.
const USUAL: usize = 2_000;
/// Decisions that are timed together.
const DECISIONS: usize = 200_000;

/// One value, its goal, and whether it is met.
fn tell(what: &str, value: String, goal: &str, met: bool) -> bool {
    let verdict = if met { "met" } else { "MISSED" };
    println!("{what:54} {value:>14}   goal {goal:12} {verdict}");
    met
}

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 13
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn label(&mut self) -> String {
        let length = 6 + self.below(9);
        (0..length)
            .map(|_| char::from(b'a' + self.below(26) as u8))
            .collect()
    }

    /// As block lists look: a domain that nobody can guess, half of them with a
    /// label before it, below one of a few public suffixes.
    fn name(&mut self) -> String {
        const ENDS: [&str; 8] = ["com", "net", "org", "info", "co.uk", "de", "xyz", "ru"];
        const HEADS: [&str; 6] = ["ads", "track", "cdn", "www", "metrics", "pixel"];
        let end = ENDS[self.below(8) as usize];
        let domain = self.label();
        match self.below(2) {
            0 => format!("{domain}.{end}"),
            _ => format!(
                "{}{}.{domain}.{end}",
                HEADS[self.below(6) as usize],
                self.below(20)
            ),
        }
    }
}

/// A field of /proc/self/status in KiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Median nanoseconds of one call over the names, of five passes.
fn nanoseconds(names: &[DomainName], mut ask: impl FnMut(&DomainName) -> bool) -> f64 {
    let mut passes: Vec<f64> = (0..5)
        .map(|_| {
            let begin = Instant::now();
            let found = names.iter().filter(|name| ask(black_box(name))).count();
            black_box(found);
            begin.elapsed().as_nanos() as f64 / names.len() as f64
        })
        .collect();
    passes.sort_by(f64::total_cmp);
    passes[2]
}

fn main() -> ExitCode {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let (text, list) = (at("names.txt"), at("all.names"));
    write_text(&text);
    let began = Instant::now();
    let mut builder = Builder::default();
    let file = BufReader::new(std::fs::File::open(&text).expect("written"));
    let found = read(file, Format::Auto, false, &mut builder).expect("readable");
    assert_eq!((found.taken, found.unreadable), (NAMES, 0));
    let count = builder.write(&list).expect("written");
    let built = began.elapsed();
    let mut met = tell(
        &format!("read, sort and write a list of {count} names"),
        format!("{:.2} s", built.as_secs_f64()),
        "< 2 s",
        built < Duration::from_secs(2),
    );
    met &= in_use(directory.path(), &list);
    if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn write_text(path: &Path) {
    let mut noise = Noise(1);
    let mut all = String::with_capacity(24 << 20);
    for _ in 0..NAMES {
        all.push_str(&noise.name());
        all.push('\n');
    }
    std::fs::write(path, all).expect("written");
}

/// A policy that allows the names of the list, and one that blocks them.
fn in_use(directory: &Path, list: &Path) -> bool {
    let before = memory("VmRSS");
    let allowing = policy(
        directory,
        "allowing",
        "allowlist:\n  a:\n    - { domain_list: all.names, protocols: [https] }\n",
    );
    let began = Instant::now();
    let blocking = policy(
        directory,
        "blocking",
        "allowlist:\n  a:\n    - { domain: \"**.example.com\", protocols: [https] }\ndns: { block_lists: [all.names] }\n",
    );
    let loaded = began.elapsed();
    let size = NameList::open(list).map_or(0, |list| list.size());
    let mut met = tell(
        &format!(
            "load a policy with it ({:.1} MiB mapped)",
            size as f64 / 1048576.0
        ),
        format!("{:.0} ms", loaded.as_secs_f64() * 1e3),
        "< 2 s",
        loaded < Duration::from_secs(2),
    );
    let mut noise = Noise(1);
    let held: Vec<DomainName> = (0..NAMES)
        .map(|_| noise.name())
        .step_by((NAMES as usize) / DECISIONS)
        .map(|name| DomainName::parse(&name).expect("a name"))
        .collect();
    let mut noise = Noise(2);
    let others: Vec<DomainName> = (0..DECISIONS)
        .map(|_| DomainName::parse(&noise.name()).expect("a name"))
        .collect();
    let now = Timestamp::now();
    let is_allowed = |policy: &Policy, name: &DomainName| {
        matches!(policy.judge_name(name, now), NameVerdict::Allow(_))
    };
    assert!(held.iter().all(|name| is_allowed(&allowing, name)));
    assert!(!others.iter().any(|name| is_allowed(&allowing, name)));
    // Every held name was just walked to: the pages of the list are in memory.
    let resident = memory("RssFile") + memory("RssShmem");
    // As sandboxes ask: few of the names, again and again.
    let usual: Vec<DomainName> = held
        .iter()
        .take(USUAL)
        .cycle()
        .take(DECISIONS)
        .cloned()
        .collect();
    for (what, names) in [("usual", &usual), ("held", &held), ("other", &others)] {
        let answer = nanoseconds(names, |name| allowing.refuses(name.as_str()).is_none());
        met &= tell(
            &format!(
                "{} decisions about {what} names: is it allowed",
                names.len()
            ),
            format!("{answer:.0} ns"),
            "< 200 ns",
            answer < 200.0,
        );
        let blocked = nanoseconds(names, |name| blocking.refuses(name.as_str()).is_some());
        met &= tell(
            &format!(
                "{} decisions about {what} names: is it blocked",
                names.len()
            ),
            format!("{blocked:.0} ns"),
            "< 200 ns",
            blocked < 200.0,
        );
    }
    println!(
        "(usual: 2,000 names of the list; held: 200,000 of it, each once a pass; other: in no list)"
    );
    let whole = nanoseconds(&held, |name| is_allowed(&allowing, name));
    println!(
        "{:54} {:>14}",
        "the same with permit and rule",
        format!("{whole:.0} ns")
    );
    let files = mib(resident);
    println!(
        "{:54} {:>14}",
        "resident from files (program and both mappings)",
        format!("{files:.1} MiB")
    );
    let grown = mib(memory("VmRSS").saturating_sub(before));
    tell(
        "grown by two policies with it, all names asked",
        format!("{grown:.1} MiB"),
        "< 150 MiB",
        grown < 150.0,
    ) && met
}

fn policy(directory: &Path, name: &str, rules: &str) -> Policy {
    let path = directory.join(format!("{name}.yaml"));
    std::fs::write(
        &path,
        format!("apiVersion: egress/v1\nname: {name}\n{rules}"),
    )
    .expect("written");
    match load::file(&path, Timestamp::now()) {
        Ok((policy, _)) => policy,
        Err(problems) => panic!("{problems:?}"),
    }
}
