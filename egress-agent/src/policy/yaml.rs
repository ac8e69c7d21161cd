//! From text to a tree in which every key and value knows where it stands.
//!
//! The tree is read by [`super::wire`], not by serde's derive: serde stops at
//! the first problem, and a person wants to see all of them.

use super::diagnostic::{Report, Source, Span};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Error, Spanned};
use std::fmt;

/// A value and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Its bytes; of a list or map only where it begins.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// A YAML value under the core schema.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`; `yes` and `on` are text.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the text.
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Its bytes.
    pub span: Span,
}

impl Node {
    /// Where to point at for a person: the first thing that can be seen of it.
    pub fn point(&self) -> Span {
        match &self.value {
            Value::Map(entries) => entries.first().map_or(self.span, |(key, _)| key.span),
            Value::List(items) => items.first().map_or(self.span, Self::point),
            _ => self.span,
        }
    }

    /// What it is, in a person's words.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "keys with values",
        }
    }
}

/// Deep enough for the language (it needs 6), shallow enough for any stack.
const MAX_DEPTH: usize = 32;
/// Aliases are for saying a thing twice, not for building data.
const MAX_ALIASES: usize = 256;
/// Values an alias may stand for in total ("billion laughs").
const MAX_REPLAYED: usize = 100_000;
/// Values in a file of the largest size that is read, and some.
const MAX_NODES: usize = 2_000_000;

/// Reads one document. Problems of YAML itself end the reading; they are reported.
pub fn parse(source: &Source, report: &mut Report) -> Option<Node> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
        },
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_aliases: MAX_ALIASES,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_documents: 2,
        },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Value>>(&source.text, options) {
        Ok(node) => Some(node.into()),
        Err(error) => {
            explain(&error, source, report);
            None
        }
    }
}

fn explain(error: &Error, source: &Source, report: &mut Report) {
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let span = error
        .location()
        .map_or(Span::default(), |at| clip(span_of(at), source));
    let (code, message, help) = match error {
        Error::MultipleDocuments { .. } => (
            "several-documents",
            "a second YAML document begins here".to_owned(),
            "write one policy per file",
        ),
        Error::DuplicateMappingKey { key, .. } => (
            "duplicate-key",
            format!(
                "the key `{}` is written twice",
                key.as_deref().unwrap_or("?")
            ),
            "merge the two, or remove one",
        ),
        Error::MergeKeyNotAllowed { .. } => (
            "syntax",
            "the merge key `<<` is not part of the policy language".to_owned(),
            "write the keys out, so that every rule has a line of its own",
        ),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => (
            "too-complex",
            "the document is nested too deep or its aliases stand for too much".to_owned(),
            "write the rules out, without deep nesting and with few aliases (`*name`)",
        ),
        other => (
            "syntax",
            format!("this is not valid YAML: {}", words(other)),
            "",
        ),
    };
    report.error(code, span, message, help);
}

/// The parser's own words, without the position that it appends.
fn words(error: &Error) -> String {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or("").trim();
    let end = text.find(" at line ").unwrap_or(text.len());
    text.get(..end)
        .unwrap_or(text)
        .trim_start_matches("error: ")
        .to_owned()
}

fn clip(span: Span, source: &Source) -> Span {
    let limit = source.text.len();
    let mut clipped = Span {
        start: span.start.min(limit),
        end: span.end.min(limit),
    };
    while !source.text.is_char_boundary(clipped.start) {
        clipped.start -= 1;
    }
    while !source.text.is_char_boundary(clipped.end) {
        clipped.end += 1;
    }
    clipped
}

fn span_of(at: serde_saphyr::Location) -> Span {
    let bytes = |number: Option<u64>| usize::try_from(number.unwrap_or(0)).unwrap_or(usize::MAX);
    let start = bytes(at.span().byte_offset());
    Span {
        start,
        end: start.saturating_add(bytes(at.span().byte_len())),
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self {
            span: span_of(spanned.referenced),
            value: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Value>>()? {
            items.push(item.into());
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let key = Key {
                span: span_of(key.referenced),
                name: key.value,
            };
            entries.push((key, map.next_value::<Spanned<Value>>()?.into()));
        }
        Ok(Value::Map(entries))
    }
}
