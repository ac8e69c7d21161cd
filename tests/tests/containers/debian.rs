//! Debian's own programs in a root file system that debootstrap made, run by root
//! with what capabilities an engine usually leaves: a C library that resolves, a
//! shell, an interpreter, and a package manager that fetches.

use crate::bundle::{Bundle, Inside};
use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4};
use egress_tests::feature::{Feature, granted};
use egress_tests::operation::Said;
use egress_tests::product::Agent;
use std::fmt::Write;

/// Opens one name, for containers of Docker.
const POLICY: &str = "
apiVersion: egress/v1
name: boxes
applies_to:
  - cgroup: \"docker-*.scope\"
allowlist:
  web:
    - { domain: \"allowed.example\", ports: [443], protocols: [tcp] }
";

/// How each attempt is told: in one line, with the status.
const SAY: &str = r#"
say() { what=$1; shift; said=$("$@" 2>&1); echo "$what: $? $said" | tr '\n' ' '; echo; }
exchange() { { echo "$3" >&3; IFS= read -r line <&3; echo "got $line"; } 3<>"/dev/tcp/$1/$2"; }
fetch() { /usr/lib/apt/apt-helper download-file "http://$1/page" /tmp/page && cat /tmp/page; }
datagram() { perl -MIO::Socket::INET -e '
    my $peer = IO::Socket::INET->new(Proto => "udp", PeerAddr => $ARGV[0], PeerPort => $ARGV[1]);
    defined $peer && defined $peer->send("secret") or die "refused: $!\n"; print "sent\n"' "$@"; }
say system cat /etc/debian_version
say capabilities grep CapEff /proc/self/status
"#;

#[test]
fn programs_of_debian_reach_what_policy_names_and_nothing_else() {
    let test = "containers: programs of Debian";
    let Some(world) = World::or_skip(test) else {
        return;
    };
    if !granted(test, Feature::DebianRoot) {
        return;
    }
    for (name, address) in [
        ("allowed.example", ALLOWED_V4),
        ("forbidden.example", FORBIDDEN_V4),
    ] {
        world.dns.resolve(name, &[address.into()]);
    }
    let agent = Agent::start(&world, &[("boxes", POLICY)]);
    let mut script = SAY.to_owned();
    for line in [
        "resolved getent ahostsv4 allowed.example",
        "unresolved getent ahostsv4 forbidden.example",
        "shell exchange allowed.example 443 hello",
        "other-port exchange allowed.example 80 secret",
        &format!("elsewhere exchange {FORBIDDEN_V4} 443 secret"),
        "package fetch allowed.example:443",
        &format!("other-package fetch {FORBIDDEN_V4}:443"),
        &format!("datagram datagram {FORBIDDEN_V4} 443"),
        &format!("resolver datagram {FORBIDDEN_V4} 853"),
    ] {
        // Writing into a string cannot fail.
        let _ = writeln!(script, "say {line}");
    }
    let bundle = Bundle::make(&world, &agent, &Inside::debian(&world, &script));
    let said = Said::by(bundle.run());
    said.succeeded();
    // The status, and what was said.
    let of = |what: &str| {
        let mut lines = said.out.lines();
        let found =
            lines.find_map(|line| line.strip_prefix(what)?.strip_prefix(": ")?.split_once(' '));
        found.unwrap_or_else(|| panic!("no line about {what}: {said:#?}"))
    };
    assert!(of("system").1.starts_with("12"), "{said:#?}");
    assert!(
        of("capabilities").1.contains("00000000800405fb"),
        "{said:#?}"
    );
    let server = ALLOWED_V4.to_string();
    for (what, answer) in [
        ("resolved", server.as_str()),
        ("shell", "got hello"),
        ("package", "hello from"),
    ] {
        let (status, words) = of(what);
        assert!(status == "0" && words.contains(answer), "{what}: {said:#?}");
    }
    for what in [
        "unresolved",
        "other-port",
        "elsewhere",
        "other-package",
        "datagram",
        "resolver",
    ] {
        assert_ne!(of(what).0, "0", "{what}: {said:#?}");
    }
    for what in ["other-port", "elsewhere", "datagram", "resolver"] {
        let words = of(what).1;
        assert!(
            words.contains("Operation not permitted"),
            "{what}: {said:#?}"
        );
    }
    assert!(!world.dns.heard_of("forbidden.example"));
    let forbidden = FORBIDDEN_V4.to_string();
    for sent in ["\"bash\"", "\"udp\""] {
        assert!(
            agent.recorded(&["docker-0123456789ab", &forbidden, sent]),
            "{sent}"
        );
    }
    world.nothing_escaped(&[(ALLOWED_V4, 443).into()]);
}
