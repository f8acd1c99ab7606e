//! One place in line: its life, its record in the bucket, and its token.

mod bucket;
mod life;
mod stream_key;
mod token;

pub use self::bucket::{Bucket, Condition, ReadError, Sent, Stored, WriteError, answer_to};
pub use self::life::{Entry, Event, LONGEST_WAIT, Outcome, PlaceStatus, Record, next};
pub use self::stream_key::{STREAM_KEY_TTL, StreamKey};
pub use self::token::{Claims, Place, Signer};
