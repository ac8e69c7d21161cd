//! Many names, each resolved and connected to once.

use crate::{Result, parse};
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long one connect may take: on a busy machine the other side is slow, and
/// what is asked is whether the way is open.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the C library needs to resolve a name, many times over.
const STACK: usize = 256 * 1024;

/// Resolves each name once and connects to the first address that came, several
/// names at once. Fails if any of it failed, with the first failure.
pub fn run(first: &str, count: &str, at_once: &str, port: &str, suffix: &str) -> Result {
    let (first, count): (u32, u32) = (parse(first)?, parse(count)?);
    let (at_once, port): (u32, u16) = (parse(at_once)?, parse(port)?);
    let next = AtomicU32::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let name = format!("n{}.{suffix}", first + number);
            if let Err(error) = round(&name, port) {
                let mut failures = failures
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                failures.push(format!("{name}: {error}"));
            }
        }
    };
    std::thread::scope(|scope| -> io::Result<()> {
        for _ in 0..at_once {
            std::thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, work)?;
        }
        Ok(())
    })?;
    let failures = failures
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match failures.first() {
        None => Ok(count.to_string()),
        Some(one) => Err(io::Error::other(format!(
            "{} of {count} failed, the first with {one}",
            failures.len()
        ))),
    }
}

fn round(name: &str, port: u16) -> io::Result<()> {
    let address = (name, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("no address"))?;
    TcpStream::connect_timeout(&address, PATIENCE)
        .map(drop)
        .map_err(|error| io::Error::new(error.kind(), format!("connect to {address}: {error}")))
}
