//! The writer of the store, killed at random moments: what it had said to be
//! written is there, the chain is whole, and what was lost is counted exactly.

use egress_agent::audit::{KeyFiles, Options, Order, Query, Reader, Span, Store};
use egress_agent::model::{Record, RecordKind};
use egress_common::Outcome;
use jiff::Timestamp;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than any of these needs, so that only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);
/// How often the writer is killed.
const KILLS: u64 = 25;
/// Where the writer that is to be killed finds its directory.
const PLACE: &str = "EGRESS_TEST_KILLED_WRITER";

/// Two counts beside the store: decisions that were begun, and that were handed over.
fn counts(directory: &Path) -> (u64, u64) {
    let text = std::fs::read(directory.join("counts")).unwrap_or_default();
    let number = |at: usize| {
        let bytes = text.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    (number(0), number(8))
}

/// Small batches and much to do: most of the time something is under way.
fn options() -> Options {
    Options {
        batch: 64,
        queue: 2_000,
        linger: Duration::from_millis(1),
        ..Options::default()
    }
}

#[test]
#[ignore = "the writer that the other test starts and kills"]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(PLACE).map(PathBuf::from) else {
        return;
    };
    let (begun, _) = counts(&directory);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join("counts"))
        .expect("a file");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = runtime
        .block_on(Store::open_with(&directory.join("audit.db"), options()))
        .expect("a store");
    let recorder = store.recorder();
    let mut total = begun;
    loop {
        // Folded decisions count for as many as they are.
        let count = total % 3 + 1;
        let note = |at, total: u64| file.write_all_at(&total.to_le_bytes(), at).expect("noted");
        note(0, total + count);
        recorder.record(Record {
            count,
            outcome: Some(Outcome::Denied),
            ..Record::new(Timestamp::now(), RecordKind::Flow)
        });
        total += count;
        note(8, total);
        if total.is_multiple_of(64) {
            std::thread::yield_now();
        }
    }
}

/// Pauses that no two runs have in common; printed with a failure.
struct Pauses(u64);

impl Pauses {
    fn next(&mut self) -> Duration {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((mixed ^ (mixed >> 31)) % 150)
    }
}

#[test]
fn a_writer_that_is_killed_at_any_moment_leaves_a_whole_chain_and_an_exact_gap() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("audit.db");
    let seed = u64::from(Timestamp::now().subsec_nanosecond().unsigned_abs());
    let mut pauses = Pauses(seed);
    for kill in 0..KILLS {
        let before = counts(directory.path()).1;
        let mut writer = Command::new(std::env::current_exe().expect("itself"))
            .args(["--exact", "writes_until_it_is_killed", "--ignored"])
            .env(PLACE, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let begun = Instant::now();
        while counts(directory.path()).1 == before {
            assert!(
                begun.elapsed() < LONG,
                "seed {seed}, kill {kill}: nothing is written"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(pauses.next());
        writer.kill().expect("it ran");
        writer.wait().expect("it ended");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(check(&store, directory.path(), seed, kill));
    }
}

/// Opens the store as the next agent does, and looks what it says.
async fn check(path: &Path, directory: &Path, seed: u64, kill: u64) {
    let at = format!("seed {seed}, kill {kill}");
    let store = Store::open_with(path, options()).await.expect("a store");
    store.close(LONG).await.expect("closed");
    let reader = Reader::open(path).await.expect("readable");
    let keys = KeyFiles::beside(path).public().expect("keys");
    let verification = reader.verify(Span::default(), &keys, &[]).await;
    let summary = verification.expect("answered").result;
    let summary = summary.unwrap_or_else(|finding| panic!("{at}: {finding}"));
    let mut parts = reader.parts(Query {
        order: Order::Stored,
        ..Query::default()
    });
    let (mut decisions, mut gaps, mut records) = (0, 0, 0);
    while let Some(part) = parts.recv().await {
        for record in part.expect("readable") {
            records += 1;
            decisions += record.count;
            let killed = record.kind == "loss"
                && record
                    .detail
                    .as_deref()
                    .is_some_and(|it| it.contains("ended before exactly"));
            gaps += u64::from(killed);
        }
    }
    reader.close().await;
    assert_eq!(summary.records, records, "{at}");
    assert_eq!(summary.signed, summary.last, "{at}: the end is signed");
    // One decision may have been between its two notes when the kill came.
    let (begun, handed_over) = counts(directory);
    assert!(
        (handed_over..=begun).contains(&decisions),
        "{at}: {decisions} are told of, {handed_over} to {begun} were made"
    );
    assert!(gaps <= kill + 1, "{at}: {gaps} gaps");
    // The next writer goes on from what the store knows.
    let known = [decisions.to_le_bytes(), decisions.to_le_bytes()].concat();
    std::fs::write(directory.join("counts"), known).expect("noted");
}
