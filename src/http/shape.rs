//! Reading an input: its shape, and what is wrong with it and where.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, Utc};
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::objects::Objects;
use super::problem::{Fault, Problem};
use crate::jsonb;
use crate::text;

/// Most faults that one answer names.
const FAULTS_MAX: usize = 20;
/// Most faults of one input that are looked at, of which many may be the same.
const NOTED_MAX: usize = 1_000;

/// What is found wrong with an input: each fault once, and a bounded number of them.
#[derive(Debug, Default)]
pub struct Faults {
    found: Vec<Fault>,
    noted: usize,
}

impl Faults {
    /// Notes a fault at the pointer unless `good`.
    pub fn expect(&mut self, good: bool, pointer: impl Into<String>, reason: impl Into<String>) {
        if !good && !self.is_full() {
            self.noted += 1;
            let fault = Fault::new(&pointer.into(), &reason.into());
            if !self.found.contains(&fault) {
                self.found.push(fault);
            }
        }
    }

    /// Whether no more faults are noted; there is no use in looking for more.
    pub fn is_full(&self) -> bool {
        self.found.len() >= FAULTS_MAX || self.noted >= NOTED_MAX
    }

    /// Notes a text of one line (a name, a reason) whose length in characters is out of bounds, that cannot be seen, or
    /// that breaks out of its line.
    pub fn expect_line(&mut self, text: &str, chars: RangeInclusive<usize>, pointer: &str) {
        if let Some(problem) = text::line_problem(text, &chars) {
            self.expect(false, pointer, problem);
        }
    }

    /// The same for a text that may have several lines.
    pub fn expect_block(&mut self, text: &str, chars: RangeInclusive<usize>, pointer: &str) {
        if let Some(problem) = text::block_problem(text, &chars) {
            self.expect(false, pointer, problem);
        }
    }

    /// Notes free JSON that the database would refuse, or give back as something else.
    pub fn expect_keepable(&mut self, object: &Map<String, Value>, pointer: &str) {
        if let Err(error) = jsonb::check_object(object) {
            self.expect(false, format!("{pointer}{}", error.pointer), error.reason);
        }
    }

    /// Notes a time that no calendar of a concert hall has, and that the database may not know.
    pub fn expect_time(&mut self, time: DateTime<Utc>, pointer: &str) {
        self.expect((1970..=9999).contains(&time.year()), pointer, "must be between the years 1970 and 9999");
    }

    /// A problem, if anything was noted.
    pub fn settle(self) -> Result<(), Problem> {
        if self.found.is_empty() { Ok(()) } else { Err(Problem::invalid(self.found)) }
    }
}

/// An input that knows which of its values are out of bounds. Types and unknown fields are found before.
pub trait Shape: DeserializeOwned {
    /// Notes what is wrong.
    fn check(&self, _faults: &mut Faults) {}
}

/// Reads a JSON text that is an object; what is a struct within it is an object too.
pub fn read_json<T: Shape>(json: &str) -> Result<T, Problem> {
    let mut faults = Faults::default();
    faults.expect(json.trim_start().starts_with('{'), "", "must be a JSON object");
    faults.settle()?;
    read(&mut serde_json::Deserializer::from_str(json))
}

/// Reads any input: the first value of a wrong type and every unknown field, else what is out of bounds.
pub fn read<'de, T: Shape>(input: impl Deserializer<'de>) -> Result<T, Problem> {
    let mut faults = Faults::default();
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
            faults.settle()?;
            Ok(value)
        }
        Err(error) => {
            let words = error.to_string();
            // The pointer says where it is; a line and a column of compact JSON do not help.
            let reason = words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason);
            faults.found.truncate(FAULTS_MAX - 1);
            faults.found.push(Fault::new(&pointer(&track.path()), reason));
            Err(Problem::invalid(faults.found))
        }
    }
}

/// Where an unknown field is, as a JSON pointer.
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

/// Where a wrong value is, as a JSON pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let part = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => format!("/{}", escape(key)),
        Segment::Unknown => String::new(),
    };
    path.iter().map(part).collect()
}
