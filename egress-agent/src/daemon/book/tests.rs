//! The book: what changes, and what does not.

use super::*;
use egress_common::{NameId, Reason};
use egress_common::{Port, Protocol};
use std::net::IpAddr;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn policies(texts: &[(&str, &str)]) -> PolicySet {
    let parsed = texts.iter().map(|(name, rules)| {
        let text = format!(
            "apiVersion: egress/v1\nname: {name}\negress: {{ default_action: deny }}\nallowlist:\n  group:\n{rules}"
        );
        Policy::parse(format!("{name}.yaml"), &text, NOW).expect("a policy").0
    });
    PolicySet::new(parsed.collect()).expect("a set")
}

const WEB: &str = "    - { domain: web.example, protocols: [https] }\n";
const NETWORK: &str = "    - { cidr: 198.51.100.0/24, ports: [80], protocols: [tcp] }\n";

fn begin(book: &mut Book, name: &str, cgroup: u64, policy: &str) -> (Member, Vec<Change>) {
    let policy = Arc::clone(book.policies().get(policy).expect("a policy"));
    let name = SandboxName::parse(name).expect("a name");
    let newcomer = Newcomer::new(name, CgroupId(cgroup), 1);
    book.begin(newcomer, &policy, NOW).expect("begun")
}

fn to(address: &str, port: u16) -> Destination {
    Destination {
        ip: address.parse::<IpAddr>().expect("an address").into(),
        port: Port::from_host(port),
        protocol: Protocol::Tcp,
    }
}

fn verdict(book: &Book, cgroup: u64, to: &Destination) -> Result<Verdict, Reason> {
    image::View::new(&book.image(), 0).decide(CgroupId(cgroup), to, Standing::New)
}

#[test]
fn a_reload_that_changes_nothing_changes_nothing_in_the_kernel() {
    let mut book = Book::new(&Image::default());
    let _ = book.load(policies(&[("p", NETWORK)]), NOW).expect("loaded");
    let _ = begin(&mut book, "a", 10, "p");
    assert_eq!(
        book.load(policies(&[("p", NETWORK)]), NOW).expect("loaded"),
        []
    );
}

#[test]
fn a_sandbox_whose_policy_is_gone_is_denied_and_its_connections_judged_again() {
    let mut book = Book::new(&Image::default());
    let _ = book.load(policies(&[("p", NETWORK)]), NOW).expect("loaded");
    let _ = begin(&mut book, "a", 10, "p");
    assert!(matches!(
        verdict(&book, 10, &to("198.51.100.7", 80)),
        Ok(Verdict::Allow(_))
    ));
    let epoch = book.image().settings.epoch;
    let changes = book.load(policies(&[("q", WEB)]), NOW).expect("loaded");
    assert_eq!(changes[0], Change::RemoveSandbox(CgroupId(10)));
    assert_eq!(
        verdict(&book, 10, &to("198.51.100.7", 80)),
        Err(Reason::UnknownSandbox)
    );
    assert_ne!(book.image().settings.epoch, epoch);
}

#[test]
fn the_second_sandbox_of_a_policy_costs_two_writes_and_one_name_is_one_sandbox() {
    let mut book = Book::new(&Image::default());
    let _ = book.load(policies(&[("p", NETWORK)]), NOW).expect("loaded");
    let _ = begin(&mut book, "a", 10, "p");
    let (second, changes) = begin(&mut book, "b", 11, "p");
    assert!(matches!(
        changes[..],
        [Change::PutMeter(_), Change::PutSandbox(CgroupId(11), _)]
    ));
    let policy = Arc::clone(book.policies().get("p").expect("a policy"));
    let newcomer = Newcomer::new(second.name, CgroupId(12), 1);
    let again = book.begin(newcomer, &policy, NOW);
    assert!(matches!(again, Err(BookError::NameTaken(_))));
}

#[test]
fn ids_in_force_are_not_given_out_again_after_a_restart() {
    let mut first = Book::new(&Image::default());
    let _ = first
        .load(policies(&[("p", NETWORK)]), NOW)
        .expect("loaded");
    let (member, _) = begin(&mut first, "a", 10, "p");
    let mut second = Book::new(&first.image());
    second.adopt(member.clone());
    let _ = second
        .load(policies(&[("p", NETWORK)]), NOW)
        .expect("loaded");
    let (other, _) = begin(&mut second, "b", 11, "p");
    assert_ne!(other.id, member.id);
    let policy_of = |book: &Book, id| book.policy_of(id).map(|compiled| compiled.id);
    assert_ne!(policy_of(&second, other.id), policy_of(&first, member.id));
}

#[test]
fn a_rule_keeps_its_words_after_its_policy_was_replaced() {
    let mut book = Book::new(&Image::default());
    let _ = book.load(policies(&[("p", NETWORK)]), NOW).expect("loaded");
    let (member, _) = begin(&mut book, "a", 10, "p");
    let rule = book.policy_of(member.id).expect("a policy").rule(0);
    let _ = book.load(policies(&[("p", WEB)]), NOW).expect("loaded");
    assert_eq!(
        book.rule(rule).map(|origin| &*origin.text),
        Some("cidr 198.51.100.0/24")
    );
    assert_eq!(book.rule(RuleId(0)), None);
    assert_eq!(book.ledger().name(NameId(0)), None);
}

#[test]
fn what_the_kernel_did_not_take_is_to_be_closed_again_until_it_did() {
    let mut book = Book::new(&Image::default());
    assert!(!book.is_ahead_of_the_kernel());
    book.resynchronise(&Image::default());
    assert!(book.is_ahead_of_the_kernel());
    book.note_carried_out();
    assert!(!book.is_ahead_of_the_kernel());
}
