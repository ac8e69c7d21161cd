//! Follows a chain, record by record, and names the first that is not as it was written.

use crate::audit::chain::{self, Hash, Header};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::seal::{address_key, name_key};
use crate::audit::text::Text;
use crate::audit::tree::Frontier;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One link of a chain, as a store or an export holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What is known without the body.
    pub header: Header,
    /// The chain's hash that stands beside it.
    pub chain: Hash,
    /// What is left of the record.
    pub content: Content,
    /// The columns that repeat parts of the body, where the back end has some.
    pub columns: Option<Columns>,
}

/// What is left of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// The canonical body.
    Body(String),
    /// Retention erased the body and kept its SHA-256.
    Erased(Hash),
    /// Nothing that a record can be: text that is none, a number out of its range.
    Unreadable,
}

impl Entry {
    /// What is at a place where nothing can be read.
    pub(super) const fn unreadable(sequence: i64) -> Self {
        Self {
            header: Header {
                sequence,
                time: 0,
                class: 0,
            },
            chain: Hash([0; 32]),
            content: Content::Unreadable,
            columns: None,
        }
    }
}

/// What is looked for; it must say what the body says, or a query would miss.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Columns {
    /// `kind`.
    pub kind: Option<String>,
    /// `sandbox`.
    pub sandbox: Option<String>,
    /// `task`.
    pub task: Option<String>,
    /// `project`.
    pub project: Option<String>,
    /// `verdict` in the body.
    pub outcome: Option<String>,
    /// `reason`.
    pub reason: Option<String>,
    /// From `address` or `address_hash`.
    pub address: AddressColumn,
    /// From `name` or `name_hash`.
    pub name_key: Option<String>,
}

/// The address as a back end repeats it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressColumn {
    /// The key that SQLite looks for; the hash where the address is hidden.
    Key(Option<Vec<u8>>),
    /// The address itself; nothing where it is hidden.
    Address(Option<IpAddr>),
}

impl Default for AddressColumn {
    fn default() -> Self {
        Self::Key(None)
    }
}

/// The parts of a body that are checked against what stands beside it.
#[derive(Deserialize)]
struct Told<'a> {
    sequence: i64,
    time: jiff::Timestamp,
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    sandbox: Option<Text<'a>>,
    #[serde(borrow, default)]
    task: Option<Text<'a>>,
    #[serde(borrow, default)]
    project: Option<Text<'a>>,
    #[serde(borrow, default)]
    verdict: Option<Text<'a>>,
    #[serde(borrow, default)]
    reason: Option<Text<'a>>,
    #[serde(default)]
    address: Option<IpAddr>,
    #[serde(borrow, default)]
    address_hash: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    name_hash: Option<Text<'a>>,
}

/// What is wrong with a chain, at its first wrong place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Finding {
    /// Places without a record.
    #[error("records {first} to {last} are missing: they were removed")]
    Missing {
        /// The first.
        first: i64,
        /// The last.
        last: i64,
    },
    /// A record at another place than its own.
    #[error(
        "record {found} stands where record {place} belongs: records were reordered, inserted or renumbered"
    )]
    OutOfPlace {
        /// Where it stands.
        place: i64,
        /// What it says of itself.
        found: i64,
    },
    /// A record whose hash is another.
    #[error(
        "record {sequence} is not what was written there: it was altered, inserted or follows one that was"
    )]
    Altered {
        /// Its place.
        sequence: i64,
    },
    /// A column that says something else than the body.
    #[error(
        "the column `{column}` of record {sequence} was altered: it does not say what the record says"
    )]
    Column {
        /// Its place.
        sequence: i64,
        /// Which.
        column: &'static str,
    },
    /// The file itself is made in another way.
    #[error(
        "`{name}` of the file is not as an agent makes it: it was altered, and a question may miss records or find others"
    )]
    Schema {
        /// A table, an index or a trigger.
        name: String,
    },
    /// A body that is missing although no retention is recorded that took it.
    #[error(
        "the body of record {sequence} was removed, and no retention that is recorded explains it"
    )]
    Unexplained {
        /// Its place.
        sequence: i64,
    },
    /// The chain ends too early.
    #[error("records {first} to {last} are missing at the end: {witness} speaks of them")]
    Truncated {
        /// The first that is missing.
        first: i64,
        /// The last that is known of.
        last: i64,
        /// Who knows of it.
        witness: &'static str,
    },
    /// The records are not those that were signed.
    #[error(
        "records {first} to {last} are not those that the node signed: one of them was replaced, and the \
         hashes after it made to fit"
    )]
    NotSigned {
        /// The first after the last good checkpoint.
        first: i64,
        /// The last that the checkpoint speaks for.
        last: i64,
    },
    /// A checkpoint cannot be trusted.
    #[error("the checkpoint over {size} records is not the node's: {problem}")]
    Checkpoint {
        /// How many records it speaks for.
        size: u64,
        /// Why.
        problem: String,
    },
    /// A checkpoint of another chain.
    #[error("the checkpoint is of chain {found}, and these records are of chain {expected}")]
    OtherChain {
        /// What the checkpoint says.
        found: String,
        /// What the records say.
        expected: String,
    },
}

/// How far a walk has come without a finding.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Records that were followed.
    pub records: u64,
    /// Those of them whose body retention took.
    pub erased: u64,
    /// The first and the last place.
    pub first: i64,
    /// 0 if there was none.
    pub last: i64,
    /// Checkpoints that were compared.
    pub checkpoints: u64,
    /// The last place that a checkpoint speaks for.
    pub signed: i64,
}

/// A walk along a chain.
#[derive(Debug)]
pub struct Walk {
    chain: Hash,
    /// Absent where the walk began in the middle of the tree.
    frontier: Option<Frontier>,
    next: i64,
    /// What has still to be compared, by size.
    checkpoints: BTreeMap<u64, Vec<Checkpoint>>,
    /// Microseconds before which retention took the bodies of a class.
    erased_before: BTreeMap<u8, i64>,
    summary: Summary,
}

impl Walk {
    /// From the beginning of a chain.
    pub fn from_start(node: &str, chain_id: &str) -> Self {
        Self::new(chain::genesis(node, chain_id), Some(Frontier::default()), 1)
    }

    /// After `next - 1` records that end in `chain`.
    pub(super) fn new(chain: Hash, frontier: Option<Frontier>, next: i64) -> Self {
        Self {
            chain,
            frontier,
            next,
            checkpoints: BTreeMap::new(),
            erased_before: BTreeMap::new(),
            summary: Summary {
                first: next,
                signed: next - 1,
                last: next - 1,
                ..Summary::default()
            },
        }
    }

    /// Compares with a checkpoint when the walk comes by.
    pub fn expect(&mut self, checkpoint: Checkpoint) {
        self.checkpoints
            .entry(checkpoint.size)
            .or_default()
            .push(checkpoint);
    }

    /// Takes bodies of a class before a time as erased by rule.
    pub fn allow_erased(&mut self, class: u8, before: i64) {
        let known = self.erased_before.entry(class).or_insert(before);
        *known = before.max(*known);
    }

    /// Takes the next link.
    pub fn step(&mut self, entry: &Entry) -> Result<(), Finding> {
        let place = entry.header.sequence;
        if place > self.next {
            return Err(Finding::Missing {
                first: self.next,
                last: place - 1,
            });
        }
        if place < self.next {
            return Err(Finding::OutOfPlace {
                place: self.next,
                found: place,
            });
        }
        let digest = match &entry.content {
            Content::Body(body) => {
                compare(entry, body)?;
                Hash::of(body.as_bytes())
            }
            Content::Erased(digest) => {
                let before = self.erased_before.get(&entry.header.class);
                if before.is_none_or(|before| entry.header.time >= *before) {
                    return Err(Finding::Unexplained { sequence: place });
                }
                self.summary.erased += 1;
                *digest
            }
            Content::Unreadable => return Err(Finding::Altered { sequence: place }),
        };
        let leaf = chain::leaf(&entry.header, &digest);
        self.chain = chain::link(&self.chain, &leaf);
        if self.chain != entry.chain {
            return Err(Finding::Altered { sequence: place });
        }
        if let Some(frontier) = &mut self.frontier {
            frontier.push(leaf);
        }
        self.next += 1;
        self.summary.records += 1;
        self.summary.last = place;
        self.compare_checkpoint(place)
    }

    fn compare_checkpoint(&mut self, place: i64) -> Result<(), Finding> {
        let Some(here) = self.checkpoints.remove(&place.unsigned_abs()) else {
            return Ok(());
        };
        let root = self.frontier.as_ref().map(Frontier::root);
        let fits = |checkpoint: &Checkpoint| {
            checkpoint.chain == self.chain && root.is_none_or(|root| root == checkpoint.root)
        };
        if !here.iter().all(fits) {
            return Err(Finding::NotSigned {
                first: self.summary.signed + 1,
                last: place,
            });
        }
        self.summary.checkpoints += 1;
        self.summary.signed = place;
        Ok(())
    }

    /// The end: nothing may be expected any more. `head` is what the writer says it wrote.
    pub fn finish(self, head: Option<i64>) -> Result<Summary, Finding> {
        let expected = self.checkpoints.last_key_value().map(|(size, _)| *size);
        let signed = expected.and_then(|size| i64::try_from(size).ok());
        for (last, witness) in [(signed, "a checkpoint"), (head, "the writer's own mark")] {
            if let Some(last) = last
                && last >= self.next
            {
                return Err(Finding::Truncated {
                    first: self.next,
                    last,
                    witness,
                });
            }
        }
        Ok(self.summary)
    }
}

/// Compares a body with what stands beside it.
fn compare(entry: &Entry, body: &str) -> Result<(), Finding> {
    let sequence = entry.header.sequence;
    let altered = Finding::Altered { sequence };
    let told: Told<'_> = serde_json::from_str(body).map_err(|_| altered.clone())?;
    if told.sequence != sequence {
        return Err(Finding::OutOfPlace {
            place: sequence,
            found: told.sequence,
        });
    }
    if told.time.as_microsecond() != entry.header.time {
        return Err(altered);
    }
    let Some(columns) = &entry.columns else {
        return Ok(());
    };
    let same_address = match &columns.address {
        AddressColumn::Address(address) => {
            // PostgreSQL has one form of an IPv4 address that IPv6 maps.
            *address == told.address.map(|told| told.to_canonical())
        }
        AddressColumn::Key(key) => {
            *key == match &told.address_hash {
                Some(hash) => Some(hash.as_bytes().to_vec()),
                None => told.address.map(address_key),
            }
        }
    };
    let name = match &told.name_hash {
        Some(hash) => Some((**hash).to_owned()),
        None => told.name.as_deref().map(name_key),
    };
    let texts = [
        ("kind", &columns.kind, Some(&told.kind)),
        ("sandbox", &columns.sandbox, told.sandbox.as_ref()),
        ("task", &columns.task, told.task.as_ref()),
        ("project", &columns.project, told.project.as_ref()),
        ("outcome", &columns.outcome, told.verdict.as_ref()),
        ("reason", &columns.reason, told.reason.as_ref()),
    ];
    for (column, beside, inside) in texts {
        if beside.as_deref() != inside.map(|text| &**text) {
            return Err(Finding::Column { sequence, column });
        }
    }
    if !same_address {
        return Err(Finding::Column {
            sequence,
            column: "address",
        });
    }
    if columns.name_key != name {
        return Err(Finding::Column {
            sequence,
            column: "name_key",
        });
    }
    Ok(())
}
