//! `dnsperf`, inside a sandbox or outside of all of them.

use super::servers::Server;
use crate::Failure;
use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::process::Running;
use egress_tests::product::Agent;
use std::process::Command;
use std::time::Duration;

/// What one run of `dnsperf` is to do.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// Whom it asks.
    pub server: Server,
    /// Whether it asks the authoritative server behind it instead, which only a
    /// client outside of every sandbox can.
    pub direct: bool,
    /// The file of its questions.
    pub questions: &'a str,
    /// For how many seconds; 0 goes once through the file.
    pub seconds: u32,
    /// Queries without an answer at a time.
    pub outstanding: u32,
    /// Queries per second at most; 0 is as many as it can.
    pub rate: u32,
    /// Whether the time of each query is told.
    pub each: bool,
}

/// What `dnsperf` found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Answers per second.
    pub rate: f64,
    /// Queries that were not answered.
    pub lost: u64,
    /// What was answered, by code: `NOERROR 5 (100.00%)`.
    pub codes: String,
    /// Microseconds of each answer, if that was asked for.
    pub each: Vec<f64>,
}

impl Load<'_> {
    fn arguments(&self) -> Vec<String> {
        let upstream = ALLOWED_V4.to_string();
        let (address, port) = if self.direct {
            (upstream.as_str(), 53)
        } else {
            self.server.address()
        };
        let mut arguments: Vec<String> = ["dnsperf", "-s", address, "-t", "2", "-c", "4"]
            .map(str::to_owned)
            .to_vec();
        arguments.extend([
            "-p".into(),
            port.to_string(),
            "-d".into(),
            self.questions.into(),
        ]);
        arguments.extend(["-q".into(), self.outstanding.to_string()]);
        if self.seconds == 0 {
            arguments.extend(["-n".into(), "1".into()]);
        } else {
            arguments.extend(["-l".into(), self.seconds.to_string()]);
        }
        if self.rate > 0 {
            arguments.extend(["-Q".into(), self.rate.to_string()]);
        }
        if self.each {
            arguments.push("-v".into());
        }
        arguments
    }

    /// The command as a shell reads it.
    pub fn line(&self) -> String {
        self.arguments().join(" ")
    }

    /// Begins outside of every sandbox.
    pub fn start_bare(&self, world: &World) -> Result<Running, Failure> {
        let arguments = self.arguments();
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]);
        let started = world.near.run(|| Running::start(&mut command));
        started.map_err(|error| Failure::new(format!("dnsperf: {error}")))
    }

    /// Begins in a sandbox: at once, or after a first load, of whose end its first line tells, when the file `start` appears.
    pub fn start_in(
        &self,
        agent: &Agent<'_>,
        sandbox: &str,
        after: Option<(&Load<'_>, &str)>,
    ) -> Result<Running, Failure> {
        let line = self.line();
        let script = match after {
            Some((first, start)) => format!(
                "{} >/dev/null; echo warm; while [ ! -e {start} ]; do sleep 0.1; done; exec {line}",
                first.line()
            ),
            None => format!("exec {line}"),
        };
        let arguments = [
            "run", "--name", sandbox, "--policy", "bench", "--", "/bin/sh", "-c", &script,
        ];
        let started = agent.egressctl(&arguments);
        started.map_err(|error| Failure::new(format!("egressctl: {error}")))
    }

    /// Runs in a sandbox of its own.
    pub fn run_in(&self, agent: &Agent<'_>, sandbox: &str) -> Result<Found, Failure> {
        Found::of(self.start_in(agent, sandbox, None)?)
    }
}

impl Found {
    /// Waits for the end.
    pub fn of(running: Running) -> Result<Self, Failure> {
        const LONGEST: Duration = Duration::from_secs(180);
        let mut running = running;
        if running.wait(LONGEST).is_none() {
            return Err(Failure::new("dnsperf does not end"));
        }
        let (status, lines, errors) = running.finish();
        let mut found = Self::default();
        for line in &lines {
            let line = line.trim();
            if let Some(rate) = line.strip_prefix("Queries per second:") {
                found.rate = rate.trim().parse().unwrap_or(0.0);
            } else if let Some(lost) = line.strip_prefix("Queries lost:") {
                let number = lost.split_whitespace().next().unwrap_or_default();
                found.lost = number.parse().unwrap_or(0);
            } else if let Some(codes) = line.strip_prefix("Response codes:") {
                found.codes = codes.trim().to_owned();
            } else if line.starts_with("> ") {
                // `> NOERROR name type seconds`
                let seconds = line.split_whitespace().next_back().unwrap_or_default();
                found.each.extend(seconds.parse::<f64>().map(|s| s * 1e6));
            }
        }
        if found.rate == 0.0 {
            let said = format!("{status}\n{}\n{errors}", lines.join("\n"));
            return Err(Failure::new(format!("dnsperf measured nothing: {said}")));
        }
        Ok(found)
    }
}
