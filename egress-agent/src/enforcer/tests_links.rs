//! Programs at interfaces of the running kernel, in a network namespace of
//! their own.

use super::tests::Root;
use super::*;
use egress_common::{Assigned, Connection, ConnectionKey, Destination, Ip, Link, Mac, Protocol};
use egress_tests::Namespace;

/// A namespace with a veth whose host's side has index 10.
fn namespace() -> Namespace {
    let namespace = Namespace::new().expect("root can make namespaces");
    namespace
        .configure("link add link0 index 10 type veth peer name inside\nlink set link0 up\n")
        .expect("a veth");
    namespace
}

const INDEX: u32 = 10;

fn link() -> Link {
    Link {
        assigned: [Assigned::NONE; 4],
        gateway6: Ip::UNSPECIFIED,
        local6: Ip::UNSPECIFIED,
        swept: 0,
        gateway4: 1,
        permits: 0,
        mac: Mac::NONE,
        gateway_mac: Mac::BROADCAST,
        resolver_port: 0,
        reserved: 0,
    }
}

#[test]
fn programs_at_an_interface_stay_with_it_and_the_next_start_finds_them() {
    let Some(root) =
        Root::make("enforcer: programs at an interface stay with it and the next start finds them")
    else {
        return;
    };
    namespace().run(|| {
        let first = Enforcer::start(root.place.clone(), 1000, false).expect("a start");
        assert_eq!(
            first.attach_link(INDEX).expect("attached"),
            HookChange::Attached
        );
        assert_eq!(
            first.attach_link(INDEX).expect("attached"),
            HookChange::Kept
        );
        first.put_link(INDEX, &link()).expect("written");
        drop(first);

        let second = Enforcer::start(root.place.clone(), 1000, false).expect("a second start");
        assert_eq!(second.links().expect("links"), [(INDEX, link())]);
        assert_eq!(
            second.inspect_link(INDEX).expect("a look"),
            Some(Vec::new())
        );
        assert_eq!(
            second.attach_link(INDEX).expect("attached"),
            HookChange::Kept
        );
        second.remove_link(INDEX).expect("removed");
        assert_eq!(second.links().expect("links"), []);
        // The off switch finds them without having attached them.
        let path = second.path().to_owned();
        drop(second);
        assert_eq!(disarm_at(&path).expect("disarmed"), HOOKS.len() + 2);
    });
}

#[test]
fn a_program_that_was_taken_off_an_interface_is_noticed_and_put_back() {
    let Some(root) =
        Root::make("enforcer: a program that was taken off an interface is noticed and put back")
    else {
        return;
    };
    let namespace = namespace();
    namespace.run(|| {
        let enforcer = Enforcer::start(root.place.clone(), 1000, false).expect("a start");
        enforcer.attach_link(INDEX).expect("attached");
        enforcer.detach_link(INDEX).expect("detached");
        let missing = enforcer
            .inspect_link(INDEX)
            .expect("a look")
            .expect("it is there");
        assert_eq!(missing, ["link_leaves", "link_reaches"]);
        assert_eq!(
            enforcer.attach_link(INDEX).expect("attached"),
            HookChange::Attached
        );
        assert_eq!(
            enforcer.inspect_link(INDEX).expect("a look"),
            Some(Vec::new())
        );
    });
    namespace.configure("link del link0\n").expect("it goes");
}

#[test]
fn connections_that_are_taken_out_make_room_in_their_interfaces_share() {
    let Some(root) =
        Root::make("enforcer: connections that are taken out make room in their interfaces share")
    else {
        return;
    };
    let enforcer = Enforcer::start(root.place.clone(), 1000, false).expect("a start");
    enforcer.put_link(INDEX, &link()).expect("written");
    let there = Destination {
        ip: Ip::from_v4(1),
        port: Port::from_host(443),
        protocol: Protocol::Tcp,
    };
    let keys: Vec<_> = (1..=3)
        .map(|port| ConnectionKey::new(INDEX, (Ip::from_v4(2), Port::from_host(port)), &there))
        .collect();
    for key in &keys {
        enforcer
            .maps
            .connections
            .put(key, &Connection::default())
            .expect("written");
    }
    enforcer.remove_connections(&keys[..2]).expect("removed");
    assert_eq!(
        enforcer.links().expect("links"),
        [(INDEX, Link { swept: 2, ..link() })]
    );
    assert_eq!(enforcer.connections().expect("connections").len(), 1);
    // A change of the link keeps the count.
    enforcer.put_link(INDEX, &link()).expect("written");
    assert_eq!(
        enforcer.links().expect("links"),
        [(INDEX, Link { swept: 2, ..link() })]
    );
}
