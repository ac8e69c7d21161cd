//! The columns: the same worker in the same surroundings, with other guards.

use super::guardian::Guarded;
use super::operation::Operation;
use super::place::{FAR, LOCAL, NEAR};
use super::{empty, enforced, nftables};
use egress_agent::enforcer::Enforcer;
use egress_tests::Namespace;
use egress_tests::process::Running;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

/// Depth of a column's cgroup: the guardian's is right below the mount.
const LEVEL: u32 = 2;

/// What stands guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// Nothing.
    Bare,
    /// Programs that do nothing.
    Empty,
    /// The product.
    Enforced,
    /// nftables.
    Nftables,
}

impl Guard {
    /// All, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Bare, Self::Empty, Self::Enforced, Self::Nftables];

    /// The column's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Empty => "empty",
            Self::Enforced => "enforced",
            Self::Nftables => "nftables",
        }
    }
}

/// One column.
pub struct Column {
    /// What stands guard.
    pub guard: Guard,
    /// The product, in its column.
    pub enforcer: Option<Enforcer>,
    worker: Running,
    /// They live as long as somebody holds them.
    _namespaces: [Namespace; 2],
}

impl Column {
    /// Makes one.
    pub fn new(guard: Guard, guarded: &Guarded) -> io::Result<Self> {
        let root = guarded.path().join(guard.name());
        let sandbox = root.join("sandbox");
        fs::create_dir(&root)?;
        fs::create_dir(&sandbox)?;
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        connect(&near, &far)?;
        let mut enforcer = None;
        match guard {
            Guard::Bare => {}
            Guard::Empty => empty::attach(File::open(&root)?.as_fd())?,
            Guard::Enforced => enforcer = Some(enforced::start(&root, LEVEL, &sandbox)?),
            Guard::Nftables => nftables::start(&near, &root, LEVEL, &sandbox)?,
        }
        let worker = start_worker(&near, &far, &sandbox)?;
        Ok(Self {
            guard,
            enforcer,
            worker,
            _namespaces: [near, far],
        })
    }

    /// Lets the worker do an operation; the sample, and of how many it is made.
    pub fn measure(&mut self, operation: Operation) -> io::Result<(f64, u32)> {
        self.worker.say(operation.name())?;
        let answer = self.worker.line().unwrap_or_default();
        let mut words = answer.split(' ');
        let value = words.next().and_then(|word| word.parse().ok());
        let times = words.next().and_then(|word| word.parse().ok());
        value.zip(times).ok_or_else(|| {
            io::Error::other(format!(
                "the worker of column {} ended at {}; its message is above",
                self.guard.name(),
                operation.name()
            ))
        })
    }
}

fn connect(near: &Namespace, far: &Namespace) -> io::Result<()> {
    near.configure(&format!(
        "link set lo up\n\
         link add near type veth peer name far netns {}\n\
         addr add {NEAR}/30 dev near\n\
         addr add {LOCAL}/32 dev lo\n\
         link set near up\n",
        far.path()
    ))?;
    far.configure(&format!(
        "link set lo up\naddr add {FAR}/30 dev far\nlink set far up\n"
    ))?;
    // Thousands of connections in a minute: no port waits for old packets.
    near.set("ipv4/ip_local_port_range", "1024 65535")?;
    near.set("ipv4/tcp_max_tw_buckets", "0")
}

fn start_worker(near: &Namespace, far: &Namespace, cgroup: &Path) -> io::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["worker", "--far", &far.path(), "--cgroup"]);
    command.arg(cgroup);
    let mut worker = near.run(|| Running::start(&mut command))?;
    match worker.line().as_deref() {
        Some("ready") => Ok(worker),
        _ => {
            let (status, _, errors) = worker.finish();
            Err(io::Error::other(format!("the worker: {status}: {errors}")))
        }
    }
}
