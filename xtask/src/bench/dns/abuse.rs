//! Sandboxes that misuse the resolver, to run beside one that does not.

use crate::Failure;
use egress_tests::process::Running;
use egress_tests::product::Agent;

/// A way to misuse it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misuse {
    /// Queries of names that are refused, 10,000 a second.
    Flood,
    /// A thousand TCP connections that say nothing, opened again when they are closed.
    Idle,
    /// Connections that send one byte of a message a second.
    Slow,
    /// Datagrams that are no messages, pointer loops, and answers, as fast as they go.
    Malformed,
}

impl Misuse {
    pub const ALL: [Self; 4] = [Self::Flood, Self::Idle, Self::Slow, Self::Malformed];

    /// The name of the measurement beside it.
    pub const fn scenario(self) -> &'static str {
        match self {
            Self::Flood => "beside a flood",
            Self::Idle => "beside 1,000 idle connections",
            Self::Slow => "beside slow connections",
            Self::Malformed => "beside malformed messages",
        }
    }

    /// Python that does it for so many seconds; `None` where `dnsperf` does.
    fn script(self, seconds: u32) -> Option<String> {
        let body = match self {
            Self::Flood => return None,
            Self::Idle => {
                "held = []\n\
                 while time.time() < end:\n    \
                     while len(held) < 1000 and time.time() < end: held.append(connection())\n    \
                     alive = []\n    \
                     for s in held:\n        \
                         try:\n            \
                             if s.recv(1): alive.append(s)\n        \
                         except BlockingIOError: alive.append(s)\n        \
                         except OSError: pass\n    \
                     held = alive\n    time.sleep(0.2)\n"
            }
            Self::Slow => {
                "held = [connection() for _ in range(200)]\n\
                 while time.time() < end:\n    \
                     for i, s in enumerate(held):\n        \
                         try: s.send(b'\\x00')\n        \
                         except OSError: held[i] = connection()\n    \
                     time.sleep(1)\n"
            }
            Self::Malformed => {
                "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(A)\n\
                 loop = bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1])\n\
                 messages = [b'', b'x' * 11, loop, b'\\xff' * 512, loop[:2] + b'\\x80' + loop[3:], b'\\x00' * 4000]\n\
                 while time.time() < end:\n    \
                     for m in messages:\n        \
                         try: s.send(m)\n        \
                         except OSError: pass\n"
            }
        };
        Some(format!(
            "import socket, time\n\
             A = ('192.0.2.53', 53)\n\
             end = time.time() + {seconds}\n\
             def connection():\n    \
                 s = socket.socket(); s.settimeout(5)\n    \
                 try: s.connect(A)\n    \
                 except OSError: pass\n    \
                 s.setblocking(False); return s\n\
             {body}"
        ))
    }

    /// Begins it in a sandbox, for so many seconds.
    pub fn start(
        self,
        agent: &Agent<'_>,
        sandbox: &str,
        seconds: u32,
    ) -> Result<Option<Running>, Failure> {
        let Some(script) = self.script(seconds) else {
            return Ok(None);
        };
        let arguments = [
            "run",
            "--name",
            sandbox,
            "--policy",
            "bench",
            "--",
            "/usr/bin/python3",
            "-c",
            &script,
        ];
        let started = agent.egressctl(&arguments);
        started
            .map(Some)
            .map_err(|error| Failure::new(format!("egressctl: {error}")))
    }
}

/// Resident memory of a process, in KiB.
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Misuse;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn every_script_is_python() {
        for misuse in Misuse::ALL {
            let Some(script) = misuse.script(1) else {
                continue;
            };
            let check = "import ast, sys; ast.parse(sys.stdin.read())";
            let mut python = Command::new("/usr/bin/python3")
                .args(["-c", check])
                .stdin(Stdio::piped())
                .spawn()
                .expect("python3 is installed by setup");
            let mut input = python.stdin.take().expect("piped");
            input.write_all(script.as_bytes()).expect("it reads");
            drop(input);
            assert!(python.wait().expect("it ends").success(), "{script}");
        }
    }
}
