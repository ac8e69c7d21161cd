//! What a host with fifty sandboxes decides: reports as the kernel writes them.

use egress_agent::events::{Context, Moment, SandboxFacts};
use egress_agent::model::{Attribution, DomainName, RuleOrigin};
use egress_common::{
    CgroupId, Event, Hook, Ip, NameId, Outcome, Port, Protocol, Reason, RuleId, SandboxId,
};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

/// Sandboxes, each with a task and a project of its own.
pub const SANDBOXES: u32 = 50;
/// Names, and as many addresses.
const NAMES: u32 = 2_000;

/// The words for the numbers, as the agent's book has them at hand.
pub struct Words {
    sandboxes: Vec<SandboxFacts>,
    names: Vec<DomainName>,
    rule: RuleOrigin,
}

impl Words {
    pub fn new() -> Self {
        let sandbox = |n: u32| SandboxFacts {
            name: format!("build-{n}"),
            policy: "ci".to_owned(),
            relaxations: Vec::new(),
            attribution: Some(Arc::new(Attribution {
                task: Some(format!("T-{n}")),
                project: Some(format!("project-{}", n % 7)),
                ..Attribution::default()
            })),
        };
        let name = |n: u32| DomainName::parse(&format!("api{n}.example.com")).expect("a name");
        Self {
            sandboxes: (0..SANDBOXES).map(sandbox).collect(),
            names: (0..NAMES).map(name).collect(),
            rule: RuleOrigin {
                file: Arc::new(PathBuf::from("/etc/egress/policies.d/ci.yaml")),
                line: 7,
                text: "domain *.example.com".into(),
            },
        }
    }
}

impl Context for Words {
    fn sandbox(&self, id: SandboxId) -> Option<SandboxFacts> {
        self.sandboxes.get(id.0.checked_sub(1)? as usize).cloned()
    }

    fn name(&self, id: NameId) -> Option<DomainName> {
        self.names.get(id.0.checked_sub(1)? as usize).cloned()
    }

    fn rule(&self, id: RuleId) -> Option<RuleOrigin> {
        (id != RuleId(0)).then(|| self.rule.clone())
    }

    fn hint(&self, _: SandboxId, _: &Event) -> Option<String> {
        None
    }
}

/// An allowed flow; no two are folded.
pub fn allowed(n: u32, now: Moment) -> Event {
    Event {
        time: now.boot,
        cgroup: CgroupId(u64::from(n % SANDBOXES) + 100),
        ip: Ip::from(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n % NAMES))),
        sandbox: SandboxId(n % SANDBOXES + 1),
        process: 1000 + n % 30_000,
        user: 1000,
        name: NameId(n % NAMES + 1),
        rule: RuleId(1),
        detail: 0,
        port: Port::from_host(443),
        protocol: Protocol::Tcp as u8,
        hook: Hook::Connect as u8,
        outcome: Outcome::Allowed as u8,
        reason: 0,
        reserved: 0,
        command: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
    }
}

/// A denial; those of a sandbox to the same place are alike.
pub fn denied(sandbox: u32, place: u32, now: Moment) -> Event {
    Event {
        cgroup: CgroupId(u64::from(sandbox) + 99),
        ip: Ip::from(IpAddr::V4(Ipv4Addr::from(0xcb00_0000 + place))),
        sandbox: SandboxId(sandbox),
        name: NameId(0),
        rule: RuleId(0),
        outcome: Outcome::Denied as u8,
        reason: Reason::NoRule as u8,
        ..allowed(sandbox - 1, now)
    }
}
