//! What the RFCs ask of a forwarder, asked over the wire from inside a sandbox.
//! `docs/conformance.md` lists the cases, and where the resolver deviates and why.

mod message;

use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::dns::{Data, Record};
use message::{Answer, Query, hex, name, option, unhex};
use std::net::{IpAddr, Ipv4Addr};

const POLICY: &str = "apiVersion: egress/v1\nname: conformance\nallowlist:\n  web:\n    \
    - { domain: \"**.allowed.example\", protocols: [https] }\n\
    dns: { query_types: [TXT], cache_ttl: 300s, negative_cache_ttl: 60s }\n";

const A: u16 = 1;
const CNAME: u16 = 5;
const TXT: u16 = 16;
const OPT: u16 = 41;
const FORMERR: u16 = 1;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const BADVERS: u16 = 16;

/// Sends what it is told, a line for each connection: `udp HEX` prints what comes
/// back within two seconds, `tcp HEX…` writes the parts with a pause between them,
/// closes its side if the line ends with `end`, and prints every answer.
const CLIENT: &str = r#"
import socket, sys, time
for line in sys.stdin:
    how, *parts = line.split()
    found = []
    if how == "udp":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(2)
        s.sendto(bytes.fromhex(parts[0]), ("192.0.2.53", 53))
        try: found.append(s.recv(65535).hex())
        except socket.timeout: pass
    elif how == "wait":
        time.sleep(float(parts[0]))
    else:
        try:
            s = socket.create_connection(("192.0.2.53", 53))
            s.settimeout(3)
            ends = parts[-1] == "end"
            for part in parts[:-1] if ends else parts:
                s.sendall(bytes.fromhex(part))
                time.sleep(0.05)
            if ends: s.shutdown(socket.SHUT_WR)
            f = s.makefile("rb")
            while True:
                head = f.read(2)
                if len(head) < 2: break
                found.append(f.read(int.from_bytes(head, "big")).hex())
        except OSError: pass
    print(" ".join(found), flush=True)
"#;

/// The sandbox from which everything is asked.
struct Asker<'w> {
    running: egress_tests::process::Running,
    _world: &'w World,
}

impl<'w> Asker<'w> {
    fn new(world: &'w World) -> Self {
        let sandbox = world.sandbox(POLICY);
        let running = sandbox.run(["/usr/bin/python3", "-c", CLIENT]);
        Self {
            running,
            _world: world,
        }
    }

    fn say(&mut self, line: &str) -> Vec<Vec<u8>> {
        self.running.say(line).expect("the client listens");
        let answer = self.running.line().expect("the client answers");
        answer.split_whitespace().map(unhex).collect()
    }

    /// What comes back for a datagram, if anything.
    fn raw(&mut self, bytes: &[u8]) -> Option<Answer> {
        let found = self.say(&format!("udp {}", hex(bytes)));
        let first = found.first()?;
        Some(Answer::read(first).unwrap_or_else(|| panic!("not a message: {first:?}")))
    }

    #[track_caller]
    fn ask(&mut self, query: &Query) -> Answer {
        let answer = self.raw(&query.bytes());
        let answer = answer.unwrap_or_else(|| panic!("no answer to {:?}", query.bytes()));
        assert_eq!(answer.id, query.header[0]);
        assert!(answer.bit(15), "QR");
        answer
    }

    /// Answers to queries over one connection, written in these parts.
    fn stream(&mut self, parts: &[Vec<u8>], ends: bool) -> Vec<Answer> {
        let parts: Vec<String> = parts.iter().map(|part| hex(part)).collect();
        let end = if ends { " end" } else { "" };
        let found = self.say(&format!("tcp {}{end}", parts.join(" ")));
        let read = |bytes: &Vec<u8>| Answer::read(bytes).expect("a message");
        found.iter().map(read).collect()
    }
}

fn framed(query: &Query) -> Vec<u8> {
    let bytes = query.bytes();
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend(bytes);
    framed
}

fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    world.dns.say_how_long("allowed.example", 30);
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    let many = (1..=60).map(|n| IpAddr::from(Ipv4Addr::new(203, 0, 113, n)));
    world
        .dns
        .resolve("many.allowed.example", &many.collect::<Vec<_>>());
    let record = |owner: &str, data| Record {
        owner: owner.into(),
        ttl: 60,
        data,
    };
    let alias = record(
        "alias.allowed.example",
        Data::Alias("allowed.example".into()),
    );
    let address = record("allowed.example", Data::Address(ALLOWED_V4.into()));
    world
        .dns
        .answer("alias.allowed.example", A, vec![alias.clone(), address]);
    world
        .dns
        .answer("alias.allowed.example", CNAME, vec![alias]);
    let text = record("allowed.example", Data::Other(TXT, b"\x05hello".to_vec()));
    world.dns.answer("allowed.example", TXT, vec![text]);
    Some(world)
}

const NAME: &str = "allowed.example";

#[test]
fn headers_and_questions_come_back_as_rfc_1035_and_its_successors_say() {
    let Some(world) = world("conformance: headers") else {
        return;
    };
    let mut asker = Asker::new(&world);
    // Twice: the second answer is one that is at hand.
    for _ in 0..2 {
        let answer = asker.ask(&Query::new(0xbeef, "AllOwed.EXAMPLE", A));
        assert_eq!((answer.code(), answer.operation()), (0, 0));
        assert_eq!(answer.questions, [("AllOwed.EXAMPLE.".to_owned(), A, 1)]);
        assert_eq!(
            answer.sections[0][0].owner, "AllOwed.EXAMPLE.",
            "RFC 4343: letters stay"
        );
        assert_eq!(answer.sections[0][0].class, 1);
        assert!(answer.bit(8) && answer.bit(7), "RD repeated, RA set");
        assert!(
            !answer.bit(10) && !answer.bit(9) && !answer.bit(6),
            "no AA, TC, Z"
        );
        assert!(answer.edns().is_none(), "RFC 6891 6.1.1: none unless asked");
    }
    let plain = asker.ask(&Query::new(1, NAME, A).flags(0));
    assert!(!plain.bit(8), "RD as it was asked");
    let checking = asker.ask(&Query::new(2, NAME, A).flags(0x0130));
    assert!(checking.bit(4), "CD is repeated (RFC 4035 3.2.2)");
    assert!(
        !checking.bit(5),
        "AD says what nobody proved (RFC 6840 5.8)"
    );
    let zeroed = asker.ask(&Query::new(3, NAME, A).flags(0x0140));
    assert!(!zeroed.bit(6), "Z is zero in answers");
}

#[test]
fn what_is_no_query_for_one_name_is_told_so() {
    let Some(world) = world("conformance: unusual messages") else {
        return;
    };
    let mut asker = Asker::new(&world);
    for operation in [1_u16, 2, 4, 5, 6, 15] {
        let answer = asker.ask(&Query::new(1, NAME, A).flags(operation << 11 | 0x0100));
        assert_eq!((answer.code(), answer.operation()), (NOTIMP, operation));
    }
    for class in [3, 4, 254, 255] {
        let answer = asker.ask(&Query::new(2, NAME, A).class(class));
        assert_eq!(answer.code(), REFUSED, "class {class}");
    }
    let mut none = Query::new(3, NAME, A).questions(0);
    none.body.clear();
    assert_eq!(asker.ask(&none).code(), FORMERR);
    let second = [name(NAME), vec![0, 28, 0, 1]].concat();
    let two = Query::new(4, NAME, A).questions(2).and(&second);
    assert_eq!(asker.ask(&two).code(), FORMERR, "RFC 9619");
    assert_eq!(
        asker.ask(&Query::new(5, NAME, A).questions(9)).code(),
        FORMERR
    );
    let loops = Query {
        header: [6, 0x0100, 1, 0, 0, 0],
        body: vec![0xc0, 12, 0, 1, 0, 1],
    };
    assert_eq!(asker.ask(&loops).code(), FORMERR, "a pointer to itself");
    let cut = Query::new(7, NAME, A).bytes();
    let answer = asker.raw(&cut[..cut.len() - 3]).expect("an answer");
    assert_eq!((answer.id, answer.code()), (7, FORMERR));
    assert!(
        asker.raw(&cut[..11]).is_none(),
        "without a header there is nobody to answer"
    );
    let reply = Query::new(8, NAME, A).flags(0x8180);
    assert!(
        asker.raw(&reply.bytes()).is_none(),
        "an answer is never answered"
    );
    for kind in [251, 252, 255] {
        let answer = asker.ask(&Query::new(9, NAME, kind));
        assert_eq!(answer.code(), REFUSED, "type {kind}: RFC 8482, RFC 5936");
    }
    let root = asker.ask(&Query::new(10, "", A));
    assert_eq!(root.code(), REFUSED);
    // The resolver is still there.
    assert_eq!(asker.ask(&Query::new(11, NAME, A)).code(), 0);
}

#[test]
fn edns_is_spoken_as_rfc_6891_says() {
    let Some(world) = world("conformance: EDNS") else {
        return;
    };
    let mut asker = Asker::new(&world);
    let query = || Query::new(1, NAME, A);
    for _ in 0..2 {
        let answer = asker.ask(&query().edns(4096, 0, 0, &[]));
        let edns = answer.edns().expect("EDNS for who speaks it");
        assert_eq!((edns.owner.as_str(), edns.class, edns.ttl), ("", 1232, 0));
        assert_eq!(answer.sections[2].len(), 1);
    }
    let newer = asker.ask(&query().edns(4096, 1, 0, &[]));
    assert_eq!(newer.code(), BADVERS);
    assert_eq!(
        newer.edns().map(|edns| edns.ttl >> 16 & 0xff),
        Some(0),
        "the version it speaks"
    );
    assert_eq!(newer.kinds(), [0_u16; 0]);
    // Unknown options and flags are ignored; cookies, subnets and keep-alives are
    // answered by nobody (RFC 7873, 7871, 7828), padding is accepted (RFC 7830).
    for (code, content) in [
        (10, &[1; 8][..]),
        (8, &[0, 1, 24, 0, 203, 0, 113]),
        (11, &[]),
        (12, &[0; 40]),
        (65_001, b"local"),
    ] {
        let answer = asker.ask(&query().edns(1232, 0, 0x7fff, &option(code, content)));
        assert_eq!(
            (answer.code(), answer.kinds()),
            (0, vec![A]),
            "option {code}"
        );
        assert_eq!(answer.options(), [0_u16; 0], "option {code}");
        assert_eq!(
            answer.edns().map(|edns| edns.ttl & 0x7fff),
            Some(0),
            "flags"
        );
    }
    let two = query().edns(1232, 0, 0, &[]).edns(1232, 0, 0, &[]);
    assert_eq!(asker.ask(&two).code(), FORMERR, "two OPT records");
    let mut named = query();
    named.header[5] = 1;
    let named = named.and(&[name("x"), vec![0, OPT as u8, 4, 208, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(asker.ask(&named).code(), FORMERR, "an OPT record of a name");
    let broken = query().edns(1232, 0, 0, &[0, 10, 0, 9, 1]);
    assert_eq!(
        asker.ask(&broken).code(),
        FORMERR,
        "an option that is cut off"
    );
    // 6.2.3: less than 512 counts as 512.
    let small = asker.ask(&Query::new(2, "forbidden.example", A).edns(100, 0, 0, &[]));
    assert!((101..=512).contains(&small.length), "{}", small.length);
}

#[test]
fn sizes_truncation_and_streams_are_those_of_rfc_7766() {
    let Some(world) = world("conformance: streams") else {
        return;
    };
    let mut asker = Asker::new(&world);
    let many = "many.allowed.example";
    let cut = asker.ask(&Query::new(1, many, A));
    assert!(cut.bit(9), "TC");
    assert!(cut.length <= 512 && cut.kinds().is_empty());
    let whole = asker.ask(&Query::new(2, many, A).edns(4096, 0, 0, &[]));
    assert!(!whole.bit(9) && whole.length <= 1232);
    // 32 is what a policy takes of one answer unless it says otherwise.
    assert_eq!(whole.kinds().len(), 32);
    let over_tcp = asker.stream(&[framed(&Query::new(3, many, A))], true);
    assert_eq!(over_tcp.len(), 1);
    assert!(!over_tcp[0].bit(9) && over_tcp[0].kinds().len() == 32);

    // Three queries in one write, answers in any order, each once.
    let queries = [(10, NAME), (11, "forbidden.example"), (12, many)];
    let together: Vec<u8> = queries
        .iter()
        .flat_map(|(id, text)| framed(&Query::new(*id, text, A)))
        .collect();
    let mut found: Vec<(u16, u16)> = asker
        .stream(&[together], true)
        .iter()
        .map(|answer| (answer.id, answer.code()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(10, 0), (11, NXDOMAIN), (12, 0)]);

    // A message in pieces, also within its length.
    let bytes = framed(&Query::new(20, NAME, A));
    let pieces: Vec<Vec<u8>> = bytes.chunks(7).map(<[u8]>::to_vec).collect();
    let mut first = pieces.clone();
    first.splice(0..1, [vec![bytes[0]], bytes[1..7].to_vec()]);
    assert_eq!(asker.stream(&first, true).len(), 1);
    // Another query after the first was answered; then silence.
    let parts = [
        framed(&Query::new(30, NAME, A)),
        framed(&Query::new(31, NAME, TXT)),
    ];
    let ids: Vec<u16> = asker.stream(&parts, false).iter().map(|a| a.id).collect();
    assert_eq!(ids.len(), 2);
    // A length without content, and one that promises more than comes.
    assert_eq!(asker.stream(&[vec![0, 0]], true).len(), 0);
    assert_eq!(asker.stream(&[vec![0xff, 0xff, 1, 2, 3]], true).len(), 0);
    assert_eq!(
        asker.ask(&Query::new(40, NAME, A)).code(),
        0,
        "it is still there"
    );
}

#[test]
fn negative_answers_say_how_long_they_are_good_as_rfc_2308_says() {
    let Some(world) = world("conformance: negative answers") else {
        return;
    };
    let mut asker = Asker::new(&world);
    for _ in 0..2 {
        let absent = asker.ask(&Query::new(1, "nobody.allowed.example", A));
        assert_eq!(absent.code(), NXDOMAIN);
        let (ttl, minimum) = absent.negative().expect("a SOA record");
        assert!(ttl <= 30 && ttl > 0 && minimum >= ttl, "{ttl} {minimum}");
        assert_eq!(
            absent.sections[1].len(),
            1,
            "no NS beside it: a type 2 answer"
        );
    }
    let no_data = asker.ask(&Query::new(2, NAME, 28));
    assert_eq!((no_data.code(), no_data.kinds().len()), (0, 0));
    assert!(no_data.negative().is_some_and(|(ttl, _)| ttl <= 30));
    let refused = asker.ask(&Query::new(3, "forbidden.example", A));
    assert_eq!(refused.code(), NXDOMAIN);
    assert_eq!(refused.negative(), Some((60, 60)), "the policy's own time");
    // Asked once each; the second came from what was known.
    let asked = world.dns.asked();
    let times = |text: &str| {
        asked
            .iter()
            .filter(|a| a.name == text && a.kind == A)
            .count()
    };
    assert_eq!(times("nobody.allowed.example"), 1);
    assert_eq!(times("forbidden.example"), 0);
}

#[test]
fn aliases_types_and_times_are_told_as_they_are() {
    let Some(world) = world("conformance: content") else {
        return;
    };
    let mut asker = Asker::new(&world);
    let through = asker.ask(&Query::new(1, "alias.allowed.example", A));
    assert_eq!(through.kinds(), [CNAME, A], "the chain in its order");
    assert_eq!(through.sections[0][1].owner, "allowed.example.");
    let alias = asker.ask(&Query::new(2, "alias.allowed.example", CNAME));
    assert_eq!(
        alias.kinds(),
        [CNAME],
        "asked for itself it is not followed"
    );
    let text = asker.ask(&Query::new(3, NAME, TXT));
    assert_eq!(text.sections[0][0].data, b"\x05hello", "untouched");
    let before = asker.ask(&Query::new(4, NAME, A)).sections[0][0].ttl;
    asker.say("wait 2.2");
    let after = asker.ask(&Query::new(5, NAME, A)).sections[0][0].ttl;
    assert!(before <= 60 && after <= before - 2, "{before} then {after}");
    // RFC 3597: a type that nobody knows is a type like others, and policy's to allow.
    let unknown = asker.ask(&Query::new(6, NAME, 65_280));
    assert_eq!((unknown.code(), unknown.kinds().len()), (0, 0));
    assert_eq!(unknown.questions[0].1, 65_280);
    let binary = Query {
        header: [7, 0x0100, 1, 0, 0, 0],
        body: [vec![3, 0, 0xff, b'.'], name(NAME), vec![0, 1, 0, 1]].concat(),
    };
    assert_eq!(asker.ask(&binary).code(), NXDOMAIN, "not a host's name");
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}.allowed.example", "b".repeat(45));
    assert_eq!(longest.len(), 253);
    assert_eq!(asker.ask(&Query::new(8, &longest, A)).code(), NXDOMAIN);
    assert!(world.dns.heard_of(&longest), "the longest name is a name");
}
