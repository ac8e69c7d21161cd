//! The values that are one of a few words.

use super::Read;
use super::values::{refuse, schema, text};
use crate::model::{AtBound, PortRange, RecordAs};
use crate::policy::diagnostic::Report;
use crate::policy::yaml::Node;
use egress_common::{Mode, Protocol};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// Declares a value that is one of a few words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $word:literal => $variant:ident,)+ } $(refused { $($other:literal: $why:literal,)+ })?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl Read for $name {
            fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
                let text = text(node, key, report)?;
                match text {
                    $($word => return Some(Self::$variant),)+
                    $($($other => refuse(node, report, format!("`{key}: {text}` is not possible"), $why),)+)?
                    _ => refuse(node, report, format!("`{key}` cannot be `{text}`"),
                        concat!("write one of: ", $($word, ", "),+).trim_end_matches(", ")),
                }
                None
            }
        }

        schema!($name, { "enum": [$($word),+] });
    };
}

words! {
    /// The version of the language.
    ApiVersion {
        /// The first.
        "egress/v1" => V1,
    }
}

words! {
    /// What happens to what no rule allows.
    Action {
        /// It is refused.
        "deny" => Deny,
    } refused {
        "allow": "an egress policy denies by default; to see what would be denied without denying it, write `mode: shadow`",
    }
}

words! {
    /// Whether denials are carried out.
    ModeWord {
        /// They are.
        "enforce" => Enforce,
        /// They are only recorded.
        "shadow" => Shadow,
    }
}

impl From<ModeWord> for Mode {
    fn from(word: ModeWord) -> Self {
        match word {
            ModeWord::Enforce => Self::Enforce,
            ModeWord::Shadow => Self::Shadow,
        }
    }
}

words! {
    /// What is recorded.
    Logging {
        /// Everything; it cannot be less.
        "all_requests" => AllRequests,
    }
}

words! {
    /// Something that cannot be switched off.
    Enabled {
        /// It is on.
        "enabled" => Enabled,
    }
}

words! {
    /// Which resolver is reachable.
    Internal {
        /// The agent's own.
        "internal" => Internal,
    }
}

words! {
    /// What happens where a process of others has more than a sandbox has.
    ContractWord {
        /// Its cgroup stays denied.
        "refuse" => Refuse,
        /// It is told.
        "report" => Report,
    }
}

words! {
    /// Which system calls a command cannot make.
    SeccompWord {
        /// None that goes round the kernel programs.
        "default" => Default,
        /// Nor any that ordinary programs do without.
        "strict" => Strict,
        /// It can make all of them.
        "none" => None,
    }
}

words! {
    /// What a rule calls a protocol.
    ProtocolWord {
        /// TCP, port 443 unless ports are given.
        "https" => Https,
        /// TCP, port 80 unless ports are given.
        "http" => Http,
        /// TCP.
        "tcp" => Tcp,
        /// UDP.
        "udp" => Udp,
        /// ICMP echo over both families, behind interfaces; it has no ports.
        "icmp" => Icmp,
    } refused {
        "any": "name the protocols: https, http, tcp, udp, icmp",
        "quic": "write `udp` with the port, usually 443",
        "icmp6": "write `icmp`, which means echo over IPv4 and IPv6",
        "icmpv6": "write `icmp`, which means echo over IPv4 and IPv6",
        "ping": "write `icmp`",
    }
}

impl ProtocolWord {
    /// The transport below it.
    pub const fn transport(self) -> Protocol {
        match self {
            Self::Https | Self::Http | Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::Icmp => Protocol::Icmp,
        }
    }

    /// The ports that it means by itself.
    pub const fn default_ports(self) -> Option<PortRange> {
        match self {
            Self::Https => Some(PortRange::one(443)),
            Self::Http => Some(PortRange::one(80)),
            Self::Icmp => Some(PortRange::ANY),
            Self::Tcp | Self::Udp => None,
        }
    }
}

words! {
    /// What happens to a query beyond the bounds on names.
    AtBoundWord {
        /// It is refused.
        "refuse" => Refuse,
        /// It is answered, and recorded with the reason.
        "alert" => Alert,
        /// It is answered, and recorded as what would have been refused.
        "shadow" => Shadow,
    }
}

impl From<AtBoundWord> for AtBound {
    fn from(word: AtBoundWord) -> Self {
        match word {
            AtBoundWord::Refuse => Self::Refuse,
            AtBoundWord::Alert => Self::Alert,
            AtBoundWord::Shadow => Self::Shadow,
        }
    }
}

words! {
    /// How a name beyond the bounds is recorded.
    RecordWord {
        /// In full.
        "name" => Name,
        /// As a hash.
        "hash" => Hash,
    }
}

impl From<RecordWord> for RecordAs {
    fn from(word: RecordWord) -> Self {
        match word {
            RecordWord::Name => Self::Name,
            RecordWord::Hash => Self::Hash,
        }
    }
}

/// `true`, written by people who want to see what cannot be switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlwaysTrue;

impl Read for AlwaysTrue {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        if bool::read(node, key, report)? {
            return Some(Self);
        }
        let help = "remove the key, or write `true`";
        refuse(
            node,
            report,
            format!("`{key}` cannot be switched off"),
            help,
        );
        None
    }
}

schema!(AlwaysTrue, { "const": true });
