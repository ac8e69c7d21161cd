//! The JSON Schema of a policy file, for editors.

use super::wire::Document;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The schema, made from the types that read the file. It says what an editor
/// can check; `egressctl policy check` checks the rest.
pub fn json_schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Document>();
    schema.insert("title".to_owned(), "Egress policy".into());
    schema.to_value()
}
