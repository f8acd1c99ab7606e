//! The range of times from outside.

use chrono::{DateTime, Utc};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Times that come from outside (messages, bodies, tokens, rows) must lie between these two. So the sum of such a time and
/// any bounded delay can neither overflow here nor in NATS, whose nanoseconds end in the year 2262.
pub const EARLIEST: DateTime<Utc> = seconds_since_1970(946_684_800);
/// 2200-01-01T00:00:00Z, see [`EARLIEST`].
pub const LATEST: DateTime<Utc> = seconds_since_1970(7_258_118_400);

const fn seconds_since_1970(seconds: i64) -> DateTime<Utc> {
    match DateTime::from_timestamp(seconds, 0) {
        Some(time) => time,
        None => DateTime::UNIX_EPOCH,
    }
}

/// Whether a time lies between [`EARLIEST`] and [`LATEST`].
pub fn is_plausible(time: DateTime<Utc>) -> bool {
    (EARLIEST..=LATEST).contains(&time)
}

/// Reads a time that comes from outside.
///
/// # Errors
/// If it is no time, or does not lie between [`EARLIEST`] and [`LATEST`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let time = DateTime::<Utc>::deserialize(deserializer)?;
    let error = || D::Error::custom("a time must lie between the years 2000 and 2200");
    is_plausible(time).then_some(time).ok_or_else(error)
}
