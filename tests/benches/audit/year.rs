//! A report over a year: what `egressctl report` does, without its process.

use crate::goal::{LONG, note, tell};
use egress_agent::audit::{Class, KeyFiles, Options, Reader, Retention, Store};
use egress_agent::model::{Record, RecordKind, RuleOrigin};
use egress_agent::report::{Collection, render_html};
use egress_common::{Outcome, Reason, SandboxId};
use jiff::{SignedDuration, Timestamp};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records of the year: one every 16 seconds, day and night.
const RECORDS: u32 = 2_000_000;
const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);

/// One in ten is refused; each day has a change of policy, and losses now and then.
fn record(n: u32, begun: Timestamp, rule: &RuleOrigin) -> Record {
    let time = begun + YEAR.checked_div(RECORDS as i32).unwrap_or_default() * n as i32;
    let base = |kind| Record::new(time, kind);
    if n.is_multiple_of(RECORDS / 365) {
        return Record {
            actor: Some("uid 0".to_owned()),
            outcome: Some(Outcome::Allowed),
            diff: Some("--- ci.yaml\n+++ ci.yaml\n+  - domain: new.example\n".to_owned()),
            ..base(RecordKind::Policy)
        };
    }
    if n.is_multiple_of(RECORDS / 50) {
        return Record {
            count: 17,
            ..base(RecordKind::Loss)
        };
    }
    let denied = n.is_multiple_of(10);
    Record {
        sandbox_id: Some(SandboxId(n % 500 + 1)),
        sandbox: Some(format!("build-{}", n % 500)),
        policy: Some("ci".to_owned()),
        process: Some(n),
        command: Some("curl".to_owned()),
        hook: Some("connect"),
        address: Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n % 20_000))),
        port: Some(443),
        protocol: Some("tcp".to_owned()),
        name: Some(format!("api{}.example.com", n % 20_000)),
        rule: (!denied).then(|| rule.clone()),
        outcome: Some(if denied {
            Outcome::Denied
        } else {
            Outcome::Allowed
        }),
        reason: denied.then_some(Reason::NoRule),
        ..base(RecordKind::Flow)
    }
}

async fn fill(path: &Path, begun: Timestamp) {
    let mut retention = Retention::default();
    for class in Class::ALL {
        retention.set(class, None);
    }
    let options = Options {
        retention,
        ..Options::default()
    };
    let store = Store::open_with(path, options).await.expect("a store");
    let recorder = store.recorder();
    let rule = RuleOrigin {
        file: Arc::new(PathBuf::from("/etc/egress/policies.d/ci.yaml")),
        line: 7,
        text: "domain *.example.com".into(),
    };
    for n in 0..RECORDS {
        while store.health().queued > 60_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        recorder.record(record(n, begun, &rule));
    }
    recorder.flush(LONG).await.expect("written");
    assert_eq!(store.health().lost, 0);
    store.close(LONG).await.expect("closed");
}

pub async fn measure(path: &Path) -> bool {
    let until = Timestamp::now();
    let since = until - YEAR;
    let begun = Instant::now();
    fill(path, since).await;
    note(
        "records of a year written per second",
        format!("{:.0}", f64::from(RECORDS) / begun.elapsed().as_secs_f64()),
    );
    let keys = KeyFiles::beside(path).public().expect("keys");
    let reader = Reader::open(path).await.expect("readable");
    let begun = Instant::now();
    let mut collection = Collection::new(since, until);
    let verification = reader
        .verify_and_see(&keys, &mut |link| collection.see(link))
        .await
        .expect("answered");
    reader.close().await;
    let report = collection.report(&verification, false, until);
    let page = render_html(&report).expect("a page");
    let took = begun.elapsed().as_secs_f64();
    assert!(report.verification.good, "{:?}", report.verification);
    assert_eq!(report.totals.records, u64::from(RECORDS));
    note("bytes of its page", page.len());
    tell(
        &format!("report of a year with {RECORDS} records, s"),
        format!("{took:.2}"),
        "< 60",
        took < 60.0,
    )
}
