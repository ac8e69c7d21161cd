//! What a policy file may say: every key, once.
//!
//! One declaration ([`document`]) gives the type, its reader and its JSON
//! Schema, so the three cannot differ. The types are close to the text; what
//! they mean together is decided by [`super::compile`].

mod document;
mod lists;
mod quantities;
mod similar;
mod values;
mod words;

pub use document::{Allow, Block, Document, IoBlock, NameLimitsBlock, SandboxBlock};
pub use lists::Items;
pub use quantities::Size;
pub use values::{Amount, Cidr, Domain, PolicyName, PortItem, Seconds, Text, User};
pub use words::{ContractWord, ProtocolWord, SeccompWord};

use super::diagnostic::{Report, Span};
use super::yaml::{Node, Value};

/// A value with its place in the text.
#[derive(Clone, PartialEq, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its bytes.
    pub span: Span,
}

/// A value with its place and its key's place.
#[derive(Clone, PartialEq, Debug)]
pub struct Field<T> {
    /// The value.
    pub value: T,
    /// The value's bytes.
    pub span: Span,
    /// The key's bytes.
    pub key: Span,
}

/// Which keys of a block were written. A key that could not be read is reported
/// for that, and must not be reported as missing too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    keys: Vec<&'static str>,
    misspelt: bool,
    later: bool,
}

impl Written {
    /// Whether the key of this field was certainly not written.
    pub fn lacks(&self, field: &str) -> bool {
        !self.misspelt && !self.keys.contains(&field)
    }

    /// Whether the block says something in keys that are not enforced.
    pub fn has_later(&self) -> bool {
        self.later
    }
}

/// Something that can be read from a node. `None` means that it was not
/// possible and that the report says why.
pub trait Read: Sized {
    /// Reads the node; `key` is what to name in a message.
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self>;
}

/// Says that `node` is not what `key` takes.
fn wrong_type(node: &Node, key: &str, wanted: &str, report: &mut Report) {
    let (span, kind) = (node.point(), node.kind());
    let hint = match (&node.value, wanted) {
        (Value::Null, _) => "write a value, or remove the key",
        (Value::Text(_) | Value::Integer(_), "a list") => "write it in brackets: `[...]`",
        (Value::Integer(_) | Value::Float(_) | Value::Bool(_), "text") => "put it in quotes",
        _ => "",
    };
    report.error(
        "wrong-type",
        span,
        format!("`{key}` takes {wanted}, and this is {kind}"),
        hint,
    );
}

/// Declares a block of the document: its keys with their meaning and type, and
/// the keys of the vocabulary that this version does not enforce.
macro_rules! block {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $( $(#[doc = $doc:literal])* $field:ident $(as $key:literal)? : $type:ty, )+
        }
        later { $($later:literal),* $(,)? }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, PartialEq, Debug, Default)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: Option<$crate::policy::wire::Field<$type>>, )+
            /// Which keys were written, readable or not.
            pub written: $crate::policy::wire::Written,
        }

        impl $name {
            /// The keys that are enforced.
            pub const KEYS: &'static [&'static str] =
                &[$($crate::policy::wire::block!(@key $field $($key)?)),+];
            /// The keys of the vocabulary that are refused until they are enforced.
            pub const LATER: &'static [&'static str] = &[$($later),*];
        }

        impl $crate::policy::wire::Read for $name {
            fn read(
                node: &$crate::policy::yaml::Node,
                key: &str,
                report: &mut $crate::policy::diagnostic::Report,
            ) -> Option<Self> {
                let entries = $crate::policy::wire::entries(node, key, report)?;
                let mut block = Self::default();
                for (own, value) in entries {
                    match own.name.as_str() {
                        $( $crate::policy::wire::block!(@key $field $($key)?) => {
                            block.written.keys.push(stringify!($field));
                            block.$field = $crate::policy::wire::Read::read(value, &own.name, report)
                                .map(|read| $crate::policy::wire::Field {
                                    value: read,
                                    span: value.point(),
                                    key: own.span,
                                });
                        } )+
                        _ => {
                            $crate::policy::wire::refuse_key(own, Self::KEYS, Self::LATER, &mut block.written, report);
                        }
                    }
                }
                Some(block)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut properties = serde_json::Map::new();
                $( {
                    let mut schema = generator.subschema_for::<$type>();
                    schema.insert(
                        "description".into(),
                        concat!($($doc, "\n"),*).replace("\n ", "\n").trim().into(),
                    );
                    properties.insert(
                        $crate::policy::wire::block!(@key $field $($key)?).into(),
                        schema.into(),
                    );
                } )+
                schemars::json_schema!({
                    "type": "object",
                    "description": concat!($($about, "\n"),*).replace("\n ", "\n").trim(),
                    "properties": properties,
                    "additionalProperties": false,
                    "minProperties": 1,
                })
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}
pub(in crate::policy) use block;

/// The entries of a map that must not be empty.
fn entries<'n>(
    node: &'n Node,
    key: &str,
    report: &mut Report,
) -> Option<&'n [(super::yaml::Key, Node)]> {
    match &node.value {
        Value::Map(entries) if entries.is_empty() => {
            report.error(
                "empty",
                node.span,
                format!("`{key}` is empty"),
                "write what it should say, or remove the key: empty never means everything",
            );
            None
        }
        Value::Map(entries) => Some(entries),
        _ => {
            wrong_type(node, key, "keys with values", report);
            None
        }
    }
}

/// Reports a key that is not enforced, or that nobody knows.
fn refuse_key(
    key: &super::yaml::Key,
    known: &[&str],
    later: &[&str],
    written: &mut Written,
    report: &mut Report,
) {
    let name = &key.name;
    if later.contains(&name.as_str()) {
        written.later = true;
        report.error(
            "not-enforced",
            key.span,
            format!(
                "`{name}` is not enforced by this version, so it is refused rather than ignored"
            ),
            format!("remove `{name}` until a version that enforces it is installed"),
        );
        return;
    }
    written.misspelt = true;
    let help = match similar::closest(name, known.iter().chain(later).copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the keys here are: {}", known.join(", ")),
    };
    report.error(
        "unknown-key",
        key.span,
        format!("there is no key `{name}` here"),
        help,
    );
}
