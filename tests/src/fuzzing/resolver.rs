//! The DNS message path between hostile clients and hostile upstreams.

use crate::dns::wire::Message;
use egress_agent::dns::{
    Gate, Judgement, Limits, OpenError, Opening, Refusal, Sieve, Sources, Standing, offline,
};
use egress_agent::model::{DomainName, NameLimits, Record};
use egress_common::{Ip, Mode, Protocol, Reason, SandboxId};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SANDBOX: SandboxId = SandboxId(1);

/// Allows `test` and the names below it, blocks one of them, and opens public
/// addresses only.
#[derive(Default)]
struct Small {
    opened: Mutex<Vec<IpAddr>>,
}

impl Small {
    fn within(name: &DomainName, above: &str) -> bool {
        name.suffixes().any(|suffix| suffix == above)
    }
}

/// Refuses all that [`Small`] refuses.
#[derive(Clone)]
struct Everything;

impl Everything {
    fn reason(name: &DomainName) -> Option<Reason> {
        if Small::within(name, "blocked.test") {
            Some(Reason::NameBlocked)
        } else if Small::within(name, "test") {
            None
        } else {
            Some(Reason::NameNotAllowed)
        }
    }
}

impl Sieve for Everything {
    fn refuses(&self, name: &str) -> Option<Reason> {
        Self::reason(&DomainName::parse(name).expect("canonical"))
    }

    fn refusal(&self, name: &DomainName) -> Option<Refusal> {
        Self::reason(name).map(|reason| Refusal {
            reason,
            rule: None,
            help: None,
        })
    }

    fn negative_ttl(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Made by [`Small::open`] only.
struct Receipt;

impl Standing for Receipt {
    fn covers(&self, _: u64, _: Duration) -> bool {
        true
    }
}

impl Gate for Small {
    type Receipt = Receipt;
    type Permit = ();
    type Sieve = Everything;

    fn now(&self) -> u64 {
        1
    }

    fn generation(&self) -> u64 {
        1
    }

    fn drained(&self) {}

    fn sender(&self, from: SocketAddr, protocol: Protocol) -> Option<SandboxId> {
        self.asker(from, protocol)
    }

    fn asker(&self, _: SocketAddr, _: Protocol) -> Option<SandboxId> {
        Some(SANDBOX)
    }

    fn in_emergency(&self) -> bool {
        false
    }

    fn judge(&self, _: SandboxId, name: &DomainName) -> Judgement<()> {
        match Everything.refusal(name) {
            Some(refusal) => Judgement::Refuse(refusal),
            None => Judgement::Allow {
                permit: (),
                rule: None,
                below: None,
            },
        }
    }

    fn process(&self, _: SocketAddr, _: Protocol) -> Option<u32> {
        None
    }

    fn sieve(&self, _: SandboxId) -> Option<Everything> {
        Some(Everything)
    }

    fn screen(&self, _: SandboxId, (): &(), address: IpAddr) -> Result<(), Reason> {
        let ip = Ip::from(address);
        if ip.is_never_allowed() || ip.is_loopback() {
            return Err(Reason::Rebinding);
        }
        Ok(())
    }

    fn sources(&self, _: SandboxId, _: &DomainName) -> Sources {
        Sources::default()
    }

    fn query_type_allowed(&self, _: SandboxId, query_type: u16) -> bool {
        egress_agent::dns::type_is_allowed(query_type, &["TXT", "MX", "PTR"])
    }

    fn limits(&self, _: SandboxId) -> Limits {
        Limits {
            mode: Mode::Enforce,
            cache_ttl: Duration::from_secs(300),
            negative_cache_ttl: Duration::from_secs(60),
            max_addresses: 8,
            names: NameLimits::default(),
            rules_until: None,
        }
    }

    fn open(&self, _: SandboxId, (): &(), opening: Opening<'_>) -> Result<Receipt, OpenError> {
        assert!(Self::within(opening.name, "test"), "{}", opening.name);
        assert!(opening.answer_ttl <= opening.ttl);
        assert!(opening.addresses.len() <= 8);
        let mut opened = self.opened.lock().expect("nobody panicked");
        opened.extend(opening.addresses);
        Ok(Receipt)
    }

    fn has_policy(&self, _: SandboxId) -> bool {
        true
    }

    fn note(&self, _: u64) {}

    fn record_noted(&self, _: Record) {}
}

/// Bytes as a query and an upstream's message, apart by a length in front: the
/// answer can be read, and every address in it was opened before.
pub fn dns_message(data: &[u8]) {
    let Some(([high, low, rest @ ..], protocol)) = data.split_last().map(|(last, d)| (d, last))
    else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (query, upstream) = rest.split_at(length);
    let protocol = match protocol % 2 {
        0 => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let gate = Arc::new(Small::default());
    let answer = offline::answer(gate.clone(), SANDBOX, protocol, query, upstream);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let Some(answers) = runtime.block_on(answer) else {
        return;
    };
    let opened = gate.opened.lock().expect("nobody panicked");
    check(&answers.first, query, protocol, &opened);
    if let Some(again) = answers.again {
        check(&again, query, protocol, &opened);
        let alike = |bytes: &[u8]| {
            Message::decode(bytes).map(|message| {
                let mut addresses: Vec<IpAddr> = message.addresses().collect();
                addresses.sort();
                addresses
            })
        };
        assert_eq!(
            alike(&again),
            alike(&answers.first),
            "the short way says the same"
        );
        // The code is in the lower half of the fourth byte.
        let code = |bytes: &[u8]| bytes.get(3).map(|byte| byte & 0x0f);
        assert_eq!(code(&again), code(&answers.first));
    }
}

fn check(answer: &[u8], query: &[u8], protocol: Protocol, opened: &[IpAddr]) {
    let limit = match protocol {
        Protocol::Udp | Protocol::Icmp => 1232,
        Protocol::Tcp => usize::from(u16::MAX),
    };
    assert!(answer.len() <= limit);
    assert_eq!(answer.get(..2), query.get(..2), "the id is repeated");
    if let Some(message) = Message::decode(answer) {
        for address in message.addresses() {
            let address = address.to_canonical();
            // Loopback names are answered without opening anything.
            let is_known = opened.contains(&address) || address.is_loopback();
            assert!(is_known, "{address} was told and not opened");
        }
    }
}
