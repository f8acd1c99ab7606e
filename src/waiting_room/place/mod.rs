//! One place in line: its life from joining to its end, how it lies in the bucket, and its token in its owner's hands.

mod bucket;
mod life;
mod token;

pub use self::bucket::{Bucket, If, ReadError, Sent, Stored, WriteError, answer_to};
pub use self::life::{Entry, Event, LONGEST_WAIT, Outcome, Record, Standing, next};
pub use self::token::{Claims, Place, Signer};
