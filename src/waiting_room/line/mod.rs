//! The lines in memory: the rank of each waiting user, the active users, and the places that have ended.
//!
//! [`memory`] is the lock around all lines, [`queue`] one concert's line, and [`ranked_list`] the array that knows
//! every rank. Nothing here awaits anything but the lock.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod restored_laws;
mod scan;
mod memory;
mod lines;
#[cfg(test)]
mod laws;
mod queue;
mod changes;
mod order;
mod entries;
mod tombstones;
mod poll_interval;
mod deadlines;
mod counts;
mod release_rate;
mod epoch;
mod rate;
mod ranked_list;
mod lottery;

pub use self::changes::{Change, Changes, Key};
pub use self::counts::LineCounts;
pub use self::entries::Handle;
pub use self::epoch::Epoch;
pub use self::lines::Lines;
pub use self::lottery::{Draw, Lottery};
pub use self::memory::{BucketChange, LeaseSeen, Memory};
pub use self::poll_interval::{poll_after, poll_early, seconds, trust_seconds};
pub use self::queue::{Queue, View};
pub use self::rate::{LastMinute, RateLimiter};
pub use self::scan::SCAN_CHUNK;
pub use self::tombstones::Tombstone;
#[cfg(test)]
pub use self::tombstones::Tombstones;
