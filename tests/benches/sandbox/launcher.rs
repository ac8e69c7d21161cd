//! The launching process of one sandbox, from both sides.

use egress_agent::api::Client;
use egress_agent::api::wire::NewSandbox;
use egress_agent::model::{Attribution, SandboxName};
use egress_agent::sandbox::view::resolv_conf;
use egress_agent::sandbox::{
    Caller, Child, ChosenUser, GovernedRoot, Hierarchy, LaunchSpec, SandboxCgroup, environment,
    launch,
};
use egress_common::SandboxId;
use std::error::Error;
use std::ffi::OsString;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// One start, in parts.
#[derive(Clone, Copy)]
pub struct Sample {
    /// The agent's part.
    pub create: Duration,
    /// The launcher's, until the command runs.
    pub start: Duration,
    /// From before the launching process was there.
    pub in_all: Duration,
}

/// A launching process, whose command runs.
pub struct Launcher {
    process: tokio::process::Child,
    /// How long it took.
    pub sample: Sample,
}

impl Launcher {
    /// Starts one; returns when its command runs.
    pub async fn start(socket: &Path, name: &str) -> Result<Self, Box<dyn Error>> {
        let begun = Instant::now();
        let mut process = tokio::process::Command::new(std::env::current_exe()?)
            .arg("--socket")
            .arg(socket)
            .args(["--launch", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("it has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        let in_all = begun.elapsed();
        let nanoseconds: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let &[create, start] = nanoseconds.as_slice() else {
            return Err(format!("the launching process of {name} said {line:?}").into());
        };
        let sample = Sample {
            create: Duration::from_nanos(create),
            start: Duration::from_nanos(start),
            in_all,
        };
        Ok(Self { process, sample })
    }

    /// Ends it, and with it the command.
    pub async fn end(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.process.stdin.take());
        let status = self.process.wait().await?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("a launching process ended with {status}").into())
        }
    }
}

/// The launching process: makes its sandbox, starts a command that does nothing,
/// tells how long both took, waits for the end of its input, and ends both.
pub fn main(socket: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let client = Client::new(socket);
    let child = runtime.block_on(start(&client, name))?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    child.kill()?;
    child.wait()?;
    runtime.block_on(client.remove(name))?;
    Ok(())
}

async fn start(client: &Client, name: &str) -> Result<Child, Box<dyn Error>> {
    let begun = Instant::now();
    let created = client
        .create(&NewSandbox {
            name: Some(name.to_owned()),
            policy: Some("bench".to_owned()),
            owner: std::process::id(),
            attribution: Attribution::default(),
            own_network: false,
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
            hidden: created.hidden,
            read_only: created.read_only,
        };
        Ok(launch(&spec, &cgroup)?)
    })?;
    let start = begun.elapsed() - create;
    println!("{} {}", create.as_nanos(), start.as_nanos());
    Ok(child)
}
