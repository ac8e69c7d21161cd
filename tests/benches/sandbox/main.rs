//! What the start of a sandbox costs beside many others: the measuring half of
//! `cargo xtask bench sandbox`.
//!
//! A private agent, as `egressctl run --ephemeral` has it, is asked over a control
//! socket, and this process launches, as `egressctl run` does. A sample begins with
//! the request and ends when the command runs: cgroup, limits, book, kernel maps,
//! record; then namespaces, view, privileges, filters, exec.

use clap::Parser;
use egress_agent::api::wire::NewSandbox;
use egress_agent::api::{Client, Listening, serve};
use egress_agent::daemon::Ephemeral;
use egress_agent::model::{Attribution, SandboxName};
use egress_agent::sandbox::view::resolv_conf;
use egress_agent::sandbox::{
    Caller, Child, ChosenUser, GovernedRoot, Hierarchy, LaunchSpec, SandboxCgroup, environment,
    launch,
};
use egress_common::SandboxId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::error::Error;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
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
    /// Cargo says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One start, in parts.
struct Sample {
    create: Duration,
    start: Duration,
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
    // Each command that runs costs this process some descriptors.
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
    let mut alive: Vec<Child> = Vec::new();
    for number in 0..options.alive {
        alive.push(start(&client, &format!("alive-{number}")).await?.0);
    }
    let filled = begun.elapsed();
    let mut samples = Vec::new();
    for number in 0..options.rounds {
        let name = format!("round-{number}");
        let (child, sample) = start(&client, &name).await?;
        samples.push(sample);
        child.kill()?;
        tokio::task::block_in_place(|| child.wait())?;
        client.remove(&name).await?;
    }
    let status = client.status().await?;
    let created = quantiles(samples.iter().map(|sample| sample.create).collect());
    let started = quantiles(samples.iter().map(|sample| sample.start).collect());
    let both = quantiles(
        samples
            .iter()
            .map(|sample| sample.create + sample.start)
            .collect(),
    );
    let met = both[0] < GOALS[0] && both[1] < GOALS[1];
    Ok(json!({
        "alive": alive.len(),
        "sandboxes_of_the_agent": status.sandboxes,
        "all_started_in_s": filled.as_secs_f64(),
        "rounds": samples.len(),
        "create_ms": { "p50": created[0], "p99": created[1] },
        "start_ms": { "p50": started[0], "p99": started[1] },
        "both_ms": { "p50": both[0], "p99": both[1] },
        "goal_ms": { "p50": GOALS[0], "p99": GOALS[1] },
        "met": met,
    }))
}

/// Makes a sandbox and starts a command that does nothing in it.
async fn start(client: &Client, name: &str) -> Result<(Child, Sample), Box<dyn Error>> {
    let begun = Instant::now();
    let created = client
        .create(&NewSandbox {
            name: Some(name.to_owned()),
            policy: Some("bench".to_owned()),
            owner: std::process::id(),
            attribution: Attribution::default(),
        })
        .await?;
    let create = begun.elapsed();
    let child = tokio::task::block_in_place(|| -> Result<Child, Box<dyn Error>> {
        let root = GovernedRoot::open(&Hierarchy::find()?, &created.root)?;
        let cgroup = SandboxCgroup::open(&root, &SandboxName::parse(&created.name)?)?;
        let user =
            ChosenUser::choose(None, &Caller::of_this_process(), SandboxId(created.id))?.user;
        let spec = LaunchSpec {
            command: ["/bin/sleep", "1000000"].map(OsString::from).to_vec(),
            environment: environment::build(std::env::vars_os(), &user, &[])?,
            user,
            directory: None,
            resolv_conf: Some(resolv_conf(IpAddr::V4(Ipv4Addr::LOCALHOST))),
            relaxed: created.relaxed,
            forward_signals: false,
            seccomp: created.seccomp,
            time: None,
            disk: None,
        };
        Ok(launch(&spec, &cgroup)?)
    })?;
    let start = begun.elapsed() - create;
    Ok((child, Sample { create, start }))
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
