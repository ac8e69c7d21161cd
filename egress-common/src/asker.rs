//! Who asks the resolver from a loopback port, in one word.
//!
//! Most queries come from `127.0.0.1` or `::1`, since that is the source that the
//! kernel chooses for what is redirected to the resolver. For these the proof of
//! who asks is one aligned 64-bit word at a place that the port alone decides:
//! the gate writes it with one store, and the agent reads it with one load from
//! memory that both share. It is never seen half written.

use crate::destination::{Ip, Port};
use crate::sandbox::SandboxId;

/// How many words there are: one per port of `127.0.0.1`, then of `::1`.
pub const ASKER_WORDS: usize = 2 * PORTS;

const PORTS: usize = 1 << 16;
/// Expiry counts in units of 2^30 ns, about 1.07 s, so that it fits beside the id.
const TICK: u32 = 30;

/// A sandbox, and until when it is proven to be the one that asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct AskerWord(pub u64);

impl AskerWord {
    /// Proves nothing.
    pub const NONE: Self = Self(0);

    /// A proof that ends at the boot-time nanosecond `expires`, or up to 1.07 s before.
    #[inline(always)]
    pub const fn new(sandbox: SandboxId, expires: u64) -> Self {
        Self(((sandbox.0 as u64) << 32) | ((expires >> TICK) & 0xffff_ffff))
    }

    /// Who is proven to ask at the boot-time nanosecond `now`.
    #[inline(always)]
    pub const fn sandbox(self, now: u64) -> Option<SandboxId> {
        let (sandbox, expires) = ((self.0 >> 32) as u32, self.0 & 0xffff_ffff);
        if sandbox != 0 && (now >> TICK) < expires {
            Some(SandboxId(sandbox))
        } else {
            None
        }
    }
}

/// The place of the word for a UDP source; `None` for all but the two loopback
/// addresses from which sandboxes usually ask.
#[inline(always)]
pub fn asker_word(ip: &Ip, port: Port) -> Option<u32> {
    const V4: Ip = Ip::from_v4(0x7f00_0001_u32.to_be());
    const V6: Ip = Ip::from_v6([0, 0, 0, 1_u32.to_be()]);
    if *ip == V4 {
        Some(port.host() as u32)
    } else if *ip == V6 {
        Some(PORTS as u32 + port.host() as u32)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::ASKER_LIFETIME;

    #[test]
    fn a_proof_lasts_about_as_long_as_it_says_and_never_longer() {
        let now = 1_234_567_890_123_456;
        let word = AskerWord::new(SandboxId(7), now + ASKER_LIFETIME);
        assert_eq!(word.sandbox(now), Some(SandboxId(7)));
        assert_eq!(
            word.sandbox(now + ASKER_LIFETIME - 1_100_000_000),
            Some(SandboxId(7))
        );
        assert_eq!(word.sandbox(now + ASKER_LIFETIME), None);
        assert_eq!(AskerWord::NONE.sandbox(0), None);
        let longest = AskerWord::new(SandboxId(u32::MAX), now + ASKER_LIFETIME);
        assert_eq!(longest.sandbox(now), Some(SandboxId(u32::MAX)));
    }

    #[test]
    fn each_port_of_each_family_has_a_word_of_its_own_and_no_other_address_has_one() {
        let v4 = Ip::from_v4(0x7f00_0001_u32.to_be());
        let v6 = Ip::from_v6([0, 0, 0, 1_u32.to_be()]);
        let (first, last) = (Port::from_host(0), Port::from_host(u16::MAX));
        assert_eq!(asker_word(&v4, first), Some(0));
        assert_eq!(asker_word(&v4, last), Some(65_535));
        assert_eq!(asker_word(&v6, first), Some(65_536));
        assert_eq!(asker_word(&v6, last), Some(ASKER_WORDS as u32 - 1));
        let other = Ip::from_v4(0x7f00_0002_u32.to_be());
        assert_eq!(asker_word(&other, last), None);
        assert_eq!(asker_word(&Ip::UNSPECIFIED, last), None);
    }
}
