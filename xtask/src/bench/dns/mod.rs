//! `cargo xtask bench dns`: the agent's resolver beside unbound, dnsmasq and
//! dnsdist, interleaved in one run, with one authoritative server behind all.
//!
//! The client is `dnsperf`, always in a sandbox of the same kind, so that every
//! server is asked through the same gate; "bare" is the same client outside. Our grants are
//! really written: every answer comes from the running agent. Cold names are asked of a
//! relay, too, which only hands datagrams on: what anybody in between costs here.

mod abuse;
mod client;
mod report;
mod servers;

use super::Format;
use crate::{Failure, setup, shell};
use abuse::{Misuse, resident};
use client::{Found, Load};
use egress_tests::World;
use egress_tests::product::Agent;
use report::{ALONE, COLD, Report, Sample};
use servers::{HOT_NAMES, REFUSED, Server, Servers, ZONE, hot_name};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What can be chosen.
#[derive(clap::Args)]
pub struct Options {
    /// How many times everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Sandboxes that ask at the same time, where there are many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
    sandboxes: u32,
    /// Threads of our resolver that read datagrams; the others have one.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Measure only this; can be given several times.
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    scenarios: Vec<Scenario>,
    /// Measure only this server; can be given several times.
    #[arg(long = "server", value_name = "NAME", value_enum)]
    servers: Vec<Server>,
    /// Measure the programs in this directory instead of building them.
    #[arg(long, value_name = "DIRECTORY")]
    binaries: Option<std::path::PathBuf>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
enum Scenario {
    /// Hot names, one sandbox.
    Cached,
    /// Hot names, many sandboxes at the same time.
    Many,
    /// Random names that are refused.
    Refused,
    /// Names that nobody asked before.
    Cold,
    /// A quiet sandbox beside one that floods, holds idle or slow connections, or sends
    /// what is no message.
    Abuse,
}

const PROGRAMS: [(&str, &str, &str); 5] = [
    ("dnsperf", "dnsperf", "asks the questions"),
    ("/usr/sbin/nsd", "nsd", "is the authoritative server"),
    ("/usr/sbin/unbound", "unbound", "is compared with"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base", "is compared with"),
    ("/usr/bin/dnsdist", "dnsdist", "is compared with"),
];

/// Measures and reports.
pub fn run(options: &Options) -> Result<(), Failure> {
    if !shell::is_root() {
        return Err(Failure::new(
            "it needs root for cgroups, namespaces and programs",
        ));
    }
    setup::provide(&PROGRAMS)?;
    let binaries = match &options.binaries {
        Some(directory) => directory.clone(),
        None => {
            setup::run_first()?;
            let target = [
                "build",
                "--release",
                "--bin",
                "egress-agent",
                "--bin",
                "egressctl",
            ];
            shell::run(shell::cargo().args(target))?;
            shell::workspace().join("target/release")
        }
    };
    // The probe belongs to the network that is built around what is measured, and is looked
    // for beside this program.
    shell::run(shell::cargo().args(["build", "--bin", "egress-probe"]))?;
    let mut world =
        World::new().map_err(|error| Failure::new(format!("no namespaces: {error}")))?;
    world.sniffer.end();
    let servers = servers::start(&world)?;
    let mut bench = Bench::new(options, (&world, &servers), &binaries)?;
    let report = bench.measure()?;
    match options.output {
        Format::Text => println!("{}", report.text()),
        Format::Json => println!("{:#}", report.json()),
    }
    Ok(())
}

/// One run.
struct Bench<'w, 'o> {
    options: &'o Options,
    world: &'w World,
    servers: &'w Servers,
    agent: Agent<'w>,
    hot: String,
    refused: String,
    directory: std::path::PathBuf,
    sandboxes: u32,
    names: u32,
}

impl<'w, 'o> Bench<'w, 'o> {
    fn new(
        options: &'o Options,
        (world, servers): (&'w World, &'w Servers),
        binaries: &Path,
    ) -> Result<Self, Failure> {
        let policies = [("bench", &*servers::policy())];
        let mut agent = Agent::prepare_from(world, &policies, binaries);
        let upstream = egress_tests::address::ALLOWED_V4;
        let configuration = agent.configuration();
        let lines = configuration
            .lines()
            .filter(|line| !line.starts_with("upstreams"));
        let kept: Vec<&str> = lines.collect();
        agent.configure(&format!(
            "{}\nupstreams = [\"{upstream}\"]\n[dns]\nqueries_per_second = 4000000\nworkers = {}\n",
            kept.join("\n"),
            options.workers
        ));
        agent.launch();
        let directory = world.fresh_directory();
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text)
                .map(|()| path.display().to_string())
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
        };
        let hot = (0..HOT_NAMES).map(|n| format!("{} A\n", hot_name(n)));
        let hot = write("hot", hot.collect())?;
        // A fixed sequence that looks random, each name once.
        let refused = (0..200_000_u64).map(|n| {
            let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            format!("x{noise:x}.{REFUSED} A\n")
        });
        let refused = write("refused", refused.collect())?;
        Ok(Self {
            options,
            world,
            servers,
            agent,
            hot,
            refused,
            directory,
            sandboxes: 0,
            names: 0,
        })
    }

    fn measure(&mut self) -> Result<Report, Failure> {
        let mut report = Report::new(self.options.rounds, self.options.workers);
        let chosen = &self.options.scenarios;
        let all = [
            Scenario::Cached,
            Scenario::Many,
            Scenario::Refused,
            Scenario::Cold,
            Scenario::Abuse,
        ];
        for round in 0..self.options.rounds as usize {
            for scenario in all {
                if !chosen.is_empty() && !chosen.contains(&scenario) {
                    continue;
                }
                for turn in 0..Server::ALL.len() {
                    let server = Server::ALL[(turn + round) % Server::ALL.len()];
                    let chosen = &self.options.servers;
                    if !chosen.is_empty() && !chosen.contains(&server) {
                        continue;
                    }
                    if server == Server::Relay && scenario != Scenario::Cold {
                        continue;
                    }
                    eprint!(
                        "\rround {}, {scenario:?}, {}      ",
                        round + 1,
                        server.name()
                    );
                    for sample in self.sample(scenario, server)? {
                        report.add(server, sample);
                    }
                }
            }
        }
        eprintln!();
        Ok(report)
    }

    fn sample(&mut self, scenario: Scenario, server: Server) -> Result<Vec<Sample>, Failure> {
        match scenario {
            Scenario::Cached => self.cached(server),
            Scenario::Many => self.many(server),
            Scenario::Refused => self.refused(server),
            Scenario::Cold => self.cold(server),
            Scenario::Abuse => self.abuse(server),
        }
    }

    fn load(&self, server: Server) -> Load<'_> {
        Load {
            server,
            direct: false,
            questions: &self.hot,
            seconds: self.options.seconds,
            outstanding: 100,
            rate: 0,
            each: false,
        }
    }

    fn fresh_sandbox(&mut self) -> String {
        self.sandboxes += 1;
        format!("bench-{}", self.sandboxes)
    }

    fn cached(&mut self, server: Server) -> Result<Vec<Sample>, Failure> {
        let sandbox = self.fresh_sandbox();
        let load = self.load(server);
        // Once through all names first, in the sandbox that is then measured.
        let warm = Load { seconds: 0, ..load };
        let script = (warm, load);
        let before = self.processor(server);
        let found = run_twice(&self.agent, &sandbox, script)?;
        let used = self.used_since(server, before);
        expect_answers(&found, "NOERROR")?;
        let answers = found.rate * f64::from(load.seconds) + f64::from(HOT_NAMES);
        let mut samples = vec![Sample::rate("cached", found.rate)];
        samples.extend(used.map(|used| Sample::cost("cached", used * 1e6 / answers)));
        if server != Server::Egress {
            let bare = Found::of(load.start_bare(self.world)?)?;
            samples.push(Sample::rate("cached, bare client", bare.rate));
        }
        Ok(samples)
    }

    fn many(&mut self, server: Server) -> Result<Vec<Sample>, Failure> {
        let start = self.directory.join(format!("start-{}", self.sandboxes));
        let start = start.display().to_string();
        let sandboxes: Vec<String> = (0..self.options.sandboxes)
            .map(|_| self.fresh_sandbox())
            .collect();
        let load = Load {
            outstanding: 4,
            seconds: self.options.seconds.max(5),
            ..self.load(server)
        };
        let mut clients = Vec::new();
        // Every name once in every sandbox: what is measured is what is known there.
        let warm = Load { seconds: 0, ..load };
        for sandbox in &sandboxes {
            clients.push(load.start_in(&self.agent, sandbox, Some((&warm, &start)))?);
        }
        for client in &mut clients {
            if client.line().as_deref() != Some("warm") {
                return Err(Failure::new("a sandbox has not asked all names once"));
            }
        }
        fs::write(&start, "").map_err(|error| Failure::new(format!("{start}: {error}")))?;
        let mut rate = 0.0;
        for client in clients {
            let found = Found::of(client)?;
            expect_answers(&found, "NOERROR")?;
            rate += found.rate;
        }
        Ok(vec![Sample::rate("cached, many sandboxes", rate)])
    }

    fn refused(&mut self, server: Server) -> Result<Vec<Sample>, Failure> {
        let sandbox = self.fresh_sandbox();
        let load = Load {
            questions: &self.refused,
            ..self.load(server)
        };
        let before = self.processor(server);
        let found = load.run_in(&self.agent, &sandbox)?;
        let used = self.used_since(server, before);
        expect_answers(&found, "NXDOMAIN")?;
        let answers = found.rate * f64::from(load.seconds);
        let mut samples = vec![Sample::rate("refused", found.rate)];
        samples.extend(used.map(|used| Sample::cost("refused", used * 1e6 / answers)));
        Ok(samples)
    }

    /// Seconds of processor that a server has had. The client takes its share of the two
    /// processors, so the rates of all servers are closer to each other than this is.
    fn processor(&self, server: Server) -> Option<f64> {
        let process = match server {
            Server::Egress => self.agent.pid(),
            peer => self.servers.pid(peer),
        };
        process.and_then(servers::processor)
    }

    fn used_since(&self, server: Server, before: Option<f64>) -> Option<f64> {
        Some(self.processor(server)? - before?)
    }

    fn cold(&mut self, server: Server) -> Result<Vec<Sample>, Failure> {
        const NAMES: u32 = 500;
        let names = self.names..self.names + NAMES;
        self.names += NAMES;
        let questions = self.directory.join(format!("cold-{}", names.start));
        let text: String = names.map(|n| format!("cold{n}.{ZONE} A\n")).collect();
        fs::write(&questions, text).map_err(|error| Failure::new(error.to_string()))?;
        let questions = questions.display().to_string();
        let sandbox = self.fresh_sandbox();
        let load = Load {
            questions: &questions,
            seconds: 0,
            outstanding: 1,
            each: true,
            rate: 500,
            server,
            direct: false,
        };
        let found = load.run_in(&self.agent, &sandbox)?;
        expect_answers(&found, "NOERROR")?;
        let mut samples = vec![Sample::each(COLD, found.each)];
        // What the upstream itself takes, the same way over the same link.
        if server == Server::Egress {
            let direct = Load {
                direct: true,
                ..load
            };
            let alone = Found::of(direct.start_bare(self.world)?)?;
            expect_answers(&alone, "NOERROR")?;
            samples.push(Sample::each(ALONE, alone.each));
        }
        Ok(samples)
    }

    /// A quiet sandbox beside one that misuses the resolver. The other servers are
    /// only measured beside a flood: what they do with the rest is not compared.
    fn abuse(&mut self, server: Server) -> Result<Vec<Sample>, Failure> {
        let seconds = self.options.seconds.max(5);
        let mut samples = Vec::new();
        for misuse in Misuse::ALL {
            if server != Server::Egress && misuse != Misuse::Flood {
                continue;
            }
            let (loud, quiet) = (self.fresh_sandbox(), self.fresh_sandbox());
            let process = self.agent.pid().unwrap_or(0);
            let before = resident(process);
            let misusing = match misuse.start(&self.agent, &loud, seconds + 4)? {
                Some(misusing) => misusing,
                None => {
                    let flood = Load {
                        questions: &self.refused,
                        rate: 10_000,
                        seconds: seconds + 4,
                        ..self.load(server)
                    };
                    flood.start_in(&self.agent, &loud, None)?
                }
            };
            // Until it is under way.
            std::thread::sleep(Duration::from_secs(2));
            let calm = Load {
                rate: 200,
                each: true,
                outstanding: 1,
                seconds,
                ..self.load(server)
            };
            let found = calm.run_in(&self.agent, &quiet)?;
            let after = resident(process);
            let (status, _, errors) = misusing.finish();
            if !status.success() {
                return Err(Failure::new(format!("{misuse:?}: {status}: {errors}")));
            }
            if server == Server::Egress {
                eprintln!(
                    "\n{}: {} answers, {} lost; the agent had {} KiB resident, and {} beside it",
                    misuse.scenario(),
                    found.each.len(),
                    found.lost,
                    before,
                    after
                );
            }
            samples.push(Sample::each(misuse.scenario(), found.each));
        }
        Ok(samples)
    }
}

/// Two loads one after the other in one sandbox; what the second found.
fn run_twice(
    agent: &Agent<'_>,
    sandbox: &str,
    (first, second): (Load<'_>, Load<'_>),
) -> Result<Found, Failure> {
    let script = format!("{} >/dev/null; exec {}", first.line(), second.line());
    let arguments = [
        "run", "--name", sandbox, "--policy", "bench", "--", "/bin/sh", "-c", &script,
    ];
    let started = agent.egressctl(&arguments);
    Found::of(started.map_err(|error| Failure::new(format!("egressctl: {error}")))?)
}

/// A server that answers something else is fast for nothing.
fn expect_answers(found: &Found, code: &str) -> Result<(), Failure> {
    if found.codes.starts_with(code) && !found.codes.contains(',') {
        return Ok(());
    }
    Err(Failure::new(format!(
        "expected {code} only, and got {} ({} lost)",
        found.codes, found.lost
    )))
}
