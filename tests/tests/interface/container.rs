//! A real container engine: what crun starts, with a network namespace of its own
//! that an OCI hook wires and attaches, and root with every capability inside.

use crate::scene::{nothing_escaped, world};
use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::process::Running;
use egress_tests::product::{Agent, binary};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the TLS server answers.
const PORT: u16 = 8443;

const POLICY: &str = r#"
apiVersion: egress/v1
name: container
allowlist:
  web:
    - { domain: allowed.example, ports: [8443], protocols: [https] }
"#;

/// What the container does, each line with what it came to.
const SCRIPT: &str = r#"
said() { what=$1; shift; if got=$("$@" 2>&1); then echo "$what: yes $got" | tr '\n' ' '; else echo "$what: no"; fi; echo; }
fetch="curl --silent --show-error --max-time 30 --cacert /ca.pem -o /dev/null -w %{http_code}"
said resolved getent ahostsv4 allowed.example
said fetched $fetch https://allowed.example:8443/
said other-name $fetch https://forbidden.example:8443/
said other-address $fetch --resolve forbidden.example:8443:203.0.113.66 https://forbidden.example:8443/
said other-port $fetch --connect-timeout 3 http://203.0.113.10:80/
said raw python3 /raw.py
"#;

/// Root with AF_PACKET: frames past its own stack and queueing discipline.
const RAW: &str = r#"
import socket, struct
def total(b):
    s = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
def packet(source, to, port, vlan=None, fragment=0, protocol=17):
    a, b = socket.inet_aton(source), socket.inet_aton(to)
    body = struct.pack('!HHHH', 4000, port, 8 + 8, 0) + b'secret!!'
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(body), 1, fragment, 64, protocol, 0, a, b)
    head = head[:10] + struct.pack('!H', total(head)) + head[12:]
    tag = b'' if vlan is None else struct.pack('!HH', 0x8100, vlan)
    return tag + struct.pack('!H', 0x0800) + head + body
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
s.bind(('eth0', 0))
here = s.getsockname()[4]
gateway = bytes.fromhex('020000640001')
for packet in [
    packet('198.18.20.2', '203.0.113.66', 443),
    packet('198.18.20.2', '203.0.113.10', 443),
    packet('198.18.20.9', '203.0.113.10', 8443),
    packet('198.18.20.1', '203.0.113.10', 8443),
    packet('198.18.20.2', '203.0.113.54', 53),
    packet('198.18.20.2', '203.0.113.10', 8443, vlan=7),
    packet('198.18.20.2', '203.0.113.10', 8443, fragment=0x2000),
    packet('198.18.20.2', '203.0.113.10', 8443, protocol=4),
    packet('198.18.20.2', '203.0.113.10', 8443, protocol=1),
]:
    for to in (gateway, b'\xff' * 6):
        try: s.send(to + here + packet)
        except OSError: pass
print('sent')
"#;

/// A server of `openssl` with a certificate for the allowed name; killed when dropped.
pub struct TlsServer(Child);

impl TlsServer {
    /// Starts it on the far side; its certificate is `ca.pem` in `place`.
    pub fn start(world: &World, place: &Path) -> Self {
        let path = |name: &str| place.join(name).display().to_string();
        let (key, certificate) = (path("key.pem"), path("ca.pem"));
        let made = Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args(["-subj", "/CN=allowed.example"])
            .args(["-addext", "subjectAltName=DNS:allowed.example"])
            .args(["-keyout", &key, "-out", &certificate])
            .output()
            .expect("openssl is installed; run `cargo xtask setup`");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut server = Command::new("openssl");
        server
            .args(["s_server", "-quiet", "-www", "-accept", &PORT.to_string()])
            .args(["-key", &key, "-cert", &certificate])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = world.far.run(|| server.spawn()).expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(10);
        let listens = || std::net::TcpStream::connect((ALLOWED_V4, PORT)).is_ok();
        while !world.far.run(listens) {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self(server)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The hook that `docs/interfaces.md` shows: it wires the container's namespace and
/// attaches the interface, before anything of the container runs.
fn hook(agent: &Agent<'_>) -> String {
    format!(
        "#!/bin/sh -e\n\
         pid=$(python3 -c 'import json, sys; print(json.load(sys.stdin)[\"pid\"])')\n\
         ip link add vethc1 address 02:00:00:64:00:01 type veth peer name eth0 netns $pid\n\
         ip addr add 198.18.20.1/30 dev vethc1\n\
         {} --socket {} sandbox attach --interface vethc1 --policy container --addresses 198.18.20.2\n\
         ip link set vethc1 up\n\
         nsenter -t $pid -n ip -batch - <<END\n\
         link set lo up\n\
         addr add 198.18.20.2/30 dev eth0\n\
         link set eth0 up\n\
         route add default via 198.18.20.1\n\
         END\n",
        binary("egressctl").display(),
        agent.socket().display()
    )
}

/// A bundle whose root file system is made of the host's programs.
fn bundle(place: &Path, hook: &Path) -> PathBuf {
    let root = place.join("rootfs");
    for directory in ["usr", "etc", "proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(directory)).expect("the world's directory is writable");
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link)).expect("a link");
    }
    let write = |name: &str, text: &str| {
        fs::write(root.join(name), text).expect("the world's directory is writable");
    };
    // Port 53 of any address is brought to the agent.
    write(
        "etc/resolv.conf",
        "nameserver 192.0.2.53\noptions timeout:3 attempts:1\n",
    );
    write("etc/nsswitch.conf", "hosts: files dns\n");
    write("etc/hosts", "127.0.0.1 localhost\n");
    write("raw.py", RAW);
    fs::copy(place.join("ca.pem"), root.join("ca.pem")).expect("the certificate");
    let all: Vec<Value> = [
        "CAP_NET_RAW",
        "CAP_NET_ADMIN",
        "CAP_SYS_ADMIN",
        "CAP_NET_BIND_SERVICE",
    ]
    .into_iter()
    .map(Value::from)
    .collect();
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/bash", "-c", SCRIPT],
            "env": ["PATH=/usr/sbin:/usr/bin", "LC_ALL=C"],
            "cwd": "/",
            "capabilities": { "bounding": all, "effective": all, "permitted": all, "inheritable": all },
        },
        "root": { "path": root, "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] },
        ],
        "linux": { "namespaces": [
            { "type": "pid" }, { "type": "network" }, { "type": "mount" }, { "type": "ipc" },
        ] },
        "hooks": { "createRuntime": [ { "path": hook, "env": ["PATH=/usr/sbin:/usr/bin"] } ] },
    });
    fs::write(place.join("config.json"), config.to_string()).expect("the bundle's configuration");
    place.to_owned()
}

#[test]
fn a_container_of_crun_fetches_an_allowed_name_over_tls_and_root_inside_gets_nothing_else_out() {
    let Some(world) = world(
        "interface: a container of crun fetches an allowed name over tls and root inside gets nothing else out",
    ) else {
        return;
    };
    let agent = Agent::start(&world, &[("container", POLICY)]);
    let place = world.fresh_directory();
    let _server = TlsServer::start(&world, &place);
    let script = place.join("hook");
    fs::write(&script, hook(&agent)).expect("the world's directory is writable");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is the test's own");
    let bundle = bundle(&place, &script);
    // It refuses a host on which something of the first version of cgroups is
    // mounted, so it sees the second one alone.
    let mut crun = Command::new("unshare");
    let alone = "[ \"$(stat -f -c %T /sys/fs/cgroup)\" = cgroup2fs ] \
                 || mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec crun \"$@\"";
    crun.args(["--mount", "/bin/sh", "-c", alone, "crun"]);
    crun.arg("--root").arg(place.join("state"));
    crun.args(["--cgroup-manager=disabled", "run", "--bundle"]);
    crun.arg(&bundle)
        .arg(format!("egress-test-{}", std::process::id()));
    let run = world.near.run(|| Running::start(&mut crun));
    let (status, lines, errors) = run
        .expect("crun is installed; run `cargo xtask setup`")
        .finish();
    assert!(status.success(), "{lines:?} {errors}");
    let said = |what: &str| {
        let line = lines
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{what}: ")));
        line.unwrap_or_else(|| panic!("nothing about {what}: {lines:?} {errors}"))
            .trim()
    };
    assert!(
        said("resolved").contains(&ALLOWED_V4.to_string()),
        "{lines:?}"
    );
    assert_eq!(said("fetched"), "yes 200", "{lines:?}");
    for refused in ["other-name", "other-address", "other-port"] {
        assert_eq!(said(refused), "no", "{lines:?}");
    }
    assert_eq!(said("raw"), "yes sent", "{lines:?}");
    assert!(
        world.other_dns.asked().is_empty(),
        "another resolver was asked"
    );
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
    nothing_escaped(&world, &[(ALLOWED_V4, PORT).into()]);
    // The sandbox went with the container's interface.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !agent
        .audit()
        .iter()
        .any(|record| record.to_string().contains("is gone"))
    {
        assert!(Instant::now() < deadline, "the end is not recorded");
        std::thread::sleep(Duration::from_millis(100));
    }
}
