//! Validates what came through the ring buffer.

use egress_common::{CgroupId, Event, Hook, Ip, NameId, Outcome, Port, Reason, RuleId, SandboxId};
use std::mem::{offset_of, size_of};

/// An event whose numbers are known to mean something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// The event itself.
    pub event: Event,
    /// [`Event::hook`].
    pub hook: Hook,
    /// [`Event::outcome`].
    pub outcome: Outcome,
    /// [`Event::reason`]: present exactly when something was, or would have been, refused.
    pub reason: Option<Reason>,
}

/// Why bytes from the ring buffer are not a report.
///
/// It is counted and recorded as a loss: something was decided, and cannot be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// The kernel programs and the agent are from different builds.
    #[error("the report is {0} bytes long, not {expected}", expected = size_of::<Event>())]
    Length(usize),
    /// A number that is in no vocabulary.
    #[error("the report names hook {hook}, outcome {outcome} and reason {reason}")]
    Vocabulary {
        /// [`Event::hook`].
        hook: u8,
        /// [`Event::outcome`].
        outcome: u8,
        /// [`Event::reason`].
        reason: u8,
    },
}

impl Report {
    /// Reads one ring buffer entry.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; size_of::<Event>()] = bytes
            .try_into()
            .map_err(|_| Malformed::Length(bytes.len()))?;
        Self::new(&decode(bytes))
    }

    /// Validates an event.
    pub fn new(event: &Event) -> Result<Self, Malformed> {
        let malformed = Malformed::Vocabulary {
            hook: event.hook,
            outcome: event.outcome,
            reason: event.reason,
        };
        let hook = Hook::from_code(event.hook).ok_or(malformed)?;
        let outcome = Outcome::from_code(event.outcome).ok_or(malformed)?;
        let reason = match outcome {
            Outcome::Allowed if event.reason == 0 => None,
            Outcome::Allowed => return Err(malformed),
            Outcome::Denied | Outcome::WouldDeny => {
                Some(Reason::from_code(event.reason).ok_or(malformed)?)
            }
        };
        Ok(Self {
            event: *event,
            hook,
            outcome,
            reason,
        })
    }
}

/// Rebuilds the event field by field: a cast would need `unsafe` and an aligned buffer.
fn decode(bytes: &[u8; size_of::<Event>()]) -> Event {
    /// `N` bytes at an offset that the compiler took from the type itself.
    fn at<const N: usize>(bytes: &[u8; size_of::<Event>()], offset: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&bytes[offset..offset + N]);
        field
    }
    macro_rules! int {
        ($type:ty, $field:ident) => {
            <$type>::from_ne_bytes(at(bytes, offset_of!(Event, $field)))
        };
    }
    let ip: [u8; 16] = at(bytes, offset_of!(Event, ip));
    let word = |i: usize| u32::from_ne_bytes([ip[i], ip[i + 1], ip[i + 2], ip[i + 3]]);
    Event {
        time: int!(u64, time),
        cgroup: CgroupId(int!(u64, cgroup)),
        ip: Ip::from_v6([word(0), word(4), word(8), word(12)]),
        sandbox: SandboxId(int!(u32, sandbox)),
        process: int!(u32, process),
        user: int!(u32, user),
        name: NameId(int!(u32, name)),
        rule: RuleId(int!(u32, rule)),
        detail: int!(u32, detail),
        port: Port::from_network(int!(u16, port)),
        protocol: int!(u8, protocol),
        hook: int!(u8, hook),
        outcome: int!(u8, outcome),
        reason: int!(u8, reason),
        reserved: int!(u16, reserved),
        command: at(bytes, offset_of!(Event, command)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    /// A TCP connect to 203.0.113.7:443 that was refused because no rule names it.
    pub fn denial() -> Event {
        Event {
            time: 5_000_000_000,
            cgroup: CgroupId(77),
            ip: Ip::from(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7))),
            sandbox: SandboxId(3),
            process: 4242,
            user: 1000,
            name: NameId(0),
            rule: RuleId(0),
            detail: 0,
            port: Port::from_host(443),
            protocol: 6,
            hook: Hook::Connect as u8,
            outcome: Outcome::Denied as u8,
            reason: Reason::NoRule as u8,
            reserved: 0,
            command: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    /// The bytes as the kernel lays them out, written down by hand once.
    fn encode(event: &Event) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(event.time.to_ne_bytes());
        bytes.extend(event.cgroup.0.to_ne_bytes());
        bytes.extend(event.ip.words().iter().flat_map(|w| w.to_ne_bytes()));
        for word in [
            event.sandbox.0,
            event.process,
            event.user,
            event.name.0,
            event.rule.0,
            event.detail,
        ] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(event.port.network().to_ne_bytes());
        bytes.extend([event.protocol, event.hook, event.outcome, event.reason]);
        bytes.extend(event.reserved.to_ne_bytes());
        bytes.extend(event.command);
        bytes
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let event = Event {
            name: NameId(8),
            rule: RuleId(9),
            detail: 10,
            ..denial()
        };
        let report = Report::read(&encode(&event)).expect("a report");
        assert_eq!(report.event, event);
        assert_eq!(report.hook, Hook::Connect);
        assert_eq!(report.outcome, Outcome::Denied);
        assert_eq!(report.reason, Some(Reason::NoRule));
    }

    #[test]
    fn another_length_is_malformed() {
        for length in [0, 79, 81, 88] {
            assert_eq!(
                Report::read(&vec![0; length]),
                Err(Malformed::Length(length))
            );
        }
    }

    #[test]
    fn outcome_and_reason_must_agree() {
        let allowed_with_reason = Event {
            outcome: Outcome::Allowed as u8,
            ..denial()
        };
        let denied_without = Event {
            reason: 0,
            ..denial()
        };
        assert!(Report::new(&allowed_with_reason).is_err());
        assert!(Report::new(&denied_without).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_accepted_is_in_the_vocabularies(
            bytes in proptest::collection::vec(any::<u8>(), 80)
        ) {
            if let Ok(report) = Report::read(&bytes) {
                prop_assert_eq!(report.hook as u8, bytes[59]);
                prop_assert_eq!(report.outcome as u8, bytes[60]);
                prop_assert_eq!(report.reason.map_or(0, |r| r as u8), bytes[61]);
            }
        }
    }
}
