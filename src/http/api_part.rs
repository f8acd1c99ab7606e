//! A part of the API description: the operations of some tags, with the schemas that these need. Generators of clients take
//! it, so that a shop's client does not change when a route of the operators does.

use std::collections::BTreeSet;

use serde_json::Value;

/// Keeps the operations that have one of these tags. A tag that no operation has is the error.
pub fn with_tags(mut api: Value, tags: &[String]) -> Result<Value, String> {
    let mut unused: BTreeSet<&str> = tags.iter().map(String::as_str).collect();
    let paths = api["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for item in paths.filter_map(Value::as_object_mut) {
        item.retain(|_, operation| {
            let own = operation["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let kept: Vec<&String> = own.flat_map(|own| tags.iter().filter(move |tag| *tag == own)).collect();
            unused.retain(|tag| !kept.iter().any(|kept| kept == tag));
            !kept.is_empty()
        });
    }
    if let Some(tag) = unused.first() {
        return Err(format!("no operation has the tag {tag}"));
    }
    if let Some(paths) = api["paths"].as_object_mut() {
        paths.retain(|_, item| item.as_object().is_some_and(|item| !item.is_empty()));
    }
    if let Some(named) = api["tags"].as_array_mut() {
        named.retain(|tag| tags.iter().any(|kept| tag["name"] == kept.as_str()));
    }
    let needed = needed_schemas(&api);
    if let Some(schemas) = api["components"]["schemas"].as_object_mut() {
        schemas.retain(|name, _| needed.contains(name));
    }
    Ok(api)
}

/// The names of the schemas that the operations refer to, directly or by other schemas.
fn needed_schemas(api: &Value) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    let mut left = vec![api["paths"].to_string()];
    while let Some(text) = left.pop() {
        let names = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
        for name in names {
            if needed.insert(name.to_owned()) {
                left.push(api["components"]["schemas"][name].to_string());
            }
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_has_its_operations_and_schemas() {
        let all = serde_json::to_value(super::super::description()).unwrap();
        let part = with_tags(all, &["points".to_owned(), "queue".to_owned()]).unwrap();
        let paths: Vec<&String> = part["paths"].as_object().unwrap().keys().collect();
        assert!(paths.iter().all(|path| path.contains("points") || path.contains("queue-tokens")));
        assert!(paths.len() >= 6, "{paths:?}");
        let schemas = part["components"]["schemas"].as_object().unwrap();
        assert!(schemas.contains_key("QueueToken") && schemas.contains_key("Problem"));
        assert!(!schemas.contains_key("Reservation"));
        for name in needed_schemas(&part) {
            assert!(schemas.contains_key(&name), "{name}");
        }
    }

    #[test]
    fn unknown_tag_is_refused() {
        let all = serde_json::to_value(super::super::description()).unwrap();
        assert!(with_tags(all, &["pionts".to_owned()]).unwrap_err().contains("pionts"));
    }
}
