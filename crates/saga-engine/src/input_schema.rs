//! Inputs of new sagas against the JSON Schema in their definition.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use hashlink::LruCache;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::saga::Definition;

/// Most compiled schemas that are kept.
const MAX_COMPILED: usize = 256;
/// Most faults of one input that are named.
const MAX_FAULTS: usize = 20;

type Compiled = LruCache<(String, i32), Arc<Validator>>;

static COMPILED: LazyLock<Mutex<Compiled>> = LazyLock::new(|| Mutex::new(LruCache::new(MAX_COMPILED)));

/// What is wrong with an input: a JSON pointer into it, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFault {
    pub pointer: String,
    pub reason: String,
}

/// What is wrong with the schema of a definition, if it has one.
pub fn schema_problem(definition: &Definition) -> Option<String> {
    let schema = definition.input_schema.as_ref()?;
    compile(schema).err()
}

/// What is wrong with an input by the schema of its definition.
pub fn faults(definition: &Definition, input: &Value) -> Vec<InputFault> {
    let Some(schema) = &definition.input_schema else { return Vec::new() };
    let key = (definition.name.clone(), definition.version);
    let known = COMPILED.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    let validator = match known {
        Some(validator) => validator,
        None => match compile(schema) {
            Ok(validator) => {
                let validator = Arc::new(validator);
                let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
                compiled.insert(key, Arc::clone(&validator));
                validator
            }
            Err(reason) => return vec![InputFault { pointer: String::new(), reason }],
        },
    };
    let faults = validator.iter_errors(input).take(MAX_FAULTS);
    faults
        .map(|fault| InputFault { pointer: fault.instance_path().to_string(), reason: fault.to_string() })
        .collect()
}

/// Patterns are matched in linear time, and a schema refers to nothing outside itself.
fn compile(schema: &Value) -> Result<Validator, String> {
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|error| format!("input_schema is no JSON Schema: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(schema: &str) -> Definition {
        let text =
            format!("name='t'\nversion=1\n[[steps]]\nname='a'\ncommand='x.y'\n[input_schema]\n{schema}");
        Definition::parse("test", &text).unwrap()
    }

    #[test]
    fn faults_name_their_place() {
        let trip = definition("required=['city']\nproperties.nights={type='integer',minimum=1}");
        assert!(schema_problem(&trip).is_none());
        assert_eq!(faults(&trip, &json!({ "city": "Oslo", "nights": 2 })), []);
        let found = faults(&trip, &json!({ "nights": 0 }));
        let pointers: Vec<&str> = found.iter().map(|fault| fault.pointer.as_str()).collect();
        assert!(found.len() == 2 && pointers.contains(&"/nights") && pointers.contains(&""), "{found:?}");
    }

    #[test]
    fn external_references_and_invalid_schemas_are_refused() {
        for schema in
            ["type='nonsense'", "'$ref'='http://127.0.0.1:9/schema'", "'$ref'='file:///etc/hostname'"]
        {
            assert!(schema_problem(&definition(schema)).is_some(), "{schema}");
        }
    }
}
