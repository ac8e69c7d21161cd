//! Checkpoints on other machines: a file, a real rsyslog and a web server receive
//! them, and what each received shows a store that was put back.

mod policy;

use egress_tests::World;
use egress_tests::collector::Collector;
use egress_tests::process::{Running, patience};
use egress_tests::product::{Agent, binary};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Ports of the receivers; each world has all ports to itself.
const SYSLOG: u16 = 5514;
const WEB: u16 = 8098;

/// Appends what is posted to a file, if the token is right.
const RECEIVER: &str = r#"
import http.server, sys
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        known = self.headers["authorization"] == "Bearer sesame"
        if known:
            with open(sys.argv[2], "ab") as file:
                file.write(body)
        self.send_response(204 if known else 401)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
print("ready", flush=True)
server.serve_forever()
"#;

fn web(world: &World, file: &Path) -> Running {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", RECEIVER, &WEB.to_string()]).arg(file);
    let mut receiver = world
        .near
        .run(|| Running::start(&mut command))
        .expect("python3 is installed");
    assert_eq!(receiver.line().as_deref(), Some("ready"));
    receiver
}

fn refused(agent: &Agent<'_>, name: &str) {
    agent
        .probe("s", "changing", &[&format!("resolve {name}")])
        .finish();
}

/// Waits until the file holds another checkpoint than `before`; all of it.
#[track_caller]
fn received(file: &Path, before: &str) -> String {
    let deadline = Instant::now() + patience();
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.len() > before.len() && text.ends_with('\n') {
            return text;
        }
        assert!(Instant::now() < deadline, "{}: {text}", file.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn verify(store: &Path, checkpoints: &Path) -> Output {
    Command::new(binary("egressctl"))
        .args(["audit", "verify", "--file"])
        .arg(store)
        .arg("--checkpoint")
        .arg(checkpoints)
        .output()
        .expect("egressctl starts")
}

#[test]
fn what_each_receiver_has_shows_a_store_that_was_put_back() {
    let Some(world) = World::or_skip("witness") else {
        return;
    };
    let mut agent = Agent::prepare(
        &world,
        &[("changing", &policy::changing(&["allowed.example"], ""))],
    );
    let directory = agent.directory().to_owned();
    let at = |name: &str| directory.join(name);
    fs::write(at("token"), "sesame\n").expect("written");
    fs::set_permissions(at("token"), fs::Permissions::from_mode(0o600)).expect("set");
    let input = format!(
        "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{SYSLOG}\")"
    );
    let mut collector = Collector::new(&at("rsyslog"), &input);
    collector.start(&world);
    collector.await_port(&world, SYSLOG);
    agent.configure(&format!(
        "{}[audit]\ncheckpoint_seconds = 1\n\
         [[audit.checkpoint_sinks]]\nkind = \"file\"\npath = \"{}\"\n\
         [[audit.checkpoint_sinks]]\nkind = \"syslog\"\ntransport = \"tcp\"\nhost = \"127.0.0.1\"\nport = {SYSLOG}\n\
         [[audit.checkpoint_sinks]]\nkind = \"http\"\nurl = \"http://127.0.0.1:{WEB}/notes\"\ntoken_file = \"{}\"\n",
        agent.configuration(),
        at("notes").display(),
        at("token").display(),
    ));
    agent.launch();
    refused(&agent, "first.example");
    received(&at("notes"), "");
    // Nobody listens there yet, and that is a record.
    let sink = format!("http://127.0.0.1:{WEB}");
    assert!(agent.recorded(&[&format!("checkpoints do not reach {sink}")]));
    let receiver = web(&world, &at("posted"));
    received(&at("posted"), "");
    assert!(agent.recorded(&[&format!("checkpoints reach {sink} again")]));

    // A copy of everything, as whoever wants to put it back would take it.
    agent.kill();
    let old = at("old");
    fs::create_dir(&old).expect("made");
    for entry in fs::read_dir(at("state")).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            fs::copy(entry.path(), old.join(entry.file_name())).expect("copied");
        }
    }
    agent.launch();
    let files: [PathBuf; 3] = [at("notes"), collector.file(), at("posted")];
    let before = files.each_ref().map(|file| received(file, ""));
    refused(&agent, "second.example");
    // All have the last one once nothing new comes for a while.
    for (file, before) in files.iter().zip(&before) {
        received(file, before);
    }
    collector.line(&["checkpoint@32473", "note="]);
    let state = at("state/audit.db");
    let deadline = Instant::now() + patience();
    for file in &files {
        // What the agent writes meanwhile is signed within a second.
        let mut verified = verify(&state, file);
        while !verified.status.success() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            verified = verify(&state, file);
        }
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success(), "{}: {said}", file.display());
        // The old state is good by itself, and not beside what the receiver has.
        // A new agent tells the last checkpoint of the one before again; its own
        // follows within a second.
        let mut put_back = verify(&old.join("audit.db"), file);
        while put_back.status.success() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            put_back = verify(&old.join("audit.db"), file);
        }
        let said = String::from_utf8_lossy(&put_back.stderr).into_owned();
        assert_eq!(
            put_back.status.code(),
            Some(7),
            "{}: {said}",
            file.display()
        );
        assert!(said.contains("a checkpoint"), "{said}");
    }
    let alone = verify(&old.join("audit.db"), &old.join("audit.checkpoint"));
    assert!(
        alone.status.success(),
        "{}",
        String::from_utf8_lossy(&alone.stderr)
    );
    // A file without any checkpoint proves nothing.
    let nothing = verify(&state, &at("token"));
    assert_eq!(nothing.status.code(), Some(2));
    drop(receiver);
}
