//! Words in memory that the agent shares with the kernel programs.

use super::Enforcer;
use super::error::EnforcerError;
use super::object::Loaded;
use crate::mapped::{self, Access};
use aya::maps::Map;
use egress_common::{ASKER_WORDS, AskerWord, Emergency, names};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

/// What the agent shares with the programs about queries.
pub(super) struct Words {
    /// Who asks, which the programs write: [`names::ASKER_WORDS`].
    proofs: mapped::Words,
    /// Which process asks there, for the record: [`names::ASKER_PROCESSES`].
    processes: mapped::Words,
    /// How often everything was read that waited for the resolver, which the
    /// programs compare: [`names::DRAINED`].
    drained: mapped::Words,
    /// Whether everything is stopped, which whoever presses the button writes:
    /// [`names::EMERGENCY`].
    emergency: mapped::Words,
}

impl Words {
    /// Before the emergency block is taken out of what was loaded. Whatever waited for
    /// an earlier agent is gone with its sockets, so that counts as read.
    pub(super) fn take(loaded: &mut Loaded) -> Result<Self, EnforcerError> {
        let (read, both) = (Access::Read, Access::ReadAndWrite);
        let words = Self {
            proofs: take(loaded, (names::ASKER_WORDS, ASKER_WORDS), read)?,
            processes: take(loaded, (names::ASKER_PROCESSES, ASKER_WORDS), read)?,
            drained: take(loaded, (names::DRAINED, 1), both)?,
            emergency: map(loaded.map(names::EMERGENCY)?, (names::EMERGENCY, 1), read)?,
        };
        words.count_drained();
        Ok(words)
    }

    /// The word at an index that [`egress_common::asker_word`] gave.
    pub(super) fn get(&self, index: u32) -> AskerWord {
        // Acquire: what was written before the proof is not needed, but the
        // datagram that it is about must not be read before it.
        let word = self.proofs.load(index as usize, Ordering::Acquire);
        word.map_or(AskerWord::NONE, AskerWord)
    }

    /// The process at the same place, if the kernel knew it.
    pub(super) fn process(&self, index: u32) -> Option<u32> {
        let process = self.processes.load(index as usize, Ordering::Relaxed)?;
        u32::try_from(process).ok().filter(|process| *process != 0)
    }

    fn count_drained(&self) {
        if let Some(count) = self.drained.writable(0) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Maps an array of words. It stays mapped when its descriptor is closed, and the programs
/// hold the map itself.
fn take(
    loaded: &mut Loaded,
    (name, words): (&'static str, usize),
    access: Access,
) -> Result<mapped::Words, EnforcerError> {
    map(&loaded.take_map(name)?, (name, words), access)
}

fn map(
    map: &Map,
    (name, words): (&'static str, usize),
    access: Access,
) -> Result<mapped::Words, EnforcerError> {
    let Map::Array(data) = map else {
        return Err(EnforcerError::Object(format!("{name} is no array")));
    };
    mapped::Words::map(data.fd().as_fd(), words, access)
        .map_err(|error| EnforcerError::Object(format!("{name} cannot be mapped: {error}")))
}

impl Enforcer {
    /// Whether everything is stopped, as the kernel programs see it: whoever pressed the
    /// button may not have been this agent. Costs a load.
    pub fn is_stopped(&self) -> bool {
        // Acquire: nothing that is done because nothing was stopped may come before it.
        let word = self.words.emergency.load(0, Ordering::Acquire);
        word.is_none_or(|word| Emergency(word).admit().is_err())
    }

    /// Tells the programs that every datagram was read that waited for the resolver.
    pub fn drained(&self) {
        self.words.count_drained();
    }
}
