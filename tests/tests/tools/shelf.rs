//! What the tools fetch, and the servers that have it.

use egress_tests::World;
use egress_tests::address::ALLOWED_V4;
use egress_tests::process::Running;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the servers listen: SSH, HTTP, HTTPS.
pub const PORTS: [u16; 3] = [2222, 8080, 8443];

/// Files and running servers.
pub struct Shelf {
    directory: PathBuf,
    _servers: [Running; 2],
}

/// Serves files, and one answer of a database of measurements.
const SERVER: &str = r#"
import functools, http.server, ssl, sys, threading
root, address = sys.argv[1:3]
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"hello_from_go"},"value":[1,"1"]}]}}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
handler = functools.partial(Handler, directory=root + "/www")
plain = http.server.ThreadingHTTPServer((address, 8080), handler)
secure = http.server.ThreadingHTTPServer((address, 8443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(root + "/cert.pem", root + "/key.pem")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=plain.serve_forever, daemon=True).start()
secure.serve_forever()
"#;

/// Fetches a file over HTTP/1.0 by name, with the resolver of its C library.
const MUSL_CLIENT: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found, *one;
    int error = getaddrinfo(argv[1], argv[2], &hints, &found);
    if (error) { fprintf(stderr, "%s\n", gai_strerror(error)); return 1; }
    for (one = found; one; one = one->ai_next) {
        int s = socket(one->ai_family, one->ai_socktype, 0);
        if (s < 0 || connect(s, one->ai_addr, one->ai_addrlen)) continue;
        dprintf(s, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", argv[3], argv[1]);
        char text[4096]; ssize_t n;
        while ((n = read(s, text, sizeof text)) > 0) fwrite(text, 1, n, stdout);
        return 0;
    }
    perror("connect");
    return 1;
}
"#;

/// Makes everything that is fetched, in the current directory.
const MAKE: &str = r#"
set -eu
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=allowed.example \
    -addext subjectAltName=DNS:allowed.example -keyout key.pem -out cert.pem 2>/dev/null
mkdir -p www/simple/hello-egress www/npm www/cargo/he/ll www/apt make
echo 'hello from the server' > www/greeting

export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
/usr/bin/git init -q -b main make/work
echo 'hello from the repository' > make/work/greeting
/usr/bin/git -C make/work add greeting
/usr/bin/git -C make/work commit -q -m one
/usr/bin/git clone -q --bare make/work www/repository.git
/usr/bin/git -C www/repository.git update-server-info

mkdir -p make/deb/DEBIAN
printf 'Package: hello-egress\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@t.invalid>\nDescription: greets\n' > make/deb/DEBIAN/control
dpkg-deb --root-owner-group --build make/deb www/apt/hello-egress_1.0_all.deb >/dev/null
{ cat make/deb/DEBIAN/control
  echo "Filename: ./hello-egress_1.0_all.deb"
  echo "Size: $(stat -c %s www/apt/hello-egress_1.0_all.deb)"
  echo "SHA256: $(sha256sum www/apt/hello-egress_1.0_all.deb | cut -d' ' -f1)"; } > www/apt/Packages

/usr/bin/python3 - <<'END'
import zipfile
info = "hello_egress-1.0.dist-info/"
with zipfile.ZipFile("www/simple/hello-egress/hello_egress-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("hello_egress.py", "")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: hello-egress\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
END
echo '<!DOCTYPE html><a href="hello_egress-1.0-py3-none-any.whl">hello_egress-1.0-py3-none-any.whl</a>' > www/simple/hello-egress/index.html

mkdir -p make/npm/package make/crate/hello-egress-1.0.0/src
echo '{"name":"hello-egress","version":"1.0.0","main":"index.js"}' > make/npm/package/package.json
echo 'module.exports = "hello from the package"' > make/npm/package/index.js
tar -C make/npm -czf www/npm/hello-egress-1.0.0.tgz package
printf '{"name":"hello-egress","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"hello-egress","version":"1.0.0","main":"index.js","dist":{"tarball":"http://allowed.example:8080/npm/hello-egress-1.0.0.tgz","shasum":"%s"}}}}' \
    "$(sha1sum www/npm/hello-egress-1.0.0.tgz | cut -d' ' -f1)" > www/npm/hello-egress

printf '[package]\nname = "hello-egress"\nversion = "1.0.0"\nedition = "2021"\n' > make/crate/hello-egress-1.0.0/Cargo.toml
touch make/crate/hello-egress-1.0.0/src/lib.rs
tar -C make/crate -czf www/cargo/hello-egress-1.0.0.crate hello-egress-1.0.0
echo '{"dl":"http://allowed.example:8080/cargo/{crate}-{version}.crate"}' > www/cargo/config.json
printf '{"name":"hello-egress","vers":"1.0.0","deps":[],"features":{},"yanked":false,"cksum":"%s"}\n' \
    "$(sha256sum www/cargo/hello-egress-1.0.0.crate | cut -d' ' -f1)" > www/cargo/he/ll/hello-egress

ssh-keygen -q -t ed25519 -N '' -C t -f identity
mkdir -m 700 ssh
install -m 600 identity.pub ssh/authorized_keys
chmod 644 identity
dropbearkey -t ed25519 -f host_key 2>/dev/null | sed -n 's/^\(ssh-ed25519 [^ ]*\).*/[allowed.example]:2222 \1/p' > known_hosts
musl-gcc -static -O1 -o musl-get musl-get.c
"#;

impl Shelf {
    /// Makes everything, and starts the servers in the far namespace.
    pub fn open(world: &World) -> Self {
        let directory = world.fresh_directory();
        let write = |name: &str, text: &str| {
            fs::write(directory.join(name), text).expect("its own directory");
        };
        write("server.py", SERVER);
        write("musl-get.c", MUSL_CLIENT);
        let made = Command::new("/bin/sh")
            .args(["-c", MAKE])
            .current_dir(&directory)
            .output()
            .expect("a shell");
        let errors = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "not everything was made: {errors}");
        // Where whoever builds keeps his tools is closed to the sandbox's user.
        fs::copy(env!("CARGO"), directory.join("cargo")).expect("cargo is there");
        let address = ALLOWED_V4.to_string();
        let path = directory.to_str().expect("text");
        let start = |command: &mut Command| {
            let started = world.far.run(|| Running::start(command));
            started.expect("it starts")
        };
        let web = start(Command::new("/usr/bin/python3").args([
            &format!("{path}/server.py"),
            path,
            &address,
        ]));
        // It looks for keys in the home directory; only its own mounts show others there.
        let line = format!(
            "mkdir -p /root/.ssh && mount --bind {path}/ssh /root/.ssh && \
             exec dropbear -F -E -s -p {address}:2222 -r {path}/host_key -P {path}/pid"
        );
        let ssh = start(Command::new("unshare").args(["--mount", "/bin/sh", "-c", &line]));
        for port in PORTS {
            let deadline = Instant::now() + Duration::from_secs(20);
            while world
                .far
                .run(|| TcpStream::connect((ALLOWED_V4, port)))
                .is_err()
            {
                assert!(Instant::now() < deadline, "nobody listens on {port}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Self {
            directory,
            _servers: [web, ssh],
        }
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }
}
