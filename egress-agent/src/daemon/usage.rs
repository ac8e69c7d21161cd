//! What a sandbox used, in words and in numbers.

use crate::model::ResourceUse;
use crate::policy::Bytes;
use crate::sandbox::Usage;
use egress_common::Traffic;
use std::time::Duration;

/// What a sandbox had used when it ended.
#[derive(Debug)]
pub(super) struct Used {
    /// For people.
    pub words: String,
    /// For programs; absent where nobody could read them.
    pub numbers: Option<ResourceUse>,
}

impl Used {
    /// What the cgroup tells, and what was sent and received if somebody counts.
    pub fn of(usage: &Usage, traffic: Option<Traffic>) -> Self {
        let mut words = usage_in_words(usage);
        let mut numbers = in_numbers(usage);
        if let Some(Traffic { sent, received }) = traffic {
            words += &format!(", {sent} bytes sent, {received} bytes received");
            numbers.sent_bytes = Some(sent);
            numbers.received_bytes = Some(received);
        }
        Self {
            words,
            numbers: Some(numbers),
        }
    }

    /// Nobody could read it; why.
    pub fn unknown(why: String) -> Self {
        Self {
            words: why,
            numbers: None,
        }
    }
}

fn in_numbers(usage: &Usage) -> ResourceUse {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    ResourceUse {
        cpu_us: usage.cpu.map(micros),
        memory_kills: usage.out_of_memory,
        memory_peak_bytes: usage.memory_peak,
        processes_peak: usage.processes_peak,
        processes_refused: usage.forks_refused,
        read_bytes: usage.read,
        received_bytes: None,
        sent_bytes: None,
        throttled_us: usage.throttled.map(micros),
        written_bytes: usage.written,
    }
}

/// `cpu 1.234s, memory at most 12Mi, at most 3 processes`; what is not known is
/// left out.
fn usage_in_words(usage: &Usage) -> String {
    let mut words = Vec::new();
    let mut say = |text: Option<String>| words.extend(text);
    let seconds = |time: Duration| format!("{:.3}s", time.as_secs_f64());
    say(usage.cpu.map(|time| format!("cpu {}", seconds(time))));
    let throttled = usage.throttled.filter(|time| !time.is_zero());
    say(throttled.map(|time| format!("held back for {}", seconds(time))));
    say(usage
        .memory_peak
        .map(|peak| format!("memory at most {}", Bytes(peak))));
    say(usage
        .processes_peak
        .map(|peak| format!("at most {peak} processes")));
    let refused = Some(usage.forks_refused).filter(|refused| *refused > 0);
    say(refused.map(|refused| format!("{refused} processes refused")));
    say(usage.read.map(|bytes| format!("{bytes} bytes read")));
    say(usage.written.map(|bytes| format!("{bytes} bytes written")));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_what_the_words_say() {
        let usage = Usage {
            cpu: Some(Duration::from_micros(1_234_567)),
            memory_peak: Some(12 << 20),
            processes_peak: Some(3),
            forks_refused: 2,
            read: Some(7),
            ..Usage::default()
        };
        let numbers = in_numbers(&usage);
        assert_eq!(
            numbers,
            ResourceUse {
                cpu_us: Some(1_234_567),
                memory_peak_bytes: Some(12 << 20),
                processes_peak: Some(3),
                processes_refused: 2,
                read_bytes: Some(7),
                ..ResourceUse::default()
            }
        );
        assert!(in_numbers(&Usage::default()).is_empty());
    }

    #[test]
    fn what_was_sent_is_told_only_where_it_was_counted() {
        let traffic = Traffic {
            sent: 7,
            received: 9,
        };
        let used = Used::of(&Usage::default(), Some(traffic));
        assert!(used.words.ends_with("7 bytes sent, 9 bytes received"));
        let numbers = used.numbers.expect("numbers");
        assert_eq!(
            (numbers.sent_bytes, numbers.received_bytes),
            (Some(7), Some(9))
        );
        let used = Used::of(&Usage::default(), None);
        assert_eq!(used.words, "");
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        assert_eq!(usage_in_words(&Usage::default()), "");
        let usage = Usage {
            cpu: Some(Duration::from_millis(1234)),
            throttled: Some(Duration::ZERO),
            memory_peak: Some(12 << 20),
            processes_peak: Some(3),
            forks_refused: 2,
            ..Usage::default()
        };
        assert_eq!(
            usage_in_words(&usage),
            "cpu 1.234s, memory at most 12Mi, at most 3 processes, 2 processes refused"
        );
    }
}
