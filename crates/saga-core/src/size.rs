//! Limits on the size of a saga. Every message about it must fit into 1 MiB, the limit of a NATS server.

use serde_json::{Map, Value};

/// Limit of one step's output, in bytes of JSON.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1_024;
/// Limit of a saga's input and outputs together, in bytes of JSON. It leaves room for reasons and headers.
pub const CONTEXT_BYTES_MAX: usize = 768 * 1_024;
/// Limit of a reason, or of the code of an outcome, in characters.
pub const REASON_CHARS_MAX: usize = 1_000;
/// Upper bound of the length of a number in JSON.
const NUMBER_BYTES: usize = 24;

/// Why an output is too large, alone or together with the saga's context; `None` if it is not.
pub fn too_large(context: &Value, output: &Map<String, Value>) -> Option<String> {
    let output = object_bytes(output);
    if output > OUTPUT_BYTES_MAX {
        return Some(format!(
            "the output has {output} bytes as JSON; at most {OUTPUT_BYTES_MAX} are allowed"
        ));
    }
    let all = json_bytes(context) + output;
    (all > CONTEXT_BYTES_MAX).then(|| {
        format!("the input and the outputs would have {all} bytes as JSON; at most {CONTEXT_BYTES_MAX} are allowed")
    })
}

pub fn truncate_reason(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}

/// Upper bound of the length of a value as JSON, in bytes.
pub fn json_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(_) => NUMBER_BYTES,
        Value::String(text) => text_bytes(text),
        Value::Array(items) => 2 + items.iter().map(|item| 1 + json_bytes(item)).sum::<usize>(),
        Value::Object(fields) => object_bytes(fields),
    }
}

fn object_bytes(fields: &Map<String, Value>) -> usize {
    2 + fields.iter().map(|(name, value)| 2 + text_bytes(name) + json_bytes(value)).sum::<usize>()
}

fn text_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::{Decision, Definition, Direction, Event, NewSaga, Outcome, Reply, Status, apply, start};

    #[test]
    fn json_is_never_larger_than_counted() {
        let value = json!({ "a": [1, -2.5e-300, null, true, false], "\u{1}\"\\": "é\n", "b": {} });
        let real = serde_json::to_vec(&value).unwrap().len();
        assert!(real <= json_bytes(&value) && json_bytes(&value) < real + 60, "{real}");
    }

    #[test]
    fn too_large_output_makes_a_saga_stuck() {
        let text = "name='t'
version=1
[[steps]]
name='act'
command='x.y'";
        let definition = Definition::parse("t", text).unwrap();
        let (id, now) = (Uuid::from_u128(7), DateTime::UNIX_EPOCH);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let running = start(&definition, new, now).saga;
        let done = |bytes: usize| {
            let output = Map::from_iter([("x".to_owned(), json!("y".repeat(bytes)))]);
            let (step, outcome) = ("act".to_owned(), Outcome::Done { output });
            let reply = Reply {
                step,
                direction: Direction::Do,
                visit: 1,
                send: 0,
                outcome,
                worker: None,
                service: None,
            };
            match apply(&definition, &running, &Event::Reply(reply), now) {
                Decision::Transition(transition) => transition.saga,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(done(OUTPUT_BYTES_MAX - 100).status, Status::Completed);
        let stuck = done(OUTPUT_BYTES_MAX);
        assert_eq!(stuck.status, Status::Stuck);
        assert!(stuck.reason.unwrap().contains("at most 262144 are allowed"));
        assert!(json_bytes(&stuck.context) < 100);
    }

    #[test]
    fn large_outputs_are_named_with_their_bound() {
        let output = |bytes: usize| Map::from_iter([("x".to_owned(), json!("y".repeat(bytes)))]);
        assert_eq!(too_large(&json!({}), &output(OUTPUT_BYTES_MAX - 100)), None);
        assert!(too_large(&json!({}), &output(OUTPUT_BYTES_MAX)).unwrap().contains("262144"));
        let full = json!("z".repeat(CONTEXT_BYTES_MAX - 1_000));
        assert!(too_large(&full, &output(2_000)).unwrap().contains("786432"));
        assert_eq!(truncate_reason(&"é".repeat(2_000)).chars().count(), REASON_CHARS_MAX);
    }
}
