//! What the start of a sandbox costs beside many others: the measuring half of
//! `cargo xtask bench sandbox`.
//!
//! A private agent, as `egressctl run --ephemeral` has it, is asked over a control
//! socket by a process for each sandbox, which launches the command and stays its
//! parent, as `egressctl run` does. A sample begins with the request and ends when
//! the command runs: cgroup, limits, book, kernel maps, record; then namespaces,
//! view, privileges, filters, exec. What it takes to start the launching process
//! itself is told beside it.

mod launcher;

use clap::Parser;
use egress_agent::api::{Client, Listening, serve};
use egress_agent::daemon::Ephemeral;
use launcher::{Launcher, Sample};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the goals are, in milliseconds: the middle, and all but one in a hundred.
const GOALS: [f64; 2] = [5.0, 20.0];

/// Measures the start of sandboxes, and prints the result as JSON.
#[derive(Parser)]
#[command(name = "sandbox")]
struct Options {
    /// Sandboxes that run meanwhile.
    #[arg(long, default_value_t = 1000)]
    alive: usize,
    /// Starts that are measured.
    #[arg(long, default_value_t = 300)]
    rounds: usize,
    /// Be the launching process of the sandbox with this name.
    #[arg(long, hide = true, requires = "socket")]
    launch: Option<String>,
    /// The agent's control socket.
    #[arg(long, hide = true)]
    socket: Option<PathBuf>,
    /// Cargo says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if let (Some(name), Some(socket)) = (&options.launch, &options.socket) {
        return launcher::main(socket, name);
    }
    // Each launching process costs this one some descriptors.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let policy = directory.path().join("policy.yaml");
    std::fs::write(
        &policy,
        "apiVersion: egress/v1\nname: bench\nallowlist:\n  web:\n    - { domain: allowed.example, protocols: [https] }\n",
    )?;
    // Nobody asks for a name.
    let upstream = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
    let state = Some(directory.path().join("state"));
    let private = Ephemeral::start(&policy, vec![upstream], state).await?;
    let socket = directory.path().join("socket");
    let listening = Listening::bind(&socket)?;
    let stop = {
        let agent = Arc::clone(private.agent());
        async move { agent.stopped().await }
    };
    tokio::spawn(serve(listening, Arc::clone(private.agent()), stop));
    let result = starts(options, &socket).await;
    private.end().await;
    println!("{:#}", result?);
    Ok(())
}

async fn starts(options: &Options, socket: &Path) -> Result<serde_json::Value, Box<dyn Error>> {
    let client = Client::new(socket);
    let begun = Instant::now();
    let mut alive: Vec<Launcher> = Vec::new();
    for number in 0..options.alive {
        alive.push(Launcher::start(socket, &format!("alive-{number}")).await?);
    }
    let filled = begun.elapsed();
    let mut samples: Vec<Sample> = Vec::new();
    for number in 0..options.rounds {
        let name = format!("round-{number}");
        let launcher = Launcher::start(socket, &name).await?;
        samples.push(launcher.sample);
        launcher.end().await?;
    }
    let status = client.status().await?;
    for launcher in alive.drain(..) {
        launcher.end().await?;
    }
    let part = |of: fn(&Sample) -> Duration| quantiles(samples.iter().map(of).collect());
    let words = |of: [f64; 2]| json!({ "p50": of[0], "p99": of[1] });
    let both = part(|sample| sample.create + sample.start);
    Ok(json!({
        "alive": options.alive,
        "sandboxes_of_the_agent": status.sandboxes,
        "all_started_in_s": filled.as_secs_f64(),
        "rounds": samples.len(),
        "create_ms": words(part(|sample| sample.create)),
        "start_ms": words(part(|sample| sample.start)),
        "both_ms": words(both),
        "with_the_launching_process_ms": words(part(|sample| sample.in_all)),
        "goal_ms": words(GOALS),
        "met": both[0] < GOALS[0] && both[1] < GOALS[1],
    }))
}

/// The 50th and 99th of a hundred, in milliseconds.
fn quantiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort();
    [0.5, 0.99].map(|share| {
        let place = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        let time = times.get(place).copied().unwrap_or_default();
        time.as_secs_f64() * 1000.0
    })
}
