//! The range of times that come from outside.

use chrono::{DateTime, Utc};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Times in messages, bodies, tokens and rows lie between this and [`LATEST`]. So the sum of a time and a bounded delay
/// overflows neither here nor in NATS, whose nanoseconds end in the year 2262.
pub const EARLIEST: DateTime<Utc> = seconds_since_1970(946_684_800);
/// 2200-01-01T00:00:00Z; see [`EARLIEST`].
pub const LATEST: DateTime<Utc> = seconds_since_1970(7_258_118_400);

const fn seconds_since_1970(seconds: i64) -> DateTime<Utc> {
    match DateTime::from_timestamp(seconds, 0) {
        Some(time) => time,
        None => DateTime::UNIX_EPOCH,
    }
}

pub fn is_plausible(time: DateTime<Utc>) -> bool {
    (EARLIEST..=LATEST).contains(&time)
}

/// Reads a time, and checks its range.
///
/// # Errors
/// If it is not a time between [`EARLIEST`] and [`LATEST`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let time = DateTime::<Utc>::deserialize(deserializer)?;
    let error = || D::Error::custom("a time must lie between the years 2000 and 2200");
    is_plausible(time).then_some(time).ok_or_else(error)
}
