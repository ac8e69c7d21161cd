//! Who asks the resolver, how much of that it has read, and what a sandbox may
//! still ask and report.

use crate::maps;
use egress_common::{AskerWord, CgroupId, Meter};

/// The event budget of a cgroup.
#[inline(always)]
pub fn meter(payer: CgroupId) -> Option<&'static mut Meter> {
    let meter = maps::METERS.get_ptr_mut(payer)?;
    // SAFETY: the element outlives the program run. Its fields are plain
    // integers that other CPUs may change at any time, which the users allow for.
    unsafe { meter.as_mut() }
}

/// Writes who asks from a loopback port. `false` cannot happen for an index that
/// `asker_word` gives; it is there so that nothing has to be believed.
#[inline(always)]
pub fn prove_asker(index: u32, word: AskerWord) -> bool {
    let Some(place) = maps::ASKER_WORDS.get_ptr_mut(index) else {
        return false;
    };
    // SAFETY: an element of an array always exists and is aligned. The agent
    // reads it at any time, so it is written whole, and only when it changes:
    // most packets of a socket find their proof there already.
    unsafe {
        if place.read_volatile() != word {
            place.write_volatile(word);
        }
    }
    true
}

/// How often the resolver has read all that waited for it.
#[inline(always)]
pub fn drained() -> u32 {
    let Some(count) = maps::DRAINED.get_ptr(0) else {
        return 0;
    };
    // SAFETY: the element always exists and is aligned. The agent changes it at
    // any time, as a whole.
    unsafe { count.read_volatile() as u32 }
}

/// What is left of a sandbox's queries at this moment: other CPUs change it.
#[inline(always)]
pub fn queries_left(meter: &Meter) -> u32 {
    // SAFETY: the reference is valid; the read must not be taken from before.
    unsafe { (&raw const meter.queries).read_volatile() }
}

/// Refills a sandbox's queries. The queries first: who sees the new times sees
/// them too.
#[inline(always)]
pub fn refill_queries(meter: &mut Meter, queries: u32, now: u64, drained: u32) {
    // SAFETY: the reference is valid; the order of the writes must stay.
    unsafe {
        (&raw mut meter.queries).write_volatile(queries);
        (&raw mut meter.queries_refilled).write_volatile(now);
        (&raw mut meter.drained).write_volatile(drained);
    }
}

/// Writes which process asks from a loopback port. Nothing depends on it.
#[inline(always)]
pub fn name_asker(index: u32, process: u32) {
    let process = u64::from(process);
    let Some(place) = maps::ASKER_PROCESSES.get_ptr_mut(index) else {
        return;
    };
    // SAFETY: as in `prove_asker`.
    unsafe {
        if place.read_volatile() != process {
            place.write_volatile(process);
        }
    }
}
