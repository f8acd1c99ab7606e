//! Input of tests for what is read from outside: bytes that are nearly a valid record, and bytes that are none.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// Values that no field is meant to have, and some that many fields may have.
pub fn value() -> impl Strategy<Value = Value> {
    let times = [
        "+262142-12-31T23:59:59.999999999Z",
        "-262143-01-01T00:00:00Z",
        "2200-01-01T00:00:01Z",
        "2200-01-01T00:00:00Z",
        "1999-12-31T23:59:59Z",
        "2030-03-17T17:46:40.000000999Z",
        "noon",
    ];
    prop_oneof![
        prop::sample::select(times.to_vec()).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::sample::select(vec![0.0, -1.0, 0.5, 1e17, 1e300, -1e300]).prop_map(Value::from),
        prop::sample::select(vec![json!(null), json!(true), json!([[[]]]), json!({ "a\u{0}": "\u{0}" })]),
        (0usize..5_000).prop_map(|length| Value::from("x".repeat(length))),
        ".{0,20}".prop_map(Value::from),
    ]
}

/// Bytes of a record like this one, with some of its fields left out or replaced, cut off, or with another byte in them; and
/// bytes that have nothing to do with it.
pub fn like(record: Value) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), prop::option::of(value())), 0..4);
    let spoiling = prop::option::of((any::<Index>(), prop::option::of(any::<u8>())));
    let mutated = (changes, spoiling).prop_map(move |(changes, spoiling)| {
        let mut record = record.clone();
        for (at, by) in changes {
            replace(&mut record, at, by);
        }
        let mut bytes = record.to_string().into_bytes();
        if let Some((at, byte)) = spoiling {
            let at = at.index(bytes.len());
            match byte {
                Some(byte) => bytes[at] = byte,
                None => bytes.truncate(at),
            }
        }
        bytes
    });
    prop_oneof![4 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

/// Replaces one field, at any depth, or removes it.
fn replace(record: &mut Value, at: Index, by: Option<Value>) {
    let mut fields = Vec::new();
    find_fields(record, "", &mut fields);
    if fields.is_empty() {
        return;
    }
    let (parent, name) = &fields[at.index(fields.len())];
    let parent =
        record.pointer_mut(parent).and_then(Value::as_object_mut).expect("the field was found in it");
    match by {
        Some(value) => parent.insert(name.clone(), value),
        None => parent.remove(name),
    };
}

/// All fields of all objects: the pointer to the object, and the field's name.
fn find_fields(value: &Value, at: &str, into: &mut Vec<(String, String)>) {
    if let Value::Object(object) = value {
        for (name, value) in object {
            into.push((at.to_owned(), name.clone()));
            // A replaced field may have a name that a pointer would have to escape.
            if !name.contains(['/', '~']) {
                find_fields(value, &format!("{at}/{name}"), into);
            }
        }
    }
}
