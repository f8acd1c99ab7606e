//! Free JSON from outside that is kept as `jsonb`: what Postgres would refuse, or would not give back as it was sent.

use serde_json::{Map, Value};

/// How deep free JSON may be nested. Messages carry it some levels deeper, and readers of JSON stop at 128.
pub const DEPTH_MAX: usize = 64;
/// Decimal digits that every number of 64 bits keeps.
const DIGITS_KEPT: usize = 15;
/// From here on not every whole number has a floating-point number of its own.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Why a value cannot be kept, and where in it: a JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer} {reason}")]
pub struct Unkeepable {
    pub pointer: String,
    pub reason: &'static str,
}

/// Checks a value that is to be kept as `jsonb`, its keys and everything in it.
pub fn check(value: &Value) -> Result<(), Unkeepable> {
    check_at(value, 1)
}

/// Checks an object that is to be kept as `jsonb`.
pub fn check_object(object: &Map<String, Value>) -> Result<(), Unkeepable> {
    check_fields(object, 1)
}

/// Checks a text that is to be kept in a column or in `jsonb`.
pub fn check_text(text: &str) -> Result<(), Unkeepable> {
    if text.contains('\0') { Err(unkeepable("must not have the character U+0000 in it")) } else { Ok(()) }
}

fn check_at(value: &Value, depth: usize) -> Result<(), Unkeepable> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::String(text) => check_text(text),
        Value::Number(number) if is_kept(number) => Ok(()),
        Value::Number(_) => Err(unkeepable("is a number that would be rounded; send it as a string")),
        Value::Array(_) | Value::Object(_) if depth > DEPTH_MAX => {
            Err(unkeepable("is nested too deep: 64 levels are possible"))
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

fn check_fields(fields: &Map<String, Value>, depth: usize) -> Result<(), Unkeepable> {
    fields.iter().try_for_each(|(key, value)| {
        check_text(key).and_then(|()| check_at(value, depth + 1)).map_err(|error| error.within(key))
    })
}

/// Whether a number means what was sent: it is a whole number of 64 bits, or one whose digits a floating-point number
/// keeps. A longer one was rounded when it was read.
fn is_kept(number: &serde_json::Number) -> bool {
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
    float.abs() <= EXACT_MAX || digits() <= DIGITS_KEPT
}

fn unkeepable(reason: &'static str) -> Unkeepable {
    Unkeepable { pointer: String::new(), reason }
}

impl Unkeepable {
    /// The same, found within this field.
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
    fn what_cannot_be_kept_is_pointed_at() {
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
    fn what_can_be_kept_is_good() {
        let good = json!({ "a": [u64::MAX, i64::MIN, 0.1, -1.5e300, 1e22, 0.123_456_789_012_345_68, 5e-324], "b": null });
        assert_eq!(check(&good), Ok(()));
    }

    #[test]
    fn depth_has_a_bound() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert!(check(&nested(DEPTH_MAX + 1)).unwrap_err().reason.contains("64"));
    }
}
