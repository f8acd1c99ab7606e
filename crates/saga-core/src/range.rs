//! The range of times from outside.

use chrono::{DateTime, Utc};

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
