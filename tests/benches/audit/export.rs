//! Every format of export: what `egressctl audit export` does, into a sink.

use crate::goal::rate;
use egress_agent::audit::{Order, Query, Reader};
use egress_agent::export::Format;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

pub async fn measure(path: &Path) -> bool {
    let reader = Reader::open(path)
        .await
        .expect("`--scenario sustain` before");
    let mut sink = OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .expect("a sink");
    let mut met = true;
    for format in Format::ALL {
        let begun = Instant::now();
        let mut parts = reader.parts(Query {
            order: Order::OldestFirst,
            ..Query::default()
        });
        let mut text = format.heading();
        let (mut records, mut bytes) = (0, 0);
        while let Some(part) = parts.recv().await {
            for record in &part.expect("readable") {
                format.write(record, &mut text).expect("written");
                records += 1;
            }
            sink.write_all(text.as_bytes()).expect("written");
            bytes += text.len() as u64;
            text.clear();
        }
        let took = begun.elapsed();
        met &= rate(
            &format!(
                "records exported per second, {} ({} MB)",
                format.name(),
                bytes >> 20
            ),
            records,
            took,
            200_000,
        );
    }
    reader.close().await;
    met
}
