//! Where fields lie in structures of the running kernel, from its own type
//! information (BTF, `Documentation/bpf/btf.rst`). What aya reads of it stays
//! inside aya, and only what a compiler noted in an object is relocated there,
//! which rustc does not.

use egress_common::lsm::KernelLayout;
use std::path::Path;

/// The running kernel's type information; root may read it.
pub const RUNNING: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;
const KIND_INT: u32 = 1;

/// Anonymous structures lie in each other some levels deep; more is no BTF.
const DEEPEST: u32 = 16;

/// A type: where it begins in the section, what it is, and how many parts it has.
#[derive(Clone, Copy, Debug)]
struct Type {
    at: usize,
    kind: u32,
    parts: usize,
    /// Whether members' offsets hold bit-field sizes too.
    bit_fields: bool,
}

/// Type information, indexed.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// By type id less 1.
    index: Vec<Type>,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn of_the_kernel() -> Result<Self, String> {
        let bytes = std::fs::read(Path::new(RUNNING))
            .map_err(|error| format!("{RUNNING} cannot be read: {error}"))?;
        Self::parse(&bytes).ok_or_else(|| format!("{RUNNING} is not understood"))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let word = |place: usize| word(bytes, place).map(|word| word as usize);
        let header = word(4)?;
        let section = |offset: usize, length: usize| {
            let begin = header.checked_add(offset)?;
            bytes.get(begin..begin.checked_add(length)?)
        };
        let types = section(word(8)?, word(12)?)?.to_vec();
        let strings = section(word(16)?, word(20)?)?.to_vec();
        let index = index(&types)?;
        Some(Self {
            types,
            strings,
            index,
        })
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..DEEPEST {
            let found = *self.index.get((id as usize).checked_sub(1)?)?;
            if !(KIND_TYPEDEF..=KIND_RESTRICT).contains(&found.kind) {
                return Some(found);
            }
            id = word(&self.types, found.at + 8)?;
        }
        None
    }

    /// The byte offset of a field in a structure, through the dots of `path`.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u32, String> {
        let begin = self.index.iter().find(|found| {
            found.kind == KIND_STRUCT
                && word(&self.types, found.at)
                    .is_some_and(|name| self.name(name) == structure.as_bytes())
        });
        let mut bits = 0;
        let mut at = begin.copied();
        for field in path.split('.') {
            let found = at.and_then(|inside| self.member(inside, field.as_bytes(), DEEPEST));
            let Some((offset, kind)) = found else {
                return Err(format!(
                    "this kernel's `struct {structure}` has no `{path}`"
                ));
            };
            bits += offset;
            at = self.resolve(kind);
        }
        Ok(bits / 8)
    }

    /// The bit offset and the type of a member, also of an unnamed part's.
    fn member(&self, inside: Type, name: &[u8], deepest: u32) -> Option<(u32, u32)> {
        if !matches!(inside.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for part in 0..inside.parts {
            let at = inside.at + 12 + part * 12;
            let (own, kind) = (word(&self.types, at)?, word(&self.types, at + 4)?);
            let mut offset = word(&self.types, at + 8)?;
            if inside.bit_fields {
                offset &= 0x00ff_ffff;
            }
            let own = self.name(own);
            if own == name {
                return Some((offset, kind));
            }
            if own.is_empty() && deepest > 0 {
                let deeper = self.resolve(kind);
                let found = deeper.and_then(|deeper| self.member(deeper, name, deepest - 1));
                if let Some((inner, kind)) = found {
                    return Some((offset + inner, kind));
                }
            }
        }
        None
    }

    /// The places that the LSM programs need.
    pub fn layout(&self) -> Result<KernelLayout, String> {
        Ok(KernelLayout {
            socket_sk: self.offset("socket", "sk")?,
            sock_family: self.offset("sock", "__sk_common.skc_family")?,
            sock_cgroup: self.offset("sock", "sk_cgrp_data.cgroup")?,
            cgroup_level: self.offset("cgroup", "level")?,
            cgroup_ancestors: self.offset("cgroup", "ancestors")?,
            cgroup_node: self.offset("cgroup", "kn")?,
            node_id: self.offset("kernfs_node", "id")?,
            file_inode: self.offset("file", "f_inode")?,
            file_private: self.offset("file", "private_data")?,
            inode_mode: self.offset("inode", "i_mode")?,
            inode_super: self.offset("inode", "i_sb")?,
            super_magic: self.offset("super_block", "s_magic")?,
            task_set: self.offset("task_struct", "cgroups")?,
            set_cgroup: self.offset("css_set", "dfl_cgrp")?,
            inode_private: self.offset("inode", "i_private")?,
            // It has the longer name since Linux 6.15.
            node_parent: self
                .offset("kernfs_node", "parent")
                .or_else(|_| self.offset("kernfs_node", "__parent"))?,
            node_name: self.offset("kernfs_node", "name")?,
            reserved: 0,
        })
    }
}

fn word(bytes: &[u8], place: usize) -> Option<u32> {
    let word = bytes.get(place..place.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

/// Where each type begins: they are of different lengths.
fn index(types: &[u8]) -> Option<Vec<Type>> {
    let mut index = Vec::new();
    let mut at = 0;
    while at < types.len() {
        let info = word(types, at + 4)?;
        let (parts, kind) = ((info & 0xffff) as usize, (info >> 24) & 0x1f);
        let rest = match kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => parts * 12,
            KIND_ENUM | KIND_FUNC_PROTO => parts * 8,
            // Pointers, forward declarations, typedefs, qualifiers, functions,
            // floating point numbers and tags on types: the first 12 bytes.
            kind if kind <= KIND_ENUM64 => 0,
            // Of a length that nobody knows here.
            _ => return None,
        };
        index.push(Type {
            at,
            kind,
            parts,
            bit_fields: info >> 31 == 1,
        });
        at += 12 + rest;
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::{Btf, KIND_INT, KIND_STRUCT, KIND_TYPEDEF, KIND_UNION, MAGIC};

    const STRINGS: &[u8] = b"\0outer\0first\0inner\0deep\0word\0";
    const OUTER: u32 = 1;
    const FIRST: u32 = 7;
    const INNER: u32 = 13;
    const DEEP: u32 = 19;
    const WORD: u32 = 24;

    /// `struct outer { word first; union { struct inner { word first; word deep; } inner; }; }`
    fn sample() -> Vec<u8> {
        let info = |kind: u32, parts: u32| kind << 24 | parts;
        #[rustfmt::skip]
        let types: Vec<u32> = vec![
            WORD, info(KIND_INT, 0), 4, 32, // 1
            WORD, info(KIND_TYPEDEF, 0), 1, // 2
            INNER, info(KIND_STRUCT, 2), 8, FIRST, 2, 0, DEEP, 2, 32, // 3
            0, info(KIND_UNION, 1), 8, INNER, 3, 0, // 4
            OUTER, info(KIND_STRUCT, 2), 12, FIRST, 2, 0, 0, 4, 32, // 5
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let lengths = [24, 0, types.len(), types.len(), STRINGS.len()];
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for length in lengths {
            bytes.extend(u32::try_from(length).expect("small").to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(STRINGS);
        bytes
    }

    #[test]
    fn fields_are_found_through_names_and_through_what_has_none() {
        let btf = Btf::parse(&sample()).expect("type information");
        assert_eq!(btf.offset("outer", "first"), Ok(0));
        assert_eq!(btf.offset("outer", "inner"), Ok(4));
        assert_eq!(btf.offset("outer", "inner.deep"), Ok(8));
        let missing = btf
            .offset("outer", "inner.none")
            .expect_err("no such field");
        assert_eq!(missing, "this kernel's `struct outer` has no `inner.none`");
        assert!(btf.offset("word", "first").is_err());
    }

    #[test]
    fn what_is_cut_short_or_something_else_is_not_understood() {
        let sample = sample();
        for length in 0..sample.len() {
            assert!(Btf::parse(&sample[..length]).is_none(), "{length} bytes");
        }
        assert!(Btf::parse(&[0xff; 64]).is_none());
    }

    #[test]
    fn the_running_kernel_has_every_field_that_the_programs_read() {
        if !std::path::Path::new(super::RUNNING).exists() {
            return;
        }
        let layout = Btf::of_the_kernel().and_then(|btf| btf.layout());
        let layout = layout.expect("every field");
        assert!(layout.sock_cgroup > layout.sock_family);
        assert!(layout.cgroup_ancestors > layout.cgroup_level);
    }
}
