//! Reading an input: its bytes, its JSON, its shape, and what is wrong with it and where.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use chrono::{DateTime, Datelike, Utc};
use futures::StreamExt;
use serde::de::{DeserializeOwned, Deserializer};
use serde_path_to_error::Segment;
use tokio::time::timeout_at;

use super::connections::BodyTime;
use super::error::Code;
use super::problem::{Fault, Problem};

/// The largest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How much more of a body that is too large is thrown away, so that its sender gets to read the answer.
const DRAINED_BYTES_MAX: usize = 16 << 20;
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// What is found wrong with an input, one by one.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault at the pointer unless `good`.
    pub fn expect(&mut self, good: bool, pointer: impl Into<String>, reason: impl Into<String>) {
        if !good {
            self.0.push(Fault { pointer: pointer.into(), reason: reason.into() });
        }
    }

    /// Notes a text whose length in characters is out of bounds, or that has control characters in it other than
    /// line breaks and tabs.
    pub fn expect_text(&mut self, text: &str, chars: RangeInclusive<usize>, pointer: &str) {
        let (least, most) = (chars.start(), chars.end());
        let plain = !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
        self.expect(plain, pointer, "must not have control characters in it");
        let count = text.chars().count();
        self.expect(chars.contains(&count), pointer, format!("must have {least} to {most} characters"));
    }

    /// Notes a time that no calendar of a concert hall has, and that the database may not know.
    pub fn expect_time(&mut self, time: DateTime<Utc>, pointer: &str) {
        self.expect((1970..=9999).contains(&time.year()), pointer, "must be between the years 1970 and 9999");
    }

    /// A problem, if anything was noted.
    pub fn settle(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// An input that knows which of its values are out of bounds. Types and unknown fields are found before.
pub trait Shape: DeserializeOwned {
    /// Notes what is wrong.
    fn check(&self, _faults: &mut Faults) {}
}
/// Reads any input: the first value of a wrong type and every unknown field, else what is out of bounds.
pub fn read<'de, T: Shape>(input: impl Deserializer<'de>) -> Result<T, Problem> {
    let mut faults = Faults::default();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(input, &mut track);
    let mut note = |path: serde_ignored::Path<'_>| {
        faults.expect(false, unknown(&path), "is not a field that is known here");
    };
    match T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note)) {
        Ok(value) => {
            value.check(&mut faults);
            faults.settle()?;
            Ok(value)
        }
        Err(error) => {
            faults.expect(false, pointer(&track.path()), error.to_string());
            Err(Problem::invalid(faults.0))
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

/// The JSON of a body: 408 if it comes too slowly, 413 if it is too large, 400 if it is none.
pub async fn json(head: &Parts, body: Body, may_be_empty: bool) -> Result<serde_json::Value, Problem> {
    let bytes = match head.extensions.get::<BodyTime>() {
        Some(time) => timeout_at(time.until, collect(body)).await.unwrap_or_else(|_| Err(too_slow(*time)))?,
        None => collect(body).await?,
    };
    if bytes.is_empty() && may_be_empty {
        return Ok(serde_json::Value::Object(serde_json::Map::new()));
    }
    if !is_json(&head.headers) {
        let detail = "Send JSON with `Content-Type: application/json`.";
        return Err(Problem::new(Code::MalformedRequest, detail));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(Code::MalformedRequest, format!("The body is not JSON: {error}.")))
}

fn too_slow(time: BodyTime) -> Problem {
    let seconds = time.whole.as_secs();
    let detail = format!("The body must be here {seconds} s after the head of the request.");
    Problem::new(Code::RequestTimeout, detail)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The whole body, or 413. What is too much is read and dropped for a while: an answer that is sent while
/// the other side still writes is lost with the connection.
async fn collect(body: Body) -> Result<Vec<u8>, Problem> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|_| Problem::new(Code::MalformedRequest, "The body ended before it was whole."))?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            let drain = async {
                let mut left = DRAINED_BYTES_MAX;
                while let (1.., Some(Ok(chunk))) = (left, stream.next().await) {
                    left = left.saturating_sub(chunk.len());
                }
            };
            let _in_time = tokio::time::timeout(DRAIN_PATIENCE, drain).await;
            return Err(Problem::new(
                Code::PayloadTooLarge,
                "A body may have 1 MiB (1048576 bytes) at most.",
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
