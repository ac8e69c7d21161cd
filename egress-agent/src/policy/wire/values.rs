//! The values that keys take, each with its reader and its schema.

use super::{Read, wrong_type};
use crate::model::{DomainPattern, PortRange, Relaxation, RelaxationError};
use crate::policy::diagnostic::Report;
use crate::policy::yaml::{Node, Value};
use ipnet::IpNet;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::net::IpAddr;

/// Implements [`JsonSchema`] with a fixed schema.
macro_rules! schema {
    ($type:ty, $($json:tt)+) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($json)+)
            }
        }
    };
}

pub(super) use schema;

/// Refuses a value.
pub(super) fn refuse(node: &Node, report: &mut Report, message: String, help: &str) {
    report.error("invalid-value", node.point(), message, help);
}

/// The text that a key takes.
pub(super) fn text<'n>(node: &'n Node, key: &str, report: &mut Report) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => {
            wrong_type(node, key, "text", report);
            None
        }
    }
}

impl Read for bool {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                wrong_type(node, key, "`true` or `false`", report);
                None
            }
        }
    }
}

/// Text for people, on one line or several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text(pub String);

impl Read for Text {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = text(node, key, report)?;
        if read.trim().is_empty() {
            let help = "write something, or remove the key";
            report.error("empty", node.point(), format!("`{key}` is empty"), help);
            return None;
        }
        // Such text is shown in terminals and logs, and must not steer them.
        if read
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
        {
            let help = "write plain text";
            refuse(
                node,
                report,
                format!("`{key}` holds a control character"),
                help,
            );
            return None;
        }
        Some(Self(read.to_owned()))
    }
}

schema!(Text, { "type": "string", "minLength": 1 });

/// An address of a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(pub IpAddr);

impl Read for Address {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = text(node, key, report)?;
        let Ok(address) = read.parse() else {
            let help = "write an IPv4 or IPv6 address in quotes";
            refuse(node, report, format!("`{read}` is no address"), help);
            return None;
        };
        Some(Self(address))
    }
}

schema!(Address, { "type": "string" });

/// A policy's name: what a person types after `--policy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyName(pub String);

impl PolicyName {
    /// Longest name, in bytes.
    pub const MAX: usize = 64;

    /// Takes what is fit for a command line and a log.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        fits.then(|| Self(text.to_owned()))
    }
}

impl Read for PolicyName {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = text(node, key, report)?;
        let name = Self::parse(read);
        if name.is_none() {
            let help =
                "use 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`, starting with a letter or digit";
            refuse(node, report, format!("`{read}` is not a policy name"), help);
        }
        name
    }
}

schema!(PolicyName, { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" });

/// A domain pattern in one of the three spellings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain(pub DomainPattern);

impl Read for Domain {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = text(node, key, report)?;
        match DomainPattern::parse(read) {
            Ok(pattern) => Some(Self(pattern)),
            Err(problem) => {
                let help = if read.contains("://") || read.contains('/') {
                    "write the host only, without `https://` and path"
                } else if read.contains(':') {
                    "write the port under `ports:`"
                } else if read == "*" || read == "**" {
                    "there is no rule for everything; to see what is asked for, write `mode: shadow`"
                } else {
                    "`example.com` is that name only, `*.example.com` every name below it, `**.example.com` both"
                };
                let message = format!("`{key}: {read}` is not a domain: {problem}");
                report.error("invalid-name", node.point(), message, help);
                None
            }
        }
    }
}

schema!(Domain, { "type": "string", "pattern": "^(\\*\\.|\\*\\*\\.)?[^*/:\\s]+$", "examples": ["api.example.com", "*.example.com"] });

/// A network; an address alone is a network of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr(pub IpNet);

impl Read for Cidr {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = text(node, key, report)?;
        let net = read
            .parse::<IpNet>()
            .ok()
            .or_else(|| read.parse::<IpAddr>().ok().map(IpNet::from));
        let Some(net) = net else {
            let help = "write a network such as `10.20.0.0/16` or `2001:db8::/32`, or one address";
            refuse(
                node,
                report,
                format!("`{key}: {read}` is not a network"),
                help,
            );
            return None;
        };
        if net.trunc() != net {
            let help = format!(
                "write `{}` for the network, or `{}` for the one address",
                net.trunc(),
                net.addr()
            );
            refuse(
                node,
                report,
                format!("`{read}` has bits set after its prefix"),
                &help,
            );
            return None;
        }
        Some(Self(net))
    }
}

schema!(Cidr, { "type": "string", "examples": ["10.20.0.0/16", "2001:db8::/32"] });

/// One port, a range, or `any`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortItem(pub PortRange);

impl Read for PortItem {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let range = match &node.value {
            Value::Integer(number) => port(&number.to_string()).map(PortRange::one),
            Value::Text(word) if word == "any" => Some(PortRange::ANY),
            Value::Text(text) => match text.split_once('-') {
                Some((first, last)) => port(first.trim())
                    .zip(port(last.trim()))
                    .filter(|(first, last)| first <= last)
                    .map(|(first, last)| PortRange { first, last }),
                None => port(text).map(PortRange::one),
            },
            _ => {
                wrong_type(node, key, "ports", report);
                return None;
            }
        };
        if range.is_none() {
            let help = "write a number from 1 to 65535, a range such as `8000-8080`, or `any`";
            let span = node.point();
            let written = report.source().under(span).to_owned();
            refuse(node, report, format!("`{written}` is not a port"), help);
        }
        range.map(Self)
    }
}

fn port(text: &str) -> Option<u16> {
    // `u16::from_str` takes a leading plus sign; a port has none.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|port| *port != 0)
}

schema!(PortItem, { "anyOf": [
    { "type": "integer", "minimum": 1, "maximum": 65535 },
    { "type": "string", "pattern": "^([0-9]{1,5}(-[0-9]{1,5})?|any)$" },
] });

/// A time span in whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seconds(pub u32);

impl Seconds {
    /// The longest that makes sense anywhere in the language: a week.
    pub const MAX: u32 = 7 * 86_400;

    fn parse(text: &str) -> Option<u32> {
        let split = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(split)?;
        let seconds = match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        number
            .parse::<u32>()
            .ok()?
            .checked_mul(seconds)
            .filter(|total| *total <= Self::MAX)
    }
}

impl Read for Seconds {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = match &node.value {
            Value::Text(text) => Self::parse(text),
            _ => None,
        };
        if read.is_none() {
            let written = report.source().under(node.point()).to_owned();
            let help = "write a number with its unit, such as `30s`, `5m` or `1h`; at most 7d";
            refuse(
                node,
                report,
                format!("`{key}: {written}` is not a time span"),
                help,
            );
        }
        read.map(Self)
    }
}

schema!(Seconds, { "type": "string", "pattern": "^[0-9]+(s|m|min|h|d)$", "examples": ["300s", "5m"] });

/// Declares a whole number between two bounds.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $min:literal..=$max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name(pub $inner);

        impl Read for $name {
            fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
                let read = match node.value {
                    Value::Integer(number) => <$inner>::try_from(number).ok(),
                    _ => None,
                };
                let read = read.filter(|number| ($min..=$max).contains(number));
                if read.is_none() {
                    let written = report.source().under(node.point()).to_owned();
                    let message = format!("`{key}: {written}` is out of bounds");
                    let help = concat!("write a whole number from ", $min, " to ", $max);
                    refuse(node, report, message, help);
                }
                read.map(Self)
            }
        }

        schema!($name, { "type": "integer", "minimum": $min, "maximum": $max });
    };
}

number! {
    /// A small number of things.
    Count(u16), 1..=256
}

number! {
    /// A number of things.
    Amount(u32), 1..=1000000
}

number! {
    /// Bytes of a label.
    LabelLength(u8), 1..=63
}

/// The moment from which a rule does not apply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expiry(pub Timestamp);

impl Read for Expiry {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = text(node, key, report)?;
        let time = read.parse::<Timestamp>().ok().or_else(|| {
            let date = read
                .parse::<Date>()
                .ok()
                .filter(|_| read.len() == "2025-03-01".len())?;
            Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
        });
        if time.is_none() {
            let help = "write a date such as `2027-03-01` (the rule ends when that day begins, UTC) or a time such as `2027-03-01T12:00:00Z`";
            refuse(node, report, format!("`{key}: {read}` is not a date"), help);
        }
        time.map(Self)
    }
}

schema!(Expiry, { "type": "string", "examples": ["2027-03-01", "2027-03-01T12:00:00Z"] });

/// A user: a name or a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum User {
    /// By name.
    Name(String),
    /// By number.
    Id(u32),
}

impl Read for User {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = match &node.value {
            // The kernel takes the last number for "no user" (`setuid(-1)`).
            Value::Integer(number) => u32::try_from(*number)
                .ok()
                .filter(|id| *id != u32::MAX)
                .map(Self::Id),
            Value::Text(name) if is_user_name(name) => Some(Self::Name(name.clone())),
            _ => None,
        };
        if read.is_none() {
            let written = report.source().under(node.point()).to_owned();
            let help = "write a user's name or number; a name has a-z, A-Z, 0-9, `-`, `_` and `.`";
            refuse(
                node,
                report,
                format!("`{key}: {written}` is not a user"),
                help,
            );
        }
        read
    }
}

fn is_user_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

schema!(User, { "anyOf": [
    { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.-]{0,31}$" },
    { "type": "integer", "minimum": 0 },
] });

/// A point of the fence that a policy opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relax(pub Relaxation);

impl Read for Relax {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = text(node, key, report)?;
        let help = match read.parse() {
            Ok(Relaxation::Root) => "write `user: root` instead".to_owned(),
            Ok(point) => return Some(Self(point)),
            Err(RelaxationError::Unknown(_)) => {
                format!("write one of: {}", Relaxation::WRITTEN.join(", "))
            }
            Err(error @ RelaxationError::Path(_)) => error.to_string(),
        };
        let message = format!("`{key}` cannot hold `{read}`");
        refuse(node, report, message, &help);
        None
    }
}

schema!(Relax, { "type": "string", "pattern": "^(ptrace|user-namespaces|host-socket:/.+)$" });

/// A DNS record type that a policy may add.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecordType(pub &'static str);

impl RecordType {
    /// Types that a policy may add. Address types, `CNAME`, `HTTPS` and `SVCB` are always
    /// answered; transfers and `ANY` never are.
    pub const ALL: &'static [&'static str] = &[
        "CAA", "DNSKEY", "DS", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "SSHFP", "TLSA", "TXT",
        "URI",
    ];
}

impl Read for RecordType {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let read = text(node, key, report)?;
        if let Some(known) = Self::ALL.iter().find(|known| **known == read) {
            return Some(Self(known));
        }
        let help = match read.to_ascii_uppercase().as_str() {
            "A" | "AAAA" | "CNAME" | "HTTPS" | "SVCB" => {
                "it is always answered: remove it".to_owned()
            }
            _ => format!(
                "the record types that can be added are: {}",
                Self::ALL.join(", ")
            ),
        };
        refuse(
            node,
            report,
            format!("`{read}` cannot be added to `{key}`"),
            &help,
        );
        None
    }
}

schema!(RecordType, { "enum": Self::ALL });
