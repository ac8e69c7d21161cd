//! Other ways into the same sockets: offloads, zero copy, upper layers, sockets
//! that change their family, and what processes share beside sockets.

use crate::policy::{ONE_NAME, ONE_NAME_UDP};
use crate::scene::{attempt, hexadecimal, world};
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6};
use std::net::SocketAddr;

#[test]
fn a_datagram_that_is_cut_by_the_kernel_goes_where_it_may_and_nowhere_else() {
    let Some(world) = world("bypass: UDP_SEGMENT") else {
        return;
    };
    // UDP_SEGMENT (17, 103) of four bytes: one call, several datagrams.
    let segment = |to: &str, text: &str| format!("send-control u 0 {to} 17 103 0400 {text}");
    let (good, bad) = (format!("{ALLOWED_V4}:4433"), format!("{FORBIDDEN_V4}:4433"));
    let steps = [
        "resolve allowed.example",
        "open u udp4",
        &segment(&bad, "secret-secret"),
        &segment(&good, "hello-hello"),
        "open s udp4",
        "option s 17 103 04000000",
        &format!("send-to s {bad} secret-secret"),
        &format!("connect s {bad}"),
        "send s secret-secret",
    ];
    let outcome = attempt(&world, ONE_NAME_UDP, &steps);
    for step in [2, 6, 8] {
        outcome[step].refused();
    }
    outcome[3].succeeded();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 4433))]);
    assert!(world.sniffer.awaits(|packet| packet.carries(b"hell")));
}

#[test]
fn zero_copy_and_urgent_data_take_the_same_road() {
    let Some(world) = world("bypass: MSG_ZEROCOPY") else {
        return;
    };
    let (zero_copy, urgent) = (libc::MSG_ZEROCOPY, libc::MSG_OOB);
    let steps = [
        "open u udp4",
        // SO_ZEROCOPY.
        "option u 1 60 01000000",
        &format!("send-flags u {zero_copy} {FORBIDDEN_V4}:443 secret"),
        "open t tcp4",
        "option t 1 60 01000000",
        &format!("connect t {FORBIDDEN_V4}:443"),
        &format!("send-flags t {} - secret", zero_copy | urgent),
    ];
    let outcome = attempt(&world, ONE_NAME, &steps);
    outcome[2].refused();
    outcome[5].refused();
    outcome[6].failed();
    world.nothing_escaped(&[]);
}

#[test]
fn a_socket_that_turns_into_the_other_family_is_judged_as_that() {
    let Some(world) = world("bypass: IPV6_ADDRFORM") else {
        return;
    };
    // IPV6_ADDRFORM (41, 1) to AF_INET, on a socket that is connected to a
    // mapped address.
    let steps = [
        "resolve allowed.example",
        "open u udp6",
        &format!("connect u [::ffff:{ALLOWED_V4}]:4433"),
        "option u 41 1 02000000",
        "send u hello",
        &format!("send-to u {FORBIDDEN_V4}:4433 secret"),
        &format!("connect u {FORBIDDEN_V4}:4433"),
        "send u secret",
    ];
    let outcome = attempt(&world, ONE_NAME_UDP, &steps);
    outcome[3].succeeded();
    outcome[4].succeeded();
    outcome[5].refused();
    outcome[7].refused();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 4433))]);
    assert!(world.sniffer.awaits(|packet| packet.carries(b"hello")));
}

#[test]
fn a_flow_label_brings_no_header_along() {
    let Some(world) = world("bypass: flow label") else {
        return;
    };
    // `struct in6_flowlabel_req` that makes label 0x12345 for the allowed host,
    // with a routing header over the forbidden one as its option.
    let mut request = ALLOWED_V6.octets().to_vec();
    request.extend(0x0001_2345_u32.to_be_bytes());
    request.extend([0, 1]);
    request.extend(1_u16.to_ne_bytes());
    request.extend([0; 8]);
    let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
    header.extend(FORBIDDEN_V6.octets());
    request.extend((16_u64 + 24).to_ne_bytes());
    request.extend(41_i32.to_ne_bytes());
    request.extend(57_i32.to_ne_bytes());
    request.extend(header);
    // The same label in an address: family, port, label, address, scope.
    let mut address = 10_u16.to_ne_bytes().to_vec();
    address.extend(4433_u16.to_be_bytes());
    address.extend(0x0001_2345_u32.to_be_bytes());
    address.extend(ALLOWED_V6.octets());
    address.extend([0; 4]);
    let steps = [
        "resolve allowed.example",
        "open u udp6",
        &format!("option u 41 32 {}", hexadecimal(&request)),
        "option u 41 33 01000000",
        &format!("send-raw u {} hello", hexadecimal(&address)),
    ];
    let outcome = attempt(&world, ONE_NAME_UDP, &steps);
    outcome[2].refused();
    // The label alone says nothing: the datagram goes to the address that it names.
    outcome[4].succeeded();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V6, 4433))]);
}

#[test]
fn an_upper_layer_sends_to_the_peer_of_its_connection_only() {
    let Some(world) = world("bypass: TCP_ULP") else {
        return;
    };
    // TCP_ULP (6, 31): `tls`, which any kernel may lack, and `espintcp`.
    let steps = [
        "resolve allowed.example",
        "open t tcp4",
        &format!("connect t {ALLOWED_V4}:443"),
        "option t 6 31 657370696e74637000",
        "option t 6 31 746c7300",
        "disconnect t",
        &format!("connect t {FORBIDDEN_V4}:443"),
        "send t secret",
    ];
    let outcome = attempt(&world, ONE_NAME, &steps);
    outcome[2].succeeded();
    outcome[3].failed();
    outcome[6].failed();
    outcome[7].failed();
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 443))]);
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
}

#[test]
fn memory_and_message_queues_of_the_host_are_out_of_reach() {
    let Some(world) = world("bypass: shared memory") else {
        return;
    };
    let name = format!("egress-tests-{}", std::process::id());
    let file = std::path::Path::new("/dev/shm").join(&name);
    std::fs::write(&file, "from outside").expect("shared memory can be written");
    let queue = format!("text:{name}");
    let outcome = attempt(
        &world,
        ONE_NAME,
        &[
            &format!("read {}", file.display()),
            // mq_open(3) without O_CREAT, shmget(2) and msgget(2) of a known key.
            &format!("call {} {queue} 0 0 0", libc::SYS_mq_open),
            &format!("call {} 1163151 4096 0", libc::SYS_shmget),
            &format!("call {} 1163151 0", libc::SYS_msgget),
            "write /dev/null",
        ],
    );
    std::fs::remove_file(&file).expect("it is there");
    for step in 0..4 {
        outcome[step].refused_with(libc::ENOENT);
    }
    outcome[4].succeeded();
}

#[test]
fn processes_outside_cannot_be_named() {
    let Some(world) = world("bypass: processes") else {
        return;
    };
    // This test's own process runs outside; its number means nothing inside.
    let me = std::process::id();
    let outcome = attempt(
        &world,
        ONE_NAME,
        &[
            &format!("call {} {me} 0", libc::SYS_pidfd_open),
            &format!("call {} {me} 0", libc::SYS_kill),
            &format!("read /proc/{me}/environ"),
            "read /proc/1/environ",
            "write /proc/1/mem",
            &format!("call {} 1 2 0 0 0", libc::SYS_kcmp),
        ],
    );
    for step in 0..3 {
        let errno = outcome[step].errno;
        assert!(
            [Some(libc::ESRCH), Some(libc::ENOENT)].contains(&errno),
            "{:?}",
            outcome[step]
        );
    }
    for step in 3..6 {
        outcome[step].failed();
    }
}

#[test]
fn files_are_not_opened_past_what_is_hidden() {
    let Some(world) = world("bypass: file handles") else {
        return;
    };
    // A handle of the root directory, as any process can make it, opened again.
    let handle = "00".repeat(136);
    let step = format!("call {} -100 bytes:{handle} 0", libc::SYS_open_by_handle_at);
    attempt(&world, ONE_NAME, &[&step])[0].refused();
}
