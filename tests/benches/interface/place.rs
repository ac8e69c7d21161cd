//! Where it is measured: a container, its router and a server, each time with
//! other rules at the router.

use egress_agent::api::Client;
use egress_agent::api::wire::NewInterface;
use egress_tests::process::Running;
use egress_tests::product::binary;
use egress_tests::{Namespace, World};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where packets go.
pub const SERVER: Ipv4Addr = egress_tests::address::ALLOWED_V4;
/// The port of the stream.
pub const BULK: u16 = 7001;
/// The port of the datagrams.
pub const SMALL: u16 = 7002;

/// What stands between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// Nothing.
    None,
    /// The product.
    Product,
    /// What somebody would write by hand.
    Nftables,
}

/// A container behind a router.
pub struct Place {
    /// The router and the server.
    pub world: World,
    /// The container.
    pub inside: Namespace,
    /// How long each attachment took.
    pub attached: Vec<Duration>,
    _others: Namespace,
    _agent: Option<Running>,
}

const POLICY: &str = "apiVersion: egress/v1\nname: bench\nallowlist:\n  server:\n    \
    - { cidr: 203.0.113.10/32, ports: [7001], protocols: [tcp] }\n    \
    - { cidr: 203.0.113.10/32, ports: [7002], protocols: [udp] }\n";

impl Place {
    pub fn new(rules: Rules, others: u16) -> io::Result<Self> {
        let mut world = World::new()?;
        world.sniffer.end();
        world.near.set("ipv4/ip_forward", "1")?;
        let near = egress_tests::address::NEAR_V4;
        world
            .far
            .configure(&format!("route add 198.18.0.0/15 via {near}\n"))?;
        let (inside, behind) = (Namespace::new()?, Namespace::new()?);
        world.near.configure(&format!(
            "link add box type veth peer name eth0 netns {}\n\
             addr add 198.18.255.1/30 dev box\nlink set box up\n",
            inside.path()
        ))?;
        inside.configure(
            "addr add 198.18.255.2/30 dev eth0\nlink set eth0 up\n\
             route add default via 198.18.255.1\n",
        )?;
        let mut place = Self {
            world,
            inside,
            attached: Vec::new(),
            _others: behind,
            _agent: None,
        };
        match rules {
            Rules::None => {}
            Rules::Nftables => place.world.near.run(nftables)?,
            Rules::Product => place.enforce(others)?,
        }
        Ok(place)
    }

    fn enforce(&mut self, others: u16) -> io::Result<()> {
        let directory = self.world.fresh_directory();
        std::fs::create_dir(directory.join("policies.d"))?;
        std::fs::write(directory.join("policies.d/bench.yaml"), POLICY)?;
        let shown = directory.display();
        let configuration = directory.join("agent.toml");
        std::fs::write(
            &configuration,
            format!(
                "root = \"egress-bench-{}\"\npolicies = [\"{shown}/policies.d\"]\n\
                 state_directory = \"{shown}/state\"\nruntime_directory = \"{shown}/runtime\"\n\
                 socket = \"{shown}/control.sock\"\nupstreams = [\"203.0.113.53\"]\n",
                std::process::id()
            ),
        )?;
        let mut lines = String::new();
        for n in 0..others {
            let [high, low] = n.to_be_bytes();
            // Writing into a string cannot fail.
            let _ = write!(
                lines,
                "link add b{n} type veth peer name p{n} netns {}\n\
                 addr add 198.18.{high}.{low}/32 dev b{n}\nlink set b{n} up\n",
                self._others.path()
            );
        }
        self.world.near.configure(&lines)?;
        let mut agent = Command::new(binary("egress-agent"));
        agent.arg("--config").arg(&configuration);
        self._agent = Some(self.world.near.run(|| Running::start(&mut agent))?);
        let socket = directory.join("control.sock");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !socket.exists() {
            if Instant::now() > deadline {
                return Err(io::Error::other("the agent does not answer"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.attached = attach(&socket, others)?;
        Ok(())
    }
}

/// Attaches the measured interface and the others, each with an address of its own.
fn attach(socket: &Path, others: u16) -> io::Result<Vec<Duration>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = Client::new(socket);
    let mut times = Vec::new();
    let measured = ("box".to_owned(), "198.18.255.2/32".to_owned());
    let rest = (0..others).map(|n| {
        let [high, low] = n.to_be_bytes();
        (format!("b{n}"), format!("198.19.{}.{low}/32", 128 + high))
    });
    for (interface, address) in std::iter::once(measured).chain(rest) {
        let wanted = NewInterface {
            interface,
            policy: Some("bench".into()),
            addresses: vec![address],
            ..NewInterface::default()
        };
        let begun = Instant::now();
        let done = runtime.block_on(client.attach(&wanted));
        done.map_err(|error| io::Error::other(error.to_string()))?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// The same rules: answers come back, two services are open, sources are held.
fn nftables() -> io::Result<()> {
    let rules = "table inet bench {\n\
        set open { type ipv4_addr . inet_proto . inet_service; elements = {\n\
          203.0.113.10 . tcp . 7001, 203.0.113.10 . udp . 7002 } }\n\
        chain forward { type filter hook forward priority 0; policy accept;\n\
          oifname \"box\" ct state established,related accept\n\
          oifname \"box\" drop\n\
          iifname \"box\" ip saddr != 198.18.255.2 drop\n\
          iifname \"box\" ct state established accept\n\
          iifname \"box\" ip daddr . meta l4proto . th dport @open accept\n\
          iifname \"box\" drop\n\
        }\n}\n";
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    if nft.wait()?.success() {
        Ok(())
    } else {
        Err(io::Error::other("nft refuses the rules"))
    }
}
