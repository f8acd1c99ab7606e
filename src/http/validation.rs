//! Reads and validates inputs, and names each error with a JSON pointer.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, Utc};
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::objects::Objects;
use super::problem::{Fault, Problem};
use crate::jsonb;
use crate::text;

/// Limit of the errors in one response.
const MAX_ERRORS: usize = 20;
/// Limit of the errors that are examined, because many may be equal.
const MAX_EXAMINED: usize = 1_000;

/// The errors of an input: each once, and a limited number of them.
#[derive(Debug, Default)]
pub struct Validation {
    found: Vec<Fault>,
    examined: usize,
}

impl Validation {
    /// Adds an error at the pointer unless `is_valid`.
    pub fn expect(&mut self, is_valid: bool, pointer: impl Into<String>, reason: impl Into<String>) {
        if !is_valid && !self.is_full() {
            self.examined += 1;
            let fault = Fault::new(&pointer.into(), &reason.into());
            if !self.found.contains(&fault) {
                self.found.push(fault);
            }
        }
    }

    /// Whether no more errors are added.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MAX_ERRORS || self.examined >= MAX_EXAMINED
    }

    /// Checks a text of one line, such as a name: its length in characters, and that it is visible and has no line breaks.
    pub fn expect_line(&mut self, text: &str, chars: RangeInclusive<usize>, pointer: &str) {
        if let Some(problem) = text::line_problem(text, &chars) {
            self.expect(false, pointer, problem);
        }
    }

    /// Checks a text that may have several lines.
    pub fn expect_block(&mut self, text: &str, chars: RangeInclusive<usize>, pointer: &str) {
        if let Some(problem) = text::block_problem(text, &chars) {
            self.expect(false, pointer, problem);
        }
    }

    /// Checks free JSON that the database must store without changing it.
    pub fn expect_storable(&mut self, object: &Map<String, Value>, pointer: &str) {
        if let Err(error) = jsonb::check_object(object) {
            self.expect(false, format!("{pointer}{}", error.pointer), error.reason);
        }
    }

    /// Checks that a time is in the range of a calendar and of the database.
    pub fn expect_time(&mut self, time: DateTime<Utc>, pointer: &str) {
        self.expect((1970..=9999).contains(&time.year()), pointer, "must be between the years 1970 and 9999");
    }

    /// The problem with all errors, if there are any.
    pub fn finish(self) -> Result<(), Problem> {
        if self.found.is_empty() { Ok(()) } else { Err(Problem::invalid(self.found)) }
    }
}

/// An input with a check of its values. Types and unknown fields are checked before.
pub trait Validate: DeserializeOwned {
    fn check(&self, _faults: &mut Validation) {}
}

/// Reads a JSON object. Structs within it must be objects too.
pub fn read_json<T: Validate>(json: &str) -> Result<T, Problem> {
    let mut faults = Validation::default();
    faults.expect(json.trim_start().starts_with('{'), "", "must be a JSON object");
    faults.finish()?;
    read(&mut serde_json::Deserializer::from_str(json))
}

/// Reads any input. Reports the first value of a wrong type and all unknown fields, or else all invalid values.
pub fn read<'de, T: Validate>(input: impl Deserializer<'de>) -> Result<T, Problem> {
    let mut faults = Validation::default();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(input, &mut track);
    let mut note = |path: serde_ignored::Path<'_>| {
        if !faults.is_full() {
            faults.expect(false, unknown(&path), "is not a field that is known here");
        }
    };
    let watched = serde_ignored::Deserializer::new(tracked, &mut note);
    match T::deserialize(Objects::of(watched)) {
        Ok(value) => {
            value.check(&mut faults);
            faults.finish()?;
            Ok(value)
        }
        Err(error) => {
            let words = error.to_string();
            // The pointer has the position. Line and column of compact JSON do not help.
            let reason = words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason);
            faults.found.truncate(MAX_ERRORS - 1);
            faults.found.push(Fault::new(&pointer(&track.path()), reason));
            Err(Problem::invalid(faults.found))
        }
    }
}

/// The JSON pointer of an unknown field.
fn unknown(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path as P;
    match path {
        P::Root => String::new(),
        P::Seq { parent, index } => format!("{}/{index}", unknown(parent)),
        P::Map { parent, key } => format!("{}/{}", unknown(parent), escape(key)),
        P::Some { parent } | P::NewtypeStruct { parent } | P::NewtypeVariant { parent } => unknown(parent),
    }
}

/// A key within a JSON pointer (RFC 6901).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The JSON pointer of a wrong value.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let part = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => format!("/{}", escape(key)),
        Segment::Unknown => String::new(),
    };
    path.iter().map(part).collect()
}
