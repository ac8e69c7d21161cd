//! Work that goes on while something else breaks, and keeps count.

use crate::resolve::ask_once;
use crate::{Result, parse};
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long one step may take: on a busy machine the other side is slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an agent may take until it answers. An emulated kernel takes longer to
/// verify its programs than anything else here.
const START: Duration = Duration::from_secs(120);
/// How long a query waits for its answer before the next is sent.
const QUERY: Duration = Duration::from_millis(200);
/// How long an attempt at what is closed may take; refusals come at once.
const CLOSED: Duration = Duration::from_millis(300);

/// Until a line comes: echoes over one connection to `open`, connects to it
/// anew, tries `closed`, and asks `server` for `name`. Returns what it counted,
/// as a JSON object.
pub fn run(open: &str, closed: &str, server: &str, name: &str) -> Result {
    let (open, closed): (SocketAddr, SocketAddr) = (parse(open)?, parse(closed)?);
    let server: SocketAddr = parse(server)?;
    let stop = AtomicBool::new(false);
    let goes_on = || !stop.load(Ordering::Relaxed);
    let live = TcpStream::connect_timeout(&open, PATIENCE)?;
    live.set_nodelay(true)?;
    live.set_read_timeout(Some(PATIENCE))?;
    std::thread::scope(|scope| {
        let echoes = scope.spawn(|| echo(live, &goes_on));
        let connects = scope.spawn(|| connect(open, &goes_on));
        let attempts = scope.spawn(|| attempt(closed, &goes_on));
        let answers = scope.spawn(|| ask(server, name, &goes_on));
        // A closed input ends it as a line does.
        let _ = io::stdin().read_line(&mut String::new());
        stop.store(true, Ordering::Relaxed);
        let panicked = |_| io::Error::other("a part of the siege panicked");
        let (echoes, broken) = echoes.join().map_err(panicked)?;
        let (connects, refused, first) = connects.join().map_err(panicked)?;
        let (attempts, escapes) = attempts.join().map_err(panicked)?;
        let (answers, outage) = answers.join().map_err(panicked)?;
        Ok(json!({
            "echoes": echoes, "broken": broken,
            "connects": connects, "refused": refused, "first_refusal": first,
            "attempts": attempts, "escapes": escapes,
            "answers": answers, "longest_outage_ms": outage.as_millis(),
        })
        .to_string())
    })
}

/// How often the connection carried something there and back, and how it broke.
fn echo(mut live: TcpStream, goes_on: &impl Fn() -> bool) -> (u64, Option<String>) {
    let mut echoes = 0;
    while goes_on() {
        let mut got = [0; 4];
        if let Err(error) = live
            .write_all(b"ping")
            .and_then(|()| live.read_exact(&mut got))
        {
            return (echoes, Some(error.to_string()));
        }
        echoes += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    (echoes, None)
}

/// New connections, and how many of them failed.
fn connect(open: SocketAddr, goes_on: &impl Fn() -> bool) -> (u64, u64, Option<String>) {
    let (mut connects, mut refused, mut first) = (0, 0, None);
    while goes_on() {
        match TcpStream::connect_timeout(&open, PATIENCE) {
            Ok(_) => connects += 1,
            Err(error) => {
                refused += 1;
                first.get_or_insert_with(|| error.to_string());
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (connects, refused, first)
}

/// Attempts at what is closed, and how many of them succeeded.
fn attempt(closed: SocketAddr, goes_on: &impl Fn() -> bool) -> (u64, u64) {
    let (mut attempts, mut escapes) = (0, 0);
    let datagrams = UdpSocket::bind("0.0.0.0:0").ok();
    while goes_on() {
        attempts += 1;
        if let Ok(mut stream) = TcpStream::connect_timeout(&closed, CLOSED) {
            // The sniffer looks for it as well.
            let _ = stream.write_all(b"secret");
            escapes += 1;
        }
        for _ in 0..8 {
            let sent = datagrams
                .as_ref()
                .is_some_and(|socket| socket.send_to(b"secret", closed).is_ok());
            escapes += u64::from(sent);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    (attempts, escapes)
}

/// Answers, and the longest time without one.
fn ask(server: SocketAddr, name: &str, goes_on: &impl Fn() -> bool) -> (u64, Duration) {
    let (mut answers, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    while goes_on() {
        if ask_once(server, name, QUERY).is_ok() {
            answers += 1;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (answers, longest.max(last.elapsed()))
}

/// Asks until there is an answer; how many milliseconds that took.
pub fn until_resolved(server: &str, name: &str) -> Result {
    let server: SocketAddr = parse(server)?;
    let began = Instant::now();
    loop {
        match ask_once(server, name, QUERY) {
            Ok(_) => return Ok(began.elapsed().as_millis().to_string()),
            Err(error) if began.elapsed() > START => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
