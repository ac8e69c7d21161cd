//! The kernel decides what the documents say: random policies and answers are
//! put in force on the running kernel, and processes in the sandboxes try to
//! send. Every attempt is judged three times: by the reference model, by the
//! shared decision on the image of the maps, and by the kernel, whose verdict
//! is the error number that the sender gets.
//!
//! The sandboxes live in a network namespace with one interface that swallows
//! everything, so that nothing leaves it.

use egress_agent::enforcer::{Enforcer, Place, boot_now, disarm_at};
use egress_common::CgroupId;
use egress_tests::comparison::{SECOND, Stop, World};
use egress_tests::process::{Running, paced};
use egress_tests::reference::{Destination, Fate, Model, Transport};
use egress_tests::scenario::{self, History, MANY, Packet, Step};
use egress_tests::{Cgroup, Namespace, probe, product};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Seconds between the beginning of a history and the present, if the machine
/// runs that long. Waits are shortened so that they fit.
const PAST: u64 = 8_000;
/// A history that decides differently so many seconds later is not compared:
/// the kernel's clock goes on meanwhile.
const LEEWAY: u64 = 30;
/// Steps and packets of one history.
const STEPS: u64 = 6;
const PACKETS: usize = 120;
const HISTORIES: u32 = 200;

#[test]
fn the_kernel_decides_what_the_documents_say() {
    if !egress_tests::privilege::granted("the_kernel_decides_what_the_documents_say") {
        return;
    }
    let kernel = RefCell::new(Kernel::start());
    let began = Instant::now();
    let config = Config {
        source_file: Some(file!()),
        max_shrink_time: 60_000,
        ..Config::with_cases(HISTORIES)
    };
    let histories = scenario::history(STEPS as usize, PACKETS);
    let outcome = TestRunner::new(config).run(&histories, |history| {
        match kernel.borrow_mut().compare(&history) {
            Ok(()) => Ok(()),
            Err(Stop::Refused) => Err(TestCaseError::reject("too many services")),
            Err(Stop::Disagreement(what)) => Err(TestCaseError::fail(what)),
        }
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let Tally {
        passed,
        refused,
        unsendable,
    } = kernel.into_inner().tally;
    println!(
        "{passed} passed, {refused} refused, {unsendable} not sendable anyway, in {:?}",
        began.elapsed()
    );
    assert!(passed + refused >= 2_000, "too few comparisons");
    assert!(passed >= 200 && refused >= 500, "one-sided");
    assert!(began.elapsed() < paced(Duration::from_secs(60)), "too slow");
}

/// What the kernel said.
#[derive(Clone, Copy, Default)]
struct Tally {
    passed: usize,
    refused: usize,
    /// Errors of the kernel's own, before or after the programs let it pass.
    unsendable: usize,
}

/// The programs in force on a root of the test's own, and a process in each sandbox.
struct Kernel {
    enforcer: Enforcer,
    probes: Vec<Running>,
    cgroups: Vec<CgroupId>,
    tally: Tally,
    // Dropped after the probes, in this order.
    _in_force: InForce,
    _namespace: Namespace,
}

/// Takes the programs out of force before their cgroup is removed.
struct InForce(Cgroup);

impl Drop for InForce {
    fn drop(&mut self) {
        if let Err(error) = disarm_at(self.0.path()) {
            eprintln!("the programs stay in force: {error}");
        }
    }
}

fn id_of(path: &Path) -> CgroupId {
    CgroupId(fs::metadata(path).expect("the cgroup is there").ino())
}

impl Kernel {
    fn start() -> Self {
        let namespace = Namespace::new().expect("a network namespace");
        namespace
            .configure(
                // Without ARP every frame carries its sender's own address, so
                // that the other end of the pair takes it for somebody else's.
                "link set lo up\n\
                 link add sink type veth peer name void\n\
                 link set sink arp off up\n\
                 link set void up\n\
                 addr add 198.18.0.1/32 dev sink\n\
                 addr add 2001:db8:ffff::1/128 dev sink nodad\n\
                 route add default dev sink\n\
                 route add ::/0 dev sink\n",
            )
            .expect("an interface that swallows everything");
        let root = Cgroup::new().expect("a cgroup");
        let enforcer = Enforcer::start(
            Place {
                path: root.path().to_owned(),
                cgroup: id_of(root.path()),
                // The harness makes its cgroups directly below the root.
                level: 1,
            },
            1_000,
            false,
        )
        .expect("the programs are in force");
        let in_force = InForce(root);
        let mut probes = Vec::new();
        let mut cgroups = Vec::new();
        for number in 0..MANY {
            let path = in_force.0.path().join(number.to_string());
            fs::create_dir(&path).expect("a sandbox");
            let mut command = Command::new(product::binary(probe::PROGRAM));
            let started = namespace.run(|| Running::start(command.arg("attempts")));
            let running = started.expect("a probe");
            fs::write(path.join("cgroup.procs"), running.pid().to_string()).expect("moved");
            cgroups.push(id_of(&path));
            probes.push(running);
        }
        Self {
            enforcer,
            probes,
            cgroups,
            tally: Tally::default(),
            _in_force: in_force,
            _namespace: namespace,
        }
    }

    /// Puts a history in force and tries its packets.
    fn compare(&mut self, history: &History) -> Result<(), Stop> {
        let before = self.enforcer.image().expect("the maps can be read");
        let now = boot_now() / SECOND;
        let past = PAST.min(now / 2);
        let mut world = World::new(&before, now - past, self.cgroups.clone());
        let compared = self.run(history, &mut world, past);
        // Also after a disagreement, so that the next history finds nothing.
        let _ = world.take_changes();
        let ended = world.end();
        let left = world.take_changes();
        self.enforcer.apply(&left).expect("the maps can be written");
        compared.and(ended)
    }

    fn run(&mut self, history: &History, world: &mut World, past: u64) -> Result<(), Stop> {
        world.begin(history)?;
        for step in &history.steps {
            match step {
                // A single wait is at most 3,000 seconds.
                Step::Wait(seconds) => world.step(&Step::Wait(seconds * past / (STEPS * 3_000)))?,
                step => world.step(step)?,
            }
        }
        let present = past.saturating_sub(world.model().now());
        world.step(&Step::Wait(present))?;
        let changes = world.take_changes();
        self.enforcer
            .apply(&changes)
            .expect("the maps can be written");
        let held = self.enforcer.image().expect("the maps can be read");
        if held != *world.image() {
            let wanted = world.image();
            return differ(format!("the maps hold {held:#?} and not {wanted:#?}"));
        }
        let stopped = world.model().is_stopped();
        self.enforcer
            .set_emergency(stopped)
            .expect("the map can be written");
        let last = history.steps.last().cloned().unwrap_or(Step::Wait(0));
        let packets = world.packets(history, &last);
        for (number, packet) in packets.iter().enumerate() {
            let packet = Packet {
                live: false,
                ..*packet
            };
            world.compare(&packet)?;
            self.attempt(world, &packet, number)?;
        }
        Ok(())
    }

    /// Tries one packet in every way in which it can be sent.
    fn attempt(&mut self, world: &World, packet: &Packet, number: usize) -> Result<(), Stop> {
        let Some(wanted) = expected(world.model(), packet) else {
            return Ok(());
        };
        let Destination {
            transport,
            address,
            port,
        } = packet.to;
        // Every other IPv4 address on an IPv6 socket.
        let address = match address {
            IpAddr::V4(v4) if number.is_multiple_of(2) => v4.to_ipv6_mapped().into(),
            address => address,
        };
        let kinds: &[&str] = match transport {
            Transport::Tcp => &["tcp"],
            Transport::Udp => &["udp", "udp-connected"],
            // No socket of a sandbox speaks it; tests/tests/interface compares that.
            Transport::Icmp => return Ok(()),
        };
        for kind in kinds {
            let line = format!("{kind} {}", SocketAddr::new(address, port));
            let probe = &mut self.probes[packet.sandbox];
            probe.say(&line).expect("the probe listens");
            let code: i32 = probe
                .line()
                .and_then(|line| line.parse().ok())
                .expect("the probe answers with a number");
            let agrees = match code {
                libc::EPERM => {
                    self.tally.refused += 1;
                    !wanted
                }
                0 | libc::EINPROGRESS | libc::ECONNREFUSED => {
                    self.tally.passed += 1;
                    wanted
                }
                // The kernel itself sends nothing there.
                _ => {
                    self.tally.unsendable += 1;
                    true
                }
            };
            if !agrees {
                return differ(format!(
                    "sandbox {}: {line} got error {code}, and it should {}",
                    packet.sandbox,
                    if wanted { "pass" } else { "be refused" }
                ));
            }
        }
        Ok(())
    }
}

fn differ<T>(what: String) -> Result<T, Stop> {
    Err(Stop::Disagreement(what))
}

/// Whether the packet must pass; `None` if its sender's errors do not show it.
fn expected(model: &Model, packet: &Packet) -> Option<bool> {
    if model.is_stopped() {
        return Some(false);
    }
    let passes = |model: &Model, address: IpAddr| {
        let Some(policy) = model.policy(packet.sandbox) else {
            return false;
        };
        let to = Destination {
            address,
            ..packet.to
        };
        match model.fate(packet.sandbox, &to, false) {
            // There is no resolver here to be brought to, in no mode.
            Fate::Resolver => false,
            Fate::Allowed(_) => true,
            Fate::Denied => policy.shadow,
        }
    };
    let address = packet.to.address.to_canonical();
    let now = passes(model, address);
    let mut soon = model.clone();
    soon.wait(LEEWAY);
    let stays = passes(&soon, address) == now;
    // The kernel sends what goes to an unspecified address to loopback, and a
    // TCP sender does not learn what becomes of the packet itself.
    let loopback = match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    (stays && passes(model, loopback) == now).then_some(now)
}
