//! Where the tests happen, and the sandbox that goes on meanwhile.

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, SECOND_V4, UPSTREAM_V4};
use egress_tests::probe::until_pause;
use egress_tests::process::Running;
use egress_tests::product::Agent;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `allowed.example`, HTTPS.
pub const OPEN: &str = "203.0.113.10:443";
/// A server that no policy names.
pub const CLOSED: &str = "203.0.113.66:443";

/// A world that knows two names.
pub fn world(test: &str) -> Option<World> {
    let world = World::or_skip(test)?;
    let allowed = [ALLOWED_V4.into(), ALLOWED_V6.into()];
    world.dns.resolve("allowed.example", &allowed);
    world.dns.resolve("second.example", &[SECOND_V4.into()]);
    assert_eq!(OPEN, SocketAddr::from((ALLOWED_V4, 443)).to_string());
    assert_eq!(CLOSED, SocketAddr::from((FORBIDDEN_V4, 443)).to_string());
    Some(world)
}

/// A sandbox that resolves, connects, speaks over a live connection and tries
/// what is closed, all the time, until it is asked what became of it.
pub struct Siege(Running);

impl Siege {
    /// Begins one in a sandbox of the agent.
    pub fn begin(agent: &Agent<'_>, sandbox: &str, policy: &str) -> Self {
        let siege = format!("siege {OPEN} {CLOSED} {UPSTREAM_V4}:53 allowed.example");
        let steps = ["resolve allowed.example", "pause", &siege, "pause"];
        let mut run = agent.probe(sandbox, policy, &steps);
        until_pause(&mut run)[0].succeeded();
        run.say("begin").expect("it waits");
        Self(run)
    }

    /// Ends it; what it counted.
    pub fn end(mut self) -> Value {
        self.0.say("end").expect("it listens");
        let attempts = until_pause(&mut self.0);
        let counted = attempts.last().expect("a report").succeeded();
        serde_json::from_str(counted).expect("a JSON object")
    }

    /// Ends it, and asserts that nothing was let through, nothing was cut, and
    /// nothing that was open was refused.
    #[track_caller]
    pub fn ends_unharmed(self, world: &World) -> Value {
        let counted = self.end();
        eprintln!("the siege counted {counted}");
        assert_eq!(counted["broken"], Value::Null, "{counted:#}");
        assert_eq!(counted["refused"], 0, "{counted:#}");
        for some in ["echoes", "connects", "attempts", "answers"] {
            assert_ne!(counted[some], 0, "{counted:#}");
        }
        closed_stayed_closed(world, &counted);
        counted
    }
}

/// Asserts that nothing reached what is closed.
#[track_caller]
pub fn closed_stayed_closed(world: &World, counted: &Value) {
    assert_eq!(counted["escapes"], 0, "{counted:#}");
    world.settle();
    let secret = world.sniffer.saw(|packet| packet.carries(b"secret"));
    assert!(!secret, "the secret got out: {counted:#}");
    assert!(!world.sniffer.saw(|packet| packet.goes_to(FORBIDDEN_V4)));
}

/// How often something is done: small here, as large as the environment says
/// in `cargo xtask soak`.
pub fn times(variable: &str, usually: u32) -> u32 {
    std::env::var(variable).map_or(usually, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}"))
    })
}

/// Random numbers that can be had again: the seed is printed, and taken from
/// `EGRESS_SEED` if that is set.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let seed = std::env::var("EGRESS_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(1, |since| since.as_nanos() as u64) | 1
        });
        eprintln!("EGRESS_SEED={seed}");
        Self(seed)
    }

    /// A duration below `bound`.
    pub fn below(&mut self, bound: Duration) -> Duration {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        bound.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
