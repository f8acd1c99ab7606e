//! How new ids are made.

use chrono::{DateTime, Utc};
pub use saga_worker::process_name as process;
use uuid::Uuid;

/// A new id (UUID version 7: ordered by time, so that rows made together lie together).
pub fn new() -> Uuid {
    Uuid::now_v7()
}

/// Where the ids of a moment begin: every id that was made earlier sorts below it, every later one above. Moments
/// before 1970 begin with it.
pub fn first_of(moment: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(moment.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(u128::from(millis) << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_moment_lie_in_its_range() {
        let (seconds, nanos) = new().get_timestamp().unwrap().to_unix();
        let id = Uuid::new_v7(uuid::Timestamp::from_unix_time(seconds, nanos, 0, 0));
        let moment = DateTime::from_timestamp(i64::try_from(seconds).unwrap(), nanos).unwrap();
        assert!(first_of(moment) < id && id < first_of(moment + chrono::TimeDelta::milliseconds(1)));
        assert_eq!(first_of(DateTime::UNIX_EPOCH - chrono::TimeDelta::days(1)), Uuid::nil());
    }
}
