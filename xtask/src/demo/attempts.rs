//! What the demo tries: real clients, against what is allowed and what is not.

use egress_tests::address::{FORBIDDEN_V4, FORBIDDEN_V6, OTHER_RESOLVER_V4};
use std::net::{IpAddr, Ipv4Addr};

/// A client that tries something.
pub struct Attempt {
    /// What it tries, for a person.
    pub what: String,
    /// The client with its arguments.
    pub command: Vec<String>,
    /// How it should end.
    pub expectation: Expectation,
}

/// How an attempt should end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expectation {
    /// The client reaches what it wants.
    Works,
    /// The client does not.
    Fails,
    /// The client prints this, in lower case.
    Says(&'static str),
}

impl Attempt {
    fn new(what: impl Into<String>, command: &[&str], expectation: Expectation) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self {
            what: what.into(),
            command,
            expectation,
        }
    }
}

// The Python of a version manager lies in a home directory that the sandbox's
// user cannot read.
const PYTHON: &str = "/usr/bin/python3";

/// Against the servers of the small internet.
pub fn in_the_small_internet() -> Vec<Attempt> {
    use Expectation::{Fails, Says, Works};
    let page = "import urllib.request as u; print(u.urlopen('http://allowed.example/').read())";
    let other_resolver = format!("@{OTHER_RESOLVER_V4}");
    vec![
        Attempt::new(
            "getent: the allowed name",
            &["getent", "hosts", "allowed.example"],
            Works,
        ),
        Attempt::new(
            "curl: the allowed name over IPv4",
            &curl("--ipv4", "http://allowed.example/"),
            Works,
        ),
        Attempt::new(
            "curl: the allowed name over IPv6",
            &curl("--ipv6", "http://allowed.example/"),
            Works,
        ),
        Attempt::new("python: the allowed name", &[PYTHON, "-c", page], Works),
        Attempt::new(
            "curl: the allowed name, another port",
            &curl("--ipv4", "http://allowed.example:853/"),
            Fails,
        ),
        Attempt::new(
            "getent: another name",
            &["getent", "hosts", "forbidden.example"],
            Fails,
        ),
        Attempt::new(
            "curl: another name",
            &curl("--ipv4", "http://forbidden.example/"),
            Fails,
        ),
        Attempt::new(
            "curl: a literal IPv4 address",
            &curl("--ipv4", &format!("http://{FORBIDDEN_V4}/")),
            Fails,
        ),
        Attempt::new(
            "curl: a literal IPv6 address",
            &curl("--ipv6", &format!("http://[{FORBIDDEN_V6}]/")),
            Fails,
        ),
        Attempt::new(
            "python: UDP over IPv4",
            &[PYTHON, "-c", &datagram(FORBIDDEN_V4.into())],
            Fails,
        ),
        Attempt::new(
            "python: UDP over IPv6",
            &[PYTHON, "-c", &datagram(FORBIDDEN_V6.into())],
            Fails,
        ),
        Attempt::new(
            "dig: another name, from another DNS server",
            &[
                "dig",
                "+noall",
                "+comments",
                "+tries=1",
                &other_resolver,
                "forbidden.example",
            ],
            Says("nxdomain"),
        ),
    ]
}

/// Against the names that a person gave, and against addresses that belong to
/// documentation, so that nobody is bothered if something gets through.
pub fn in_the_real_internet(names: &[String]) -> Vec<Attempt> {
    use Expectation::{Fails, Works};
    let mut attempts = Vec::new();
    for name in names {
        let url = format!("https://{name}/");
        attempts.push(Attempt::new(
            format!("getent: {name}"),
            &["getent", "hosts", name],
            Works,
        ));
        attempts.push(Attempt::new(
            format!("curl: {name}"),
            &curl("--head", &url),
            Works,
        ));
        let resolve = format!(
            "import socket; \
             print('connected to', socket.create_connection(('{name}', 443), 9).getpeername()[0])"
        );
        attempts.push(Attempt::new(
            format!("python: {name}"),
            &[PYTHON, "-c", &resolve],
            Works,
        ));
        let other = format!("http://{name}:8443/");
        attempts.push(Attempt::new(
            format!("curl: {name}, port 8443"),
            &curl("--head", &other),
            Fails,
        ));
    }
    let other = ["getent", "hosts", "forbidden.example"];
    attempts.push(Attempt::new("getent: another name", &other, Fails));
    attempts.push(Attempt::new(
        "curl: a literal IPv4 address",
        &curl("--ipv4", "http://203.0.113.66/"),
        Fails,
    ));
    attempts.push(Attempt::new(
        "curl: a literal IPv6 address",
        &curl("--ipv6", "http://[2001:db8::66]/"),
        Fails,
    ));
    let udp = datagram(Ipv4Addr::new(203, 0, 113, 66).into());
    attempts.push(Attempt::new("python: UDP", &[PYTHON, "-c", &udp], Fails));
    attempts
}

/// Without a proxy from the environment, which would be a destination of its own.
fn curl<'a>(option: &'a str, url: &'a str) -> [&'a str; 9] {
    [
        "curl",
        "--noproxy",
        "*",
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        option,
        url,
    ]
}

fn datagram(address: IpAddr) -> String {
    let family = if address.is_ipv4() {
        "AF_INET"
    } else {
        "AF_INET6"
    };
    format!(
        "import socket; \
         socket.socket(socket.{family}, socket.SOCK_DGRAM).sendto(b'secret', ('{address}', 443))"
    )
}
