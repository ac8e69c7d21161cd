//! What the evidence costs: the measuring half of `cargo xtask bench audit`.
//!
//! Each line is a value beside its goal. The store lies in a directory of its
//! own on the disk of the working directory; nothing else of the machine is used.

use egress_agent::audit::{KeyFiles, Options, Query, Reader, Span, Store};
use egress_agent::events::{Bounds, Context, Moment, Pipeline, SandboxFacts};
use egress_agent::model::{DomainName, Record, RecordKind, RuleOrigin};
use egress_common::{CgroupId, Event, Hook, Ip, NameId, Outcome, Port, Reason, RuleId, SandboxId};
use jiff::Timestamp;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Decisions per second that have to be sustained.
const RATE: u32 = 50_000;
/// For how long.
const SECONDS: u32 = 20;
const LONG: Duration = Duration::from_secs(120);

/// One value, its goal, and whether it is met.
fn tell(what: &str, value: String, goal: &str, met: bool) -> bool {
    let verdict = if met { "met" } else { "MISSED" };
    println!("{what:46} {value:>16}   goal {goal:14} {verdict}");
    met
}

/// What the agent records of an allowed flow: a name, an address, a rule.
fn decision(n: u32, rule: &RuleOrigin) -> Record {
    Record {
        sandbox_id: Some(SandboxId(n % 50 + 1)),
        sandbox: Some(format!("build-{}", n % 50)),
        policy: Some("ci".to_owned()),
        process: Some(n),
        command: Some("curl".to_owned()),
        user: Some(1000),
        hook: Some("connect"),
        address: Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n % 2_000))),
        port: Some(443),
        protocol: Some("tcp".to_owned()),
        name: Some(format!("api{}.example.com", n % 2_000)),
        rule: Some(rule.clone()),
        outcome: Some(if n.is_multiple_of(10) {
            Outcome::Denied
        } else {
            Outcome::Allowed
        }),
        reason: n.is_multiple_of(10).then_some(Reason::NoRule),
        ..Record::new(Timestamp::now(), RecordKind::Flow)
    }
}

/// A field of /proc/self/status in KiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(field)?
                .split_whitespace()
                .nth(1)?
                .parse()
                .ok()
        })
        .unwrap_or(u64::MAX)
}

/// Offers decisions at an even rate; how many were lost.
async fn sustain(path: &Path) -> bool {
    let rule = RuleOrigin {
        file: Arc::new(PathBuf::from("/etc/egress/policies.d/ci.yaml")),
        line: 7,
        text: "domain *.example.com".into(),
    };
    let store = Store::open_with(path, Options::default())
        .await
        .expect("a store");
    let recorder = store.recorder();
    let begun = Instant::now();
    let feeder = std::thread::spawn(move || {
        let mut sent = 0;
        while sent < RATE * SECONDS {
            let due = (begun.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
            while sent < due.min(RATE * SECONDS) {
                recorder.record(decision(sent, &rule));
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut deepest = 0;
    while !feeder.is_finished() {
        deepest = deepest.max(store.health().queued);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.recorder().flush(LONG).await.expect("written");
    let took = begun.elapsed();
    let health = store.health();
    store.close(LONG).await.expect("closed");
    let rate = health.written as f64 / took.as_secs_f64();
    let peak = memory("VmHWM:") / 1024;
    let lost = tell(
        &format!("decisions lost of {RATE}/s for {SECONDS} s"),
        health.lost.to_string(),
        "0",
        health.lost == 0,
    );
    let written = tell(
        "records per second in the file",
        format!("{rate:.0}"),
        ">= 49000",
        rate >= 49_000.0,
    );
    println!("{:46} {deepest:>16}", "records that waited at most");
    let small = tell(
        "peak memory of the process, MiB",
        peak.to_string(),
        "< 200",
        peak < 200,
    );
    lost && written && small
}

struct Nobody;

impl Context for Nobody {
    fn sandbox(&self, _: SandboxId) -> Option<SandboxFacts> {
        None
    }
    fn name(&self, _: NameId) -> Option<DomainName> {
        None
    }
    fn rule(&self, _: RuleId) -> Option<RuleOrigin> {
        None
    }
    fn hint(&self, _: SandboxId, _: &Event) -> Option<String> {
        None
    }
}

/// Denials of one sandbox, folded: how fast, and whether the counts add up.
fn flood() -> bool {
    const DENIALS: u64 = 2_000_000;
    let mut pipeline = Pipeline::new(Nobody, Bounds::default());
    let now = Moment::now();
    let begun = Instant::now();
    let mut told = 0;
    for n in 0..DENIALS {
        let event = Event {
            time: now.boot,
            cgroup: CgroupId(7),
            ip: Ip::from(IpAddr::V4(Ipv4Addr::from(0xcb00_7100 + (n % 200) as u32))),
            sandbox: SandboxId(3),
            process: 4242,
            user: 1000,
            name: NameId(0),
            rule: RuleId(0),
            detail: 0,
            port: Port::from_host(443),
            protocol: 6,
            hook: Hook::Connect as u8,
            outcome: Outcome::Denied as u8,
            reason: Reason::NoRule as u8,
            reserved: 0,
            command: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
        };
        told += pipeline
            .take(&event, now)
            .map(|record| record.count)
            .sum::<u64>();
    }
    told += pipeline.finish(now).map(|record| record.count).sum::<u64>();
    let rate = DENIALS as f64 / begun.elapsed().as_secs_f64();
    let exact = tell(
        "denials told of 2000000 folded",
        told.to_string(),
        "2000000",
        told == DENIALS,
    );
    tell(
        "denials folded per second",
        format!("{rate:.0}"),
        ">= 500000",
        rate >= 500_000.0,
    ) && exact
}

async fn questions(path: &Path) -> bool {
    let reader = Reader::open(path).await.expect("readable");
    let keys = KeyFiles::beside(path).public().expect("keys");
    let begun = Instant::now();
    let verification = reader
        .verify(Span::default(), &keys, None)
        .await
        .expect("answered");
    let took = begun.elapsed();
    let summary = verification.result.expect("nothing was altered");
    let mut met = tell(
        &format!("verification of {} records, s", summary.records),
        format!("{:.2}", took.as_secs_f64()),
        "< 5",
        took.as_secs_f64() < 5.0,
    );
    let limit = Some(100);
    let queries = [
        (
            "the newest",
            Query {
                limit,
                ..Query::default()
            },
        ),
        (
            "of a sandbox",
            Query {
                sandbox: Some("build-7".to_owned()),
                limit,
                ..Query::default()
            },
        ),
        (
            "to an address",
            Query {
                destination: "10.0.0.9".parse().ok(),
                limit,
                ..Query::default()
            },
        ),
        (
            "to a name",
            Query {
                destination: "api9.example.com".parse().ok(),
                limit,
                ..Query::default()
            },
        ),
        (
            "denied",
            Query {
                verdict: Some(Outcome::Denied),
                limit,
                ..Query::default()
            },
        ),
        (
            "with a reason",
            Query {
                reason: Some(Reason::NoRule),
                limit,
                ..Query::default()
            },
        ),
    ];
    for (what, query) in queries {
        let begun = Instant::now();
        let found = reader.query(&query).await.expect("answered").len();
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        met &= tell(
            &format!("query: {found} {what}, ms"),
            format!("{took:.1}"),
            "< 100",
            took < 100.0,
        );
    }
    reader.close().await;
    met
}

fn main() -> ExitCode {
    let directory = tempfile::Builder::new()
        .prefix("bench-audit-")
        .tempdir_in(".")
        .expect("a directory");
    let path = directory.path().join("audit.db");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let results = [
        flood(),
        runtime.block_on(sustain(&path)),
        runtime.block_on(questions(&path)),
    ];
    if results.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
