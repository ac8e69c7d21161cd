//! Programs that people use, each doing its ordinary job through the resolver
//! under a policy of one name, and refused another.

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4};
use egress_tests::process::Running;
use std::net::SocketAddr;
use std::path::Path;

/// Opens `allowed.example` for HTTP, and nothing else.
const POLICY: &str = "apiVersion: egress/v1\nname: clients\nallowlist:\n  web:\n    \
    - { domain: allowed.example, protocols: [http] }\n";

/// A program with the way in which it is asked to do its job at a name.
struct Client {
    /// Its path: a search path would find what somebody put before it.
    program: &'static str,
    /// The Debian package that has it.
    package: &'static str,
    arguments: fn(&str) -> Vec<String>,
    /// What it prints if it reached the name.
    success: &'static str,
}

fn words(text: String) -> Vec<String> {
    text.split('|').map(str::to_owned).collect()
}

const ADDRESS: &str = "203.0.113.10";

const CLIENTS: &[Client] = &[
    Client {
        program: "/usr/bin/getent",
        package: "libc-bin",
        arguments: |name| words(format!("ahostsv4|{name}")),
        success: ADDRESS,
    },
    Client {
        program: "/usr/bin/dig",
        package: "bind9-dnsutils",
        arguments: |name| words(format!("+short|+tries=1|@192.0.2.1|{name}|A")),
        success: ADDRESS,
    },
    Client {
        program: "/usr/bin/dig",
        package: "bind9-dnsutils",
        arguments: |name| words(format!("+short|+tcp|+cookie|+dnssec|@192.0.2.1|{name}|A")),
        success: ADDRESS,
    },
    Client {
        program: "/usr/bin/host",
        package: "bind9-host",
        arguments: |name| words(format!("-W|3|{name}|192.0.2.1")),
        success: ADDRESS,
    },
    Client {
        program: "/usr/bin/kdig",
        package: "knot-dnsutils",
        arguments: |name| words(format!("+short|@192.0.2.1|{name}|A")),
        success: ADDRESS,
    },
    Client {
        program: "/usr/bin/drill",
        package: "ldnsutils",
        arguments: |name| words(format!("{name}|@192.0.2.1")),
        success: ADDRESS,
    },
    Client {
        program: "/usr/bin/curl",
        package: "curl",
        arguments: |name| {
            words(format!(
                "--silent|--show-error|--max-time|10|http://{name}/"
            ))
        },
        success: PAGE,
    },
    Client {
        program: "/usr/bin/wget",
        package: "wget",
        arguments: |name| words(format!("-q|-O|-|-T|10|-t|1|http://{name}/")),
        success: PAGE,
    },
    Client {
        program: "/usr/bin/python3",
        package: "python3",
        arguments: |name| {
            vec![
                "-c".into(),
                format!(
                    "import urllib.request as u; print(u.urlopen('http://{name}/', timeout=10).read().decode())"
                ),
            ]
        },
        success: PAGE,
    },
    Client {
        program: "/usr/bin/perl",
        package: "perl-base",
        arguments: |name| {
            vec![
                "-e".into(),
                format!(
                    "use Socket; my $a = gethostbyname('{name}') or die 'none'; print inet_ntoa($a)"
                ),
            ]
        },
        success: ADDRESS,
    },
    Client {
        program: "/usr/bin/busybox",
        package: "busybox-static",
        arguments: |name| words(format!("wget|-q|-O|-|http://{name}/")),
        success: PAGE,
    },
    Client {
        program: "/usr/bin/node",
        package: "nodejs",
        arguments: |name| {
            vec![
                "-e".into(),
                format!(
                    "require('http').get('http://{name}/', r => r.on('data', d => process.stdout.write(d)))\
                     .on('error', e => {{ console.error(e.code); process.exit(1) }})"
                ),
            ]
        },
        success: PAGE,
    },
    Client {
        // c-ares, which speaks DNS by itself.
        program: "/usr/bin/node",
        package: "nodejs",
        arguments: |name| {
            vec![
                "-e".into(),
                format!(
                    "require('dns').resolve4('{name}', (e, a) => {{ if (e) {{ console.error(e.code); \
                     process.exit(1) }} console.log(a.join()) }})"
                ),
            ]
        },
        success: ADDRESS,
    },
];

/// A part of the page that every server of the world has.
const PAGE: &str = "hello from 203.0.113.10";

#[test]
fn programs_do_their_job_at_an_allowed_name_and_nowhere_else() {
    let Some(world) = World::or_skip("clients: programs of a distribution") else {
        return;
    };
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    world
        .dns
        .resolve("forbidden.example", &[FORBIDDEN_V4.into()]);
    let sandbox = world.sandbox(POLICY);
    let run = |client: &Client, name: &str| {
        let arguments = (client.arguments)(name);
        let command = std::iter::once(client.program.to_owned()).chain(arguments);
        let running: Running = sandbox.run(command);
        let (status, lines, errors) = running.finish();
        (status.success(), lines.join("\n"), errors)
    };
    for client in CLIENTS {
        // `cargo xtask setup` installs all of them: nothing is left out in silence.
        assert!(
            Path::new(client.program).exists(),
            "{} is missing: {}",
            client.program,
            client.package
        );
        let (ended_well, said, errors) = run(client, "allowed.example");
        assert!(
            ended_well && said.contains(client.success),
            "{}: {said}\n{errors}",
            client.program
        );
        let (_, said, errors) = run(client, "forbidden.example");
        assert!(
            !said.contains(client.success) && !said.contains("203.0.113.66"),
            "{}: {said}\n{errors}",
            client.program
        );
    }
    assert!(!world.dns.heard_of("forbidden.example"));
    world.nothing_escaped(&[SocketAddr::from((ALLOWED_V4, 80))]);
}
