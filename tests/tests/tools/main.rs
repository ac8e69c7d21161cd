//! Tools of people who build software, each doing its ordinary job against servers
//! beside it, under a policy of one name: git, apt, pip, npm, cargo, and programs
//! with resolvers of their own (Go, Java, musl). At another name each fails, and
//! nothing is asked or sent for it.
//!
//! A tool that is missing is a failure: `cargo xtask setup` installs all of them.

mod shelf;

use egress_tests::World;
use egress_tests::address::{ALLOWED_V4, FORBIDDEN_V4};
use egress_tests::process::Running;
use shelf::{PORTS, Shelf};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Opens one name on the ports of the servers. Tools write where they like, and
/// ssh has to know who runs it.
const POLICY: &str = "apiVersion: egress/v1\nname: tools\nallowlist:\n  servers:\n    \
    - { domain: allowed.example, ports: [2222, 8080, 8443], protocols: [tcp] }\n\
    sandbox: { user: nobody }\n";

/// A tool with its job.
struct Tool {
    name: &'static str,
    /// Its program: a search path would find what somebody put before it.
    program: &'static str,
    /// A line of shell in a directory of its own; `$N` is the name of the server,
    /// `$S` the shelf with keys and certificates.
    job: &'static str,
    /// What it leaves or says when the job is done.
    success: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "git-https",
        program: "/usr/bin/git",
        job: "GIT_SSL_CAINFO=$S/cert.pem /usr/bin/git clone -q https://$N:8443/repository.git got && cat got/greeting",
        success: "hello from the repository",
    },
    Tool {
        name: "git-ssh",
        program: "/usr/bin/ssh",
        job: "cp $S/identity key && chmod 600 key && \
              GIT_SSH_COMMAND=\"/usr/bin/ssh -F none -i $PWD/key -o BatchMode=yes -o UserKnownHostsFile=$S/known_hosts -o ConnectTimeout=10\" \
              /usr/bin/git clone -q ssh://root@$N:2222$S/www/repository.git got && cat got/greeting",
        success: "hello from the repository",
    },
    Tool {
        name: "apt",
        program: "/usr/bin/apt-get",
        job: "mkdir -p state/lists/partial cache/archives/partial && touch state/status && \
              echo \"deb [trusted=yes] http://$N:8080/apt ./\" > list && \
              O=\"-q -o Dir::State=$PWD/state -o Dir::State::status=$PWD/state/status -o Dir::Cache=$PWD/cache \
              -o Dir::Etc::sourcelist=$PWD/list -o Dir::Etc::sourceparts=- -o Debug::NoLocking=1 \
              -o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o APT::Update::Error-Mode=any\" && \
              apt-get $O update && apt-get $O download hello-egress && dpkg-deb --info hello-egress_1.0_all.deb",
        success: "Description: greets",
    },
    Tool {
        name: "pip",
        program: "/usr/lib/python3/dist-packages/pip/__main__.py",
        job: "/usr/bin/python3 -m pip --no-cache-dir --disable-pip-version-check download --retries 0 --timeout 10 \
              --index-url http://$N:8080/simple --trusted-host $N --no-deps hello-egress && ls",
        success: "hello_egress-1.0-py3-none-any.whl",
    },
    Tool {
        name: "npm",
        program: "/usr/bin/npm",
        job: "/usr/bin/npm install --silent --no-audit --no-fund --fetch-retries=0 --cache $PWD/cache --prefix $PWD \
              --registry http://$N:8080/npm/ hello-egress && node -e \"console.log(require('hello-egress'))\"",
        success: "hello from the package",
    },
    Tool {
        name: "cargo",
        program: env!("CARGO"),
        job: "mkdir -p src .cargo && touch src/lib.rs && \
              printf '[package]\\nname = \"x\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\nhello-egress = { version = \"1\", registry = \"own\" }\\n' > Cargo.toml && \
              printf \"[registries.own]\\nindex = \\\"sparse+http://$N:8080/cargo/\\\"\\n[net]\\nretry = 0\\n\" > .cargo/config.toml && \
              CARGO_HOME=$PWD/home RUSTC=/usr/bin/rustc $S/cargo fetch --quiet && find home -name '*.crate'",
        success: "hello-egress-1.0.0.crate",
    },
    Tool {
        name: "go",
        // Written in Go; told to use Go's own resolver, and to say that it does.
        program: "/usr/bin/promtool",
        job: "GODEBUG=netdns=go+1 /usr/bin/promtool query instant http://$N:8080/go up 2>&1",
        success: "hello_from_go",
    },
    Tool {
        name: "java",
        // A program of every Java runtime that connects by name and speaks TLS.
        program: "/usr/bin/keytool",
        job: "/usr/bin/keytool -J-Duser.home=$PWD -J-XX:-UsePerfData -printcert -sslserver $N:8443",
        success: "CN=allowed.example",
    },
    Tool {
        name: "musl",
        // Built below, since distributions ship hardly any program with it.
        program: "/usr/bin/musl-gcc",
        job: "$S/musl-get $N 8080 /greeting",
        success: "hello from the server",
    },
];

/// Does every job at a name, in one sandbox; what was said between the marks.
fn everything_at(world: &World, shelf: &Shelf, name: &str) -> Vec<(&'static str, bool, String)> {
    let sandbox = world.sandbox(POLICY);
    let place = world.fresh_directory();
    let anybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(&place, anybody).expect("its own directory");
    let mut script = format!("N={name}\nS={}\n", shelf.path().display());
    for tool in TOOLS {
        let own = place.join(tool.name);
        script += &format!(
            "echo '== begin {0}'\nmkdir {1} && cd {1} && export HOME={1}\n\
             timeout 60 /bin/sh -c 'N=$1 S=$2; {2}' - $N $S 2>&1\necho '== end {0}' $?\n",
            tool.name,
            own.display(),
            tool.job.replace('\'', "'\\''"),
        );
    }
    let running: Running = sandbox.run(["/bin/sh", "-c", &script]);
    let (_, lines, errors) = running.finish();
    let said = |tool: &Tool| {
        let after = |mark: String| lines.iter().position(|line| line.starts_with(&mark));
        let begin = after(format!("== begin {}", tool.name));
        let end = after(format!("== end {} ", tool.name));
        let (Some(begin), Some(end)) = (begin, end) else {
            panic!("{} was not run: {lines:#?}\n{errors}", tool.name);
        };
        let ended_well = lines[end].ends_with(" 0");
        (tool.name, ended_well, lines[begin + 1..end].join("\n"))
    };
    TOOLS.iter().map(said).collect()
}

#[test]
fn tools_do_their_job_at_an_allowed_name_and_nowhere_else() {
    let Some(world) = World::or_skip("tools: programs that build software") else {
        return;
    };
    for tool in TOOLS {
        assert!(
            Path::new(tool.program).exists(),
            "{} is missing: cargo xtask setup installs it",
            tool.program
        );
    }
    world.dns.resolve("allowed.example", &[ALLOWED_V4.into()]);
    world
        .dns
        .resolve("forbidden.example", &[FORBIDDEN_V4.into()]);
    let shelf = Shelf::open(&world);
    for (tool, found) in TOOLS
        .iter()
        .zip(everything_at(&world, &shelf, "allowed.example"))
    {
        let (name, ended_well, said) = found;
        assert!(ended_well && said.contains(tool.success), "{name}: {said}");
    }
    for (tool, found) in TOOLS
        .iter()
        .zip(everything_at(&world, &shelf, "forbidden.example"))
    {
        let (name, ended_well, said) = found;
        assert!(
            !ended_well && !said.contains(tool.success),
            "{name}: {said}"
        );
    }
    assert!(!world.dns.heard_of("forbidden.example"));
    let allowed = PORTS.map(|port| SocketAddr::from((ALLOWED_V4, port)));
    world.nothing_escaped(&allowed);
}
