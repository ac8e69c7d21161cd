//! Verifies exported JSON lines, with neither an agent nor a database.
//!
//! A line of a record is the record with a member `chain` beside its own; lines
//! without a body stand for records that were left out or erased. Lines with a
//! `checkpoint` are signed notes. `docs/audit.md` defines them.

use crate::audit::chain::{self, Hash, Header};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::note::PublicKey;
use crate::audit::tree;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::{self, BufRead};

/// The place of a record in its chain, as it stands in an exported line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainFields {
    /// The chain, a UUID.
    pub id: String,
    /// The place.
    pub sequence: i64,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub time: i64,
    /// The class of retention, as a number.
    pub class: u8,
    /// The chain's hash before the record.
    pub previous: String,
    /// The chain's hash with it.
    pub hash: String,
    /// SHA-256 of the body, where the line has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The way from the record to the root of [`ChainFields::checkpoint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Vec<String>>,
    /// The signed note that the path leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

impl ChainFields {
    /// The line of a record: its canonical body with this beside it.
    pub fn line(&self, body: &str) -> Result<String, serde_json::Error> {
        let chain = serde_json::to_string(self)?;
        let members = body.strip_prefix('{').unwrap_or("}");
        let comma = if members == "}" { "" } else { "," };
        Ok(format!(
            "{{\"apiVersion\":\"{}\",\"chain\":{chain}{comma}{members}",
            crate::audit::API_VERSION
        ))
    }
}

/// Why a file is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It cannot be read.
    #[error("the export cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line that is none of the forms.
    #[error("line {line} is no line of an export: {problem}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A record that does not give the hash that stands beside it.
    #[error("line {line}: record {sequence} is not what was exported: it was altered")]
    Altered {
        /// Which line, from 1.
        line: u64,
        /// Which record.
        sequence: i64,
    },
    /// A record that does not follow the one before.
    #[error(
        "record {sequence} does not follow record {before}: one of them was replaced or inserted"
    )]
    Unlinked {
        /// Which record.
        sequence: i64,
        /// Its predecessor.
        before: i64,
    },
    /// Records that are not there.
    #[error(
        "records {first} to {last} are missing; an export with filters is verified with --filtered"
    )]
    Missing {
        /// The first.
        first: i64,
        /// The last.
        last: i64,
    },
    /// Something that a checkpoint speaks for and that is another.
    #[error("record {sequence} is not the one that the node signed")]
    NotSigned {
        /// Which record.
        sequence: i64,
    },
    /// A checkpoint that cannot be trusted.
    #[error("line {line}: the checkpoint is not the node's: {problem}")]
    Checkpoint {
        /// Which line, from 1.
        line: u64,
        /// Why.
        problem: String,
    },
    /// Nothing at all.
    #[error("the export has no record")]
    Empty,
}

/// What an export proves.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Exported {
    /// Records with their body.
    pub records: u64,
    /// Records without: left out, or erased by retention.
    pub without_body: u64,
    /// Checkpoints with a good signature.
    pub checkpoints: u64,
    /// Records of both kinds that a signature covers.
    pub signed: u64,
}

#[derive(Clone, Copy)]
struct Link {
    previous: Hash,
    hash: Hash,
    proven: bool,
}

/// Reads and verifies an export. `keys` are trusted; without any, signatures are
/// not looked at and nothing counts as signed. With `filtered`, records may be missing.
pub fn verify_export(
    lines: impl BufRead,
    keys: &[PublicKey],
    filtered: bool,
) -> Result<Exported, ExportError> {
    let mut chains: BTreeMap<String, BTreeMap<i64, Link>> = BTreeMap::new();
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    let mut exported = Exported::default();
    for (line, text) in (1..).zip(lines.lines()) {
        let text = text?;
        if text.trim().is_empty() {
            continue;
        }
        let refuse = |problem: String| ExportError::Line { line, problem };
        let mut object: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if let Some(note) = object.get("checkpoint").and_then(Value::as_str) {
            checkpoints.extend(signed(note, keys, line)?);
            continue;
        }
        if let Some(proof) = object.remove("consistency") {
            consistent(proof, keys, line)?;
            exported.checkpoints += 1;
            continue;
        }
        let chain = object
            .remove("chain")
            .ok_or_else(|| refuse("it has no member `chain`".to_owned()))?;
        let fields: ChainFields =
            serde_json::from_value(chain).map_err(|error| refuse(error.to_string()))?;
        let hash =
            |text: &str| Hash::parse(text).ok_or_else(|| refuse(format!("`{text}` is no SHA-256")));
        let altered = ExportError::Altered {
            line,
            sequence: fields.sequence,
        };
        let digest = match &fields.digest {
            Some(digest) => {
                exported.without_body += 1;
                hash(digest)?
            }
            None => {
                exported.records += 1;
                digest_of_body(object, &fields).ok_or(altered)?
            }
        };
        let header = Header {
            sequence: fields.sequence,
            time: fields.time,
            class: fields.class,
        };
        let leaf = chain::leaf(&header, &digest);
        let mut link = Link {
            previous: hash(&fields.previous)?,
            hash: hash(&fields.hash)?,
            proven: false,
        };
        if chain::link(&link.previous, &leaf) != link.hash {
            return Err(ExportError::Altered {
                line,
                sequence: fields.sequence,
            });
        }
        if let (Some(path), Some(note)) = (&fields.path, &fields.checkpoint)
            && let Some(checkpoint) = signed(note, keys, line)?
        {
            let path = path
                .iter()
                .map(|step| hash(step))
                .collect::<Result<Vec<_>, _>>()?;
            let index = fields.sequence.unsigned_abs().saturating_sub(1);
            let included = tree::includes(checkpoint.size, &checkpoint.root, index, &leaf, &path);
            if !included || checkpoint.chain_id != fields.id {
                return Err(ExportError::NotSigned {
                    sequence: fields.sequence,
                });
            }
            exported.checkpoints += 1;
            link.proven = true;
        }
        let links = chains.entry(fields.id).or_default();
        if let Some(other) = links.insert(fields.sequence, link)
            && other.hash != link.hash
        {
            return Err(ExportError::Unlinked {
                sequence: fields.sequence,
                before: fields.sequence,
            });
        }
    }
    if chains.is_empty() && exported.checkpoints == 0 {
        return Err(ExportError::Empty);
    }
    exported.checkpoints += checkpoints.len() as u64;
    for (id, links) in &mut chains {
        follow(links, filtered)?;
        prove(
            links,
            checkpoints.iter().filter(|known| known.chain_id == *id),
        )?;
        exported.signed += links.values().filter(|link| link.proven).count() as u64;
    }
    Ok(exported)
}

/// A checkpoint that a trusted key signed; none if no key is trusted at all.
fn signed(note: &str, keys: &[PublicKey], line: u64) -> Result<Option<Checkpoint>, ExportError> {
    if keys.is_empty() {
        return Ok(None);
    }
    Checkpoint::open(note, keys)
        .map(Some)
        .map_err(|error| ExportError::Checkpoint {
            line,
            problem: error.to_string(),
        })
}

/// Verifies that one signed checkpoint continues another.
fn consistent(proof: Value, keys: &[PublicKey], line: u64) -> Result<(), ExportError> {
    #[derive(Deserialize)]
    struct Proof {
        old: String,
        new: String,
        path: Vec<String>,
    }
    let refuse = |problem: String| ExportError::Line { line, problem };
    let proof: Proof = serde_json::from_value(proof).map_err(|error| refuse(error.to_string()))?;
    let path: Option<Vec<Hash>> = proof.path.iter().map(|step| Hash::parse(step)).collect();
    let path = path.ok_or_else(|| refuse("a step of the path is no SHA-256".to_owned()))?;
    let (Some(old), Some(new)) = (
        signed(&proof.old, keys, line)?,
        signed(&proof.new, keys, line)?,
    ) else {
        return Err(refuse("its signatures need a public key".to_owned()));
    };
    let continues = tree::extends((old.size, &old.root), (new.size, &new.root), &path);
    if continues && old.chain_id == new.chain_id {
        Ok(())
    } else {
        Err(ExportError::Checkpoint {
            line,
            problem: "the newer one does not continue the older one".to_owned(),
        })
    }
}

/// SHA-256 of the canonical body: what the line has beside its place, without
/// what says nothing. `None` if it speaks of another place or time.
fn digest_of_body(mut object: Map<String, Value>, fields: &ChainFields) -> Option<Hash> {
    object.remove("apiVersion");
    for inner in object.values_mut().filter_map(Value::as_object_mut) {
        inner.retain(|_, value| !value.is_null());
    }
    object.retain(|_, value| !says_nothing(value));
    let time: jiff::Timestamp = object.get("time")?.as_str()?.parse().ok()?;
    let sequence = object.get("sequence")?.as_i64()?;
    if time.as_microsecond() != fields.time || sequence != fields.sequence {
        return None;
    }
    // serde_json keeps maps in the order of their names.
    let body = serde_json::to_string(&object).ok()?;
    Some(Hash::of(body.as_bytes()))
}

/// `null`, `[]` and `{}`: a canonical body has none of them.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Neighbours must be linked, and unless there were filters all must be there.
fn follow(links: &BTreeMap<i64, Link>, filtered: bool) -> Result<(), ExportError> {
    let mut before: Option<(i64, Hash)> = None;
    for (&sequence, link) in links {
        if let Some((last, hash)) = before {
            if sequence == last + 1 && link.previous != hash {
                return Err(ExportError::Unlinked {
                    sequence,
                    before: last,
                });
            }
            if sequence > last + 1 && !filtered {
                return Err(ExportError::Missing {
                    first: last + 1,
                    last: sequence - 1,
                });
            }
        }
        before = Some((sequence, link.hash));
    }
    Ok(())
}

/// A signed hash proves its record, and every record that is linked to it from before.
fn prove<'a>(
    links: &mut BTreeMap<i64, Link>,
    checkpoints: impl Iterator<Item = &'a Checkpoint>,
) -> Result<(), ExportError> {
    for checkpoint in checkpoints {
        let Ok(sequence) = i64::try_from(checkpoint.size) else {
            continue;
        };
        if let Some(link) = links.get_mut(&sequence) {
            if link.hash != checkpoint.chain {
                return Err(ExportError::NotSigned { sequence });
            }
            link.proven = true;
        }
    }
    let mut after: Option<(i64, bool)> = None;
    for (&sequence, link) in links.iter_mut().rev() {
        if after == Some((sequence + 1, true)) {
            link.proven = true;
        }
        after = Some((sequence, link.proven));
    }
    Ok(())
}
