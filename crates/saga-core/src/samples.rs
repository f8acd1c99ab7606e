//! The workflows of the box office, for tests.

use super::Definition;

pub fn workflow(name: &str) -> Definition {
    let text = match name {
        "booking" => include_str!("../../../workflows/booking.toml"),
        "cancellation" => include_str!("../../../workflows/cancellation.toml"),
        other => panic!("there is no sample {other}"),
    };
    Definition::parse(name, text).expect("the sample is valid")
}
