//! Amounts: of processors, bytes, things.

use super::Read;
use super::values::{refuse, schema};
use crate::policy::diagnostic::Report;
use crate::policy::yaml::{Node, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// Refuses what stands at `node`.
fn refuse_written(node: &Node, key: &str, what: &str, help: &str, report: &mut Report) {
    let written = report.source().under(node.point()).to_owned();
    refuse(
        node,
        report,
        format!("`{key}: {written}` is not {what}"),
        help,
    );
}

/// Thousandths of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu(pub u32);

impl Cpu {
    /// The most: more CPUs than any machine has.
    const MAX: u32 = 8192 * 1000;

    fn parse(text: &str) -> Option<u32> {
        let (number, scale) = match text.strip_suffix('m') {
            Some(number) => (number, 1),
            None => (text, 1000),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let written_well = !whole.is_empty()
            && digits(whole)
            && digits(part)
            && !number.ends_with('.')
            && part.len() <= 3
            && (scale == 1000 || part.is_empty());
        if !written_well {
            return None;
        }
        let part: u32 = format!("{part:0<3}").parse().ok()?;
        let whole = whole.parse::<u32>().ok()?.checked_mul(scale)?;
        Some(whole.checked_add(if scale == 1000 { part } else { 0 })?)
            .filter(|thousandths| (1..=Self::MAX).contains(thousandths))
    }
}

impl Read for Cpu {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = match &node.value {
            Value::Text(text) => Self::parse(text),
            Value::Integer(_) | Value::Float(_) => Self::parse(report.source().under(node.point())),
            _ => None,
        };
        if read.is_none() {
            let help = "write thousandths such as `\"100m\"`, or CPUs such as `1.5`";
            refuse_written(node, key, "an amount of CPU", help, report);
        }
        read.map(Self)
    }
}

schema!(Cpu, { "anyOf": [
    { "type": "string", "pattern": "^([0-9]+m|[0-9]+(\\.[0-9]{1,3})?)$", "examples": ["100m", "1.5"] },
    { "type": "number", "exclusiveMinimum": 0 },
] });

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

impl Size {
    /// The most: the kernel counts in signed numbers.
    const MAX: u64 = i64::MAX as u64;

    fn parse(text: &str) -> Option<u64> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(end)?;
        let size: u64 = match unit {
            "" => 1,
            "k" | "kB" | "KB" => 1000,
            "M" | "MB" => 1_000_000,
            "G" | "GB" => 1_000_000_000,
            "Ki" | "KiB" => 1 << 10,
            "Mi" | "MiB" => 1 << 20,
            "Gi" | "GiB" => 1 << 30,
            "Ti" | "TiB" => 1 << 40,
            _ => return None,
        };
        let bytes = number.parse::<u64>().ok()?.checked_mul(size)?;
        (bytes <= Self::MAX).then_some(bytes)
    }
}

impl Read for Size {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = match &node.value {
            Value::Text(text) => Self::parse(text),
            Value::Integer(number) => u64::try_from(*number).ok().filter(|n| *n <= Self::MAX),
            _ => None,
        };
        if read.is_none() {
            let help = "write bytes, or a whole number with Ki, Mi, Gi (1024) or kB, MB, GB (1000)";
            refuse_written(node, key, "a number of bytes", help, report);
        }
        read.map(Self)
    }
}

schema!(Size, { "anyOf": [
    { "type": "string", "pattern": "^[0-9]+(k|kB|KB|M|MB|G|GB|Ki|KiB|Mi|MiB|Gi|GiB|Ti|TiB)?$", "examples": ["256Mi", "10MB"] },
    { "type": "integer", "minimum": 0 },
] });

/// A whole number of things, from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Number(pub u32);

impl Number {
    /// The largest: what the kernel takes for a number of processes.
    const MAX: u32 = 4_194_304;
}

impl Read for Number {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = match node.value {
            Value::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        };
        let read = read.filter(|number| (1..=Self::MAX).contains(number));
        if read.is_none() {
            let help = "write a whole number from 1 to 4194304";
            refuse_written(node, key, "such a number", help, report);
        }
        read.map(Self)
    }
}

schema!(Number, { "type": "integer", "minimum": 1, "maximum": Self::MAX });

/// A share against others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weight(pub u16);

impl Weight {
    /// The largest (`CGROUP_WEIGHT_MAX`, include/linux/cgroup.h).
    const MAX: u16 = 10_000;
}

impl Read for Weight {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = match node.value {
            Value::Integer(number) => u16::try_from(number).ok(),
            _ => None,
        };
        let read = read.filter(|weight| (1..=Self::MAX).contains(weight));
        if read.is_none() {
            let help = "write a whole number from 1 to 10000; 100 is what a sandbox has otherwise";
            refuse_written(node, key, "a weight", help, report);
        }
        read.map(Self)
    }
}

schema!(Weight, { "type": "integer", "minimum": 1, "maximum": Self::MAX });

/// A block device, by a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device(pub String);

impl Read for Device {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = match &node.value {
            Value::Text(text) => Some(text),
            _ => None,
        };
        let read = read.filter(|path| {
            path.starts_with('/')
                && path.len() < 256
                && !path.chars().any(|c| c.is_control() || c.is_whitespace())
        });
        if read.is_none() {
            let help =
                "write the path of a block device such as `/dev/vda`, or of a directory on it";
            refuse_written(node, key, "a device", help, report);
        }
        read.cloned().map(Self)
    }
}

schema!(Device, { "type": "string", "pattern": "^/\\S*$", "examples": ["/dev/vda", "/"] });

#[cfg(test)]
mod tests {
    use super::{Cpu, Size};

    #[test]
    fn processors_are_thousandths_or_whole_ones() {
        for (text, thousandths) in [
            ("100m", 100),
            ("1m", 1),
            ("1.5", 1500),
            ("2", 2000),
            ("0.25", 250),
            ("0.001", 1),
        ] {
            assert_eq!(Cpu::parse(text), Some(thousandths), "{text}");
        }
        for text in [
            "",
            "m",
            "0",
            "0m",
            "1.5m",
            "-1",
            "+1",
            "1.",
            ".5",
            "1.0001",
            "1e3",
            "9000",
            "1 m",
            "99999999999",
        ] {
            assert_eq!(Cpu::parse(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_have_the_units_of_the_field() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("256Mi", 256 << 20),
            ("10MB", 10_000_000),
            ("1Gi", 1 << 30),
        ] {
            assert_eq!(Size::parse(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "Mi",
            "1mi",
            "1.5Gi",
            "-1",
            "1 Mi",
            "99999999999999999999",
            "9999999999Gi",
        ] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }
}
