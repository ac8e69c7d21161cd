//! As much as one TCP connection carries.

use egress_tests::Namespace;
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What is sent before the receiver says that it has everything: large enough
/// that the wait for its word is noise.
const FRAME: usize = 16 << 20;
/// What is written or read at once.
const CHUNK: usize = 256 << 10;

/// Starts a thread that swallows what connections bring, one after the other.
pub fn swallow(namespace: &Namespace, listener: TcpListener, cpu: Option<usize>) {
    namespace.spawn(move || {
        super::worker::pin(cpu);
        for stream in listener.incoming().flatten() {
            // A connection that ends in the middle of a frame was given up.
            let _ = swallow_one(stream);
        }
    });
}

fn swallow_one(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let mut left = FRAME;
        while left > 0 {
            let room = left.min(CHUNK);
            match stream.read(&mut buffer[..room])? {
                0 => return Ok(()),
                length => left -= length,
            }
        }
        stream.write_all(&[1])?;
    }
}

/// Sends for about `slice`; gigabits a second, without the first frame, in
/// which the connection finds its speed.
pub fn send(to: SocketAddrV4, slice: Duration) -> io::Result<f64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let chunk = vec![0x5a; CHUNK];
    let mut frame = || {
        for _ in 0..FRAME / CHUNK {
            stream.write_all(&chunk)?;
        }
        stream.read_exact(&mut [0])
    };
    frame()?;
    let begin = Instant::now();
    let mut spent = Vec::new();
    while begin.elapsed() < slice {
        let begin = Instant::now();
        frame()?;
        spent.push(begin.elapsed().as_secs_f64());
    }
    Ok(FRAME as f64 * 8.0 / 1e9 / super::worker::median(spent))
}
