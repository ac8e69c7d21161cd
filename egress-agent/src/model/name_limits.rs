//! How much a sandbox may say in the names that it asks for.
//!
//! Below `*.example.com` a client chooses the labels, and whoever serves
//! `example.com` reads them: every name that leaves the host is a message. What
//! the cache answers leaves nobody, and costs nothing.

/// Bounds per minute, except where it says otherwise. "Below wildcards" is what
/// stands in front of the wildcard's base: `a.b` of `a.b.example.com` under
/// `*.example.com`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameLimits {
    /// Of the whole sandbox.
    pub sandbox: NameBudget,
    /// Below each wildcard rule.
    pub wildcard: NameBudget,
    /// The longest label below a wildcard, in bytes.
    pub label_length: u8,
    /// Queries of the sandbox per second, cached or not; `None` leaves it at
    /// what the host allows every sandbox.
    pub queries_per_second: Option<u32>,
    /// What happens beyond.
    pub at_bound: AtBound,
    /// How the names beyond are recorded.
    pub record: RecordAs,
}

/// What names below wildcards may hold per minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameBudget {
    /// Names that leave the host.
    pub names: u32,
    /// Bytes of their labels.
    pub bytes: u32,
    /// Bits of entropy of their labels.
    pub entropy: u32,
}

/// What happens to a query beyond the bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AtBound {
    /// It is refused.
    #[default]
    Refuse,
    /// It is answered, and recorded with the reason.
    Alert,
    /// It is answered, and recorded as what would have been refused.
    Shadow,
}

/// How a name beyond the bounds is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RecordAs {
    /// In full.
    #[default]
    Name,
    /// As a hash of what stands below the wildcard, so that what was to be
    /// carried out is not carried into the audit store.
    Hash,
}

impl Default for NameLimits {
    fn default() -> Self {
        Self {
            sandbox: NameBudget {
                names: 600,
                bytes: 12_288,
                entropy: 49_152,
            },
            wildcard: NameBudget {
                names: 240,
                bytes: 4096,
                entropy: 16_384,
            },
            label_length: 63,
            queries_per_second: None,
            at_bound: AtBound::Refuse,
            record: RecordAs::Name,
        }
    }
}
