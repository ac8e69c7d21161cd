//! Puts words to the numbers of a report.

use crate::events::{Context, Report};
use crate::model::{Record, RecordKind};
use egress_common::{Event, Hook, Ip, Outcome, Protocol, SandboxId};
use jiff::Timestamp;
use std::net::IpAddr;

/// The kernel's number for an unknown user.
const NOBODY_KNOWN: u32 = u32::MAX;

/// The record of one report.
pub(super) fn enrich(report: &Report, time: Timestamp, context: &impl Context) -> Record {
    let event = &report.event;
    let known = (event.sandbox != SandboxId(0)).then_some(event.sandbox);
    let facts = known.and_then(|id| context.sandbox(id));
    let relaxations = facts
        .as_ref()
        .map_or_else(Vec::new, |facts| facts.relaxations.clone());
    let attribution = facts.as_ref().and_then(|facts| facts.attribution.clone());
    let (sandbox, policy) = facts.map(|facts| (facts.name, facts.policy)).unzip();
    let refused = report.outcome != Outcome::Allowed;
    let hint = known
        .filter(|_| refused)
        .and_then(|id| context.hint(id, event));
    let has_destination = has_destination(report.hook, event);
    let (process, command, user) = process(event);

    Record {
        sandbox_id: known,
        sandbox,
        policy,
        relaxations,
        attribution,
        process,
        command,
        user,
        hook: Some(report.hook.name()),
        address: has_destination.then(|| IpAddr::from(event.ip)),
        port: (has_destination && has_ports(event.protocol)).then(|| event.port.host()),
        protocol: protocol(event.protocol),
        name: context
            .name(event.name)
            .map(|name| name.as_str().to_owned()),
        rule: context.rule(event.rule),
        outcome: Some(report.outcome),
        reason: report.reason,
        detail: join([particular(report.hook, event), hint]),
        ..Record::new(time, RecordKind::Flow)
    }
}

/// The process, its command and its user, as far as the hook could tell them.
pub(super) fn process(event: &Event) -> (Option<u32>, Option<String>, Option<u32>) {
    (
        (event.process != 0).then_some(event.process),
        command(&event.command),
        (event.user != NOBODY_KNOWN).then_some(event.user),
    )
}

/// Whether the hook saw a destination at all. The unspecified address with a
/// port is one: it means loopback.
fn has_destination(hook: Hook, event: &Event) -> bool {
    match hook {
        Hook::SocketCreate | Hook::SetSocketOption => false,
        Hook::Connect
        | Hook::Sendmsg
        | Hook::Egress
        | Hook::Ingress
        | Hook::InterfaceLeaves
        | Hook::InterfaceReaches
        | Hook::Resolver => event.ip != Ip::UNSPECIFIED || event.port.network() != 0,
    }
}

/// What only this hook can tell: the option or the kind of socket; for a
/// process outside every sandbox the cgroup, which is all that identifies it.
fn particular(hook: Hook, event: &Event) -> Option<String> {
    let what = match hook {
        Hook::SetSocketOption => Some(format!(
            "socket option level {}, name {}",
            event.detail >> 16,
            event.detail & 0xffff
        )),
        Hook::SocketCreate => Some(format!(
            "socket family {}, type {}, protocol {}",
            event.detail >> 16,
            (event.detail >> 8) & 0xff,
            event.detail & 0xff
        )),
        Hook::Connect
        | Hook::Sendmsg
        | Hook::Egress
        | Hook::Ingress
        | Hook::InterfaceLeaves
        | Hook::InterfaceReaches
        | Hook::Resolver => None,
    };
    let whose = (event.sandbox == SandboxId(0) && event.cgroup.0 != 0).then(|| {
        match event.cgroup.interface() {
            Some(index) => format!("interface {index}"),
            None => format!("cgroup {}", event.cgroup.0),
        }
    });
    join([what, whose])
}

/// One detail out of the parts that there are.
pub(super) fn join(parts: [Option<String>; 2]) -> Option<String> {
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn protocol(number: u8) -> Option<String> {
    match (number, Protocol::from_key(number)) {
        (0, _) => None,
        (_, Some(protocol)) => Some(protocol.name().to_owned()),
        (other, None) => Some(other.to_string()),
    }
}

/// Whether a port says anything; what nobody knows may have some.
fn has_ports(number: u8) -> bool {
    Protocol::from_key(number).is_none_or(Protocol::has_ports)
}

fn command(bytes: &[u8; 16]) -> Option<String> {
    let length = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..length]);
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::events::SandboxFacts;
    use crate::events::report::tests::denial;
    use crate::model::{Attribution, DomainName, Relaxation, RuleOrigin};
    use egress_common::{CgroupId, NameId, Reason, RuleId};
    use std::path::PathBuf;
    use std::sync::Arc;

    /// Sandbox 3 is `build` under `ci`; name 8 and rule 9 are known.
    pub struct World;

    impl Context for World {
        fn sandbox(&self, id: SandboxId) -> Option<SandboxFacts> {
            (id == SandboxId(3)).then(|| SandboxFacts {
                name: "build".to_owned(),
                policy: "ci".to_owned(),
                relaxations: vec![Relaxation::Ptrace],
                attribution: Some(Arc::new(Attribution {
                    task: Some("T-17".to_owned()),
                    ..Attribution::default()
                })),
            })
        }

        fn name(&self, id: NameId) -> Option<DomainName> {
            (id == NameId(8)).then(|| DomainName::parse("api.example.com").expect("a name"))
        }

        fn rule(&self, id: RuleId) -> Option<RuleOrigin> {
            (id == RuleId(9)).then(|| RuleOrigin {
                file: Arc::new(PathBuf::from("ci.yaml")),
                line: 7,
                text: "domain api.example.com".into(),
            })
        }

        fn hint(&self, _: SandboxId, event: &Event) -> Option<String> {
            Some(format!("cidr: {}/32", event.ip))
        }
    }

    fn record(event: Event) -> Record {
        let report = Report::new(&event).expect("a report");
        enrich(&report, Timestamp::UNIX_EPOCH, &World)
    }

    #[test]
    fn a_denial_says_who_what_why_and_what_would_allow_it() {
        let record = record(denial());
        assert_eq!(record.kind, RecordKind::Flow);
        assert_eq!(record.sandbox.as_deref(), Some("build"));
        assert_eq!(record.policy.as_deref(), Some("ci"));
        assert_eq!(record.relaxations, [Relaxation::Ptrace]);
        let attribution = record.attribution.expect("an attribution");
        assert_eq!(attribution.task.as_deref(), Some("T-17"));
        assert_eq!(record.process, Some(4242));
        assert_eq!(record.command.as_deref(), Some("curl"));
        assert_eq!(record.user, Some(1000));
        assert_eq!(record.hook, Some("connect"));
        assert_eq!(record.address, "203.0.113.7".parse().ok());
        assert_eq!(record.port, Some(443));
        assert_eq!(record.protocol.as_deref(), Some("tcp"));
        assert_eq!(record.reason, Some(Reason::NoRule));
        assert_eq!(record.detail.as_deref(), Some("cidr: 203.0.113.7/32"));
        assert_eq!(record.count, 1);
    }

    #[test]
    fn an_allowed_flow_names_its_rule_and_gives_no_hint() {
        let record = record(Event {
            outcome: Outcome::Allowed as u8,
            reason: 0,
            name: NameId(8),
            rule: RuleId(9),
            ..denial()
        });
        assert_eq!(record.name.as_deref(), Some("api.example.com"));
        assert_eq!(record.rule.map(|rule| rule.line), Some(7));
        assert_eq!(record.reason, None);
        assert_eq!(record.detail, None);
    }

    #[test]
    fn an_echo_has_no_port() {
        let record = record(Event {
            hook: Hook::InterfaceLeaves as u8,
            protocol: 1,
            port: egress_common::Port::ANY,
            ..denial()
        });
        assert_eq!(record.protocol.as_deref(), Some("icmp"));
        assert_eq!(record.port, None);
        assert!(record.address.is_some());
    }

    #[test]
    fn what_the_kernel_does_not_know_is_absent_and_never_zero() {
        let record = record(Event {
            sandbox: SandboxId(0),
            cgroup: CgroupId(555),
            process: 0,
            user: u32::MAX,
            protocol: 132,
            hook: Hook::Egress as u8,
            command: [0; 16],
            ..denial()
        });
        assert_eq!(record.sandbox_id, None);
        assert_eq!(record.process, None);
        assert_eq!(record.command, None);
        assert_eq!(record.user, None);
        assert_eq!(record.protocol.as_deref(), Some("132"));
        assert_eq!(record.detail.as_deref(), Some("cgroup 555"));
    }

    #[test]
    fn a_socket_or_an_option_has_no_destination() {
        let option = record(Event {
            hook: Hook::SetSocketOption as u8,
            reason: Reason::SocketOption as u8,
            detail: 41 << 16 | 20,
            ..denial()
        });
        assert_eq!(option.address, None);
        assert_eq!(option.port, None);
        let detail = option.detail.expect("a detail");
        assert!(
            detail.starts_with("socket option level 41, name 20"),
            "{detail}"
        );

        let socket = record(Event {
            hook: Hook::SocketCreate as u8,
            reason: Reason::SocketKind as u8,
            detail: 2 << 16 | 3 << 8 | 1,
            ..denial()
        });
        let detail = socket.detail.expect("a detail");
        assert!(
            detail.starts_with("socket family 2, type 3, protocol 1"),
            "{detail}"
        );
    }

    #[test]
    fn a_command_that_fills_the_field_or_is_no_text_is_kept_as_far_as_it_goes() {
        assert_eq!(
            command(b"0123456789abcdef").as_deref(),
            Some("0123456789abcdef")
        );
        assert_eq!(
            command(b"a\xff\0bcdefghijklmn").as_deref(),
            Some("a\u{fffd}")
        );
    }
}
