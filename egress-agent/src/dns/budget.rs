//! What a sandbox has said in names lately.

use crate::model::{DomainName, NameBudget, NameLimits};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// The part of a name that stands below a wildcard's base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Below {
    /// Which wildcard rule: a number that tells it from the policy's others.
    pub wildcard: u32,
    /// How many labels of the name the client chose.
    pub labels: usize,
}

/// Which bound a name would pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Passed {
    #[error("a label below the wildcard is longer than {0} bytes")]
    LabelLength(u8),
    #[error("more than {0} names below {1} in a minute")]
    Names(u32, Scope),
    #[error("more than {0} bytes in names below {1} in a minute")]
    Bytes(u32, Scope),
    #[error("more than {0} bits of entropy in names below {1} in a minute")]
    Entropy(u32, Scope),
}

/// Whose bound it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    Sandbox,
    Wildcard,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sandbox => "wildcards",
            Self::Wildcard => "one wildcard",
        })
    }
}

/// An amount per period, as the time at which all that was spent will be earned
/// again (the "generic cell rate algorithm"): one number, and a burst of one
/// period after a quiet one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bucket(u64);

impl Bucket {
    /// The bucket after spending, if `per_period` allows it.
    pub(super) fn spend(self, now: u64, cost: u32, per_period: u32, period: u64) -> Option<Self> {
        let each = period.checked_div(per_period.into())?;
        let earned = self
            .0
            .max(now)
            .checked_add(each.checked_mul(cost.into())?)?;
        (earned - now <= period).then_some(Self(earned))
    }
}

/// What one name costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    bytes: u32,
    entropy: u32,
}

/// Three buckets that are spent from together.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    names: Bucket,
    bytes: Bucket,
    entropy: Bucket,
}

impl Spent {
    fn spend(
        self,
        now: u64,
        cost: Cost,
        budget: &NameBudget,
        scope: Scope,
    ) -> Result<Self, Passed> {
        let spend = |bucket: Bucket, cost, bound| bucket.spend(now, cost, bound, MINUTE);
        let (names, bytes, entropy) = (budget.names, budget.bytes, budget.entropy);
        Ok(Self {
            names: spend(self.names, 1, names).ok_or(Passed::Names(names, scope))?,
            bytes: spend(self.bytes, cost.bytes, bytes).ok_or(Passed::Bytes(bytes, scope))?,
            entropy: spend(self.entropy, cost.entropy, entropy)
                .ok_or(Passed::Entropy(entropy, scope))?,
        })
    }
}

/// The ledger of one sandbox. Its size is bounded by the budgets themselves:
/// there is an entry for each name that was paid for within a minute.
#[derive(Debug, Default)]
pub(super) struct NamesSpent {
    own: Spent,
    wildcards: HashMap<u32, Spent>,
    /// Names that were paid for, until when that counts, and for which types.
    paid: HashMap<u64, (u64, u8)>,
    hasher: RandomState,
    pruned: u64,
}

impl NamesSpent {
    /// Pays for a name that is about to leave the host. The record types that
    /// clients ask of one name at once are paid for together; the same type
    /// again is a new message.
    pub(super) fn pay(
        &mut self,
        now: u64,
        (name, query_type): (&DomainName, u16),
        below: Below,
        limits: &NameLimits,
    ) -> Result<(), Passed> {
        let carried = || name.labels().take(below.labels);
        if carried().any(|label| label.len() > limits.label_length.into()) {
            return Err(Passed::LabelLength(limits.label_length));
        }
        if now.saturating_sub(self.pruned) > MINUTE {
            self.pruned = now;
            self.paid.retain(|_, (until, _)| now < *until);
        }
        let hash = self.hasher.hash_one(name);
        let kind = kind(query_type);
        if let Some((until, kinds)) = self.paid.get_mut(&hash)
            && now < *until
            && *kinds & kind == 0
        {
            *kinds |= kind;
            return Ok(());
        }
        let cost = cost(carried());
        let own = self.own.spend(now, cost, &limits.sandbox, Scope::Sandbox)?;
        let wildcard = self.wildcards.entry(below.wildcard).or_default();
        *wildcard = wildcard.spend(now, cost, &limits.wildcard, Scope::Wildcard)?;
        self.own = own;
        self.paid.insert(hash, (now.saturating_add(MINUTE), kind));
        Ok(())
    }

    /// Whether it holds nothing that still counts.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.paid.values().all(|(until, _)| *until <= now)
    }
}

/// The bit of a record type: A, AAAA and HTTPS, which clients ask together, and
/// one for all others.
fn kind(query_type: u16) -> u8 {
    match query_type {
        1 => 1,
        28 => 2,
        65 => 4,
        _ => 8,
    }
}

/// Bytes, and bits of entropy by how often each byte occurs in what the client
/// chose (Shannon, zeroth order), rounded up.
fn cost<'l>(labels: impl Iterator<Item = &'l str> + Clone) -> Cost {
    let mut counts = [0_u32; 128];
    let mut bytes = 0_u32;
    for byte in labels.clone().flat_map(str::bytes) {
        bytes += 1;
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let total = f64::from(bytes);
    let mut bits = 0.0;
    for byte in labels.flat_map(str::bytes) {
        // Each once: most of the 128 do not occur.
        let count = counts.get_mut(usize::from(byte)).map_or(0, mem::take);
        if count > 0 {
            bits += f64::from(count) * (total / f64::from(count)).log2();
        }
    }
    Cost {
        bytes,
        entropy: bits.ceil() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BELOW: Below = Below {
        wildcard: 1,
        labels: 1,
    };

    fn limits() -> NameLimits {
        let budget = NameBudget {
            names: 4,
            bytes: 100,
            entropy: 200,
        };
        NameLimits {
            sandbox: NameBudget { names: 6, ..budget },
            wildcard: budget,
            label_length: 40,
            ..NameLimits::default()
        }
    }

    fn pay(spent: &mut NamesSpent, now: u64, name: &str, below: Below) -> Result<(), Passed> {
        let name = DomainName::parse(name).expect("a name");
        spent.pay(now, (&name, 1), below, &limits())
    }

    #[test]
    fn names_below_a_wildcard_run_out_and_come_back() {
        let (mut spent, now) = (NamesSpent::default(), MINUTE);
        for n in 0..4 {
            let name = format!("a{n}.example.com");
            assert_eq!(pay(&mut spent, now, &name, BELOW), Ok(()));
        }
        let fifth = pay(&mut spent, now, "b.example.com", BELOW);
        assert_eq!(fifth, Err(Passed::Names(4, Scope::Wildcard)));
        let other = Below {
            wildcard: 2,
            labels: 1,
        };
        assert_eq!(pay(&mut spent, now, "a.other.com", other), Ok(()));
        assert_eq!(pay(&mut spent, now, "b.other.com", other), Ok(()));
        let seventh = pay(&mut spent, now, "c.other.com", other);
        assert_eq!(seventh, Err(Passed::Names(6, Scope::Sandbox)));
        let later = now + MINUTE / 4;
        assert_eq!(pay(&mut spent, later, "b.example.com", BELOW), Ok(()));
    }

    #[test]
    fn the_types_of_one_name_are_paid_for_together_and_each_type_once() {
        let (mut spent, limits) = (NamesSpent::default(), limits());
        let name = DomainName::parse("abc.example.com").expect("a name");
        for query_type in [1, 28, 65] {
            assert_eq!(
                spent.pay(MINUTE, (&name, query_type), BELOW, &limits),
                Ok(())
            );
        }
        let mut again = 0;
        while spent.pay(MINUTE, (&name, 1), BELOW, &limits).is_ok() {
            again += 1;
        }
        assert_eq!(again, 3, "each repetition is a message of its own");
    }

    #[test]
    fn bytes_entropy_and_long_labels_count() {
        let long = |length| format!("{}.example.com", "a".repeat(length));
        let mut spent = NamesSpent::default();
        let passed = pay(&mut spent, MINUTE, &long(41), BELOW);
        assert_eq!(passed, Err(Passed::LabelLength(40)));
        assert_eq!(pay(&mut spent, MINUTE, &long(40), BELOW), Ok(()));
        assert_eq!(pay(&mut spent, MINUTE, &long(39), BELOW), Ok(()));
        let passed = pay(&mut spent, MINUTE, &long(38), BELOW);
        assert_eq!(passed, Err(Passed::Bytes(100, Scope::Sandbox)));
        let mut spent = NamesSpent::default();
        let noise = "abcdefghijklmnopqrstuvwxyz012345.example.com";
        assert_eq!(pay(&mut spent, MINUTE, noise, BELOW), Ok(()));
        let passed = pay(
            &mut spent,
            MINUTE,
            "bcdefghijklmnopqrstuvwxyz0123456.example.com",
            BELOW,
        );
        assert_eq!(passed, Err(Passed::Entropy(200, Scope::Sandbox)));
    }

    #[test]
    fn entropy_is_that_of_the_letters() {
        let of = |text: &str| cost(text.split('.')).entropy;
        assert_eq!(of("aaaa"), 0);
        assert_eq!(of("abab"), 4);
        assert_eq!(of("abcd.efgh"), 24);
        assert_eq!(cost("ab.cd".split('.')).bytes, 4);
    }

    #[test]
    fn a_bucket_never_gives_more_than_its_rate() {
        let (mut bucket, mut given, mut now) = (Bucket::default(), 0_u64, MINUTE);
        for _ in 0..10_000 {
            now += SECOND / 100;
            if let Some(after) = bucket.spend(now, 1, 60, MINUTE) {
                bucket = after;
                given += 1;
            }
        }
        // 100 seconds: one period's burst and what is earned meanwhile.
        assert!((159..=161).contains(&given), "{given}");
    }
}
