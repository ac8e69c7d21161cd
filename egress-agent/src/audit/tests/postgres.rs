//! Shipping to a real PostgreSQL server: in order, each record once, over outages.

use super::*;
use crate::audit::{KeyFiles, verify_postgres};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

/// Where Debian puts the server of the release; `cargo xtask setup` installs it.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// Runs as nobody where the tests run as root: the server refuses to be root.
fn program(name: &str) -> Command {
    let mut command = Command::new(format!("{PROGRAMS}/{name}"));
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    command
}

/// A server of this test's own, on a Unix socket.
struct Server {
    directory: TempDir,
    process: Option<Child>,
}

impl Server {
    fn make() -> Self {
        let directory = TempDir::new().expect("a directory");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(65_534), Some(65_534)).expect("given");
        }
        let made = program("initdb")
            .args([
                "--username=egress",
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(directory.path().join("data"))
            .status()
            .expect("initdb runs; `cargo xtask setup` installs it");
        assert!(made.success(), "initdb: {made}");
        Self {
            directory,
            process: None,
        }
    }

    fn start(&mut self) {
        let process = program("postgres")
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .arg("-k")
            .arg(self.directory.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .spawn()
            .expect("postgres runs");
        self.process = Some(process);
    }

    /// As a crash ends it.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = rustix::process::Pid::from_child(&process);
            // SIGQUIT ends all of its processes at once, and nothing is finished.
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("killed");
            process.wait().expect("ended");
        }
    }

    fn url(&self) -> String {
        format!(
            "postgres://egress@localhost/postgres?host={}",
            self.directory.path().display()
        )
    }

    async fn connect(&self) -> PgConnection {
        let options = PgConnectOptions::from_str(&self.url()).expect("a URL");
        let begun = std::time::Instant::now();
        loop {
            match PgConnection::connect_with(&options).await {
                Ok(connection) => return connection,
                Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn shipped(store: &Store, place: i64) {
    let begun = std::time::Instant::now();
    while store.health().shipped != Some(place) {
        assert!(begun.elapsed() < 2 * LONG, "{:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn records_are_shipped_once_and_in_order_over_outages_of_both_sides() {
    let (_directory, path) = place();
    let mut server = Server::make();
    let options = || Options {
        postgres: Some(server.url()),
        node: "host-1".to_owned(),
        ..tight(10_000)
    };
    // The server is not there yet: records wait in the file.
    let store = Store::open_with(&path, options()).await.expect("a store");
    for n in 1..=100 {
        let record = Record {
            // A day each: every record has a partition of its own.
            time: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * i64::from(n % 5)),
            command: Some("a\tb\\c\nd\u{0}é".to_owned()),
            sandbox: Some("tab\there\\".to_owned()),
            address: "203.0.113.7".parse().ok(),
            ..numbered(n)
        };
        store.recorder().record(record);
    }
    store.recorder().flush(LONG).await.expect("written");
    let begun = std::time::Instant::now();
    while store.health().shipping_error.is_none() {
        assert!(begun.elapsed() < LONG, "{:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        store.health().error,
        None,
        "the file is written all the same"
    );
    let url = server.url();
    server.start();
    drop(server.connect().await);
    shipped(&store, 100).await;

    // The server dies while more comes.
    for n in 101..=200 {
        store.recorder().record(numbered(n));
        if n == 150 {
            server.kill();
        }
    }
    store.recorder().flush(LONG).await.expect("written");
    server.start();
    drop(server.connect().await);
    shipped(&store, 200).await;

    // The agent ends, and the next one goes on.
    store.close(LONG).await.expect("closed");
    let again = Options {
        postgres: Some(url.clone()),
        node: "host-1".to_owned(),
        ..tight(10_000)
    };
    let store = Store::open_with(&path, again).await.expect("a store");
    store.recorder().record(numbered(201));
    store.recorder().flush(LONG).await.expect("written");
    shipped(&store, 201).await;
    store.close(LONG).await.expect("closed");

    let mut connection = server.connect().await;
    let (all, distinct, last): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT sequence), max(sequence) FROM audit_records WHERE node = 'host-1'",
    )
    .fetch_one(&mut connection)
    .await
    .expect("counts");
    assert_eq!((all, distinct, last), (201, 201, 201));
    let found: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit_records WHERE address = '203.0.113.7' AND sandbox = E'tab\\there\\\\'",
    )
    .fetch_one(&mut connection)
    .await
    .expect("a count");
    assert_eq!(found, 100);

    let keys = KeyFiles::beside(&path).public().expect("keys");
    let verified = verify_postgres(&url, "host-1", &keys)
        .await
        .expect("answered");
    let [verification] = verified.as_slice() else {
        panic!("{verified:?}");
    };
    let summary = verification.result.as_ref().expect("good");
    assert_eq!(summary.records, 201);
    assert!(summary.checkpoints > 0, "{summary:?}");
    sqlx::query("UPDATE audit_records SET body = replace(body, '203.0.113.7', '203.0.113.8') WHERE sequence = 33")
        .execute(&mut connection)
        .await
        .expect("altered");
    let verified = verify_postgres(&url, "host-1", &keys)
        .await
        .expect("answered");
    let finding = verified[0].result.as_ref().expect_err("altered");
    assert!(finding.to_string().contains("record 33"), "{finding}");
    connection.close().await.expect("closed");
}
