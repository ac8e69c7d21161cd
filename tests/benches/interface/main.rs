//! What an interface sandbox costs: bulk TCP and small datagrams through a veth
//! and a router, bare, enforced, and with the same rules in nftables; beside a
//! thousand attached interfaces. `cargo xtask bench interface` runs it.

mod place;

use clap::Parser;
use place::{Place, Rules};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// One measurement.
const SPAN: Duration = Duration::from_millis(400);
/// Bytes of a small datagram's content.
const SMALL: usize = 18;
/// The least that an enforced stream may reach of a bare one.
const BULK_TARGET: f64 = 0.95;
/// The same of datagrams.
const SMALL_TARGET: f64 = 0.90;
/// The longest that attaching may take.
const ATTACH_TARGET: Duration = Duration::from_millis(5);

#[derive(Parser)]
struct Options {
    /// How many times everything is measured.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Interfaces that are attached beside the measured one.
    #[arg(long, default_value_t = 1000)]
    interfaces: u16,
    /// Fail if something costs more than it may.
    #[arg(long)]
    check: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench interface: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures; whether the targets are met, or need not be.
fn run(options: &Options) -> io::Result<bool> {
    let places = [
        ("bare", Place::new(Rules::None, 0)?),
        ("enforced", Place::new(Rules::Product, options.interfaces)?),
        ("nftables", Place::new(Rules::Nftables, 0)?),
    ];
    let mut bulk = vec![Vec::new(); places.len()];
    let mut small = vec![Vec::new(); places.len()];
    for round in 0..options.rounds {
        // Whoever comes first has the coldest caches: each in turn.
        for step in 0..places.len() {
            let index = (round + step) % places.len();
            bulk[index].push(stream(&places[index].1)?);
            small[index].push(datagrams(&places[index].1)?);
        }
    }
    let mut met = true;
    for (what, unit, samples, target) in [
        ("TCP, one stream", "Gbit/s", &mut bulk, BULK_TARGET),
        (
            "UDP, 64-byte frames",
            "kpackets/s",
            &mut small,
            SMALL_TARGET,
        ),
    ] {
        let medians: Vec<f64> = samples
            .iter_mut()
            .map(|values| quantile(values, 0.5))
            .collect();
        println!("{what} ({unit}, median of {} rounds)", options.rounds);
        for ((name, _), median) in places.iter().zip(&medians) {
            println!(
                "  {name:10} {median:9.2}  {:.3} of bare",
                median / medians[0]
            );
        }
        met &= medians[1] / medians[0] >= target;
    }
    let mut attached: Vec<f64> = places[1]
        .1
        .attached
        .iter()
        .map(Duration::as_secs_f64)
        .collect();
    if !attached.is_empty() {
        let (median, most) = (quantile(&mut attached, 0.5), quantile(&mut attached, 0.99));
        // `tcx` waits for two grace periods, which the host may have expedited.
        let expedited = std::fs::read_to_string("/sys/kernel/rcu_expedited")
            .is_ok_and(|setting| setting.trim() != "0");
        println!(
            "attach, {} interfaces, grace periods {}: median {:.2} ms, 99th percentile {:.2} ms",
            attached.len(),
            if expedited { "expedited" } else { "normal" },
            median * 1e3,
            most * 1e3
        );
        met &= median < ATTACH_TARGET.as_secs_f64();
    }
    Ok(met || !options.check)
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * part).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Gigabits per second that arrived.
fn stream(place: &Place) -> io::Result<f64> {
    let listener = place
        .world
        .far
        .run(|| TcpListener::bind((place::SERVER, place::BULK)))?;
    let sink = std::thread::spawn(move || -> io::Result<u64> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; 1 << 18];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(total),
                length => total += length as u64,
            }
        }
    });
    let to = SocketAddr::from((place::SERVER, place::BULK));
    let mut stream = place.inside.run(|| TcpStream::connect(to))?;
    let buffer = vec![0; 1 << 18];
    let begun = Instant::now();
    while begun.elapsed() < SPAN {
        stream.write_all(&buffer)?;
    }
    drop(stream);
    let total = sink
        .join()
        .map_err(|_| io::Error::other("the sink ended early"))??;
    Ok(total as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9)
}

/// Thousands of packets per second that were sent: the sender's processor
/// carries each through veth, programs and router before the call returns.
fn datagrams(place: &Place) -> io::Result<f64> {
    let sink = place
        .world
        .far
        .run(|| UdpSocket::bind((place::SERVER, place::SMALL)))?;
    let socket = place
        .inside
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    socket.connect((place::SERVER, place::SMALL))?;
    let begun = Instant::now();
    let mut sent = 0_u64;
    while begun.elapsed() < SPAN {
        for _ in 0..64 {
            socket.send(&[0; SMALL])?;
        }
        sent += 64;
    }
    let span = begun.elapsed();
    sink.set_nonblocking(true)?;
    // What is measured must have arrived at all.
    sink.recv(&mut [0; 64])?;
    Ok(sent as f64 / span.as_secs_f64() / 1e3)
}
