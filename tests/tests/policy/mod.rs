//! The policies that the tests share.

#![allow(dead_code, reason = "each test program uses some of them")]

/// Opens `allowed.example` for HTTPS, and nothing else.
pub const ONE_NAME: &str = r#"
apiVersion: egress/v1
name: one-name
egress:
  default_action: deny
  mode: enforce
allowlist:
  web:
    - domain: "allowed.example"
      protocols: [https]
"#;

/// Opens `second.example` for HTTPS, and nothing else.
pub const SECOND_NAME: &str = r#"
apiVersion: egress/v1
name: second-name
egress:
  default_action: deny
  mode: enforce
allowlist:
  web:
    - domain: "second.example"
      protocols: [https]
"#;

/// Opens `allowed.example` for UDP on port 4433, and nothing else.
pub const ONE_NAME_UDP: &str = r#"
apiVersion: egress/v1
name: one-name-udp
egress:
  default_action: deny
  mode: enforce
allowlist:
  quic:
    - domain: "allowed.example"
      ports: [4433]
      protocols: [udp]
"#;

/// Opens TCP port 80 of 203.0.113.8/29, and nothing else.
pub const ONE_NETWORK: &str = r#"
apiVersion: egress/v1
name: one-network
egress:
  default_action: deny
  mode: enforce
allowlist:
  storage:
    - cidr: "203.0.113.8/29"
      ports: [80]
      protocols: [tcp]
"#;

/// Opens every name below `allowed.example` for HTTPS, and not itself.
pub const EVERYTHING_BELOW: &str = r#"
apiVersion: egress/v1
name: everything-below
egress:
  default_action: deny
  mode: enforce
allowlist:
  web:
    - domain: "*.allowed.example"
      protocols: [https]
"#;

/// What a policy says that lets a sandbox ask for more names than clients do:
/// for tests of other bounds.
pub const MANY_NAMES: &str = "dns:\n  limits: { names: 1000000, names_per_wildcard: 1000000, bytes: 1000000, \
     bytes_per_wildcard: 1000000, entropy: 1000000, entropy_per_wildcard: 1000000 }\n";

/// A policy `changing` that opens these names for HTTPS, with more text behind.
pub fn changing(names: &[&str], more: &str) -> String {
    let rules: String = names
        .iter()
        .map(|name| format!("    - domain: \"{name}\"\n      protocols: [https]\n"))
        .collect();
    format!(
        "apiVersion: egress/v1\nname: changing\negress:\n  default_action: deny\n  \
         mode: enforce\nallowlist:\n  web:\n{rules}{more}"
    )
}

/// Grants that last two seconds: to be added to a policy.
pub const SHORT_GRANTS: &str =
    "dns:\n  cache_ttl: 1s\n  min_ttl: 2s\n  max_ttl: 2s\n  grace: 0s\n  keep_fresh: false\n";

/// A time of the wall clock, as policies write it.
pub fn seconds_from_now(seconds: u64) -> String {
    let output = std::process::Command::new("date")
        .args(["--utc", "--iso-8601=seconds", "--date"])
        .arg(format!("+{seconds} seconds"))
        .output()
        .expect("every system has date");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A policy that opens nothing, with this `sandbox:` block.
pub fn limited(block: &str) -> String {
    format!("apiVersion: egress/v1\nname: limited\nsandbox:\n{block}")
}
