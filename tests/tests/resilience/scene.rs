//! Where the tests happen.

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, ALLOWED_V6, FORBIDDEN_V4, SECOND_V4};
use std::net::SocketAddr;

/// `allowed.example`, HTTPS.
pub const OPEN: &str = "203.0.113.10:443";
/// A server that no policy names.
#[expect(dead_code, reason = "used by the tests that follow")]
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
