//! The mount table of this process, as `/proc/self/mountinfo` tells it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// The part of the file system that is mounted; `/` is all of it.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system's type, such as `cgroup2`.
    pub kind: String,
    /// What is mounted, in the file system's own words: a device, a server, a map.
    pub source: PathBuf,
    /// Whether the mount or the file system behind it refuses writing.
    pub read_only: bool,
}

/// Reads the table.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Parses a table (`proc_pid_mountinfo(5)`). A line that is not understood
/// names no mount that this crate knows how to treat, so it is left out.
fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = unescape(fields.nth(3)?);
    let point = unescape(fields.next()?);
    let mount_options = fields.next()?;
    // Optional fields end with a lone hyphen.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8(rest.next()?.to_vec()).ok()?;
    let source = unescape(rest.next()?);
    let super_options = rest.next()?;
    Some(Mount {
        root,
        point,
        kind,
        source,
        read_only: is_read_only(mount_options) || is_read_only(super_options),
    })
}

fn is_read_only(options: &[u8]) -> bool {
    options
        .split(|byte| *byte == b',')
        .any(|option| option == b"ro")
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some(byte)) => {
                path.push(byte);
                rest = &tail[3..];
            }
            _ => {
                path.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::{Mount, parse};

    #[test]
    fn a_table_is_read_with_optional_fields_escapes_and_both_kinds_of_options() {
        let table = b"\
            30 24 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 master:2 - cgroup2 cgroup2 rw,nsdelegate\n\
            32 30 0:28 /a\\040b /mnt/with\\040space\\134 rw - cgroup2 none ro\n\
            garbage\n";
        assert_eq!(
            parse(table),
            [
                mount("/", "/sys/fs/cgroup", ("tmpfs", "tmpfs"), true),
                mount("/", "/sys/fs/cgroup/unified", ("cgroup2", "cgroup2"), false),
                mount("/a b", "/mnt/with space\\", ("cgroup2", "none"), true),
            ]
        );
    }

    fn mount(root: &str, point: &str, (kind, source): (&str, &str), read_only: bool) -> Mount {
        Mount {
            root: root.into(),
            point: point.into(),
            kind: kind.to_owned(),
            source: source.into(),
            read_only,
        }
    }
}
