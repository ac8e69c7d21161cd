//! systemd-resolved as a client: a stub resolver inside a container, which probes
//! its servers, caches, and asks for both families at once.

mod policy;
#[path = "interface/scene.rs"]
mod scene;

use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4};
use egress_tests::process::Running;
use egress_tests::product::Agent;
use policy::ONE_NAME;
use scene::{Container, nothing_escaped, world};
use std::path::Path;
use std::process::Command;

/// Where `cargo xtask setup` unpacks it: its installation would replace the
/// machine's own resolver.
const RESOLVED: &str = "/var/cache/egress-tests/systemd-resolved/lib/systemd/systemd-resolved";

/// Starts it in a mount namespace with a configuration and a user for it, then
/// lets the clients ask it.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs none /run
# A copy of the machine's, with what is its own.
mkdir -p /run/systemd /run/etc
cp -a /etc/. /run/etc/
cd /run/etc
mkdir -p systemd
rm -f resolv.conf
printf '[Resolve]\nDNS=192.0.2.1\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\n' > systemd/resolved.conf
sed -i '/^systemd-resolve:/d' passwd group
echo 'systemd-resolve:x:998:998::/:/usr/sbin/nologin' >> passwd
echo 'systemd-resolve:x:998:' >> group
echo 'nameserver 127.0.0.53' > resolv.conf
echo 'hosts: files dns' > nsswitch.conf
mount --bind /run/etc /etc
"$1" > /run/said 2>&1 &
resolved=$!
for _ in $(seq 600); do
    ss -lnu | grep -q '127.0.0.53' && break
    kill -0 $resolved || { cat /run/said; exit 1; }
    sleep 0.1
done
say() { what=$1; shift; echo "$what: $("$@" 2>&1 | tr '\n' ' ')"; }
say v4 dig +short +tries=1 @127.0.0.53 allowed.example A
say v6 dig +short +tries=1 @127.0.0.53 allowed.example AAAA
say cached dig +short +tries=1 @127.0.0.53 allowed.example A
say tcp dig +short +tcp +tries=1 @127.0.0.53 allowed.example A
say library getent ahostsv4 allowed.example
say probe "$2" 'named-exchange allowed.example 443 hi'
say refused dig +tries=1 @127.0.0.53 forbidden.example A
say elsewhere "$2" 'tcp-exchange 203.0.113.66:443 secret'
kill $resolved
cat /run/said
"#;

#[test]
fn systemd_resolved_in_a_container_resolves_what_policy_names_and_nothing_else() {
    let Some(world) = world(
        "resolved: systemd-resolved in a container resolves what policy names and nothing else",
    ) else {
        return;
    };
    assert!(
        Path::new(RESOLVED).exists(),
        "{RESOLVED} is missing: `cargo xtask setup` unpacks it"
    );
    let agent = Agent::start(&world, &[("one-name", ONE_NAME)]);
    let container = Container::new(&world, 30);
    container.attach(&agent, "one-name");
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--", "/bin/sh", "-c", SCRIPT, "sh", RESOLVED]);
    shell.arg(world.probe());
    let run = container
        .inside
        .run(|| Running::start(&mut shell))
        .expect("unshare starts");
    let (status, lines, errors) = run.finish();
    let said = |what: &str| {
        let line = lines
            .iter()
            .find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no line about {what}: {status} {lines:#?}\n{errors}"))
    };
    let v4 = ALLOWED_V4.to_string();
    for what in ["v4", "cached", "tcp", "library"] {
        assert!(said(what).contains(&v4), "{what}: {lines:#?}\n{errors}");
    }
    assert!(said("v6").contains(&ALLOWED_V6.to_string()), "{lines:#?}");
    assert!(said("probe").contains("\"ok\":true"), "{lines:#?}");
    assert!(said("refused").contains("status: NXDOMAIN"), "{lines:#?}");
    assert!(
        !said("refused").contains(&FORBIDDEN_V4.to_string()),
        "{lines:#?}"
    );
    assert!(said("elsewhere").contains("\"ok\":false"), "{lines:#?}");
    assert!(!world.dns.heard_of("forbidden.example"));
    nothing_escaped(
        &world,
        &[(ALLOWED_V4, 443).into(), (ALLOWED_V6, 443).into()],
    );
}
