//! What the demo tries: real clients, against what is allowed and what is not.

use egress_tests::address::{ALLOWED_V6, FORBIDDEN_V4, FORBIDDEN_V6, OTHER_RESOLVER_V4};

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
    let v6_page = "import urllib.request as u; print(u.urlopen('http://allowed.example/').read())";
    let on_v6 = format!(
        "import socket; socket.getaddrinfo('allowed.example', 80); \
         print(socket.create_connection(('{ALLOWED_V6}', 80), 5))"
    );
    vec![
        Attempt::new(
            "getent: the allowed name",
            &["getent", "hosts", "allowed.example"],
            Works,
        ),
        Attempt::new(
            "curl: the allowed name",
            &curl("http://allowed.example/"),
            Works,
        ),
        Attempt::new("python: the allowed name", &[PYTHON, "-c", v6_page], Works),
        Attempt::new(
            "python: the allowed name over IPv6",
            &[PYTHON, "-c", &on_v6],
            Works,
        ),
        Attempt::new(
            "curl: the allowed name, port 853",
            &curl("http://allowed.example:853/"),
            Fails,
        ),
        Attempt::new(
            "getent: another name",
            &["getent", "hosts", "forbidden.example"],
            Fails,
        ),
        Attempt::new(
            "curl: another name",
            &curl("http://forbidden.example/"),
            Fails,
        ),
        Attempt::new(
            "curl: a literal address",
            &curl(&format!("http://{FORBIDDEN_V4}/")),
            Fails,
        ),
        Attempt::new(
            "curl: IPv6",
            &curl(&format!("http://[{FORBIDDEN_V6}]/")),
            Fails,
        ),
        Attempt::new(
            "python: UDP",
            &[PYTHON, "-c", &datagram(&FORBIDDEN_V4.to_string())],
            Fails,
        ),
        Attempt::new(
            "dig: another name, at another DNS server",
            &[
                "dig",
                "+tries=1",
                &format!("@{OTHER_RESOLVER_V4}"),
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
        attempts.push(Attempt::new(format!("curl: {name}"), &curl(&url), Works));
        let resolve = format!("import socket; print(socket.create_connection(('{name}', 443), 9))");
        attempts.push(Attempt::new(
            format!("python: {name}"),
            &[PYTHON, "-c", &resolve],
            Works,
        ));
        let other = format!("http://{name}:8443/");
        attempts.push(Attempt::new(
            format!("curl: {name}, port 8443"),
            &curl(&other),
            Fails,
        ));
    }
    let other = ["getent", "hosts", "forbidden.example"];
    attempts.push(Attempt::new("getent: another name", &other, Fails));
    attempts.push(Attempt::new(
        "curl: a literal address",
        &curl("http://203.0.113.66/"),
        Fails,
    ));
    attempts.push(Attempt::new(
        "curl: IPv6",
        &curl("http://[2001:db8::66]/"),
        Fails,
    ));
    let udp = datagram("203.0.113.66");
    attempts.push(Attempt::new("python: UDP", &[PYTHON, "-c", &udp], Fails));
    attempts
}

/// Without a proxy from the environment, which would be a destination of its own.
fn curl(url: &str) -> [&str; 8] {
    [
        "curl",
        "--noproxy",
        "*",
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        url,
    ]
}

fn datagram(address: &str) -> String {
    format!(
        "import socket; \
         socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'secret', ('{address}', 443))"
    )
}
