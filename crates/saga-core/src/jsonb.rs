//! Checks free JSON before it is stored as `jsonb`. Postgres refuses some values and changes others.

use serde_json::{Map, Value};

/// Limit of the nesting. Messages carry the value some levels deeper, and JSON readers stop at 128.
pub const DEPTH_MAX: usize = 64;
/// Decimal digits that a 64-bit floating-point number keeps.
const EXACT_DIGITS: usize = 15;
/// Whole numbers up to here are exact as floating-point numbers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Why a value cannot be stored, and the JSON pointer to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer} {reason}")]
pub struct NotStorable {
    pub pointer: String,
    pub reason: &'static str,
}

pub fn check(value: &Value) -> Result<(), NotStorable> {
    check_at(value, 1)
}

pub fn check_object(object: &Map<String, Value>) -> Result<(), NotStorable> {
    check_fields(object, 1)
}

/// Checks a text for a column or for `jsonb`.
pub fn check_text(text: &str) -> Result<(), NotStorable> {
    if text.contains('\0') { Err(not_storable("must not have the character U+0000 in it")) } else { Ok(()) }
}

fn check_at(value: &Value, depth: usize) -> Result<(), NotStorable> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::String(text) => check_text(text),
        Value::Number(number) if is_exact(number) => Ok(()),
        Value::Number(_) => Err(not_storable("is a number that would be rounded; send it as a string")),
        Value::Array(_) | Value::Object(_) if depth > DEPTH_MAX => {
            Err(not_storable("is nested too deep: 64 levels are possible"))
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(at, item)| {
                check_at(item, depth + 1).map_err(|error| error.within(&at.to_string()))
            })
        }
        Value::Object(fields) => check_fields(fields, depth),
    }
}

fn check_fields(fields: &Map<String, Value>, depth: usize) -> Result<(), NotStorable> {
    fields.iter().try_for_each(|(key, value)| {
        check_text(key).and_then(|()| check_at(value, depth + 1)).map_err(|error| error.within(key))
    })
}

/// Whether the number has the value that was sent. A number with too many digits was rounded when it was read.
fn is_exact(number: &serde_json::Number) -> bool {
    if number.is_i64() || number.is_u64() {
        return true;
    }
    let Some(float) = number.as_f64() else { return false };
    let digits = || {
        format!("{float:e}")
            .split('e')
            .next()
            .map_or(0, |text| text.bytes().filter(u8::is_ascii_digit).count())
    };
    float.abs() <= EXACT_MAX || digits() <= EXACT_DIGITS
}

fn not_storable(reason: &'static str) -> NotStorable {
    NotStorable { pointer: String::new(), reason }
}

impl NotStorable {
    /// Adds the enclosing field to the pointer.
    pub fn within(mut self, key: &str) -> Self {
        self.pointer.insert_str(0, &format!("/{}", key.replace('~', "~0").replace('/', "~1")));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn value_that_cannot_be_stored_is_pointed_at() {
        let bad = [
            (json!({ "a": ["x", "\0"] }), "/a/1"),
            (json!({ "a": { "b\0/": 1 } }), "/a/b\0~1"),
            (json!("\0"), ""),
            (json!([1, 123_456_789_012_345_680_000_000.0]), "/1"),
        ];
        for (value, pointer) in bad {
            assert_eq!(check(&value).unwrap_err().pointer, pointer, "{value}");
        }
        let large: Value = serde_json::from_str("[18446744073709551617]").unwrap();
        assert_eq!(check(&large).unwrap_err().pointer, "/0");
    }

    #[test]
    fn value_that_can_be_stored_is_accepted() {
        let good = json!({ "a": [u64::MAX, i64::MIN, 0.1, -1.5e300, 1e22, 0.123_456_789_012_345_68, 5e-324], "b": null });
        assert_eq!(check(&good), Ok(()));
    }

    #[test]
    fn depth_is_limited() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert!(check(&nested(DEPTH_MAX + 1)).unwrap_err().reason.contains("64"));
    }
}
