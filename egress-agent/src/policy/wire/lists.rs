//! Lists, and lists under free names. Neither may be empty: an empty list looks
//! like "everything" to some readers and like "nothing" to others.

use super::{At, Read, wrong_type};
use crate::policy::diagnostic::Report;
use crate::policy::yaml::{Node, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// A list that must not be empty; every item knows its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Items<T>(pub Vec<At<T>>);

impl<T: Read> Read for Items<T> {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        let Value::List(list) = &node.value else {
            wrong_type(node, key, "a list", report);
            return None;
        };
        if list.is_empty() {
            let help = "write what it should hold, or remove the key: empty never means everything";
            report.error("empty", node.span, format!("`{key}` is empty"), help);
            return None;
        }
        let items = list.iter().filter_map(|item| {
            let span = item.point();
            T::read(item, key, report).map(|value| At { value, span })
        });
        Some(Self(items.collect()))
    }
}

impl<T: JsonSchema> JsonSchema for Items<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "minItems": 1, "items": generator.subschema_for::<T>() })
    }
}

/// Lists under names of a person's choice.
#[derive(Clone, PartialEq, Debug)]
pub struct Groups<T>(pub Vec<(String, Items<T>)>);

impl<T: Read> Read for Groups<T> {
    fn read(node: &Node, key: &str, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::List(_)) {
            wrong_type(node, key, "groups with lists", report);
            return None;
        }
        let entries = super::entries(node, key, report)?;
        let groups = entries.iter().filter_map(|(name, list)| {
            Items::read(list, &name.name, report).map(|items| (name.name.clone(), items))
        });
        Some(Self(groups.collect()))
    }
}

impl<T: JsonSchema> JsonSchema for Groups<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("GroupsOf{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": generator.subschema_for::<Items<T>>(),
        })
    }
}
