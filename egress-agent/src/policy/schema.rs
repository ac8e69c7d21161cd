//! The JSON Schema of a policy file, for editors.

use super::wire::Document;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The schema, made from the types that read the file. It says what an editor
/// can check; `egressctl policy check` checks the rest.
pub fn json_schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Document>();
    schema.insert("title".to_owned(), "Egress policy".into());
    let mut schema = schema.to_value();
    // What holds between keys is checked by `compile` and said here again.
    let destination = json!([{ "required": ["domain"] }, { "required": ["cidr"] }]);
    let with_list = json!([
        { "required": ["domain"] },
        { "required": ["cidr"] },
        { "required": ["domain_list"] },
    ]);
    for (block, key, value) in [
        ("Allow", "required", json!(["protocols"])),
        ("Allow", "oneOf", with_list),
        ("Block", "oneOf", destination),
        (
            "Applies",
            "oneOf",
            json!([
                { "required": ["sandbox"] },
                { "required": ["unit"] },
                { "required": ["slice"] },
                { "required": ["cgroup"] },
                { "required": ["interface"] },
            ]),
        ),
    ] {
        schema["$defs"][block][key] = value;
    }
    schema
}
