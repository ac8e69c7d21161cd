//! A real microVM: another kernel, with a root of its own, behind a tap. QEMU
//! emulates it, so that no test depends on KVM. `cargo xtask vm --kernel 6.1
//! behind-tap` says where the kernel is, and lets this run.

use crate::container::TlsServer;
use crate::scene::{nothing_escaped, world};
use egress_tests::address::{ALLOWED_V4, OTHER_RESOLVER_V4};
use egress_tests::process::Running;
use egress_tests::product::Agent;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory of a kernel that `cargo xtask vm` prepared.
const KERNEL: &str = "EGRESS_MACHINE";

const POLICY: &str = r#"
apiVersion: egress/v1
name: machine
allowlist:
  web:
    - { domain: allowed.example, ports: [8443], protocols: [https] }
    # What is said there comes back: that nothing does is a refusal elsewhere.
    - { domain: allowed.example, protocols: [http] }
"#;

/// What a network card needs, in the order in which it is inserted.
const MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
];

/// The first program of the machine: everything that root with a kernel of its own
/// can try by `busybox` and `curl`, each with what it came to.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
while read module; do insmod /modules/$module; done < /order
ip link set lo up
ip addr add 198.18.30.2/30 dev eth0
ip link set eth0 up
ip route add default via 198.18.30.1
said() { what=$1; shift; if got=$("$@" 2>&1); then echo "TOLD $what: yes $got" | tr '\n' ' '; else echo "TOLD $what: no $got" | tr '\n' ' '; fi; echo; }
# Whether somebody answers what it is told.
heard() { test -n "$(echo $word | nc -w 4 "$@")"; }
word=hello
said resolved nslookup allowed.example
fetch="curl --silent --show-error --max-time 30 --cacert /ca.pem -o /dev/null -w %{http_code}"
said fetched $fetch https://allowed.example:8443/
said control heard 203.0.113.10 80
word=secret
said other-name nslookup forbidden.example
said other-address heard 203.0.113.66 443
said other-port heard 203.0.113.10 443
said other-resolver nslookup -type=a allowed.example 203.0.113.54
ip addr add 2001:db8:130::2/64 dev eth0
sleep 2
ip route add ::/0 via 2001:db8:130::1
said version-six heard 2001:db8:ff::10 443
ip addr add 198.18.30.77/32 dev eth0
said other-source $fetch --connect-timeout 4 --interface 198.18.30.77 https://allowed.example:8443/
ip link set eth0 down
ip link set eth0 address 02:00:00:00:99:99
ip link set eth0 up
ip route add default via 198.18.30.1
said other-station heard 203.0.113.10 8443
echo TOLD all
poweroff -f
"#;

/// Copies `curl` and every library that it is linked to.
fn curl(tree: &Path) {
    let mut ldd = Command::new("ldd");
    let said = ldd
        .arg("/usr/bin/curl")
        .output()
        .expect("the C library has ldd");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let libraries = said.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/usr/bin/curl"]) {
        let target = tree.join(file.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap_or(tree)).expect("writable");
        fs::copy(file, &target).expect("a library that a program is linked to");
    }
}

/// Packs a first file system of `busybox`, the modules and [`INIT`].
fn initrd(place: &Path, kernel: &Path) -> PathBuf {
    let tree = place.join("initrd");
    for directory in ["bin", "dev", "etc", "modules", "proc", "sys"] {
        fs::create_dir_all(tree.join(directory)).expect("the world's directory is writable");
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))
        .expect("busybox is installed; run `cargo xtask setup`");
    fs::copy(place.join("ca.pem"), tree.join("ca.pem")).expect("the certificate");
    curl(&tree);
    let release = fs::read_to_string(kernel.join("release")).expect("a prepared kernel");
    let mut order = String::new();
    for module in MODULES {
        let name = module.rsplit('/').next().unwrap_or(module);
        let target = tree.join("modules").join(format!("{name}.ko"));
        let from = format!("/{}/kernel/{module}.ko", release.trim());
        let dump = format!("dump {from} {}", target.display());
        let mut debugfs = Command::new("/sbin/debugfs");
        debugfs
            .args(["-R", &dump])
            .arg(kernel.join("modules.img"))
            .stderr(Stdio::null());
        debugfs.status().expect("e2fsprogs is installed");
        // What the kernel has built in is no module.
        if fs::metadata(&target).is_ok_and(|file| file.len() > 0) {
            order += &format!("{name}.ko\n");
        }
    }
    let write = |name: &str, text: &str| {
        fs::write(tree.join(name), text).expect("the world's directory is writable");
    };
    write("order", &order);
    write("etc/resolv.conf", "nameserver 192.0.2.53\n");
    write("etc/nsswitch.conf", "hosts: dns\n");
    write("init", INIT);
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(tree.join("init"), executable).expect("it is the test's own");
    let image = place.join("initrd.img");
    let pack = "cd \"$1\" && find . | cpio --create --quiet --format=newc --owner=+0:+0 > \"$2\"";
    let mut sh = Command::new("/bin/sh");
    sh.args(["-c", pack, "sh"]).arg(&tree).arg(&image);
    assert!(sh.status().expect("a shell").success(), "cpio is installed");
    image
}

#[test]
#[ignore = "needs a kernel: `cargo xtask vm --kernel 6.1 behind-tap`"]
fn a_microvm_fetches_an_allowed_name_over_tls_and_its_root_gets_nothing_else_out() {
    let Some(world) = world(
        "interface: a microvm fetches an allowed name over tls and its root gets nothing else out",
    ) else {
        return;
    };
    let kernel = PathBuf::from(std::env::var_os(KERNEL).expect("cargo xtask vm names a kernel"));
    let agent = Agent::start(&world, &[("machine", POLICY)]);
    let place = world.fresh_directory();
    let _server = TlsServer::start(&world, &place);
    world
        .near
        .configure(
            "tuntap add dev tap-vm1 mode tap\n\
             addr add 198.18.30.1/30 dev tap-vm1\n\
             addr add 2001:db8:130::1/64 dev tap-vm1 nodad\n\
             link set tap-vm1 up\n",
        )
        .expect("a tap");
    let attach = [
        "sandbox",
        "attach",
        "--interface",
        "tap-vm1",
        "--policy",
        "machine",
        "--addresses",
        "198.18.30.2,2001:db8:130::2",
        "--mac",
        "02:00:00:00:30:02",
    ];
    let (status, lines, errors) = agent.egressctl(&attach).expect("it starts").finish();
    assert!(status.success(), "{lines:?} {errors}");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg",
        "-cpu",
        "max,la57=off",
        "-machine",
        "q35",
        "-m",
        "256M",
    ])
    .args([
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
    ])
    .args(["-netdev", "tap,id=n,ifname=tap-vm1,script=no,downscript=no"])
    .args([
        "-device",
        "virtio-net-pci,netdev=n,mac=02:00:00:00:30:02,romfile=",
    ])
    .args(["-append", "console=ttyS0 quiet panic=-1"])
    .arg("-kernel")
    .arg(kernel.join("vmlinuz"))
    .arg("-initrd")
    .arg(initrd(&place, &kernel));
    let machine = world.near.run(|| Running::start(&mut qemu));
    let (_, lines, errors) = machine.expect("QEMU is installed").finish();
    let said = |what: &str| {
        let start = format!("TOLD {what}: ");
        let line = lines
            .iter()
            .find_map(|line| Some(line.split_once(&start)?.1));
        line.unwrap_or_else(|| panic!("nothing about {what}: {lines:#?} {errors}"))
    };
    assert!(
        lines.iter().any(|line| line.contains("TOLD all")),
        "{lines:#?} {errors}"
    );
    assert!(
        said("resolved").contains(&ALLOWED_V4.to_string()),
        "{lines:#?}"
    );
    for allowed in ["fetched", "control"] {
        assert!(said(allowed).starts_with("yes"), "{lines:#?}");
    }
    // Port 53 of another resolver's address is the agent's too.
    assert!(
        said("other-resolver").contains(&OTHER_RESOLVER_V4.to_string()),
        "{lines:#?}"
    );
    assert!(
        world.other_dns.asked().is_empty(),
        "another resolver was asked"
    );
    for refused in [
        "other-name",
        "other-address",
        "other-port",
        "version-six",
        "other-source",
        "other-station",
    ] {
        assert!(said(refused).starts_with("no"), "{lines:#?}");
    }
    assert!(!world.sniffer.saw(|packet| packet.carries(b"secret")));
    nothing_escaped(
        &world,
        &[(ALLOWED_V4, 8443).into(), (ALLOWED_V4, 80).into()],
    );
}
